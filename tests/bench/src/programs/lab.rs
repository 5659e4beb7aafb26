//! A node without traffic of its own: a namespace with an uplink and a pod's device, services with backends here and elsewhere,
//! and the drivers in front of the programs.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{TestRun, TestRunOptions, TestRunResult};
use aya::{Ebpf, Pod};
use nix::net::if_::if_nametoindex;
use proxy_agent::datapath::{Datapath, MapAddr, Options, Sizes};
use proxy_common::abi::{
    Backend, BackendFlags, BackendId, Config, Device, DeviceFlags, DeviceKind, Extent, Flow,
    FlowKey, FrontendKey, FrontendKind, FrontendRef, Generation, IfIndex, Link, LocalAddr, Service,
    ServiceId, Slot, Sources, TCP, UDP, gate,
};
use proxy_common::addr::{Be16, Ip4, Ip6};

use super::family::Family;
use crate::driver::{self, Script};
use crate::frames::{self, LEN, Places, Segment, Varies};
use crate::median;
use testbed::netns::Netns;
use testbed::one_cpu::OneCpu;
use testbed::run::Run;

/// Runs of each figure; the median counts.
pub const RUNS: usize = 7;
/// Flows of one client to one service: as many as the driver has ports.
pub const BATCH: u32 = 1 << 14;
/// Flows that the tables hold.
pub const HELD: u32 = 4 * BATCH;
/// Services of each kind: those of the flows that are held, and one for new flows.
const SERVICES: u16 = 5;
/// Backends of the service that has many.
const MANY: u16 = 64;
/// Never, in jiffies.
const NEVER: u32 = u32::MAX / 2;

pub const SERVICE_PORT: u16 = 80;
pub const BACKEND_PORT: u16 = 8080;
pub const NODE_PORT: u16 = 30_000;

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_REDIRECT: u32 = 7;

/// Who is where: the second byte of an IPv4 address, the sixth of an IPv6 one.
pub mod net {
    pub const OUTSIDE: u8 = 1;
    pub const NODE: u8 = 100;
    /// Pods of this node; their services are ten further.
    pub const LOCAL: u8 = 101;
    /// Pods of another.
    pub const REMOTE: u8 = 102;
    /// Pods of another, behind the one service that has many.
    pub const MANY: u8 = 103;
    pub const SERVICES: u8 = 10;
    /// The pod that is a client.
    pub const CLIENT: u8 = 104;
    pub const STRANGER: u8 = 201;
}

const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// In the order of [`Lab::devices`].
const NAMES: [&str; 2] = ["eth0", "pod0"];

/// A program, and so the device that it is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    Xdp,
    UplinkIn,
    UplinkOut,
    WorkloadIn,
    WorkloadOut,
}

impl At {
    pub const ALL: [Self; 5] = [
        Self::Xdp,
        Self::UplinkIn,
        Self::UplinkOut,
        Self::WorkloadIn,
        Self::WorkloadOut,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp_uplink",
            Self::UplinkIn => "tc_uplink_in",
            Self::UplinkOut => "tc_uplink_out",
            Self::WorkloadIn => "tc_workload_in",
            Self::WorkloadOut => "tc_workload_out",
        }
    }

    const fn device(self) -> usize {
        matches!(self, Self::WorkloadIn | Self::WorkloadOut) as usize
    }

    const fn is_xdp(self) -> bool {
        matches!(self, Self::Xdp)
    }
}

/// What must become of every packet of a measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Becomes {
    /// It goes on as it came.
    Untouched,
    /// It is rewritten and goes on to the stack.
    Rewritten,
    /// It is rewritten and leaves by a device.
    Sent,
}

impl Becomes {
    const fn action(self, at: At) -> u32 {
        match (self, at.is_xdp()) {
            (Self::Untouched | Self::Rewritten, true) => XDP_PASS,
            (Self::Untouched | Self::Rewritten, false) => TC_ACT_UNSPEC,
            (Self::Sent, true) => XDP_TX,
            (Self::Sent, false) => TC_ACT_REDIRECT,
        }
    }
}

/// Which packets, for which program.
#[derive(Clone, Copy)]
pub struct Shot {
    pub at: At,
    pub script: Script,
    pub repeats: u32,
    pub becomes: Becomes,
}

impl Shot {
    /// Packets of all of `flows` flows in an order that looks like chance, `1 << spread` numbers apart.
    pub fn new(at: At, frame: &[u8; LEN], places: Places, becomes: Becomes) -> Self {
        let script = Script {
            flows: HELD,
            shuffled: 1,
            ..Script::new(frame, places)
        };
        Self {
            at,
            script,
            repeats: HELD,
            becomes,
        }
    }

    /// Of fewer flows, which lie anywhere among those that are held.
    pub fn of(mut self, flows: u32) -> Self {
        self.script.flows = flows;
        self.script.spread = (HELD / flows).ilog2();
        self
    }

    /// Of a batch of flows, each once.
    pub fn batch(mut self, number: u32) -> Self {
        self.script.flows = BATCH;
        self.script.first = number * BATCH;
        self.repeats = BATCH;
        self
    }
}

/// Which pods a service leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Local,
    Remote,
    /// 64 of them, elsewhere.
    Many,
}

impl Side {
    pub const ALL: [Self; 3] = [Self::Local, Self::Remote, Self::Many];

    pub const fn net(self) -> u8 {
        match self {
            Self::Local => net::LOCAL,
            Self::Remote => net::REMOTE,
            Self::Many => net::MANY,
        }
    }
}

/// The node, and the drivers.
pub struct Lab {
    pub datapath: Datapath,
    netns: Netns,
    driver: Ebpf,
    script: Array<MapData, Script>,
    target: ProgramArray<MapData>,
    tc_target: ProgramArray<MapData>,
    devices: [IfIndex; 2],
    _run: Run,
    _cpu: OneCpu,
}

impl Lab {
    pub fn build() -> Result<Self> {
        let run = Run::start()?;
        let netns = Netns::create(run.netns_name("lab"))?;
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            netns.sysctl(key, "1")?;
        }
        netns.ip(&layout())?;
        let mut devices = [IfIndex::NONE; 2];
        for (index, name) in devices.iter_mut().zip(NAMES) {
            *index = IfIndex(netns.run(|| if_nametoindex(name))?);
        }
        let object = driver::object(vm_protocol::variable::OBJECT)?;
        // Datagrams have a quarter of it: room for as many flows as are measured.
        let sizes = Sizes {
            connections: 300_000,
            ..Sizes::default()
        };
        let options = Options {
            sizes,
            ..Options::default()
        };
        let mut datapath = Datapath::load(&object, &options)?;
        let kinds = [DeviceKind::Uplink, DeviceKind::Workload];
        for (index, kind) in devices.iter().zip(kinds) {
            let device = Device {
                addr4: Ip4::numbered(net::NODE, 1),
                addr6: Ip6::numbered(net::NODE, 1),
                mtu: 1500,
                mac: NODE_MAC,
                flags: DeviceFlags::new(kind, Link::Ethernet, Sources::All),
                ..Device::default()
            };
            datapath.maps_mut().devices.insert(index, device, 0)?;
        }
        // As an agent would; but sources are counted, and none has too many.
        datapath.configure(7)?;
        let config = Config {
            share: NEVER,
            ..datapath.config()?
        };
        datapath.set_config(&config)?;
        let mut driver = driver::load(&["bench_driver", "bench_empty"])?;
        let script = Array::try_from(driver::take_map(&mut driver, "SCRIPT")?)?;
        let target = ProgramArray::try_from(driver::take_map(&mut driver, "TARGET")?)?;
        let tc_target = ProgramArray::try_from(driver::take_map(&mut driver, "TC_TARGET")?)?;
        for name in ["bench_tc_driver", "bench_tc_empty"] {
            driver::classifier(&mut driver, name)?;
        }
        Ok(Self {
            datapath,
            netns,
            driver,
            script,
            target,
            tc_target,
            devices,
            _run: run,
            _cpu: OneCpu::stay()?,
        })
    }

    /// Writes a family's services: of each kind as many as there are batches of flows, each with a backend of its own, and one
    /// with 64 backends; and a NodePort's number.
    pub fn open<A: Family>(&mut self) -> Result<()>
    where
        Backend<A>: Pod,
    {
        let mut id = 1;
        for side in Side::ALL {
            let services = if side == Side::Many { 0 } else { SERVICES };
            for number in 0..services {
                self.publish(side, number, &[A::numbered(side.net(), number)], id)?;
                id += 1;
            }
        }
        let many: Vec<A> = (0..MANY).map(|n| A::numbered(net::MANY, n)).collect();
        self.publish(Side::Many, SERVICES - 1, &many, id)?;
        self.raise(gate::backend_port(Be16::new(BACKEND_PORT)))?;
        for proto in [TCP, UDP] {
            self.raise(gate::node_port(proto, Be16::new(NODE_PORT)))?;
        }
        let maps = A::maps(&mut self.datapath);
        Ok(maps
            .local_addrs
            .insert(A::numbered(net::NODE, 1), LocalAddr::NODE_PORTS, 0)?)
    }

    /// Service `id`: the address of this kind and number, for both protocols.
    fn publish<A: Family>(&mut self, side: Side, number: u16, backends: &[A], id: u32) -> Result<()>
    where
        Backend<A>: Pod,
    {
        // Families have ids and slots of their own.
        let id = id + 32 * u32::from(A::IS_V6);
        let base = id * u32::from(MANY);
        let all = Extent {
            base: Slot(base),
            len: backends.len() as u32,
        };
        let service = Service {
            internal: all,
            external: all,
            short_circuit: all,
            ..Service::default()
        };
        self.datapath
            .maps_mut()
            .services
            .insert(ServiceId(id), service, 0)?;
        let local = if side == Side::Local {
            BackendFlags::LOCAL
        } else {
            BackendFlags::empty()
        };
        for (slot, addr) in (base..).zip(backends) {
            self.datapath
                .maps_mut()
                .slots
                .set(slot, BackendId(slot), 0)?;
            let backend = Backend {
                addr: *addr,
                port: Be16::new(BACKEND_PORT),
                flags: BackendFlags::SERVING | local,
                generation: Generation::FIRST,
                service: ServiceId(id),
            };
            A::maps(&mut self.datapath).backends.set(slot, backend, 0)?;
            self.raise(gate::backend_addr(addr))?;
        }
        let address = A::numbered(side.net() + net::SERVICES, number);
        self.raise(gate::service_addr(&address))?;
        let to = FrontendRef::new(ServiceId(id), FrontendKind::ExternalIp).0;
        let maps = A::maps(&mut self.datapath);
        for proto in [TCP, UDP] {
            let key = FrontendKey::new(address, Be16::new(SERVICE_PORT), proto);
            A::put_frontend(maps, key, to)?;
        }
        Ok(())
    }

    pub fn is_raised(&self, bit: gate::Bit) -> Result<bool> {
        Ok(self.datapath.maps().gate.get(&bit.word, 0)? & bit.mask != 0)
    }

    fn raise(&mut self, bit: gate::Bit) -> Result<()> {
        let gate = &mut self.datapath.maps_mut().gate;
        let word = gate.get(&bit.word, 0)?;
        Ok(gate.set(bit.word, word | bit.mask, 0)?)
    }

    /// How long a flow is not looked at again, in jiffies; 0 for a look with every packet.
    pub fn refresh_after(&mut self, jiffies: u32) -> Result<()> {
        let config = Config {
            refresh: jiffies,
            ..self.datapath.config()?
        };
        self.datapath.set_config(&config)
    }

    /// ns per packet, net of the driver: the median of all runs.
    pub fn net(&mut self, shot: &Shot) -> Result<f64> {
        let mut nets = (0..RUNS)
            .map(|_| self.once(shot))
            .collect::<Result<Vec<_>>>()?;
        Ok(median(&mut nets))
    }

    /// The same of one run.
    pub fn once(&mut self, shot: &Shot) -> Result<f64> {
        let empty = self.run(shot, false)?.duration.as_nanos() as f64;
        Ok(self.whole(shot)?.as_nanos() as f64 - empty)
    }

    /// Sends the packets, and sees to it that they become what they must.
    pub fn whole(&mut self, shot: &Shot) -> Result<std::time::Duration> {
        let mut packet = [0; LEN];
        let result = self.run_into(shot, true, Some(&mut packet))?;
        let (name, expected) = (shot.at.name(), shot.becomes.action(shot.at));
        let action = result.return_value;
        ensure!(
            action == expected,
            "{name} gave {action:#x} and not {expected:#x}"
        );
        let came = self.script.get(&0, 0)?.template;
        ensure!(
            (packet == came) == (shot.becomes == Becomes::Untouched),
            "{name} made {packet:02x?} of {came:02x?}, which was to be {:?}",
            shot.becomes
        );
        Ok(result.duration)
    }

    fn run(&mut self, shot: &Shot, real: bool) -> Result<TestRunResult> {
        self.run_into(shot, real, None)
    }

    /// Runs the program, or an empty one in its place.
    fn run_into(
        &mut self,
        shot: &Shot,
        real: bool,
        packet: Option<&mut [u8; LEN]>,
    ) -> Result<TestRunResult> {
        let Shot { at, script, .. } = shot;
        self.script.set(0, script, 0)?;
        let device = self.devices[at.device()].0;
        let (xdp, tc);
        // `struct xdp_md`, whose fourth word is the device, and `struct __sk_buff`, whose eleventh it is.
        let context: &[u8] = if at.is_xdp() {
            xdp = words([0, LEN as u32, 0, device, 0, 0]);
            &xdp
        } else {
            tc = words([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, device]);
            &tc
        };
        let options = TestRunOptions {
            data_in: Some(&script.template),
            data_out: packet.map(|packet| packet.as_mut_slice()),
            ctx_in: Some(context),
            repeat: shot.repeats,
            ..TestRunOptions::default()
        };
        let (netns, driver) = (&self.netns, &mut self.driver);
        if at.is_xdp() {
            let empty = driver::program(driver, "bench_empty")?.fd()?.try_clone()?;
            let tested = self.datapath.xdp_program(at.name())?;
            self.target.set(0, if real { tested } else { &empty }, 0)?;
            let driver = driver::program(driver, "bench_driver")?;
            netns.run(|| driver.test_run(options))
        } else {
            let empty = driver::classifier(driver, "bench_tc_empty")?
                .fd()?
                .try_clone()?;
            let tested = self.datapath.tc_program(at.name())?;
            self.tc_target
                .set(0, if real { tested } else { &empty }, 0)?;
            let driver = driver::classifier(driver, "bench_tc_driver")?;
            netns.run(|| driver.test_run(options))
        }
        .context("running the driver")
    }

    /// Entries of the two flow tables: confirmed, pending.
    pub fn count<A: Family>(&mut self) -> Result<[usize; 2]>
    where
        Backend<A>: Pod,
    {
        Ok(A::count_flows(A::maps(&mut self.datapath)))
    }

    /// Removes the flows whose keys are asked for; gives those that were confirmed, and how many were not.
    pub fn remove<A: Family>(
        &mut self,
        is_asked: impl Fn(&FlowKey<A>) -> bool,
    ) -> Result<(Vec<Flow<A>>, usize)>
    where
        Backend<A>: Pod,
    {
        A::remove_flows(A::maps(&mut self.datapath), &is_asked)
    }
}

/// Where the packets of one client and of its services' backends vary.
pub fn places<A: Family>(varies: Varies) -> Places
where
    Backend<A>: Pod,
{
    frames::places(A::IS_V6, varies)
}

/// The packet of a client to the first service of a kind.
pub fn request<A: Family>(client: A, side: Side, segment: Segment) -> [u8; LEN]
where
    Backend<A>: Pod,
{
    let service = A::numbered(side.net() + net::SERVICES, 0);
    frames::build(
        &client.bytes(),
        &service.bytes(),
        1024,
        SERVICE_PORT,
        segment,
    )
}

/// The answer of that service's backend.
pub fn reply<A: Family>(to: A, side: Side, segment: Segment) -> [u8; LEN]
where
    Backend<A>: Pod,
{
    let backend = A::numbered(side.net(), 0);
    frames::build(&backend.bytes(), &to.bytes(), BACKEND_PORT, 1024, segment)
}

fn words<const N: usize>(words: [u32; N]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// An uplink with a gateway behind it, and a pod's device with all local pods behind it.
fn layout() -> String {
    let mac = |bytes| testbed::address::Mac(bytes).to_string();
    let mut lines = String::new();
    for name in NAMES {
        lines += &format!(
            "link add {name} address {} type veth peer name {name}p\n\
             link set {name}p up\nlink set {name} up\n",
            mac(NODE_MAC)
        );
    }
    let mut family = |node: String, gateway: String, pods: Vec<String>, bits: u8| {
        lines += &format!("addr add {node}/{bits} dev eth0 nodad\n");
        lines += &format!(
            "neigh replace {gateway} lladdr {} dev eth0 nud permanent\n",
            mac(FAR_MAC)
        );
        lines += &format!("route add default via {gateway} dev eth0 onlink\n");
        for pod in pods {
            lines += &format!("route add {pod}/{bits} dev pod0\n");
            lines += &format!(
                "neigh replace {pod} lladdr {} dev pod0 nud permanent\n",
                mac(FAR_MAC)
            );
        }
    };
    fn pods<A: Family>() -> Vec<String>
    where
        Backend<A>: Pod,
    {
        let locals = (0..SERVICES).map(|n| A::numbered(net::LOCAL, n));
        locals
            .chain([A::numbered(net::CLIENT, 1)])
            .map(|pod| pod.ip().to_string())
            .collect()
    }
    let text = |net: u8, n: u16| {
        [Ip4::numbered(net, n).ip(), Ip6::numbered(net, n).ip()].map(|ip| ip.to_string())
    };
    let [node4, node6] = text(net::NODE, 1);
    let [gateway4, gateway6] = text(net::NODE, 254);
    family(node4, gateway4, pods::<Ip4>(), 32);
    family(node6, gateway6, pods::<Ip6>(), 128);
    lines
}
