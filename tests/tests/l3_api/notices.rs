//! A Service that is not served as its object says has an Event that says why, and `get` and a metric say the same for as
//! long as it is so.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result, ensure};
use api_server::resource::Resource;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use testbed::address::Family;
use testbed::agent::{Agent, ask};
use testbed::cluster::Vip;
use testbed::manifests::Service;
use testbed::patience::{eventually, eventually_within};
use testbed::sockets::http;

use crate::world::{ARRIVES_WITHIN, SharedWorld, World, lone_row, slice_name};

pub fn rows() -> Vec<Trial> {
    let world = SharedWorld::new(2);
    vec![
        world.row(
            "an address that is taken is told by one Event until it is free",
            taken,
        ),
        world.row(
            "an endpoint that is refused is told by an Event on its service",
            endpoint,
        ),
        world.row(
            "a field that is refused is told by an Event on its service",
            field,
        ),
        world.row(
            "a health-check node port that is taken is told by an Event of its node",
            check,
        ),
        lone_row(
            "a service that there is no room for is told by an Event of its node until there is",
            1,
            no_room,
        ),
        lone_row(
            "without Events nobody writes, and the commands tell all the same",
            1,
            without,
        ),
    ]
}

/// The Events on a service of this reason.
fn events(world: &World, service: &str, reason: &str) -> Result<Vec<Value>> {
    let path = Resource::Events.path("default");
    let (code, list) = world.api().call("GET", &path, &Value::Null)?;
    ensure!(code == 200, "{list}");
    let items = list["items"].as_array().context("no items")?.iter();
    let is_it = |one: &&Value| one["involvedObject"]["name"] == service && one["reason"] == reason;
    Ok(items.filter(is_it).cloned().collect())
}

/// Waits for an Event on a service that says all of this, and demands that it is the only one of its reason.
fn await_event(world: &World, service: &str, reason: &str, words: &[&str]) -> Result<Value> {
    let what = format!("an Event {reason} on {service}");
    eventually_within(ARRIVES_WITHIN, &what, || {
        let all = events(world, service, reason)?;
        ensure!(all.len() == 1, "{all:#?}");
        let message = all[0]["message"].as_str().unwrap_or_default();
        ensure!(words.iter().all(|word| message.contains(word)), "{message}");
        let uid = &object(world, service)?["metadata"]["uid"];
        ensure!(
            uid.is_string() && all[0]["involvedObject"]["uid"] == *uid,
            "{:#}",
            all[0]
        );
        ensure!(
            all[0]["type"] == "Warning" && all[0]["source"]["component"] == "portside",
            "{:#}",
            all[0]
        );
        Ok(all[0].clone())
    })
}

fn object(world: &World, service: &str) -> Result<Value> {
    let path = format!("{}/{service}", Resource::Services.path("default"));
    let (code, object) = world.api().call("GET", &path, &Value::Null)?;
    ensure!(code == 200, "{object}");
    Ok(object)
}

/// The first node's row of a service.
fn row_of(world: &World, service: &str) -> Result<Value> {
    let text = ask(
        world.cluster.node(1),
        &["get", "services", "-A", "-o", "json"],
    )?;
    let all: Value = serde_json::from_str(&text)?;
    let items = all["items"].as_array().context("no items")?.iter();
    let mut items = items.filter(|one| one["name"] == service);
    items
        .next()
        .cloned()
        .with_context(|| format!("no {service}: {text}"))
}

/// Waits until `get` has exactly these notices of a service.
fn await_notices(world: &World, service: &str, reasons: &[&str]) -> Result<()> {
    eventually(&format!("the notices {reasons:?} of {service}"), || {
        let row = row_of(world, service)?;
        let found = row["notices"].as_array().context("no notices")?.iter();
        let found: Vec<_> = found
            .map(|one| one["reason"].as_str().unwrap_or_default())
            .collect();
        ensure!(found == reasons, "{row:#}");
        Ok(())
    })
}

/// How many services have a notice of this reason, as the first node's metrics have it.
fn metric(world: &World, reason: &str) -> Result<u64> {
    let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 10249);
    let text = http::fetch(world.cluster.node(1).netns(), at, "/metrics")?.body;
    let series = format!("portside_noticed_services{{reason=\"{reason}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&series));
    Ok(line.with_context(|| format!("no {series}"))?.parse()?)
}

fn exposed(vip: &Vip, address: &str) -> Service {
    vip.service().with("externalIPs", json!([address]))
}

fn taken(world: &World) -> Result<()> {
    let [winner, loser] = ["winner", "loser"].map(|name| world.cluster.vip(name));
    for vip in [&winner, &loser] {
        world.apply_endpoints(vip, &vip.endpoints(&[world.cluster.pod("p1")]))?;
        // The first is older, or comes first by its name.
        world.apply(&exposed(vip, "203.0.113.9"))?;
    }
    let (first, second) = eventually("one of the two is told", || {
        for (one, other) in [(&winner, &loser), (&loser, &winner)] {
            if !events(world, &other.name, "AddressTaken")?.is_empty() {
                return Ok((one, other));
            }
        }
        anyhow::bail!("none is")
    })?;
    let words = ["203.0.113.9 port 80/TCP", &*first.name, "comes first"];
    let event = await_event(world, &second.name, "AddressTaken", &words)?;
    ensure!(event["count"] == 1, "{event:#}");
    await_notices(world, &second.name, &["AddressTaken"])?;
    await_notices(world, &first.name, &[])?;
    ensure!(metric(world, "AddressTaken")? == 1);
    let table = ask(
        world.cluster.node(1),
        &["get", "services", "-A", "-o", "wide"],
    )?;
    let row = table.lines().find(|line| line.contains(&second.name));
    ensure!(
        row.is_some_and(|row| row.contains("AddressTaken") && row.contains(&first.name)),
        "{table}"
    );
    world.api().delete(Resource::Services, &first.name)?;
    await_notices(world, &second.name, &[])?;
    ensure!(metric(world, "AddressTaken")? == 0);
    Ok(())
}

fn endpoint(world: &World) -> Result<()> {
    let vip = world.serve("with-bad-endpoints", &[world.cluster.pod("p1")])?;
    let bad = |addresses: &[&str]| -> Result<()> {
        let name = slice_name(&vip, Family::V4);
        let mut slice = vip
            .endpoints(&[world.cluster.pod("p1")])
            .slice(&name, Family::V4);
        let all = slice["endpoints"].as_array_mut().context("no endpoints")?;
        all.extend(addresses.iter().map(|one| json!({"addresses": [one]})));
        world.api().apply(&slice)
    };
    bad(&["127.0.0.1"])?;
    await_event(
        world,
        &vip.name,
        "EndpointRefused",
        &["127.0.0.1", &slice_name(&vip, Family::V4)],
    )?;
    await_notices(world, &vip.name, &["EndpointRefused"])?;
    // The Event of before says more now: there is no second one.
    bad(&["127.0.0.1", "169.254.169.254"])?;
    let event = await_event(
        world,
        &vip.name,
        "EndpointRefused",
        &["127.0.0.1", "169.254.169.254"],
    )?;
    ensure!(event["count"].as_u64() > Some(1), "{event:#}");
    bad(&[])?;
    await_notices(world, &vip.name, &[])?;
    world.await_on_nodes(&vip, |answer| answer.who() == Some("p1:8080"))
}

fn field(world: &World) -> Result<()> {
    let vip = world.serve("with-bad-field", &[world.cluster.pod("p1")])?;
    let service = vip.service().with("type", json!("LoadBalancer")).with(
        "loadBalancerSourceRanges",
        json!(["192.0.2.0/24", "everybody"]),
    );
    world.apply(&service)?;
    let words = [
        "spec.loadBalancerSourceRanges[1]",
        "everybody",
        "it stays as it was",
    ];
    await_event(world, &vip.name, "FieldRefused", &words)?;
    await_notices(world, &vip.name, &["FieldRefused"])?;
    // A slice's field is told at its service.
    world.apply(&vip.service())?;
    await_notices(world, &vip.name, &[])?;
    let mut slice = vip
        .endpoints(&[world.cluster.pod("p1")])
        .slice(&slice_name(&vip, Family::V6), Family::V6);
    slice["endpoints"][0]["addresses"] = json!(["10.0.0.1"]);
    world.api().apply(&slice)?;
    let words = [&*slice_name(&vip, Family::V6), "is not of addressType IPv6"];
    await_event(world, &vip.name, "FieldRefused", &words)?;
    // An annotation that is not understood costs itself: the service is served.
    let odd = world.serve("with-bad-annotation", &[world.cluster.pod("p1")])?;
    world.apply(
        &odd.service()
            .annotated("portside.io/scale-from-zero", "wait"),
    )?;
    let words = [
        "metadata.annotations[portside.io/scale-from-zero]",
        "\"wait\" is none of hold, refuse",
        "the default holds",
    ];
    await_event(world, &odd.name, "FieldIgnored", &words)?;
    await_notices(world, &odd.name, &["FieldIgnored"])?;
    world.await_on_nodes(&odd, |answer| answer.who() == Some("p1:8080"))?;
    // One that never was in force has a row, too.
    let never = world.cluster.vip("never-served");
    world.apply(
        &never
            .service()
            .with("externalTrafficPolicy", json!("local")),
    )?;
    await_event(
        world,
        &never.name,
        "FieldRefused",
        &["externalTrafficPolicy", "it is left out"],
    )?;
    await_notices(world, &never.name, &["FieldRefused"])?;
    world.api().delete(Resource::Services, &never.name)?;
    eventually("the row is gone", || {
        ensure!(row_of(world, &never.name).is_err(), "it is there");
        Ok(())
    })
}

fn check(world: &World) -> Result<()> {
    let node = world.cluster.node(1);
    let vip = world.cluster.vip("with-taken-check");
    let port = vip.node_port + 1000;
    let other = node
        .netns()
        .run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    let service = vip
        .service()
        .with("type", json!("LoadBalancer"))
        .with("externalTrafficPolicy", json!("Local"))
        .with("healthCheckNodePort", json!(port));
    world.apply_endpoints(&vip, &vip.endpoints(&[world.cluster.pod("p1")]))?;
    world.apply(&service)?;
    let event = await_event(
        world,
        &vip.name,
        "HealthCheckPortTaken",
        &[&port.to_string(), "in use"],
    )?;
    ensure!(event["source"]["host"] == node.name(), "{event:#}");
    await_notices(world, &vip.name, &["HealthCheckPortTaken"])?;
    drop(other);
    await_notices(world, &vip.name, &[])
}

/// Beyond the bounds of one Service, and in a table that is full: with room for 12, as no service port has id 0. Each port is two service
/// ports, one in each family.
fn no_room(world: &World) -> Result<()> {
    let node = world.cluster.node(1);
    let launch = world.cluster.launch(node).with_room_for(4096, 13);
    let bounds = ["--service-bounds", "ports=12", "--namespace-share", "100"];
    let agent = Agent::begin(&launch.with(&bounds))?;
    agent.wait_until_ready()?;
    world.cluster.agents().push(agent);
    let [many, late] = ["many-ports", "late"].map(|name| world.cluster.vip(name));
    let with_ports = |vip: &Vip, count: u16| {
        let port = |n: u16| json!({"name": format!("p{n}"), "port": 1000 + n, "protocol": "TCP"});
        let ports: Vec<_> = (0..count).map(port).collect();
        let service = vip.service().with("type", json!("ClusterIP"));
        service.with("ports", json!(ports))
    };
    world.apply(&with_ports(&many, 40))?;
    let words = ["without 68 ports", "--service-bounds"];
    let event = await_event(world, &many.name, "NoRoom", &words)?;
    ensure!(event["source"]["host"] == node.name(), "{event:#}");
    await_notices(world, &many.name, &["NoRoom"])?;
    ensure!(metric(world, "NoRoom")? == 1);
    world.apply(&with_ports(&late, 1))?;
    await_event(
        world,
        &late.name,
        "NoRoom",
        &["without 2 ports", "--max-services"],
    )?;
    await_notices(world, &late.name, &["NoRoom"])?;
    ensure!(metric(world, "NoRoom")? == 2);
    world.apply(&with_ports(&many, 2))?;
    for vip in [&many, &late] {
        await_notices(world, &vip.name, &[])?;
    }
    ensure!(metric(world, "NoRoom")? == 0);
    Ok(())
}

fn without(world: &World) -> Result<()> {
    let launch = world.cluster.launch(world.cluster.node(1));
    let agent = Agent::begin(&launch.with(&["--events=false"]))?;
    agent.wait_until_ready()?;
    world.cluster.agents().push(agent);
    let vip = world.cluster.vip("untold");
    world.apply_endpoints(&vip, &vip.endpoints(&[world.cluster.pod("p1")]))?;
    world.apply(&vip.service().with("externalTrafficPolicy", json!("local")))?;
    await_notices(world, &vip.name, &["FieldRefused"])?;
    // One that comes later has come: so there was time for an Event.
    world.serve("after-untold", &[world.cluster.pod("p1")])?;
    // Behind an API server there is nothing to read anew, and no reason to end.
    kill(world.cluster.agents()[0].pid(), Signal::SIGHUP)?;
    world.await_said(&["SIGHUP", "nothing is read anew"])?;
    world.serve("after-hangup", &[world.cluster.pod("p1")])?;
    let asked = world.server.asked();
    let by_agent = asked
        .iter()
        .filter(|asked| asked.client.starts_with("proxy-agent/"));
    let written: Vec<_> = by_agent
        .filter(|asked| asked.resource == "events")
        .collect();
    ensure!(written.is_empty(), "{written:?}");
    Ok(())
}
