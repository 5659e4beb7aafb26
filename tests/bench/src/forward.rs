//! Packets through a node, from one sending core: as frames, the way a NIC's driver brings them, and dropped where they
//! come out again.
//!
//! ```text
//!  router's end of the wire ── frames of a live test run ──► eth0 of node1: XDP, TC, nftables or plain routing
//!            sink (XDP) ◄───────────────────────────────────┘ towards the remote pod
//! ```
//!
//! The sender, the node and the sink share one CPU. The first row is what the sender and the sink cost by themselves.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::xdp::XdpMode;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions};
use nix::net::if_::if_nametoindex;

use super::cpu::Pinned;
use super::driver::{self, Script};
use super::frames::{self, Segment, Varies};
use super::rate::{Rate, in_turn};
use super::table::Table;
use super::ways::{Backend, Way};
use testbed::agent::Uplink;
use testbed::netns::Netns;
use testbed::topology::Node;

const FLOWS: [(u32, &str); 2] = [(1, "1 flow"), (1024, "1,024 flows")];
/// Frames that a test run hands over at once, as a driver's poll does (`NAPI_POLL_WEIGHT`).
const BATCH: u32 = 64;
/// Packets of one call.
const BURST: u32 = BATCH * 256;
/// A UDP flow without replies is confirmed by what comes more than a second after its first packet.
const WARM_UP: Duration = Duration::from_millis(2500);

/// Measures every way at every number of flows. The sinks take the places at the far ends of the uplinks for good.
pub fn measure(ways: &mut [Way]) -> Result<Table> {
    for way in ways.iter_mut() {
        let node = &mut way.cluster.topology.nodes[0].host;
        node.free_far_end();
        if way.uplink == Uplink::Tc {
            node.poll_uplink()?;
        }
    }
    let mut lanes = vec![Lane::alone(&ways[0])?];
    for way in ways.iter() {
        lanes.push(Lane::through(way)?);
    }
    let mut table = Table::new(
        "UDP packets to a NodePort with a remote backend, 80-byte frames, one sending core, IPv4",
        &[
            "case",
            "way",
            "per CPU second",
            "CPU ns each",
            "CPU ns of the node",
        ],
    );
    let cpu = Pinned::pin()?;
    for (flows, name) in FLOWS {
        fill(&mut table, &cpu, name, flows, &mut lanes)?;
    }
    Ok(table)
}

fn fill(
    table: &mut Table,
    cpu: &Pinned,
    case: &str,
    flows: u32,
    lanes: &mut [Lane<'_>],
) -> Result<()> {
    for lane in lanes.iter_mut() {
        lane.send(flows, Instant::now() + WARM_UP)?;
    }
    let rates = in_turn(lanes.len(), |number| {
        let lane = &mut lanes[number];
        Rate::of(cpu, |until| lane.send(flows, until))
            .with_context(|| format!("{}: {case}", lane.name))
    })?;
    let each = |rate: &Rate| rate.cpu * 1e3;
    for (lane, rate) in lanes.iter().zip(&rates) {
        table.row(vec![
            case.to_owned(),
            lane.name.to_owned(),
            format!("{:.0}", 1e6 / rate.cpu),
            format!("{:.0}", each(rate)),
            format!("{:.0}", each(rate) - each(&rates[0])),
        ]);
    }
    Ok(())
}

/// A sender and a sink, with something between them.
struct Lane<'a> {
    name: &'a str,
    router: &'a Netns,
    driver: Ebpf,
    script: Array<MapData, Script>,
    sunk: PerCpuArray<MapData, u64>,
    frames: Script,
}

impl<'a> Lane<'a> {
    /// With nothing between them: the sink is where the second node receives.
    fn alone(way: &'a Way) -> Result<Self> {
        let node = way.cluster.node(2);
        Self::build(way, "sender and sink alone", node, node.netns(), "eth0")
    }

    /// With the first node between them, which sends back by the device that it receives by.
    fn through(way: &'a Way) -> Result<Self> {
        let node = way.cluster.node(1);
        let router = &way.cluster.topology.router.netns;
        Self::build(way, way.name, node, router, node.name())
    }

    fn build(
        way: &'a Way,
        name: &'a str,
        to: &Node,
        sink_in: &Netns,
        sink_at: &str,
    ) -> Result<Self> {
        let router = &way.cluster.topology.router.netns;
        let mut driver = driver::load(&["bench_generator", "bench_sink"])?;
        let (script, sunk) = (
            Array::try_from(driver::take_map(&mut driver, "SCRIPT")?)?,
            PerCpuArray::try_from(driver::take_map(&mut driver, "SUNK")?)?,
        );
        let sink = driver::program(&mut driver, "bench_sink")?;
        sink_in.run(|| sink.attach(sink_at, XdpMode::Driver))?;
        let IpAddr::V4(target) = way.target(Backend::Remote).ip() else {
            bail!("the target is not an IPv4 address");
        };
        let mut template = frames::build(
            &[10, 1, 0, 0],
            &target.octets(),
            1024,
            way.target(Backend::Remote).port(),
            Segment::Datagram,
        );
        template[..6].copy_from_slice(&to.host.mac.0);
        template[6..12].copy_from_slice(&to.host.gateway_mac.0);
        let places = frames::places(false, Varies::Source);
        let device = router.run(|| if_nametoindex(to.name()))?;
        Ok(Self {
            name,
            router,
            driver,
            script,
            sunk,
            frames: Script {
                device,
                ..Script::new(&template, places)
            },
        })
    }

    /// Sends until then; gives how many came out.
    fn send(&mut self, flows: u32, until: Instant) -> Result<u64> {
        let before = self.count()?;
        let frames = Script {
            flows,
            ..self.frames
        };
        self.script.set(0, frames, 0)?;
        let generator = driver::program(&mut self.driver, "bench_generator")?;
        let (router, template) = (self.router, &self.frames.template);
        router
            .run(move || {
                while Instant::now() < until {
                    let mut options = TestRunOptions::new();
                    options.data_in = Some(template);
                    options.repeat = BURST;
                    options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
                    generator.test_run(options)?;
                }
                anyhow::Ok(())
            })
            .context("sending frames by a live test run (kernel 5.18)")?;
        Ok(self.count()? - before)
    }

    fn count(&self) -> Result<u64> {
        Ok(self.sunk.get(&0, 0)?.iter().sum())
    }
}
