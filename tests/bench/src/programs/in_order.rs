//! The XDP program alone, at its best: flows come in the order in which they were stored, in tables that hold no others, and none
//! is refreshed. [`super::at_random`] has them as they come on a node.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{TestRun, TestRunOptions};
use aya::{Ebpf, Pod};
use proxy_agent::datapath::{Datapath, Options, Run, Sizes};
use proxy_common::abi::{
    Backend, BackendFlags, BackendId, Config, Device, DeviceFlags, DeviceKind, Dir, Epoch, Extent,
    Flow, FlowKey, FrontendKey, FrontendKind, FrontendRef, Generation, IfIndex, Jiffies, Link,
    LocalAddr, Macs, Route, Service, ServiceId, Slot, Sources, TCP, Tuple, UDP, flow_state, gate,
};
use proxy_common::addr::{Be16, Ip4, Ip6};

use super::family::Family;
use crate::driver::{self, Script};
use crate::frames::{self, LEN, Segment, Varies};
use crate::median;
use crate::table::Table;

/// Runs of each figure; the median counts.
const RUNS: usize = 7;
const REPEATS: u32 = 1_000_000;
const NEW_FLOWS: u32 = 200_000;
const FLOWS: [u32; 3] = [1, 1024, 65_536];

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// The device of a test run without a context (loopback).
const DEVICE: IfIndex = IfIndex::LOOPBACK;
/// The address that frames have as their destination.
const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SERVICE: ServiceId = ServiceId(1);
const BACKEND: BackendId = BackendId(1);

/// The loaded datapath and the driver in front of it.
struct Bench {
    datapath: Datapath,
    driver: Ebpf,
    script: Array<MapData, Script>,
    target: ProgramArray<MapData>,
}

/// Measures every path of both families.
pub fn measure() -> Result<Table> {
    let mut table = Table::new(
        "xdp_uplink, ns per packet (BPF_PROG_TEST_RUN, net of the driver, median of 7)",
        &["path", "family", "1 flow", "1,024", "65,536"],
    );
    let mut bench = Bench::load()?;
    bench.family::<Ip4>(&mut table)?;
    bench.family::<Ip6>(&mut table)?;
    Ok(table)
}

impl Bench {
    fn load() -> Result<Self> {
        let sizes = Sizes {
            // A quarter of it is for datagrams: there, too, the largest number of flows leaves room.
            connections: 300_000,
            ..Sizes::default()
        };
        let options = Options {
            sizes,
            ..Options::default()
        };
        let mut datapath =
            Datapath::load(&driver::object(vm_protocol::variable::OBJECT)?, &options)?;
        let never = u32::MAX / 2;
        // No refresh: a test run is shorter than its step, but the flows are made before.
        let config = Config {
            refresh: never,
            udp_idle: never,
            // Sources are counted, and none has too many.
            share: never,
            ..Config::for_hz(datapath.hz(), 7)
        };
        datapath.set_config(&config)?;
        let device = Device {
            mac: NODE_MAC,
            flags: DeviceFlags::new(DeviceKind::Uplink, Link::Ethernet, Sources::All),
            ..Device::default()
        };
        datapath.maps_mut().devices.insert(DEVICE, device, 0)?;
        let mut driver = driver::load(&["bench_driver", "bench_empty"])?;
        let (script, target) = (
            Array::try_from(driver::take_map(&mut driver, "SCRIPT")?)?,
            ProgramArray::try_from(driver::take_map(&mut driver, "TARGET")?)?,
        );
        Ok(Self {
            datapath,
            driver,
            script,
            target,
        })
    }

    fn family<A: Family>(&mut self, table: &mut Table) -> Result<()>
    where
        Backend<A>: Pod,
    {
        let [node, vip, pod, stranger] = [1, 2, 3, 4].map(|n| A::numbered(100, n));
        self.open::<A>(node, vip, pod)?;
        let established = |proto: u8, segment: Segment, reply: bool| {
            let frame = if reply {
                frames::build(&pod.bytes(), &node.bytes(), 8080, 1024, segment)
            } else {
                frames::build(
                    &A::numbered(1, 0).bytes(),
                    &node.bytes(),
                    1024,
                    30_000,
                    segment,
                )
            };
            (proto, frame, reply)
        };
        for (name, (proto, frame, reply)) in [
            (
                "NodePort to a remote backend, TCP",
                established(TCP, Segment::ACK, false),
            ),
            ("its reply, TCP", established(TCP, Segment::ACK, true)),
            (
                "NodePort to a remote backend, UDP",
                established(UDP, Segment::Datagram, false),
            ),
            ("its reply, UDP", established(UDP, Segment::Datagram, true)),
        ] {
            let mut cells = vec![name.to_owned(), A::NAME.to_owned()];
            for flows in FLOWS {
                self.establish::<A>(flows, proto, node, pod)?;
                let varies = if reply {
                    Varies::Destination
                } else {
                    Varies::Source
                };
                cells.push(self.net::<A>(&frame, varies, flows, REPEATS, XDP_TX)?);
            }
            table.row(cells);
        }
        let syn = frames::build(
            &A::numbered(1, 0).bytes(),
            &vip.bytes(),
            1024,
            80,
            Segment::SYN,
        );
        let mut cells = vec![
            "a new flow (SYN), every packet".to_owned(),
            A::NAME.to_owned(),
        ];
        cells.push(self.net::<A>(&syn, Varies::Source, 0, NEW_FLOWS, XDP_PASS)?);
        cells.extend(["-".to_owned(), "-".to_owned()]);
        table.row(cells);
        let other = frames::build(
            &A::numbered(1, 0).bytes(),
            &stranger.bytes(),
            1024,
            443,
            Segment::ACK,
        );
        let mut cells = vec!["not for a service".to_owned(), A::NAME.to_owned()];
        for flows in FLOWS {
            cells.push(self.net::<A>(&other, Varies::Source, flows, REPEATS, XDP_PASS)?);
        }
        table.row(cells);
        Ok(())
    }

    /// A ClusterIP with one local backend, and the gate's bits for it and for the NodePort.
    fn open<A: Family>(&mut self, node: A, vip: A, pod: A) -> Result<()>
    where
        Backend<A>: Pod,
    {
        for bit in [
            gate::service_addr(&vip),
            gate::node_port(TCP, Be16::new(30_000)),
            gate::node_port(UDP, Be16::new(30_000)),
            gate::backend_addr(&pod),
            gate::backend_port(Be16::new(8080)),
        ] {
            let gate = &mut self.datapath.maps_mut().gate;
            let word = gate.get(&bit.word, 0)?;
            gate.set(bit.word, word | bit.mask, 0)?;
        }
        let one = Extent {
            base: Slot(0),
            len: 1,
        };
        let service = Service {
            internal: one,
            external: one,
            short_circuit: one,
            ..Service::default()
        };
        let maps = self.datapath.maps_mut();
        maps.slots.set(0, BACKEND, 0)?;
        maps.services.insert(SERVICE, service, 0)?;
        let maps = A::maps(&mut self.datapath);
        let flags = BackendFlags::SERVING | BackendFlags::LOCAL | BackendFlags::IN_INTERNAL;
        let backend = Backend {
            addr: pod,
            port: Be16::new(8080),
            flags,
            generation: Generation::FIRST,
            service: SERVICE,
        };
        maps.backends.set(BACKEND.0, backend, 0)?;
        maps.local_addrs.insert(node, LocalAddr::NODE_PORTS, 0)?;
        let to = FrontendRef::new(SERVICE, FrontendKind::ClusterIp).0;
        A::put_frontend(maps, FrontendKey::new(vip, Be16::new(80), TCP), to)
    }

    /// Both directions of `flows` full-proxy flows, as the driver numbers them.
    fn establish<A: Family>(&mut self, flows: u32, proto: u8, node: A, pod: A) -> Result<()>
    where
        Backend<A>: Pod,
    {
        let now = self.datapath.run("clock", Run::new(&[0; LEN]))?.action;
        let maps = A::maps(&mut self.datapath);
        for n in 0..flows {
            let (low, port) = ((n >> 14) as u16, Be16::new((n & 0x3fff) as u16 + 1024));
            let client = Tuple {
                src: A::numbered(1, low),
                dst: node,
                sport: port,
                dport: Be16::new(30_000),
            };
            // The reply's destination is numbered, too: as many source addresses as there are client addresses.
            let behind = Tuple {
                src: A::numbered(100, low),
                dst: pod,
                sport: port,
                dport: Be16::new(8080),
            };
            let reply = Tuple {
                dst: A::numbered(100, low),
                ..behind.inverse()
            };
            for (key, to, state) in [
                (client, behind, 0),
                (reply, client.inverse(), flow_state::REPLY),
            ] {
                let mut flow = Flow {
                    to,
                    backend: BACKEND,
                    generation: Generation::FIRST,
                    service: SERVICE,
                    ifindex: DEVICE,
                    peer_ifindex: DEVICE,
                    epoch: Epoch(1),
                    macs: Macs::new([2, 0, 0, 0, 0, 3], NODE_MAC),
                    mtu: 1500,
                    route: Route::Forward as u8,
                    peer_route: Route::Forward as u8,
                    peer_dir: Dir::In as u8,
                    state: state | flow_state::ANSWERED,
                    last_seen: Jiffies(now),
                    ..Flow::default()
                };
                flow.note_changes(&key);
                A::put_flow(maps, FlowKey::new(key, proto, Dir::In), flow)?;
            }
        }
        Ok(())
    }

    /// ns per packet, net of the driver; the program must give `expected` each time it is looked at.
    fn net<A: Family>(
        &mut self,
        frame: &[u8; LEN],
        varies: Varies,
        flows: u32,
        repeats: u32,
        expected: u32,
    ) -> Result<String>
    where
        Backend<A>: Pod,
    {
        let places = frames::places(A::IS_V6, varies);
        let script = Script {
            flows,
            ..Script::new(frame, places)
        };
        let mut nets = Vec::new();
        for run in 0..RUNS {
            // New flows must stay new from run to run.
            let next = if flows == 0 { run as u32 * repeats } else { 0 };
            let script = Script { next, ..script };
            let empty = driver::program(&mut self.driver, "bench_empty")?
                .fd()?
                .try_clone()?;
            self.target.set(0, &empty, 0)?;
            let (driver, _) = self.run(&script, repeats)?;
            self.target
                .set(0, self.datapath.xdp_program("xdp_uplink")?, 0)?;
            let (whole, action) = self.run(&script, repeats)?;
            ensure!(
                action == expected,
                "the program gave {action} and not {expected}"
            );
            nets.push(whole - driver);
        }
        Ok(format!("{:.0}", median(&mut nets)))
    }

    /// ns per repeat, and the last action.
    fn run(&mut self, script: &Script, repeat: u32) -> Result<(f64, u32)> {
        self.script.set(0, script, 0)?;
        let driver = driver::program(&mut self.driver, "bench_driver")?;
        let options = TestRunOptions {
            data_in: Some(&script.template),
            repeat,
            ..TestRunOptions::default()
        };
        let result = driver.test_run(options).context("running the driver")?;
        Ok((result.duration.as_nanos() as f64, result.return_value))
    }
}
