//! Packets at random through the loaded programs: the ends of many connections do what they may, others forge their packets, and each
//! outcome is held against a naive model of connections.
//!
//! `PORTSIDE_FUZZ_PACKETS` sets how many packets all rows together run, `PORTSIDE_FUZZ_SEED` repeats a run that failed. What would be a
//! fault of the programs is planted on the forgers' side: they know the numbers, or the devices ask for no source; both must be found.

mod ends;
mod forger;
mod model;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Error, Result, anyhow, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::{Ran, Sizes};
use proxy_common::abi::{Flow, FlowKey, Sources, flow_state};
use proxy_common::addr::{Ip4, Ip6};
use proxy_common::edge::hook::Hook;
use testbed::address::{self, Family};
use testbed::patience::is_slow;
use testbed::random::Random;
use testbed::runner::{self, Shared};
use testbed::sockets::Protocol;

use crate::frame::Frame;
use crate::node::{Device, Node};
use crate::world::{Verdict, World};
use model::{Connection, Phase, Step};

const PACKETS_VARIABLE: &str = "PORTSIDE_FUZZ_PACKETS";
const SEED_VARIABLE: &str = "PORTSIDE_FUZZ_SEED";
/// Of all rows together; a twentieth where programs run slowly.
const PACKETS: u64 = 200_000;
/// After so many the tables are cleared, and looked at before that.
const ROUND: u64 = 2_500;
/// More than the connections of a round need: nothing is ever pushed out.
fn sizes() -> Sizes {
    Sizes {
        connections: 16_384,
        backends: 64,
        services: 64,
        ..Sizes::default()
    }
}

/// What makes a forger succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// He knows the numbers of both ends.
    Numbers,
    /// Devices take any source.
    AnySource,
}

pub fn rows(missing: Option<&'static str>) -> Vec<Trial> {
    let node = Shared::new(|| Node::with(sizes()).map(Mutex::new));
    let mut rows = Vec::new();
    let ways = [Hook::XDP_UPLINK, Hook::TC_UPLINK_IN];
    let count = (ways.len() * Family::BOTH.len() * Protocol::BOTH.len()) as u64;
    for ingress in ways {
        for family in Family::BOTH {
            for protocol in Protocol::BOTH {
                let node = Arc::clone(&node);
                let row = name(
                    "random_packets_change_what_they_may",
                    ingress,
                    family,
                    protocol,
                );
                rows.push(runner::row(row, missing, move || {
                    let packets = packets()? / count;
                    fuzz(&node, ingress, family, protocol, packets, None)
                }));
            }
            for plant in [Plant::Numbers, Plant::AnySource] {
                let node = Arc::clone(&node);
                let what = match plant {
                    Plant::Numbers => "a_forger_who_knows_the_numbers_is_found",
                    Plant::AnySource => "a_device_that_takes_any_source_is_found",
                };
                let row = name(what, ingress, family, Protocol::Tcp);
                rows.push(runner::row(row, missing, move || {
                    let packets = PACKETS / count;
                    let found = fuzz(&node, ingress, family, Protocol::Tcp, packets, Some(plant));
                    match found {
                        Err(error) if error.downcast_ref::<runner::CannotRun>().is_some() => {
                            Err(error)
                        }
                        Err(_) => Ok(()),
                        Ok(()) => Err(anyhow!("{plant:?} made no difference in {packets} packets")),
                    }
                }));
            }
        }
    }
    rows
}

fn name(what: &str, ingress: Hook, family: Family, protocol: Protocol) -> String {
    let by = if ingress.is_xdp() { "xdp" } else { "tc" };
    format!("{what}_by_{by}/{family}/{protocol}")
}

fn packets() -> Result<u64> {
    match std::env::var(PACKETS_VARIABLE) {
        Ok(number) => number.parse().context(PACKETS_VARIABLE),
        Err(_) if is_slow() => Ok(PACKETS / 20),
        Err(_) => Ok(PACKETS),
    }
}

fn seed() -> Result<u64> {
    match std::env::var(SEED_VARIABLE) {
        Ok(seed) => seed.parse().context(SEED_VARIABLE),
        Err(_) => Ok(std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64),
    }
}

fn fuzz(
    node: &Shared<Mutex<Node>>,
    ingress: Hook,
    family: Family,
    protocol: Protocol,
    packets: u64,
    plant: Option<Plant>,
) -> Result<()> {
    let mut node = node.get()?.lock().unwrap_or_else(PoisonError::into_inner);
    let sources = match plant {
        Some(Plant::AnySource) => Sources::All,
        _ => Sources::Strict,
    };
    node.take_sources(sources)?;
    let seed = seed()?;
    let mut random = Random::new(seed);
    let mut left = packets;
    while left > 0 {
        node.clear()?;
        let round = left.min(ROUND);
        let mut world = World::new(&mut node, family, protocol);
        world.serve(&[world.at.pod_a, world.at.remote])?;
        world.keep_flows_young()?;
        let run = || {
            let outside = [11, 12, 13].map(|number| address::client(number - 10).of(family));
            let mut fuzz = Fuzz {
                world: &world,
                ingress,
                plant,
                outside,
                live: Vec::new(),
                strangers: 0,
                packets: 0,
                random,
            };
            let result = fuzz.round(round);
            (result, fuzz.random)
        };
        let (result, rest) = world.node.netns.run(run);
        result.with_context(|| format!("{SEED_VARIABLE}={seed}"))?;
        random = rest;
        left -= round;
    }
    Ok(())
}

/// One round.
pub struct Fuzz<'a, 'n> {
    world: &'a World<'n>,
    ingress: Hook,
    plant: Option<Plant>,
    /// Clients.
    outside: [IpAddr; 3],
    live: Vec<Connection>,
    strangers: usize,
    packets: u64,
    random: Random,
}

impl Fuzz<'_, '_> {
    fn round(&mut self, packets: u64) -> Result<()> {
        while self.packets < packets {
            // Some steps have nothing to do.
            self.packets += 1;
            if self.random.one_in(3) {
                self.forge()?;
            } else {
                self.honest()?;
            }
        }
        self.look()
    }

    fn run(&mut self, step: &Step) -> Result<Ran> {
        self.world
            .node
            .run_only(&step.hook, step.device, &step.frame.bytes())
    }

    fn check(&self, step: &Step, ran: &Ran) -> Result<()> {
        let is_right =
            ran.action == step.verdict.action(&step.hook) && ran.packet == step.expected.bytes();
        if is_right {
            return Ok(());
        }
        Err(self.difference(step, ran, "became another packet than expected"))
    }

    fn difference(&self, step: &Step, ran: &Ran, what: &str) -> Error {
        anyhow!(
            "packet {} at {}, {:?}: {what}\n  sent     {:?}\n  action   {} ({:?} expected)\n  out      {:02x?}\n  expected {:02x?}",
            self.packets,
            step.hook.name,
            step.device,
            step.frame,
            ran.action as i32,
            step.verdict,
            ran.packet,
            step.expected.bytes()
        )
    }

    /// A packet that is dropped, or left to the stack as it is.
    fn refused(&mut self, frame: &Frame, hook: Hook, device: Device) -> Result<()> {
        let sent = frame.bytes();
        let ran = self.world.node.run_only(&hook, device, &sent)?;
        let is_dropped = ran.action == Verdict::Drop.action(&hook);
        let is_left = ran.action == Verdict::Pass.action(&hook) && ran.packet == sent;
        ensure!(
            is_dropped || is_left,
            "packet {} at {}, {device:?}: {frame:?} was taken: {:02x?}",
            self.packets,
            hook.name,
            ran.packet
        );
        Ok(())
    }

    /// The tables of confirmed flows hold those whose client and backend have shown to know each other, and no other; and of them
    /// nobody has ended what its ends have not.
    fn look(&self) -> Result<()> {
        let maps = self.world.node.datapath.maps();
        let found: Vec<(SocketAddr, SocketAddr, u8)> = match self.world.family {
            Family::V4 => {
                let mut entries = maps.v4.flows.entries()?;
                entries.extend(maps.v4.datagrams.entries()?);
                entries
                    .iter()
                    .filter_map(|(key, flow)| request4(key, flow))
                    .collect()
            }
            Family::V6 => {
                let mut entries = maps.v6.flows.entries()?;
                entries.extend(maps.v6.datagrams.entries()?);
                entries
                    .iter()
                    .filter_map(|(key, flow)| request6(key, flow))
                    .collect()
            }
        };
        for connection in &self.live {
            let Connection {
                client, frontend, ..
            } = *connection;
            let entry = found
                .iter()
                .find(|(c, f, _)| (*c, *f) == (client, frontend));
            match (entry, connection.phase) {
                (Some((.., state)), Phase::Confirmed) => {
                    let fins = [flow_state::CLIENT_DONE, flow_state::BACKEND_DONE]
                        .map(|bit| state & bit != 0);
                    let is_reset = state & flow_state::RESET != 0;
                    ensure!(
                        fins == connection.fins && is_reset == connection.reset,
                        "{connection:?} is in state {state:#b}"
                    );
                }
                // One that is over makes way for whoever comes straight to its backend.
                (None, Phase::Confirmed) if connection.is_over() => {}
                (None, Phase::Confirmed) => return Err(anyhow!("{connection:?} is not confirmed")),
                (Some(_), _) => return Err(anyhow!("{connection:?} is confirmed")),
                (None, _) => {}
            }
        }
        let others = found.iter().find(|(c, f, _)| {
            !self
                .live
                .iter()
                .any(|one| (one.client, one.frontend) == (*c, *f))
        });
        ensure!(others.is_none(), "{others:?} is confirmed, and nobody's");
        Ok(())
    }
}

fn request4(key: &FlowKey<Ip4>, flow: &Flow<Ip4>) -> Option<(SocketAddr, SocketAddr, u8)> {
    let ip = |ip: Ip4| IpAddr::V4(ip.into());
    let tuple = key.tuple;
    (!flow.is_reply()).then(|| {
        (
            SocketAddr::new(ip(tuple.src), tuple.sport.get()),
            SocketAddr::new(ip(tuple.dst), tuple.dport.get()),
            flow.state,
        )
    })
}

fn request6(key: &FlowKey<Ip6>, flow: &Flow<Ip6>) -> Option<(SocketAddr, SocketAddr, u8)> {
    let ip = |ip: Ip6| IpAddr::V6(ip.into());
    let tuple = key.tuple;
    (!flow.is_reply()).then(|| {
        (
            SocketAddr::new(ip(tuple.src), tuple.sport.get()),
            SocketAddr::new(ip(tuple.dst), tuple.dport.get()),
            flow.state,
        )
    })
}
