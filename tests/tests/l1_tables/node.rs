//! A node that packets are run on: devices, routes and neighbours in a namespace of its own, and the loaded datapath.
//!
//! Every next hop is known to the kernel (permanent neighbours), except that of `silent`.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use proxy_agent::datapath::{Datapath, Facts, Options, Ran, Run as OnePacket, Sizes};
use proxy_common::abi::{
    Config, Device as DeviceEntry, DeviceFlags, DeviceKind, IfIndex, Link, LocalAddr, Sources,
};
use proxy_common::edge::hook::Hook;
use proxy_common::reason::Reason;
use testbed::address::{self, Pair};
use testbed::netns::Netns;
use testbed::run::Run;
use testbed::runner::CannotRun;

use crate::frame;

pub const OBJECT_VARIABLE: &str = vm_protocol::variable::OBJECT;

/// Set by the test of the suite itself, `xtask/src/vm/self_test.rs`: `checksum` spoils what comes out of programs.
const PLANT_VARIABLE: &str = vm_protocol::variable::PLANT;

const NO_XDP: &str = "this kernel's BPF_PROG_TEST_RUN takes no device for an XDP program";

const NO_ROUTE_MTU: &str = "this kernel's bpf_fib_lookup tells no route's MTU: the device's holds";

pub const CLIENT: Pair = Pair::new([192, 0, 2, 11], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 11]);

/// Largest packet on the way to the pods of `narrow`.
pub const NARROW_MTU: u16 = 1400;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    Uplink,
    Tunnel,
    PodA,
    PodB,
}

impl Device {
    const ALL: [Self; 4] = [Self::Uplink, Self::Tunnel, Self::PodA, Self::PodB];

    const fn name(self) -> &'static str {
        match self {
            Self::Uplink => "eth0",
            Self::Tunnel => "tun0",
            Self::PodA => "pod0",
            Self::PodB => "pod1",
        }
    }

    const fn flags(self) -> DeviceFlags {
        let kind = match self {
            Self::Uplink => DeviceKind::Uplink,
            Self::Tunnel => DeviceKind::Tunnel,
            Self::PodA | Self::PodB => DeviceKind::Workload,
        };
        DeviceFlags::new(kind, Link::Ethernet, Sources::All)
    }

    /// The node's end.
    pub const fn mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1 + self as u8]
    }

    /// Whoever is at the other end: the gateway, the other tunnel end, the pod.
    pub const fn far_mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 1, 1 + self as u8]
    }
}

/// The other node, on the uplink's segment.
pub const OTHER_NODE_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];

/// Who is where.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub client: Pair,
    pub node: Pair,
    pub service: Pair,
    pub balancer: Pair,
    pub pod_a: Pair,
    pub pod_b: Pair,
    /// On the other node.
    pub remote: Pair,
    pub tunnelled: Pair,
    pub narrow: Pair,
    /// Behind a next hop that does not answer.
    pub silent: Pair,
}

pub fn places() -> Places {
    Places {
        client: CLIENT,
        node: address::on_segment(0, 1),
        service: address::service(1),
        balancer: address::service(2),
        pod_a: address::pod(1, 10),
        pod_b: address::pod(1, 11),
        remote: address::pod(2, 10),
        tunnelled: address::pod(3, 10),
        narrow: address::pod(4, 10),
        silent: address::pod(5, 10),
    }
}

pub struct Node {
    pub datapath: Datapath,
    pub netns: Netns,
    facts: Facts,
    indices: HashMap<&'static str, IfIndex>,
    /// Whether the kernel runs XDP programs on a packet of a given device (since 5.15).
    pub xdp_runs: bool,
    _run: Run,
}

impl Node {
    pub fn create() -> Result<Self> {
        Self::with(Sizes {
            connections: 1024,
            backends: 64,
            services: 64,
            ..Sizes::default()
        })
    }

    /// One with tables of these sizes.
    pub fn with(sizes: Sizes) -> Result<Self> {
        let run = Run::start()?;
        let netns = Netns::create(run.netns_name("l1"))?;
        lay_out(&netns)?;
        let path = std::env::var_os(OBJECT_VARIABLE).context(OBJECT_VARIABLE)?;
        let object = std::fs::read(&path).with_context(|| format!("reading {path:?}"))?;
        let options = Options {
            sizes,
            ..Options::default()
        };
        let mut datapath = Datapath::load(&object, &options)?;
        let mut facts = Facts::default();
        let mut indices = HashMap::new();
        let Pair { v4, v6 } = places().node;
        for device in Device::ALL {
            let index = netns.run(|| nix::net::if_::if_nametoindex(device.name()))?;
            let index = IfIndex(index);
            indices.insert(device.name(), index);
            let entry = DeviceEntry {
                addr4: v4.into(),
                addr6: v6.into(),
                mtu: 1500,
                flags: device.flags(),
                mac: device.mac(),
                ..DeviceEntry::default()
            };
            facts.devices.insert(index, entry);
        }
        facts.local4.insert(v4.into(), LocalAddr::NODE_PORTS);
        facts.local6.insert(v6.into(), LocalAddr::NODE_PORTS);
        datapath.set_facts(&facts)?;
        let any = OnePacket::new(&[0; 64]).on(indices[Device::Uplink.name()]);
        let xdp_runs = match netns.run(|| datapath.run(Hook::XDP_UPLINK.name, any)) {
            Ok(_) => true,
            Err(error) if is_invalid_argument(&error) => false,
            Err(error) => return Err(error),
        };
        if !xdp_runs {
            println!(
                "note: {NO_XDP}: rows of XDP are skipped, and rows of both hooks run TC alone"
            );
        }
        Ok(Self {
            datapath,
            netns,
            facts,
            indices,
            xdp_runs,
            _run: run,
        })
    }

    /// Empties the tables.
    pub fn clear(&mut self) -> Result<()> {
        let config = Config::for_hz(self.datapath.hz(), 1);
        self.datapath.set_config(&config)?;
        let maps = self.datapath.maps_mut();
        macro_rules! empty {
            ($($map:expr),+) => {$(
                for key in $map.keys().collect::<Result<Vec<_>, _>>()? {
                    $map.remove(&key)?;
                }
            )+};
        }
        empty!(maps.services);
        for word in 0..maps.gate.len() {
            if maps.gate.get(&word, 0)? != 0 {
                maps.gate.set(word, 0, 0)?;
            }
        }
        empty!(
            maps.v4.frontends,
            maps.v4.flows,
            maps.v4.datagrams,
            maps.v4.pending,
            maps.v4.affinity,
            maps.v4.fragments,
            maps.v4.source_ranges
        );
        empty!(
            maps.v6.frontends,
            maps.v6.flows,
            maps.v6.datagrams,
            maps.v6.pending,
            maps.v6.affinity,
            maps.v6.fragments,
            maps.v6.source_ranges
        );
        Ok(())
    }

    /// Lets every device take these sources.
    pub fn take_sources(&mut self, sources: Sources) -> Result<()> {
        for device in self.facts.devices.values_mut() {
            device.flags = device.flags.with_sources(sources);
        }
        self.datapath.set_facts(&self.facts)
    }

    /// Runs a packet; for who is in the node's namespace already.
    pub fn run_only(&self, hook: &Hook, device: Device, packet: &[u8]) -> Result<Ran> {
        if hook.is_xdp() && !self.xdp_runs {
            return Err(CannotRun(NO_XDP).into());
        }
        let one = OnePacket::new(packet).on(self.indices[device.name()]);
        self.datapath.run(hook.name, one)
    }

    /// Runs a packet, and says which reasons were counted at the hook meanwhile.
    pub fn run(&self, hook: &Hook, device: Device, packet: &[u8]) -> Result<(Ran, Vec<Reason>)> {
        if hook.is_xdp() && !self.xdp_runs {
            return Err(CannotRun(NO_XDP).into());
        }
        let before = self.counts(hook)?;
        let one = OnePacket::new(packet).on(self.indices[device.name()]);
        let mut ran = self.netns.run(|| self.datapath.run(hook.name, one))?;
        if std::env::var_os(PLANT_VARIABLE).is_some_and(|what| what == "checksum") {
            frame::spoil_checksum(&mut ran.packet);
        }
        let mut reasons = Vec::new();
        for ((reason, before), after) in Reason::ALL.iter().zip(before).zip(self.counts(hook)?) {
            ensure!(after >= before, "a counter went backwards");
            // What the packet has become says it, too.
            if *reason == Reason::Translated {
                ensure!(after <= before + 1, "one packet was translated twice");
                continue;
            }
            for _ in before..after {
                reasons.push(*reason);
            }
        }
        Ok((ran, reasons))
    }

    fn counts(&self, hook: &Hook) -> Result<Vec<u64>> {
        let count = |reason: &Reason| self.datapath.maps().reason_count(hook, *reason);
        Reason::ALL.iter().map(count).collect()
    }
}

/// An error that says why, unless `bpf_fib_lookup` gives a route's MTU back. That shows in no probe of its own; the
/// helper `bpf_check_mtu` came to the kernel with it (5.12).
pub fn need_mtu_of_routes() -> Result<()> {
    let tc = ProgramType::SchedClassifier;
    if is_helper_supported(tc, BpfHelper::BPF_FUNC_check_mtu)? {
        return Ok(());
    }
    Err(CannotRun(NO_ROUTE_MTU).into())
}

/// As old kernels answer an XDP test run with a context.
fn is_invalid_argument(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.raw_os_error() == Some(nix::errno::Errno::EINVAL as i32))
}

fn lay_out(netns: &Netns) -> Result<()> {
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        netns.sysctl(key, "1")?;
    }
    let mac = |bytes: [u8; 6]| address::Mac(bytes).to_string();
    let mut lines = String::new();
    for device in Device::ALL {
        let (name, mac) = (device.name(), mac(device.mac()));
        lines += &format!(
            "link add {name} address {mac} type veth peer name {name}p\n\
             link set {name}p up\nlink set {name} up\n"
        );
    }
    let Places {
        node, pod_a, pod_b, ..
    } = places();
    lines += &format!(
        "addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n",
        node.v4, node.v6
    );
    let mut next_hop = |host: Pair, device: Device, mac: String| {
        for ip in [host.v4.to_string(), host.v6.to_string()] {
            let name = device.name();
            lines += &format!("neigh replace {ip} lladdr {mac} dev {name} nud permanent\n");
        }
    };
    let gateway = address::on_segment(0, 254);
    let (other, silent) = (address::on_segment(0, 2), address::on_segment(0, 5));
    next_hop(gateway, Device::Uplink, mac(Device::Uplink.far_mac()));
    next_hop(other, Device::Uplink, mac(OTHER_NODE_MAC));
    next_hop(pod_a, Device::PodA, mac(Device::PodA.far_mac()));
    next_hop(pod_b, Device::PodB, mac(Device::PodB.far_mac()));
    let far_end = address::overlay(3);
    next_hop(far_end, Device::Tunnel, mac(Device::Tunnel.far_mac()));
    let mut route = |to: &Pair, bits: [u8; 2], how: &dyn Fn(&Pair) -> [String; 2]| {
        let [how4, how6] = how(to);
        lines += &format!("route add {}/{} {how4}\n", to.v4, bits[0]);
        lines += &format!("route add {}/{} {how6}\n", to.v6, bits[1]);
    };
    let by = |hop: Pair, rest: &'static str| {
        move |_: &Pair| {
            [
                format!("via {} {rest}", hop.v4),
                format!("via {} {rest}", hop.v6),
            ]
        }
    };
    let direct = |name: &'static str| move |_: &Pair| [(); 2].map(|()| format!("dev {name}"));
    let anywhere = Pair::new([0; 4], [0; 8]);
    route(&anywhere, [0, 0], &by(gateway, "dev eth0"));
    route(&pod_a, [32, 128], &direct("pod0"));
    route(&pod_b, [32, 128], &direct("pod1"));
    route(&far_end, [32, 128], &direct("tun0"));
    route(&address::pod(2, 0), [24, 64], &by(other, "dev eth0"));
    route(
        &places().tunnelled,
        [32, 128],
        &by(far_end, "dev tun0 onlink"),
    );
    route(
        &address::pod(4, 0),
        [24, 64],
        &by(other, "dev eth0 mtu lock 1400"),
    );
    route(&address::pod(5, 0), [24, 64], &by(silent, "dev eth0"));
    netns.ip(&lines)
}
