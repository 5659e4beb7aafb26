//! The agent's commands about a datapath that carries traffic, and the one that takes it down.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::PinDir;
use proxy_common::abi::VERSION;
use proxy_common::reason::Reason;
use serde_json::{Value, json};
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::answer::Answer;
use testbed::cli;
use testbed::cluster::{Cluster, Vip};
use testbed::patience::eventually;
use testbed::pinned::{self, directory_of_version};
use testbed::sockets::Protocol;
use testbed::sockets::client::Conversation;
use testbed::topology::{Node, Plan};

use crate::world::{World, await_answer, await_everywhere, dial, open, serve, who};

const REFUSED: u64 = 3;

pub fn rows(world: &World) -> Vec<Trial> {
    vec![world.row("the commands show what the maps hold", shown)]
}

/// What takes the datapath down needs a cluster of its own, and so does what tells numbers: others' services and packets count, too.
pub fn rows_of_own_clusters(uplink: Uplink) -> Vec<Trial> {
    let mut rows = vec![World::of(uplink, Plan::default()).row(
        "cleanup takes down the datapath, and a new agent brings it back",
        cleaned_up,
    )];
    // A pod's packets do not come by an uplink.
    if uplink == Uplink::Tc {
        rows.push(World::of(uplink, Plan::default()).row(
            "the commands tell each entry and each refused packet",
            told_by_number,
        ));
        rows.push(World::of(uplink, Plan::default()).row(
            "get takes names, and its watch tells what comes, changes and goes once",
            got,
        ));
        rows.push(World::of(uplink, Plan::default()).row(
            "describe says in one line what keeps clients from a service",
            described,
        ));
    }
    rows
}

fn shown(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "shown", &[cluster.pod("p1")])?;
    let mut connections = open_from_the_pod(cluster, &vip)?;
    let node = cluster.node(1);
    // The names follow the maps by a moment.
    eventually("the service has its name", || {
        let node_ports = cli::ask(node, &["get", "nodeports", "-A"])?;
        ensure!(node_ports.contains(&vip.name), "{node_ports}");
        Ok(())
    })?;

    let services = cli::ask(node, &["get", "services", "-A", "-o", "json"])?;
    let backends = cli::ask(node, &["get", "backends", "-A", "-o", "json"])?;
    let node_ports = cli::ask(node, &["get", "nodeports", "-A"])?;
    let flows = cli::ask(node, &["flows"])?;
    for text in [&services, &backends] {
        serde_json::from_str::<serde_json::Value>(text).with_context(|| text.clone())?;
    }
    for family in Family::BOTH {
        let frontend = vip.ip.of(family).to_string();
        let backend = cluster.pod("p1").ip.of(family).to_string();
        ensure!(services.contains(&frontend), "{frontend}: {services}");
        ensure!(backends.contains(&backend), "{backend}: {backends}");
        let client = cluster.pod("c1").ip.of(family).to_string();
        let flow = |line: &str| {
            [&client, &frontend, &backend, &vip.name]
                .iter()
                .all(|part| line.contains(part.as_str()))
        };
        ensure!(flows.lines().any(flow), "{client} to {frontend}: {flows}");
        // This client has one connection to this service, by TCP.
        let service = format!("default/{}", vip.name);
        let of_it = ["flows", "--client", &client, "--service", &service];
        let count = |more: &[&str]| -> Result<String> {
            let counted = cli::ask(node, &[&of_it, more, &["--count"]].concat())?;
            Ok(counted.trim().to_owned())
        };
        let found = cli::ask(node, &of_it)?;
        let others = found.lines().skip(1).filter(|line| !flow(line));
        ensure!(others.count() == 0, "not of {client}: {found}");
        for (more, expected) in [
            (&["--protocol", "tcp"][..], "1"),
            (&["--protocol", "udp"], "0"),
            (&["--state", "established"], "1"),
            (&["--protocol", "tcp", "--state", "closing"], "0"),
            (&["--backend", &client], "0"),
        ] {
            let count = count(more)?;
            ensure!(count == expected, "{more:?}: {count} of {found}");
        }
    }
    let node_port = vip.node_port.to_string();
    let of_the_service = |line: &str| line.contains(&vip.name) && line.contains(&node_port);
    ensure!(node_ports.lines().any(of_the_service), "{node_ports}");
    for connection in &mut connections {
        who(connection.ask())?;
    }
    Ok(())
}

fn told_by_number(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let used = || -> Result<BTreeMap<String, u64>> {
        let rows = rows_of(node, &["maps"])?;
        let used = |row: &Value| Some((row["map"].as_str()?.to_owned(), row["used"].as_u64()?));
        let used: Option<BTreeMap<_, _>> = rows.iter().map(used).collect();
        used.context("a map without a name or a number")
    };
    serve(cluster, "first", &[cluster.pod("p1")])?;
    let before = used()?;
    serve(cluster, "second", &[cluster.pod("p1")])?;
    let after = used()?;
    // A service of each protocol and family; a backend of each protocol.
    for (map, more) in [("SERVICES", 4), ("BACKENDS_4", 2), ("BACKENDS_6", 2)] {
        let [before, after] = [&before, &after].map(|used| used.get(map).copied());
        ensure!(
            after == before.map(|before| before + more),
            "{map} had {before:?} entries, and then {after:?}"
        );
    }

    // Nobody is behind this service: a packet that is refused, and a reason for it.
    let refused = || -> Result<u64> {
        let rows = rows_of(node, &["drops"])?;
        let of_pods = |row: &&Value| row["reason"] == "refused" && row["hook"] == "tc_workload_in";
        let packets = |row: &Value| row["packets"].as_u64().context("no number");
        rows.iter().find(of_pods).map_or(Ok(0), packets)
    };
    ensure!(refused()? == 0, "before a packet was refused");
    let vip = cluster.vip("refused");
    cluster.manifests.apply(&vip.service())?;
    let (client, target) = (cluster.pod("c1"), vip.on_cluster_ip(Family::V4));
    await_answer(client, Protocol::Tcp, target, |answer| {
        *answer == Answer::Refused
    })?;
    let first = refused()?;
    ensure!(first == 1, "{first} packets refused, not one");
    for _ in 0..REFUSED {
        let answer = dial(client, Protocol::Tcp, target).ask();
        ensure!(answer == Answer::Refused, "{answer}");
    }
    let all = refused()?;
    ensure!(
        all == 1 + REFUSED,
        "{all} packets refused of {}",
        1 + REFUSED
    );
    of_the_service(node, &vip)
}

/// The drops of a service are told by its name, and what is no drop is not told as one.
fn of_the_service(node: &Node, vip: &Vip) -> Result<()> {
    let text = cli::ask(node, &["drops", "-o", "json"])?;
    let document: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(document["kind"] == "Drops", "{text}");
    let name = format!("default/{}:", vip.name);
    let services = document["services"].as_array().context("services")?;
    let refused: u64 = services
        .iter()
        .filter(|one| {
            one["service"]
                .as_str()
                .is_some_and(|service| service.starts_with(&name))
        })
        .filter_map(|one| one["refusedPackets"].as_u64())
        .sum();
    ensure!(refused == 1 + REFUSED, "{refused} of {name}: {text}");

    let drops = rows_of(node, &["drops"])?;
    ensure!(drops.iter().all(|row| row["action"] == "drop"), "{drops:?}");
    let all = rows_of(node, &["drops", "--all"])?;
    for reason in Reason::ALL {
        ensure!(
            all.iter().any(|row| row["reason"] == reason.text()),
            "{reason:?} is not among all"
        );
        let binary = testbed::agent::binary().context("no agent")?;
        let mut explain = Command::new(binary);
        explain.args(["drops", "explain", reason.text()]);
        let text = cli::output(explain)?;
        let starts = format!("{} ({})", reason.text(), reason.outcome().text());
        ensure!(
            text.starts_with(&starts) && text.contains(reason.words().advice),
            "{text}"
        );
    }
    Ok(())
}

/// The rows that a command prints.
fn rows_of(node: &Node, command: &[&str]) -> Result<Vec<Value>> {
    let text = cli::ask(node, &[command, &["-o", "json"]].concat())?;
    let document: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    document["items"].as_array().cloned().context(text)
}

fn cleaned_up(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "cleaned", &[cluster.pod("p1")])?;
    cluster.stop_agents();
    for connection in &mut open_from_the_pod(cluster, &vip)? {
        who(connection.ask()).context("with the agent stopped")?;
    }
    // One is what an agent of another version left.
    let own = PinDir::new(&cluster.node(2).bpffs);
    let older = directory_of_version(cluster.node(2), VERSION - 1);
    fs::rename(own.root(), older).context("giving the pins an older name")?;
    for node in &cluster.topology.nodes {
        cli::ask(node, &["cleanup"])?;
        let left = pinned::directories(node)?;
        ensure!(left.is_empty(), "pins of {}: {left:?}", node.name());
        let mut links = node.netns().command("ip")?;
        links.args(["-details", "link", "show"]);
        let links = cli::output(links)?;
        ensure!(!links.contains("xdp"), "{links}");
    }
    for family in Family::BOTH {
        let target = vip.on_node(cluster.node(1), family);
        let answer = dial(cluster.topology.client(), Protocol::Tcp, target).ask();
        ensure!(
            answer.who().is_none(),
            "{family}: {answer} after the clean-up"
        );
    }
    // A second time finds nothing, and says so by no error.
    cli::ask(cluster.node(1), &["cleanup"])?;
    cluster.start_first_agent()?;
    await_everywhere(cluster, &vip, |answer| answer.who() == Some("p1:8080"))
}

/// A connection in each family from a pod of the first node to the cluster address.
fn open_from_the_pod(cluster: &Cluster, vip: &Vip) -> Result<Vec<Conversation>> {
    let client = cluster.pod("c1");
    Family::BOTH
        .into_iter()
        .map(|family| {
            let target = vip.on_cluster_ip(family);
            let mut connection = open(dial(client, Protocol::Tcp, target))?;
            who(connection.ask()).with_context(|| format!("{family} {target}"))?;
            Ok(connection)
        })
        .collect()
}

/// Each thing that keeps clients from a service ends in the one line that says it.
fn described(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let describe = |name: &str| cli::run(node, &["describe", "service", name]);
    let says = |vip: &Vip, text: &str| {
        let name = format!("default/{}", vip.name);
        eventually(text, || {
            let ran = describe(&name)?;
            ensure!(
                ran.code == Some(0) && ran.out.contains(text),
                "no {text:?} in {ran:?}"
            );
            Ok(ran.out)
        })
    };
    let fine = "It is served as its object says.";
    let served = serve(cluster, "served", &[cluster.pod("p1"), cluster.pod("p2")])?;
    says(&served, fine)?;
    for family in Family::BOTH {
        let target = served.on_cluster_ip(family);
        await_answer(cluster.pod("c1"), Protocol::Tcp, target, |answer| {
            answer.who().is_some()
        })?;
        says(&served, &format!("{target}/TCP (ClusterIP)"))?;
    }
    let text = cli::ask(node, &["describe", "service", &served.name, "-o", "json"])?;
    let document: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let ports = document["ports"].as_array().context("ports")?;
    ensure!(
        ports.len() == 4
            && ports.iter().all(|port| port["toClusterIp"] == 2
                && port["endpoints"]
                    .as_array()
                    .is_some_and(|all| all.len() == 2)),
        "{text}"
    );
    let sum = |field: &str| -> u64 {
        let counts = ports.iter().filter_map(|port| port[field].as_u64());
        counts.sum()
    };
    ensure!(
        sum("connections") >= 2 && sum("refusedPackets") == 0,
        "{text}"
    );

    let empty = cluster.vip("empty");
    cluster.manifests.apply(&empty.service())?;
    let text = says(&empty, "it has no endpoint: new connections are refused")?;
    ensure!(!text.contains(fine), "{text}");

    // Its endpoint is on the other node.
    let local = cluster.vip("local");
    cluster
        .manifests
        .apply_endpoints(&local.endpoints(&[cluster.pod("p2")]))?;
    let policy = ("externalTrafficPolicy", json!("Local"));
    cluster
        .manifests
        .apply(&local.service().with(policy.0, policy.1))?;
    says(
        &local,
        "externalTrafficPolicy is Local and no endpoint is on this node: packets from outside are dropped",
    )?;

    // The one whose name comes first has the address.
    let taken = Vip {
        name: "zz-conflict".to_owned(),
        ip: served.ip,
        ..cluster.vip("conflict")
    };
    cluster.manifests.apply(&taken.service())?;
    says(&taken, "AddressTaken: ")?;

    let unknown = describe("default/no-such-service")?;
    ensure!(
        unknown.code == Some(1)
            && unknown
                .err
                .contains("knows no Service default/no-such-service"),
        "{unknown:?}"
    );
    cluster.stop_agents();
    says(&served, "no agent runs")?;
    Ok(())
}

fn got(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let first = serve(cluster, "got", &[cluster.pod("p1"), cluster.pod("p2")])?;
    let second = serve(cluster, "other", &[cluster.pod("p1")])?;
    eventually("both have their names", || {
        let names = cli::ask(node, &["get", "services", "-o", "name"])?;
        let expected = format!("service/{}\nservice/{}", first.name, second.name);
        ensure!(names == expected, "{names}");
        Ok(())
    })?;
    let row = cli::ask(node, &["get", "services", &first.name, "--no-headers"])?;
    let cells: Vec<_> = row.split_whitespace().collect();
    // Two pods, of two families and at two ports each.
    ensure!(
        row.lines().count() == 1 && cells[0] == first.name && cells[5] == "2",
        "{row}"
    );
    let text = cli::ask(node, &["get", "backends", &second.name, "-o", "json"])?;
    let document: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(
        document["apiVersion"] == "portside/v1" && document["kind"] == "BackendList",
        "{text}"
    );
    let items = document["items"].as_array().context("items")?;
    ensure!(
        items.len() == 4 && items.iter().all(|one| one["service"] == *second.name),
        "{text}"
    );
    let missing = cli::run(node, &["get", "services", &first.name, "no-such"])?;
    ensure!(
        missing.code == Some(1) && missing.err.contains("not found: no-such"),
        "{missing:?}"
    );

    let mut watch = cli::command(
        node,
        &[
            "get",
            "services",
            "-w",
            "--output-watch-events",
            "--no-headers",
        ],
    )?;
    let mut watch = watch.stdout(Stdio::piped()).spawn()?;
    let out = watch.stdout.take().context("stdout is piped")?;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let reader = thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            seen.lock().expect("nobody panics meanwhile").push(line);
        }
    });
    let told = |event: &str, name: &str| {
        let lines = lines.lock().expect("nobody panics meanwhile");
        let of = |line: &&String| line.starts_with(event) && line.contains(name);
        (lines.iter().filter(of).count(), lines.join("\n"))
    };
    let once = |event: &str, name: &str| {
        eventually(event, || {
            let (count, lines) = told(event, name);
            ensure!(count == 1, "{event} {name} {count} times:\n{lines}");
            Ok(())
        })
    };
    let watched = || -> Result<()> {
        once("ADDED", &first.name)?;
        // Traffic moves counters, and is no change.
        let target = first.on_cluster_ip(Family::V4);
        for _ in 0..REFUSED {
            who(dial(cluster.pod("c1"), Protocol::Tcp, target).ask())?;
        }
        let third = cluster.publish("third", &[])?;
        once("ADDED", &third.name)?;
        cluster
            .manifests
            .apply_endpoints(&third.endpoints(&[cluster.pod("p1")]))?;
        once("MODIFIED", &third.name)?;
        cluster.withdraw(&third)?;
        once("DELETED", &third.name)?;
        let (count, lines) = told("MODIFIED", &first.name);
        ensure!(count == 0, "{lines}");
        Ok(())
    };
    let result = watched();
    watch.kill()?;
    watch.wait()?;
    ensure!(reader.join().is_ok(), "the reader panicked");
    result
}
