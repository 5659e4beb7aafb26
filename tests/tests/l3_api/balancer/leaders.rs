//! Several controllers, one of which leads: what is given stays, and no address is ever in the status of two services.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use api_server::resource::Resource;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use testbed::patience::eventually;

use super::rig::{DEFAULT, POOLS, Rig, pool, pool_row};

pub fn rows() -> Vec<Trial> {
    let few = || vec![("few", pool(&["192.168.10.1-192.168.10.3"]))];
    vec![
        pool_row(
            "a write of a paused leader that comes late is refused",
            vec![("one", pool(&["192.168.10.7/32"]))],
            late_write,
        ),
        pool_row(
            "leaders that are paused and killed under churn give no address twice",
            few(),
            churn,
        ),
        pool_row(
            "a write without an answer is found out about before anything else",
            vec![("one", pool(&["192.168.10.7/32"]))],
            in_doubt,
        ),
    ]
}

/// Every state of every service, as the server's history has it: an address in two of them at once is an error.
struct Witness(Receiver<Result<()>>);

impl Witness {
    fn begin(rig: &Rig) -> Result<Self> {
        let answer = rig.api().send("GET", "/api/v1/services?watch=true", "")?;
        ensure!(answer.code == 200, "{}", answer.head);
        let (sender, receiver) = channel();
        thread::spawn(move || sender.send(Self::follow(answer.body)));
        Ok(Self(receiver))
    }

    fn follow(events: BufReader<TcpStream>) -> Result<()> {
        events.get_ref().set_read_timeout(None)?;
        let mut holders: BTreeMap<String, String> = BTreeMap::new();
        // It ends with its server.
        for line in events.lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line)?;
            let object = &event["object"];
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            holders.retain(|_, holder| holder != name);
            if event["type"] == "DELETED" {
                continue;
            }
            let ingress = object["status"]["loadBalancer"]["ingress"].as_array();
            for address in ingress
                .into_iter()
                .flatten()
                .filter_map(|one| one["ip"].as_str())
            {
                if let Some(other) = holders.insert(address.to_owned(), name.to_owned()) {
                    bail!("{address} is {other}'s and {name}'s at once");
                }
            }
        }
        Ok(())
    }

    /// Ends the server, and says whether all was well until then.
    fn end(self, rig: &Rig) -> Result<()> {
        rig.server.stop();
        self.0.recv().context("the witness is gone")?
    }
}

/// The leader decides, names the service in the Lease and writes; the write is late on its way, and the leader is paused. Its
/// pool becomes another's meanwhile, which leaves the service itself as it was, and so its version.
fn late_write(rig: &Rig) -> Result<()> {
    let witness = Witness::begin(rig)?;
    rig.await_round("mark")?;
    rig.server.script("hold patch services x1")?;
    rig.service("first", json!({"metadata": {"labels": {"who": "first"}}}))?;
    eventually("the write is on its way", || {
        ensure!(rig.server.held() == 1, "it is not");
        Ok(())
    })?;
    let leader = rig.controllers()[0].pid();
    kill(leader, Signal::SIGSTOP)?;
    let mut spec = pool(&["192.168.10.7/32"]);
    spec["serviceAllocation"] = json!({"serviceSelectors": [{"matchLabels": {"who": "second"}}]});
    rig.pools(&[("one", spec)])?;
    rig.service("second", json!({"metadata": {"labels": {"who": "second"}}}))?;
    rig.start(&[])?;
    rig.await_has("second", &["192.168.10.7"])?;
    rig.server.script("heal")?;
    kill(leader, Signal::SIGCONT)?;
    eventually("the first one finds out", || {
        let controllers = rig.controllers();
        let said = controllers[0]
            .lines()
            .iter()
            .any(|line| line.contains("leading no more"));
        ensure!(said, "it does not");
        Ok(())
    })?;
    rig.await_round("mark-2")?;
    rig.await_has("first", &[])?;
    rig.await_has("second", &["192.168.10.7"])?;
    // What it was changed by is taken away again.
    eventually("no mark is left", || {
        let object = rig.get(Resource::Services, DEFAULT, "first")?;
        ensure!(
            object["metadata"]["annotations"]["portside.io/fence"].is_null(),
            "{object}"
        );
        Ok(())
    })?;
    witness.end(rig)
}

/// More services than addresses; they come and go while leaders are paused beyond their Lease, wake, and are killed.
fn churn(rig: &Rig) -> Result<()> {
    let witness = Witness::begin(rig)?;
    rig.start(&[])?;
    let mut number = 0;
    let mut edit = || -> Result<()> {
        for _ in 0..4 {
            rig.service(&format!("s{number}"), json!({}))?;
            if number >= 5 {
                rig.delete(Resource::Services, DEFAULT, &format!("s{}", number - 5))?;
            }
            number += 1;
        }
        Ok(())
    };
    for turn in 0..4 {
        edit()?;
        rig.await_round(&format!("mark-{turn}"))?;
        let leader = leader(rig)?;
        edit()?;
        kill(leader, Signal::SIGSTOP)?;
        edit()?;
        // The other one leads.
        rig.await_round(&format!("mark-{turn}-b"))?;
        if turn % 2 == 0 {
            kill(leader, Signal::SIGCONT)?;
        } else {
            let mut controllers = rig.controllers();
            let at = controllers
                .iter()
                .position(|one| one.pid() == leader)
                .context("it is gone")?;
            let paused = controllers.remove(at);
            kill(leader, Signal::SIGCONT)?;
            paused.kill();
            drop(controllers);
            rig.start(&[])?;
        }
    }
    eventually("all addresses are given", || {
        let mut given = 0;
        for one in number - 5..number {
            given += rig.has(&format!("s{one}"))?.len();
        }
        ensure!(given == 3, "{given} of 3");
        Ok(())
    })?;
    witness.end(rig)
}

/// The process whose identity the Lease has.
fn leader(rig: &Rig) -> Result<nix::unistd::Pid> {
    let lease = rig.get(Resource::Leases, POOLS, "portside-controller")?;
    let holder = lease["spec"]["holderIdentity"]
        .as_str()
        .context("nobody leads")?
        .to_owned();
    let controllers = rig.controllers();
    let leads = |line: &String| line.contains("leading, as") && line.contains(&holder);
    let mut all = controllers
        .iter()
        .filter(|one| one.lines().iter().any(leads));
    Ok(all
        .next()
        .with_context(|| format!("{holder} is none of ours"))?
        .pid())
}

/// The server is gone while a write is on its way, and makes it after its return.
fn in_doubt(rig: &Rig) -> Result<()> {
    let witness = Witness::begin(rig)?;
    rig.await_round("mark")?;
    rig.server.script("fail patch services 503 x2")?;
    rig.service("first", json!({}))?;
    rig.await_said("the status of Service default/first")?;
    rig.await_has("first", &["192.168.10.7"])?;
    rig.service("second", json!({}))?;
    rig.await_refused("second", "no free address")?;
    witness.end(rig)
}
