//! What others take away of a datapath whose agent runs comes back within a second, for clients too.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use proxy_agent::datapath::PinDir;
use testbed::pass::XdpPass;
use testbed::patience::{eventually, eventually_within};
use testbed::pinned;
use testbed::runner::{Shared, no_agent, row};
use testbed::tamper::{self, Other};

use crate::site::{Site, Way, is_long};

/// A look at everything comes every second, and takes a while on a busy machine.
const BACK_WITHIN: Duration = Duration::from_millis(2500);
/// So often links are detached.
const TIMES: u32 = 8;
/// How long it may take at best to be seen and mended: less than from one look at everything to the next.
const MENDED_WITHIN: Duration = Duration::from_millis(700);

struct Row {
    name: &'static str,
    ways: &'static [Way],
    /// Clients do not notice.
    is_silent: bool,
    /// The counter that it moves.
    counts: &'static str,
    damage: fn(&Site) -> Result<()>,
}

const HOOKS: &str = "portside_restored_total{what=\"hook\"}";
const LINK_PINS: &str = "portside_restored_total{what=\"link-pin\"}";
const MAP_PINS: &str = "portside_restored_total{what=\"map-pin\"}";

static ROWS: [Row; 11] = [
    Row {
        name: "cleanup that is forced",
        ways: &Way::BOTH,
        is_silent: false,
        counts: HOOKS,
        damage: |site| {
            let said = testbed::cli::ask(site.node(), &["cleanup", "--force"])?;
            ensure!(said.contains("removed"), "{said}");
            Ok(())
        },
    },
    Row {
        name: "links that are detached",
        ways: &[Way::Links],
        is_silent: false,
        counts: HOOKS,
        damage: |site| {
            link_pins(site)?
                .iter()
                .try_for_each(|pin| tamper::detach(pin))
        },
    },
    Row {
        name: "qdiscs that are deleted",
        ways: &[Way::Filters],
        is_silent: false,
        counts: HOOKS,
        damage: |site| {
            // The kernel refuses (EBUSY) while the agent asks what filters it has.
            devices(site)?.iter().try_for_each(|device| {
                let delete = format!("qdisc del dev {device} clsact\n");
                eventually("the qdisc goes", || {
                    site.node().netns().batch("tc", &["-batch", "-"], &delete)
                })
            })
        },
    },
    Row {
        name: "a filter that is deleted",
        ways: &[Way::Filters],
        is_silent: false,
        counts: HOOKS,
        damage: |site| {
            let delete = "filter del dev eth0 ingress pref 50\n";
            site.node().netns().batch("tc", &["-batch", "-"], delete)
        },
    },
    Row {
        name: "a filter that is replaced",
        ways: &[Way::Filters],
        is_silent: false,
        counts: HOOKS,
        damage: |site| {
            let pin = site.node().bpffs.join("another");
            tamper::replace_filter(site.node().netns(), "eth0", &pin)
        },
    },
    Row {
        name: "pins of links that are removed",
        ways: &[Way::Links],
        is_silent: true,
        counts: LINK_PINS,
        damage: |site| Ok(link_pins(site)?.iter().try_for_each(fs::remove_file)?),
    },
    Row {
        name: "pins of maps that are removed",
        ways: &Way::BOTH,
        is_silent: true,
        counts: MAP_PINS,
        damage: |site| Ok(map_pins(site)?.iter().try_for_each(fs::remove_file)?),
    },
    Row {
        name: "maps in the place of pinned maps",
        ways: &[Way::Filters],
        is_silent: true,
        counts: MAP_PINS,
        damage: |site| {
            let pins = map_pins(site)?;
            pins.iter()
                .try_for_each(|pin| tamper::put_map(pin, Other::Shape))
        },
    },
    Row {
        name: "programs in the place of pinned maps",
        ways: &[Way::Filters],
        is_silent: true,
        counts: MAP_PINS,
        damage: |site| {
            map_pins(site)?.iter().try_for_each(|pin| {
                fs::remove_file(pin)?;
                tamper::put_program(pin)
            })
        },
    },
    Row {
        name: "a directory of pins that is removed",
        ways: &Way::BOTH,
        is_silent: true,
        counts: MAP_PINS,
        damage: |site| Ok(fs::remove_dir_all(pins(site).root())?),
    },
    Row {
        name: "a bpffs that is unmounted and mounted again",
        ways: &Way::BOTH,
        is_silent: true,
        counts: MAP_PINS,
        damage: |site| {
            let bpffs = &site.node().bpffs;
            umount2(bpffs, MntFlags::MNT_DETACH)?;
            site.await_said(&["is not pinned", "not on a bpf filesystem"])?;
            // Traffic goes on, and so does what probes are about.
            site.answers_probes([200, 200, 200])?;
            ensure!(
                site.metric("portside_unpinned")? == 1.0,
                "it is not counted"
            );
            mount(
                Some("bpffs"),
                bpffs,
                Some("bpf"),
                MsFlags::empty(),
                None::<&str>,
            )?;
            site.await_said(&["the datapath is pinned again"])?;
            // What was locked was the file system before this one.
            let refused = testbed::cli::ask(site.node(), &["cleanup"]);
            ensure!(refused.is_err(), "nothing keeps others away: {refused:?}");
            Ok(())
        },
    },
];

pub fn rows() -> Vec<Trial> {
    let mut trials = Vec::new();
    for way in Way::BOTH {
        let site = Shared::new(move || Ok(Mutex::new(Site::start(way)?)));
        for one in ROWS.iter().filter(|row| row.ways.contains(&way)) {
            trials.push(trial(one, way, &site));
        }
        if way == Way::Links {
            let mut more = |name: &str, test: fn(&Site) -> Result<()>| {
                let site = Arc::clone(&site);
                trials.push(row(name, no_agent(), move || {
                    let site = site.get()?.lock().unwrap_or_else(PoisonError::into_inner);
                    test(&site).map_err(|error| error.context(site.cluster.logs()))
                }));
            };
            more(
                "links: a link that is detached is missed before clients are",
                again_and_again,
            );
            more(
                "links: a hook whose place somebody else has is told by all probes until it is free",
                occupied,
            );
        }
    }
    trials
}

/// Each time just behind a look at everything, which a pin that comes back tells: from there to the next such look is a second, whatever
/// else the machine does.
fn again_and_again(site: &Site) -> Result<()> {
    let before = whole(site)?;
    let pin = map_pins(site)?.pop().context("no pins")?;
    let (away, tally) = site.under_traffic(|| {
        let mut away = Vec::new();
        for _ in 0..TIMES {
            fs::remove_file(&pin)?;
            eventually_within(BACK_WITHIN, "the pin is back", || {
                ensure!(pin.exists(), "it is not");
                Ok(())
            })?;
            let detached = Instant::now();
            for pin in link_pins(site)? {
                tamper::detach(&pin)?;
            }
            eventually_within(BACK_WITHIN, "the links are back", || {
                ensure!(whole(site)? == before, "they are not");
                Ok(())
            })?;
            away.push(detached.elapsed());
        }
        Ok(away)
    })?;
    let least = away.iter().min().context("they were detached")?;
    eprintln!("from the damage until all is back: {away:?}; {tally}");
    ensure!(
        *least < MENDED_WITHIN,
        "never back before a look at everything: {away:?}"
    );
    site.answers_probes([200, 200, 200])
}

/// Nobody can have the place back, so the truth is all that there is to serve; TC does the work meanwhile.
fn occupied(site: &Site) -> Result<()> {
    const LACKING: &str = "portside_lacking_hooks";
    let before = whole(site)?;
    let pins = link_pins(site)?;
    let is_xdp = |pin: &&PathBuf| pin.to_string_lossy().contains("/xdp_uplink-");
    let pin = pins.iter().find(is_xdp).context("no XDP at the uplink")?;
    let pid = site.cluster.agents()[0].pid();
    let ((), tally) = site.under_traffic(|| {
        // Between the two the agent would have it back.
        kill(pid, Signal::SIGSTOP)?;
        let taken = tamper::detach(pin).and_then(|()| XdpPass::attach(site.node().netns(), "eth0"));
        kill(pid, Signal::SIGCONT)?;
        let taken = taken?;
        eventually_within(BACK_WITHIN, "all probes tell", || {
            site.answers_probes([503, 503, 200])
        })?;
        let (_, why) = site.probe("/readyz")?;
        ensure!(why.contains("eth0 lacks xdp_uplink"), "{why}");
        ensure!(site.metric(LACKING)? == 1.0, "it is not counted");
        site.await_said(&["ERROR", "eth0 lacks xdp_uplink", "trying again"])?;
        let status = testbed::cli::run(site.node(), &["status"])?;
        ensure!(
            status.code == Some(2) && status.out.contains("xdp_uplink"),
            "{status:?}"
        );
        drop(taken);
        eventually_within(BACK_WITHIN, "everything is back", || {
            let now = whole(site)?;
            ensure!(now == before, "{now:?} is not {before:?}");
            ensure!(site.metric(LACKING)? == 0.0, "it is counted still");
            site.answers_probes([200, 200, 200])
        })
    })?;
    tally.nothing_is_lost()?;
    site.await_said(&["xdp_uplink at eth0", "it is restored"])
}

fn trial(one: &'static Row, way: Way, site: &Arc<Shared<Mutex<Site>>>) -> Trial {
    let site = Arc::clone(site);
    let what = match one.is_silent {
        true => "cost nobody anything and come back",
        false => "come back within a second",
    };
    let name = format!("{way}: {} {what}", one.name);
    row(name, no_agent(), move || {
        // One at a time; a row that failed leaves it to the next to say whether the site still works.
        let site = site.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        run(&site, one).map_err(|error| error.context(site.cluster.logs()))
    })
}

fn run(site: &Site, one: &Row) -> Result<()> {
    let before = whole(site)?;
    let counted = site.metric(one.counts)?;
    let (back, tally) = site.under_traffic(|| {
        let damaged = Instant::now();
        (one.damage)(site).context("the damage")?;
        eventually_within(BACK_WITHIN, "everything is back", || {
            let now = whole(site)?;
            ensure!(now == before, "{now:?} is not {before:?}");
            let now = site.metric(one.counts)?;
            ensure!(now > counted, "{} is {now}", one.counts);
            site.answers_probes([200, 200, 200])
        })?;
        Ok(damaged.elapsed())
    })?;
    eprintln!("{}: back after {back:?}", one.name);
    if one.is_silent {
        tally.nothing_is_lost()?;
    }
    // Whoever asks when all is back is answered.
    ensure!(
        tally.gap() < back,
        "{tally}, and all was back after {back:?}"
    );
    let ((), after) = site.under_traffic(|| {
        site.is_served()?;
        std::thread::sleep(Duration::from_millis(if is_long() { 2000 } else { 300 }));
        Ok(())
    })?;
    after.nothing_is_lost().context("when everything is back")?;
    let sort = one.counts.split('"').nth(1).context("a label")?;
    let status = testbed::cli::ask(site.node(), &["status"])?;
    let pid = site.cluster.agents()[0].pid().to_string();
    for word in [sort, "runs", &pid] {
        ensure!(status.contains(word), "no {word} in {status}");
    }
    let said = match one.counts {
        HOOKS => "was lost",
        _ => "was removed",
    };
    site.await_said(&[said, "it is restored"])
}

/// What is pinned, and what is attached where.
fn whole(site: &Site) -> Result<Vec<String>> {
    let node = site.node();
    let mut all: Vec<_> = pinned::maps(node)?
        .into_iter()
        .map(|(name, (id, _))| format!("map {name} {id}"))
        .collect();
    for name in pinned::links(node)?.into_keys() {
        let ifindex = tamper::device_of(&pins(site).links().join(&name))?;
        all.push(format!("link {name} at {ifindex}"));
    }
    all.extend(pinned::filters(node, &devices(site)?)?);
    Ok(all)
}

fn pins(site: &Site) -> PinDir {
    PinDir::new(&site.node().bpffs)
}

fn link_pins(site: &Site) -> Result<Vec<PathBuf>> {
    pins(site).pinned_links()
}

fn map_pins(site: &Site) -> Result<Vec<PathBuf>> {
    let names = pinned::maps(site.node())?.into_keys();
    Ok(names.map(|name| pins(site).map(&name)).collect())
}

/// The devices of the node with filters.
fn devices(site: &Site) -> Result<Vec<String>> {
    pinned::devices_with_clsact(site.node())
}
