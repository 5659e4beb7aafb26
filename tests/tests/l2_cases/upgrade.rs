//! An agent takes over from one of another version, or of other sizes, while requests go on.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, MapError};
use libtest_mimic::Trial;
use proxy_agent::datapath::{PinDir, Sizes};
use proxy_agent::plan::Room;
use proxy_common::abi::{FlowKey, ServiceId, UDP, VERSION};
use proxy_common::addr::{Be16, Ip4};
use testbed::address::Family;
use testbed::agent::{Agent, Launch, Tables, Uplink};
use testbed::answer::Answer;
use testbed::cluster::{Cluster, Vip};
use testbed::meanwhile::Meanwhile;
use testbed::older;
use testbed::one_cpu::OneCpu;
use testbed::patience::{eventually, is_slow, pause};
use testbed::pinned::{self, Ids, directory_of_version};
use testbed::runner::CannotRun;
use testbed::sockets::Protocol;
use testbed::sockets::client::Conversation;
use testbed::topology::{Host, Node, Plan};

use crate::world::{World, await_answer, dial, open};

/// From one request of a client to its next.
const PAUSE: Duration = Duration::from_millis(10);

/// When an agent is killed, as parts of the time that a whole start takes: while it makes maps, while it loads programs, and about when
/// it attaches them.
const KILLED_AT: [f64; 5] = [0.95, 0.3, 0.7, 0.85, 1.0];

/// In jiffies: longer than a UDP flow lives, whatever the kernel's HZ is.
const LONG_AGO: u32 = 200_000;

const SMALL: Tables = Tables {
    flows: 4096,
    backends: 1024,
    services: 256,
};
const BIG: Tables = Tables {
    flows: 65_536,
    backends: 8192,
    services: 4096,
};

/// As `--tc` names them.
const FILTERS: &str = "clsact";

/// Leaves out a row where programs load slowly, as in a machine without KVM, unless uplinks are served in this way.
fn by_one_way_if_slow(uplink: Uplink, way: Uplink) -> Result<()> {
    if uplink == way || !is_slow() {
        return Ok(());
    }
    let reason = match way {
        Uplink::Xdp => "loads programs many times: under emulation with XDP alone",
        Uplink::Tc => "loads programs many times: under emulation with TC alone",
    };
    Err(CannotRun(reason).into())
}

/// Names the agent of another build, of the last release for one.
const OTHER_BUILD: &str = "PORTSIDE_OTHER_AGENT";

/// XDP and TC links; and TC filters, which kernels before 6.6 have in place of TC links.
pub fn rows(uplink: Uplink) -> Vec<Trial> {
    let tc = match uplink {
        Uplink::Xdp => "auto",
        Uplink::Tc => FILTERS,
    };
    let row_by = |way, name, test: fn(&Site) -> Result<()>| {
        let world = World::without_agents(uplink, Plan::default());
        world.row(name, move |cluster| {
            by_one_way_if_slow(uplink, way)?;
            test(&Site::build(cluster, tc)?)
        })
    };
    let row = |name, test| row_by(uplink, name, test);
    let mut rows = vec![
        row(
            "another agent of the same layout replaces the programs in place",
            replaced,
        ),
        row_by(
            Uplink::Xdp,
            "tables get other sizes and no connection ends",
            resized,
        ),
        row(
            "the next version of the layout goes on with what it can read",
            next_version,
        ),
        row(
            "an agent before a newer one's maps serves and says what is lost",
            rolled_back,
        ),
        row_by(
            Uplink::Tc,
            "a takeover that is killed is finished by the next agent",
            killed,
        ),
    ];
    let other = std::env::var_os(OTHER_BUILD).map(PathBuf::from);
    let missing = other
        .is_none()
        .then_some("PORTSIDE_OTHER_AGENT names no agent of another build");
    let world = World::without_agents(uplink, Plan::default());
    // The other build may count otherwise what XDP took.
    rows.push(world.row_beside_xdp_unless(
        missing,
        "the agent of another build is replaced and replaces this one",
        move |cluster| other_build(&Site::build(cluster, tc)?, &other.unwrap_or_default()),
    ));
    if uplink == Uplink::Xdp {
        rows.push(row(
            "an agent does without XDP and the next uses it again",
            xdp_goes_and_comes,
        ));
    }
    rows
}

/// A node with an agent, and a service with endpoints on it and on the other one.
struct Site<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    tc: &'static str,
    vip: Vip,
}

impl<'a> Site<'a> {
    /// Without an agent yet.
    fn build(cluster: &'a Cluster, tc: &'static str) -> Result<Self> {
        let endpoints = [cluster.pod("p1"), cluster.pod("p2")];
        Ok(Self {
            cluster,
            node: cluster.node(1),
            tc,
            vip: cluster.publish("upgraded", &endpoints)?,
        })
    }

    fn launch(&self, tables: Tables) -> Launch<'_> {
        let launch = self.cluster.launch(self.node);
        launch.with_tables(tables).attaching_by(self.tc)
    }

    /// Starts an agent and does not wait for it.
    fn begin(&self, launch: &Launch) -> Result<()> {
        self.cluster.agents().push(Agent::begin(launch)?);
        Ok(())
    }

    fn start(&self, tables: Tables) -> Result<()> {
        self.begin(&self.launch(tables))?;
        self.cluster.agents()[0].wait_until_ready()
    }

    fn start_at(&self, uplink: Uplink, tables: Tables) -> Result<()> {
        self.begin(&self.launch(tables).at(uplink))?;
        self.cluster.agents()[0].wait_until_ready()
    }

    /// Waits until every client gets an answer, and opens connections that stay.
    fn connect(&self) -> Result<Kept> {
        let mut kept = Vec::new();
        for (client, protocol, target) in self.clients() {
            await_answer(client, protocol, target, |answer| answer.who().is_some())?;
            let name = format!("{protocol} from {} to {target}", client.name);
            let mut connection = open(dial(client, protocol, target))?;
            let at = answered(connection.ask()).with_context(|| name.clone())?;
            kept.push((connection, name, at));
        }
        Ok(Kept(kept))
    }

    /// Outside, in a pod and on the node, in both families and protocols.
    fn clients(&self) -> Vec<(&'a Host, Protocol, SocketAddr)> {
        let Self {
            cluster, node, vip, ..
        } = self;
        let mut clients = Vec::new();
        for family in Family::BOTH {
            for protocol in Protocol::BOTH {
                let cluster_ip = vip.on_cluster_ip(family);
                clients.extend([
                    (
                        cluster.topology.client(),
                        protocol,
                        vip.on_node(node, family),
                    ),
                    (&**cluster.pod("c1"), protocol, cluster_ip),
                    (&node.host, protocol, cluster_ip),
                ]);
            }
        }
        clients
    }

    /// Runs `work` while the clients send requests, each by a connection of its own, and while those that are kept go on talking. None
    /// may fail.
    fn during(&self, kept: &mut Kept, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let meanwhile = &Meanwhile::default();
        thread::scope(|scope| {
            let ask = |(client, protocol, target): (&'a Host, _, _)| {
                let name = format!("{protocol} from {} to {target}", client.name);
                let ask = move || answered(dial(client, protocol, target).ask()).map(drop);
                scope.spawn(move || repeat(meanwhile, ask).context(name))
            };
            let asking: Vec<_> = self.clients().into_iter().map(ask).collect();
            let talking = scope.spawn(|| repeat(meanwhile, || kept.stay()));
            let worked = meanwhile.work(asking.len() + 1, work);
            let mut requests = 0;
            for asking in asking {
                requests += asking.join().expect("asking does not panic")?;
            }
            talking.join().expect("talking does not panic")?;
            eprintln!("{requests} requests, none failed");
            worked
        })?;
        kept.stay()
    }

    /// What the agent that runs has said.
    fn has_said(&self, words: &str) -> Result<()> {
        let agents = self.cluster.agents();
        let mut lines = agents.iter().flat_map(Agent::lines);
        ensure!(lines.any(|line| line.contains(words)), "not said: {words}");
        Ok(())
    }

    /// There is one datapath, and nothing beside it.
    fn is_alone(&self) -> Result<()> {
        let found = pinned::directories(self.node)?;
        ensure!(found == [format!("portside-v{VERSION}")], "{found:?}");
        let maps = pinned::maps(self.node)?;
        let odd: Vec<_> = maps.keys().filter(|name| name.contains('-')).collect();
        ensure!(odd.is_empty(), "{odd:?}");
        Ok(())
    }
}

fn repeat(meanwhile: &Meanwhile, mut ask: impl FnMut() -> Result<()>) -> Result<usize> {
    let _on = OneCpu::stay()?;
    meanwhile.repeat(|| {
        ask()?;
        thread::sleep(pause(PAUSE));
        Ok(())
    })
}

/// The server that answered, and the client as it saw it.
fn answered(answer: Answer) -> Result<(String, SocketAddr)> {
    match answer {
        Answer::Ok { who, client } => Ok((who, client)),
        other => Err(anyhow::anyhow!("no server answered: {other}")),
    }
}

/// Connections, each with the server that has it and the address that the server sees.
struct Kept(Vec<(Conversation, String, (String, SocketAddr))>);

impl Kept {
    fn stay(&mut self) -> Result<()> {
        for (connection, name, before) in &mut self.0 {
            let now = answered(connection.ask()).with_context(|| name.clone())?;
            ensure!(now == *before, "{name}: it was {before:?} and is {now:?}");
        }
        Ok(())
    }
}

/// What a takeover must leave as it was.
struct Before {
    ids: Ids,
    /// Of new connections, by service id.
    counts: BTreeMap<ServiceId, u64>,
    links: BTreeMap<String, pinned::Link>,
}

impl Before {
    fn of(site: &Site) -> Result<Self> {
        let before = Self {
            ids: Ids::of(site.node)?,
            counts: counts(site.node)?,
            links: pinned::links(site.node)?,
        };
        let connections: u64 = before.counts.values().sum();
        ensure!(connections > 0, "no connection was counted");
        // Filters have none.
        let has_links = site.tc != FILTERS;
        ensure!(before.links.is_empty() != has_links, "{:?}", before.links);
        Ok(before)
    }

    /// Ids are whose they were, counts go on, and the links are the same ones with other programs.
    fn goes_on(&self, site: &Site) -> Result<()> {
        site.is_alone()?;
        let ids = Ids::of(site.node)?;
        ensure!(ids == self.ids, "{ids:#?} is not {:#?}", self.ids);
        let counts = counts(site.node)?;
        for (id, before) in &self.counts {
            ensure!(
                counts[id] >= *before,
                "{counts:?} do not go on from {:?}",
                self.counts
            );
        }
        self.links_go_on(site)
    }

    fn links_go_on(&self, site: &Site) -> Result<()> {
        let now = pinned::links(site.node)?;
        let ids = |links: &BTreeMap<String, pinned::Link>| -> BTreeMap<_, _> {
            links
                .iter()
                .map(|(name, link)| (name.clone(), link.id))
                .collect()
        };
        ensure!(
            ids(&now) == ids(&self.links),
            "{now:?} is not {:?}",
            self.links
        );
        for (name, link) in &now {
            ensure!(link.program != self.links[name].program, "{name}: {link:?}");
        }
        Ok(())
    }
}

fn counts(node: &Node) -> Result<BTreeMap<ServiceId, u64>> {
    let ids = Ids::of(node)?.services;
    let maps = PinDir::new(&node.bpffs).open_maps()?;
    let count = |id| Ok((id, maps.service_count(id)?.connections));
    ids.into_values().map(count).collect()
}

fn replaced(site: &Site) -> Result<()> {
    site.start(SMALL)?;
    let mut kept = site.connect()?;
    let (before, maps) = (Before::of(site)?, pinned::maps(site.node)?);
    site.during(&mut kept, || {
        site.cluster.kill_agents();
        site.start(SMALL)
    })?;
    before.goes_on(site)?;
    let now = pinned::maps(site.node)?;
    ensure!(now == maps, "{now:?} is not {maps:?}");
    Ok(())
}

/// An upgrade under requests, and the way back. To another layout of the maps that way loses connections (docs/operations.md).
fn other_build(site: &Site, other: &Path) -> Result<()> {
    let start_other = || -> Result<()> {
        site.begin(&site.launch(SMALL).of_program(other))?;
        site.cluster.agents()[0].wait_until_ready()
    };
    start_other()?;
    let own = format!("portside-v{VERSION}");
    let has_other_version = pinned::directories(site.node)? != [own];
    let mut kept = site.connect()?;
    site.during(&mut kept, || {
        site.cluster.kill_agents();
        site.start(SMALL)
    })
    .context("an upgrade")?;
    if has_other_version {
        // None of this one's maps is read by the other, and connections end.
        site.cluster.kill_agents();
        start_other()?;
        kept = site.connect()?;
        return site.during(&mut kept, || {
            thread::sleep(pause(4 * PAUSE));
            Ok(())
        });
    }
    site.during(&mut kept, || {
        site.cluster.kill_agents();
        start_other()
    })
    .context("a rollback")
}

fn xdp_goes_and_comes(site: &Site) -> Result<()> {
    site.start(SMALL)?;
    let has_xdp = || -> Result<bool> {
        let links = pinned::links(site.node)?;
        Ok(links.keys().any(|name| name.starts_with("xdp_uplink")))
    };
    ensure!(has_xdp()?, "no XDP at first");
    let mut kept = site.connect()?;
    for uplink in [Uplink::Tc, Uplink::Xdp] {
        site.during(&mut kept, || {
            site.cluster.kill_agents();
            site.start_at(uplink, SMALL)
        })?;
        ensure!(has_xdp()? == (uplink == Uplink::Xdp), "then {uplink:?}");
    }
    Ok(())
}

fn resized(site: &Site) -> Result<()> {
    let cluster = site.cluster;
    site.start(SMALL)?;
    let mut kept = site.connect()?;
    // The last services to come have the highest ids.
    let spare = cluster.publish("spare", &[cluster.pod("p1b")])?;
    let target = spare.on_node(site.node, Family::V6);
    let is_served = |answer: &Answer| answer.who().is_some();
    await_answer(cluster.topology.client(), Protocol::Udp, target, is_served)?;
    let before = Before::of(site)?;
    let idle = add_idle_flow(site.node)?;
    site.during(&mut kept, || {
        cluster.kill_agents();
        site.start(BIG)
    })?;
    before.goes_on(site)?;
    has_sizes(site, BIG)?;
    let flows = PinDir::new(&site.node.bpffs).open_maps()?.v4.datagrams;
    let found = flows.get(&idle, 0);
    let is_gone = matches!(found, Err(MapError::KeyNotFound));
    ensure!(is_gone, "{found:?}");
    // Room for the first service alone: a port for each protocol in each family, and id 0 is nobody's.
    let too_small = Tables {
        services: 5,
        ..SMALL
    };
    site.during(&mut kept, || {
        cluster.kill_agents();
        site.start(too_small)
    })?;
    site.is_alone()?;
    before.links_go_on(site)?;
    has_sizes(site, too_small)?;
    let (mut was, mut is) = (before.ids.services, Ids::of(site.node)?.services);
    for services in [&mut was, &mut is] {
        services.retain(|_, id| (1..too_small.services).contains(&id.0));
    }
    ensure!(is == was, "{is:?} is not {was:?}");
    site.has_said("no room any more for 4 elements of SERVICES")
}

/// Tables of services and endpoints begin with a part of the room that they may grow to.
fn has_sizes(site: &Site, tables: Tables) -> Result<()> {
    let largest = Room {
        services: tables.services,
        backends: tables.backends,
    };
    let Room { services, backends } = Sizes::first(tables.flows, &largest).room();
    let maps = pinned::maps(site.node)?;
    for (name, size) in [
        ("SERVICES", services),
        ("SLOTS", 4 * backends),
        ("BACKENDS_4", backends),
        ("FRONTENDS_6", 4 * services),
        ("BACKEND_COUNTS", backends),
        ("FLOWS_4", 2 * tables.flows),
        ("FLOWS_6", 2 * tables.flows),
        ("DATAGRAMS_4", (tables.flows / 2).max(1024)),
        ("AFFINITY_6", tables.flows / 2),
    ] {
        let (_, found) = maps[name];
        ensure!(found == size, "{name} has room for {found}, not for {size}");
    }
    Ok(())
}

/// A flow that its client has left long ago.
fn add_idle_flow(node: &Node) -> Result<FlowKey<Ip4>> {
    let mut maps = PinDir::new(&node.bpffs).open_maps()?.v4;
    let (mut key, mut flow) = maps.flows.iter().next().context("no flow is tracked")??;
    key.tuple.sport = Be16::new(1);
    key.kind = FlowKey::new(key.tuple, UDP, key.dir()).kind;
    flow.last_seen = flow.last_seen.earlier(LONG_AGO);
    maps.datagrams.insert(key, flow, 0)?;
    Ok(key)
}

fn next_version(site: &Site) -> Result<()> {
    site.start(SMALL)?;
    let mut kept = site.connect()?;
    let before = Before::of(site)?;
    let pending = pinned::maps(site.node)?["PENDING_4"];
    let own = PinDir::new(&site.node.bpffs);
    // No requests meanwhile: the programs that run confirm flows where an older agent's would not. Of that, a real one is asked
    // (`PORTSIDE_OTHER_AGENT`).
    site.cluster.kill_agents();
    let older = directory_of_version(site.node, older::VERSION);
    older::make(&own.open_maps()?, own.root(), 2 * SMALL.flows)?;
    fs::rename(own.root(), &older).context("giving the pins an older name")?;
    // A map that the older version had otherwise.
    let affinity = older.join("AFFINITY_4");
    fs::remove_file(&affinity)?;
    HashMap::<_, [u8; 8], [u8; 16]>::create(1024, 0)?.pin(&affinity)?;
    let asked = testbed::cli::ask(site.node, &["maps"]);
    let complaint = asked
        .err()
        .context("the maps of another version are shown")?;
    let complaint = format!("{complaint:#}");
    let version = format!("version {}", older::VERSION);
    ensure!(complaint.contains(&version), "{complaint}");
    site.start(SMALL)?;
    site.during(&mut kept, || {
        thread::sleep(pause(4 * PAUSE));
        Ok(())
    })?;
    before.goes_on(site)?;
    let now = pinned::maps(site.node)?["PENDING_4"];
    ensure!(
        now == pending,
        "the table of new flows is another: {now:?}, not {pending:?}"
    );
    site.has_said("not taken over: AFFINITY_4: clients with session affinity")
}

/// Connections end here: requests that cross the moment may fail, those after it do not.
fn rolled_back(site: &Site) -> Result<()> {
    site.start(SMALL)?;
    site.connect()?;
    let before = Before::of(site)?;
    site.cluster.kill_agents();
    let newer = directory_of_version(site.node, VERSION + 1);
    fs::rename(PinDir::new(&site.node.bpffs).root(), &newer)
        .context("giving the pins a newer name")?;
    site.start(SMALL)?;
    site.is_alone()?;
    before.links_go_on(site)?;
    site.has_said("none of its maps is read")?;
    site.has_said("PENDING_6: connections through services end")?;
    site.during(&mut site.connect()?, || {
        thread::sleep(pause(4 * PAUSE));
        Ok(())
    })
}

fn killed(site: &Site) -> Result<()> {
    let began = Instant::now();
    site.start(SMALL)?;
    let whole = began.elapsed();
    let mut kept = site.connect()?;
    let before = Before::of(site)?;
    let own = PinDir::new(&site.node.bpffs);
    site.during(&mut kept, || {
        for (part, tables) in KILLED_AT.into_iter().zip([BIG, SMALL].into_iter().cycle()) {
            site.cluster.kill_agents();
            site.begin(&site.launch(tables))?;
            thread::sleep(whole.mul_f64(part));
            site.cluster.kill_agents();
        }
        // What the steps leave between which no clock hits: the directory retired, and another being made.
        // An agent that was killed late may have left such a directory.
        let retired = |n: &u32| site.node.bpffs.join(format!("portside-v{VERSION}-old-{n}"));
        let free = (0..).find(|n| !retired(n).exists());
        let retired = retired(&free.context("a number is free")?);
        if own.root().exists() {
            fs::rename(own.root(), &retired)?;
        }
        fs::create_dir_all(
            site.node
                .bpffs
                .join(format!("portside-v{VERSION}-new/links")),
        )?;
        site.start(SMALL)?;
        site.is_alone()?;
        // A link that is not moved yet.
        site.cluster.kill_agents();
        fs::create_dir_all(retired.join("links"))?;
        for name in pinned::links(site.node)?.into_keys().take(1) {
            fs::rename(own.links().join(&name), retired.join("links").join(&name))?;
        }
        site.start(SMALL)
    })?;
    eventually("the takeover is over", || before.goes_on(site))
}
