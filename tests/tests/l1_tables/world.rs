//! What a case is written in: one service over a choice of backends, packets to it, and what becomes of them.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use aya::Pod;
use aya::maps::{HashMap, MapData};
use proxy_agent::model;
use proxy_agent::plan::{BackendEntry, FrontendAt, Op};
use proxy_common::abi::{
    BackendFlags, BackendId, Config, Extent, Flow, FlowKey, FrontendKind, FrontendRef, Generation,
    Service, ServiceId, Slot, gate,
};
use proxy_common::addr::{Addr, Be16, Ip4, Ip6};
use proxy_common::edge::hook::Hook;
use proxy_common::reason::Reason;
use testbed::address::{Family, Pair};
use testbed::sockets::Protocol;

use crate::frame::{Frame, Link, Tcp, wrong_checksum};
use crate::node::{Device, Node, Places, places};

pub const NODE_PORT: u16 = 30_000;
/// Of a second service with the same backends.
pub const OTHER_NODE_PORT: u16 = 30_001;
pub const SERVICE_PORT: u16 = 80;
pub const BACKEND_PORT: u16 = 8080;
pub const CLIENT_PORT: u16 = 40_000;

const SERVICE: ServiceId = ServiceId(1);
const OTHER_SERVICE: ServiceId = ServiceId(2);

/// What the hook is to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// On to the next layer.
    Pass,
    Drop,
    /// Out past the stack: `XDP_TX`, or a redirect by TC.
    Send,
}

impl Verdict {
    /// The kernel's number (include/uapi/linux/bpf.h, include/uapi/linux/pkt_cls.h).
    pub const fn action(self, hook: &Hook) -> u32 {
        match (self, hook.is_xdp()) {
            (Self::Pass, true) => 2,
            (Self::Drop, true) => 1,
            (Self::Send, true) => 3,
            // TC_ACT_UNSPEC, -1: on to the next program.
            (Self::Pass, false) => u32::MAX,
            (Self::Drop, false) => 2,
            (Self::Send, false) => 7,
        }
    }
}

pub struct World<'a> {
    pub node: &'a mut Node,
    pub family: Family,
    pub protocol: Protocol,
    pub at: Places,
}

impl<'a> World<'a> {
    pub fn new(node: &'a mut Node, family: Family, protocol: Protocol) -> Self {
        Self {
            node,
            family,
            protocol,
            at: places(),
        }
    }

    pub fn socket(&self, host: Pair, port: u16) -> SocketAddr {
        SocketAddr::new(host.of(self.family), port)
    }

    pub fn node_port(&self) -> SocketAddr {
        self.socket(self.at.node, NODE_PORT)
    }

    pub fn cluster_ip(&self) -> SocketAddr {
        self.socket(self.at.service, SERVICE_PORT)
    }

    pub fn client(&self) -> SocketAddr {
        self.socket(self.at.client, CLIENT_PORT)
    }

    pub fn backend(&self, host: Pair) -> SocketAddr {
        self.socket(host, BACKEND_PORT)
    }

    /// From the gateway to the node.
    pub fn inbound(&self) -> Link {
        [Device::Uplink.far_mac(), Device::Uplink.mac()]
    }

    /// The packet that opens a flow.
    pub fn opening(&self, link: Link, source: SocketAddr, destination: SocketAddr) -> Frame {
        Frame {
            link,
            source,
            destination,
            protocol: self.protocol,
            ttl: 64,
            tcp: Tcp {
                syn: true,
                sequence: 0xffff_ffff,
                window: 64_000,
                ..Tcp::default()
            },
            payload: b"thirty-three bytes of any payload".to_vec(),
            options: false,
            vlan: false,
            no_checksum: false,
        }
    }

    /// A packet in the middle of one.
    pub fn middle(&self, link: Link, source: SocketAddr, destination: SocketAddr) -> Frame {
        let tcp = Tcp {
            ack: true,
            sequence: 7,
            acknowledgment: 9,
            window: 64_000,
            ..Tcp::default()
        };
        Frame {
            tcp,
            ..self.opening(link, source, destination)
        }
    }

    /// Both services over the backends, the first with a ClusterIP and a load balancer's address too.
    pub fn serve(&mut self, hosts: &[Pair]) -> Result<()> {
        self.serve_as(hosts, Service::default())
    }

    /// The same with flags and affinity as in `like`.
    pub fn serve_as(&mut self, hosts: &[Pair], like: Service) -> Result<()> {
        let mut ops = Vec::new();
        for (id, host) in (1..).map(BackendId).zip(hosts) {
            let socket = self.backend(*host);
            self.open([
                gate_address(socket.ip(), Gate::Backend),
                gate::backend_port(Be16::new(socket.port())),
            ])?;
            ops.push(Op::Backend {
                id,
                entry: self.entry(*host),
            });
        }
        let backends: Vec<BackendId> = (1..).map(BackendId).take(hosts.len()).collect();
        let all = Extent {
            base: Slot(0),
            len: backends.len() as u32,
        };
        ops.push(Op::Slots {
            base: Slot(0),
            backends,
        });
        let value = Service {
            internal: all,
            external: all,
            short_circuit: all,
            ..like
        };
        for id in [SERVICE, OTHER_SERVICE] {
            ops.push(Op::Service { id, value });
        }
        let protocol = self.model_protocol();
        let family = match self.family {
            Family::V4 => model::Family::Ipv4,
            Family::V6 => model::Family::Ipv6,
        };
        for (port, id) in [(NODE_PORT, SERVICE), (OTHER_NODE_PORT, OTHER_SERVICE)] {
            self.open([gate::node_port(protocol.number(), Be16::new(port))])?;
            ops.push(Op::Frontend {
                at: FrontendAt::NodePort {
                    family,
                    port,
                    protocol,
                },
                to: FrontendRef::new(id, FrontendKind::NodePort),
            });
        }
        for (host, kind) in [
            (self.at.service, FrontendKind::ClusterIp),
            (self.at.balancer, FrontendKind::LoadBalancer),
        ] {
            let addr = host.of(self.family);
            self.open([gate_address(addr, Gate::Service)])?;
            ops.push(Op::Frontend {
                at: FrontendAt::Port {
                    addr,
                    port: SERVICE_PORT,
                    protocol,
                },
                to: FrontendRef::new(SERVICE, kind),
            });
        }
        let whole = self.at.service.of(self.family);
        ops.push(Op::Frontend {
            at: FrontendAt::WholeAddress(whole),
            to: FrontendRef::REFUSE,
        });
        self.node.datapath.apply(&ops)
    }

    /// New flows go to backend `id` (counted from 1) only.
    pub fn choose_only(&mut self, id: u32, of: usize) -> Result<()> {
        self.node.datapath.apply(&[Op::Slots {
            base: Slot(0),
            backends: vec![BackendId(id); of],
        }])
    }

    /// From here on the coarse step at which a flow is repaired is over at each packet.
    pub fn let_flows_age(&mut self) -> Result<()> {
        self.repair_flows_after(0)
    }

    /// From here on it is never over, however slow the machine is.
    pub fn keep_flows_young(&mut self) -> Result<()> {
        self.repair_flows_after(u32::MAX / 2)
    }

    fn repair_flows_after(&mut self, refresh: u32) -> Result<()> {
        let config = Config {
            refresh,
            ..self.node.datapath.config()?
        };
        self.node.datapath.set_config(&config)
    }

    /// The entries of all replies go, as where a table is full.
    pub fn lose_replies(&mut self) -> Result<()> {
        let maps = self.node.datapath.maps_mut();
        match self.family {
            Family::V4 => remove_replies(&mut maps.v4.pending),
            Family::V6 => remove_replies(&mut maps.v6.pending),
        }
    }

    /// Backend `id` is gone.
    pub fn retire(&mut self, id: u32, host: Pair) -> Result<()> {
        let entry = BackendEntry {
            flags: BackendFlags::empty(),
            ..self.entry(host)
        };
        self.node.datapath.apply(&[Op::Backend {
            id: BackendId(id),
            entry,
        }])
    }

    /// The load balancer takes clients of this range only.
    pub fn allow(&mut self, host: Pair, prefix: [u8; 2]) -> Result<()> {
        let prefix = prefix[usize::from(self.family == Family::V6)];
        let range = model::Cidr::new(host.of(self.family), prefix).expect("the prefix fits");
        self.node.datapath.apply(&[Op::AddRange {
            service: SERVICE,
            range,
        }])
    }

    /// Runs `frame` at a hook and holds what comes out against what is expected; `None`: the packet is gone.
    pub fn expect(
        &mut self,
        hook: Hook,
        device: Device,
        frame: &[u8],
        verdict: Verdict,
        expected: Option<&[u8]>,
        reasons: &[Reason],
    ) -> Result<()> {
        let (ran, counted) = self.node.run(&hook, device, frame)?;
        let mut wrong = String::new();
        let action = verdict.action(&hook);
        if ran.action != action {
            write!(
                wrong,
                "action {} and not {action} ({verdict:?}); ",
                ran.action as i32
            )?;
        }
        if counted != reasons {
            write!(wrong, "counted {counted:?} and not {reasons:?}; ")?;
        }
        if let Some(expected) = expected
            && ran.packet != expected
        {
            write!(wrong, "{}", difference(&ran.packet, expected))?;
        }
        ensure!(
            wrong.is_empty(),
            "{}: {wrong}\n  in       {}",
            hook.name,
            hex(frame)
        );
        Ok(())
    }

    /// A packet that the hook passes on as it is.
    pub fn untouched(
        &mut self,
        hook: Hook,
        device: Device,
        frame: &[u8],
        reasons: &[Reason],
    ) -> Result<()> {
        self.expect(hook, device, frame, Verdict::Pass, Some(frame), reasons)
    }

    /// Those of the hooks whose programs this kernel runs on a packet: where XDP's do not run, TC's still do.
    pub fn that_run<const N: usize>(
        &self,
        hooks: [Hook; N],
    ) -> impl Iterator<Item = Hook> + use<N> {
        let xdp_runs = self.node.xdp_runs;
        hooks
            .into_iter()
            .filter(move |hook| xdp_runs || !hook.is_xdp())
    }

    /// The hooks of an uplink's ingress.
    pub fn ingress(&self) -> impl Iterator<Item = Hook> + use<> {
        self.that_run([Hook::XDP_UPLINK, Hook::TC_UPLINK_IN])
    }

    /// A packet with which XDP has nothing to do but count that it is TC's.
    pub fn left_to_tc(&mut self, frame: &[u8]) -> Result<()> {
        for hook in self.that_run([Hook::XDP_UPLINK]) {
            self.untouched(hook, Device::Uplink, frame, &[Reason::LeftToTc])?;
        }
        Ok(())
    }

    /// A packet that becomes another one.
    pub fn becomes(
        &mut self,
        hook: Hook,
        device: Device,
        frame: &Frame,
        verdict: Verdict,
        expected: &Frame,
    ) -> Result<()> {
        self.expect(
            hook,
            device,
            &frame.bytes(),
            verdict,
            Some(&expected.bytes()),
            &[],
        )
    }

    fn entry(&self, host: Pair) -> BackendEntry {
        let local = host == self.at.pod_a || host == self.at.pod_b;
        let here = if local {
            BackendFlags::LOCAL
        } else {
            BackendFlags::empty()
        };
        BackendEntry {
            socket: self.backend(host),
            flags: BackendFlags::SERVING | BackendFlags::CHOSEN | here,
            generation: Generation::FIRST,
            service: SERVICE,
        }
    }

    fn model_protocol(&self) -> model::Protocol {
        match self.protocol {
            Protocol::Tcp => model::Protocol::Tcp,
            Protocol::Udp => model::Protocol::Udp,
            Protocol::Sctp => model::Protocol::Sctp,
        }
    }

    fn open<const N: usize>(&mut self, bits: [gate::Bit; N]) -> Result<()> {
        let gate = &mut self.node.datapath.maps_mut().gate;
        for bit in bits {
            let word = gate.get(&bit.word, 0)?;
            gate.set(bit.word, word | bit.mask, 0)?;
        }
        Ok(())
    }
}

enum Gate {
    Service,
    Backend,
}

fn gate_address(addr: IpAddr, which: Gate) -> gate::Bit {
    match (addr, which) {
        (IpAddr::V4(addr), Gate::Service) => gate::service_addr(&Ip4::from(addr)),
        (IpAddr::V6(addr), Gate::Service) => gate::service_addr(&Ip6::from(addr)),
        (IpAddr::V4(addr), Gate::Backend) => gate::backend_addr(&Ip4::from(addr)),
        (IpAddr::V6(addr), Gate::Backend) => gate::backend_addr(&Ip6::from(addr)),
    }
}

fn difference(found: &[u8], expected: &[u8]) -> String {
    let first = found.iter().zip(expected).position(|(a, b)| a != b);
    let at = first.unwrap_or(found.len().min(expected.len()));
    let what = wrong_checksum(found, expected).map_or_else(
        || format!("another packet from byte {at} on"),
        |checksum| format!("{checksum} is wrong"),
    );
    format!(
        "{what}\n  out      {}\n  expected {}",
        hex(found),
        hex(expected)
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn remove_replies<A: Addr>(flows: &mut HashMap<MapData, FlowKey<A>, Flow<A>>) -> Result<()>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    let entries = flows.iter().collect::<Result<Vec<_>, _>>()?;
    let replies: Vec<_> = entries.iter().filter(|(_, flow)| flow.is_reply()).collect();
    ensure!(!replies.is_empty(), "no reply is tracked");
    for (key, _) in replies {
        flows.remove(key)?;
    }
    Ok(())
}
