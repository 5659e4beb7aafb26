//! A node with more addresses than anybody has planned for.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::answer::Answer;
use testbed::ask::dial;
use testbed::patience::{eventually, eventually_within};
use testbed::pinned;
use testbed::sockets::Protocol;

use crate::site::{Site, Way, lone_row};

/// Beyond the room that an agent begins with.
const ADDRESSES: u32 = 5000;

pub fn rows() -> Vec<Trial> {
    Way::BOTH
        .into_iter()
        .map(|way| {
            let name = format!("{way}: a node gets {ADDRESSES} addresses, and all of them serve");
            lone_row(name, way, addresses)
        })
        .collect()
}

/// As ipvs puts each service's address on a device of the node.
fn addresses(site: &Site) -> Result<()> {
    site.start_agent()?;
    site.is_served()?;
    let ((), tally) = site.under_traffic(|| {
        let mut lines = String::new();
        for number in 0..ADDRESSES {
            writeln!(lines, "addr add {}/32 dev lo", address(number))?;
        }
        site.node().netns().ip(&lines)?;
        all_serve(site)
    })?;
    tally.nothing_is_lost().context("while tables grow")?;
    eventually("the table has grown", || {
        let (_, room) = pinned::maps(site.node())?["LOCAL_ADDRS_4"];
        ensure!(room >= ADDRESSES, "room for {room}");
        Ok(())
    })?;
    site.answers_probes([200, 200, 200])?;
    let ((), tally) = site.under_traffic(|| {
        site.cluster.kill_agents();
        site.start_agent()?;
        all_serve(site)
    })?;
    tally.nothing_is_lost().context("over a restart")?;
    site.follows()
}

fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0ac8_0001 + number))
}

fn all_serve(site: &Site) -> Result<()> {
    for number in [0, ADDRESSES / 2, ADDRESSES - 1] {
        let target = SocketAddr::new(address(number), site.vip.node_port);
        eventually_within(Duration::from_secs(30), &format!("{target} serves"), || {
            let answer: Answer = dial(&site.node().host, Protocol::Tcp, target).ask();
            ensure!(answer.who().is_some(), "{answer}");
            Ok(())
        })?;
    }
    Ok(())
}
