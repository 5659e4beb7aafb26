//! A node with more addresses and devices than anybody has planned for.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::loaded_programs;
use libtest_mimic::Trial;
use nix::net::if_::if_nametoindex;
use proxy_agent::datapath::{By, Datapath, Facts, Findings, Options, PinDir, Sizes, Target};
use proxy_common::abi::{Device, IfIndex};
use proxy_common::edge::hook::Hook;
use testbed::answer::Answer;
use testbed::ask::dial;
use testbed::patience::{eventually, eventually_within};
use testbed::pinned;
use testbed::sockets::Protocol;
use vm_protocol::variable;

use crate::site::{Site, Way, lone_row};

/// Beyond the room that an agent begins with.
const ADDRESSES: u32 = 5000;

pub fn rows() -> Vec<Trial> {
    let mut rows: Vec<_> = Way::BOTH
        .into_iter()
        .map(|way| {
            let name = format!("{way}: a node gets {ADDRESSES} addresses, and all of them serve");
            lone_row(name, way, addresses)
        })
        .collect();
    rows.push(lone_row(
        "a node gets more devices than there is room for, and all are known",
        Way::Links,
        devices,
    ));
    rows
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

/// A table that is made for few devices, in this process: to take away a namespace with as many devices as an agent's first table has room
/// for, the kernel keeps all others from their devices for more than a minute.
fn devices(site: &Site) -> Result<()> {
    let path = std::env::var_os(variable::OBJECT).context(variable::OBJECT)?;
    let object = fs::read(&path).with_context(|| format!("reading {path:?}"))?;
    let options = Options {
        pin: Some(site.node().bpffs.clone()),
        sizes: Sizes {
            devices: 4,
            ..Sizes::first(1024, &Sizes::LEAST)
        },
        ..Options::default()
    };
    let device = |index| (IfIndex(index), Device::default());
    let facts = |count| Facts {
        devices: (1..=count).map(device).collect(),
        ..Facts::default()
    };
    site.node().netns().run(|| {
        let mut datapath = Datapath::load(&object, &options)?;
        datapath.follow_node(&object, &facts(4))?;
        let index = IfIndex(if_nametoindex("eth0")?);
        datapath.attach(
            &Hook::TC_UPLINK_IN,
            &Target::ethernet(index, "eth0".to_owned()),
        )?;
        let (before, room) = pinned::maps(site.node())?["DEVICES"];
        ensure!(room == 4, "room for {room}");
        datapath.follow_node(&object, &facts(20))?;
        let (now, room) = pinned::maps(site.node())?["DEVICES"];
        ensure!(room >= 20 && now != before, "room for {room}");
        let known = PinDir::new(&site.node().bpffs).open_maps()?.devices;
        let known = known.keys().count();
        ensure!(known == 20, "{known} devices are known");
        // What is attached looks at what is pinned.
        let [wanted] = &datapath.wanted()[..] else {
            bail!("one program is attached");
        };
        let (By::Link(program) | By::Filter(program)) = wanted.by else {
            bail!("{wanted:?}");
        };
        let uses = maps_of(program)?;
        ensure!(uses.contains(&now), "{wanted:?} uses {uses:?}, not {now}");
        ensure!(!uses.contains(&before), "{wanted:?} uses the old table");
        let findings = datapath.look_after();
        ensure!(findings == Findings::default(), "{findings:?}");
        Ok(())
    })
}

/// The ids of the maps that a program uses.
fn maps_of(program: u32) -> Result<Vec<u32>> {
    let mut programs = loaded_programs().filter_map(|info| info.ok());
    let info = programs.find(|info| info.id() == program);
    let ids = info.context("no such program")?.map_ids()?;
    ids.context("the kernel does not tell")
}

fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0ac8_0001 + number))
}

fn all_serve(site: &Site) -> Result<()> {
    let numbers = [0, ADDRESSES / 2, ADDRESSES - 1].into_iter();
    numbers.map(address).try_for_each(|addr| serves(site, addr))
}

fn serves(site: &Site, addr: IpAddr) -> Result<()> {
    let target = SocketAddr::new(addr, site.vip.node_port);
    eventually_within(Duration::from_secs(30), &format!("{target} serves"), || {
        let answer: Answer = dial(&site.node().host, Protocol::Tcp, target).ask();
        ensure!(answer.who().is_some(), "{answer}");
        Ok(())
    })
}
