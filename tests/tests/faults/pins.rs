//! Pins that are damaged while no agent runs: the next one has a working datapath, whatever it finds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::PinDir;
use proxy_common::abi::VERSION;
use testbed::address::Family;
use testbed::ask::{await_answer, dial, open, who};
use testbed::pinned::{self, directory_of_version};
use testbed::sockets::Protocol;
use testbed::tamper::{self, Other};

use crate::site::{Site, Way, is_long, lone_row};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Damage {
    Gone,
    Other(Other),
    Program,
    Directory,
}

impl Damage {
    const ALL: [Self; 6] = [
        Self::Gone,
        Self::Other(Other::Shape),
        Self::Other(Other::Type),
        Self::Program,
        Self::Other(Other::Size),
        Self::Directory,
    ];

    fn to(self, pin: &Path) -> Result<()> {
        match self {
            Self::Gone => fs::remove_file(pin)?,
            Self::Other(other) => tamper::put_map(pin, other)?,
            Self::Program => {
                fs::remove_file(pin)?;
                tamper::put_program(pin)?;
            }
            Self::Directory => {
                fs::remove_file(pin)?;
                fs::create_dir(pin)?;
            }
        }
        Ok(())
    }
}

pub fn rows() -> Vec<Trial> {
    let mut rows = vec![
        lone_row(
            "a gate that an agent finds is gone lets everything through that is served",
            Way::Filters,
            |site| maps(site, |name| name == "GATE", &Damage::ALL),
        ),
        lone_row(
            "pinned links that are damaged are made again by the next agent",
            Way::Links,
            links,
        ),
        lone_row(
            "the next version of the layout serves what it takes over though its gate is new",
            Way::Filters,
            older_version,
        ),
        lone_row(
            "connections whose service is gone outlive a gate that is new",
            Way::Filters,
            outlived,
        ),
    ];
    if is_long() {
        rows.extend(Damage::ALL.map(|damage| {
            let name = format!("the next agent serves whichever pinned map is damaged: {damage:?}");
            lone_row(name, Way::Links, move |site| {
                maps(site, |_| true, &[damage])
            })
        }));
    } else {
        // Each map in one way.
        rows.push(lone_row(
            "the next agent serves whichever pinned map is damaged",
            Way::Filters,
            each_in_one_way,
        ));
    }
    rows
}

fn each_in_one_way(site: &Site) -> Result<()> {
    site.start_agent()?;
    let names = pinned::maps(site.node())?.into_keys();
    for (name, damage) in names.zip(Damage::ALL.into_iter().cycle()) {
        damaged(site, &name, damage)?;
    }
    Ok(())
}

fn maps(site: &Site, is_meant: impl Fn(&str) -> bool, damages: &[Damage]) -> Result<()> {
    site.start_agent()?;
    for name in pinned::maps(site.node())?.into_keys() {
        for damage in damages.iter().filter(|_| is_meant(&name)) {
            damaged(site, &name, *damage)?;
        }
    }
    Ok(())
}

fn damaged(site: &Site, name: &str, damage: Damage) -> Result<()> {
    let pins = PinDir::new(&site.node().bpffs);
    let what = || format!("{name}: {damage:?}");
    let began = Instant::now();
    let before = room(site)?;
    site.cluster.kill_agents();
    damage.to(&pins.map(name)).with_context(what)?;
    site.start_agent().with_context(what)?;
    site.is_served().with_context(what)?;
    is_whole(site).with_context(what)?;
    let now = room(site)?;
    ensure!(
        now == before,
        "{}: room for {now:?}, not {before:?}",
        what()
    );
    eprintln!("{}: serves after {:?}", what(), began.elapsed());
    Ok(())
}

/// How much there is room for in each table.
fn room(site: &Site) -> Result<BTreeMap<String, u32>> {
    let maps = pinned::maps(site.node())?.into_iter();
    Ok(maps.map(|(name, (_, room))| (name, room)).collect())
}

/// There is one directory of pins, and every map of it is one.
fn is_whole(site: &Site) -> Result<()> {
    let found = pinned::directories(site.node())?;
    ensure!(found == [format!("portside-v{VERSION}")], "{found:?}");
    site.answers_probes([200, 200, 200])
}

fn links(site: &Site) -> Result<()> {
    site.start_agent()?;
    let pins = PinDir::new(&site.node().bpffs);
    type Does = fn(&Path) -> Result<()>;
    let damages: [(&str, Does); 4] = [
        ("gone", |pin| Ok(fs::remove_file(pin)?)),
        ("detached", tamper::detach),
        ("a program", |pin| Damage::Program.to(pin)),
        ("a directory", |pin| Damage::Directory.to(pin)),
    ];
    for (name, damage) in damages {
        site.cluster.kill_agents();
        for pin in pins.pinned_links()? {
            damage(&pin).with_context(|| format!("{}: {name}", pin.display()))?;
        }
        site.start_agent().context(name)?;
        site.is_served().context(name)?;
        is_whole(site).context(name)?;
        for pin in pins.pinned_links()? {
            let at = tamper::device_of(&pin)?;
            ensure!(at != 0, "{name}: {} is at no device", pin.display());
        }
    }
    // What stands in the place of the whole directory of links.
    site.cluster.kill_agents();
    fs::remove_dir_all(pins.links())?;
    tamper::put_program(&pins.links())?;
    site.start_agent()?;
    site.is_served()
}

/// As an upgrade finds it whose layout of the gate is another: everything else goes on. Nobody has asked yet: what flows go through is let
/// through for their sake.
fn older_version(site: &Site) -> Result<()> {
    site.start_agent()?;
    site.cluster.kill_agents();
    let older = directory_of_version(site.node(), VERSION - 1);
    fs::rename(PinDir::new(&site.node().bpffs).root(), &older)?;
    Damage::Other(Other::Shape).to(&older.join("GATE"))?;
    site.start_agent()?;
    site.await_said(&["not taken over", "GATE"])?;
    site.is_served()?;
    is_whole(site)
}

/// The plan opens the gate for what it has. A flow outlives that.
fn outlived(site: &Site) -> Result<()> {
    site.start_agent()?;
    site.is_served()?;
    let clients = site.clients().into_iter();
    let over_tcp = clients.filter(|(_, protocol, _)| *protocol == Protocol::Tcp);
    let connect = |(client, protocol, target)| open(dial(client, protocol, target));
    let mut connections: Vec<_> = over_tcp.map(connect).collect::<Result<_>>()?;
    site.cluster.manifests.delete(&site.vip.name)?;
    let target = site.vip.on_node(site.node(), Family::V4);
    await_answer(
        site.cluster.topology.client(),
        Protocol::Tcp,
        target,
        |answer| answer.who().is_none(),
    )?;
    site.cluster.kill_agents();
    Damage::Other(Other::Shape).to(&PinDir::new(&site.node().bpffs).map("GATE"))?;
    site.start_agent()?;
    for connection in &mut connections {
        who(connection.ask()).context("a connection from before")?;
    }
    is_whole(site)
}
