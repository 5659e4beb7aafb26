//! The few sentences that suites have in common: ask a target, wait for an answer.

use std::net::SocketAddr;

use anyhow::{Result, anyhow, bail, ensure};

use crate::address::Family;
use crate::answer::Answer;
use crate::cluster::{Cluster, Vip};
use crate::patience::eventually;
use crate::sockets::Protocol;
use crate::sockets::client::{Conversation, Dial};
use crate::topology::Host;

/// Waits until a node port of every node that serves answers as wanted, in both families and protocols.
pub fn await_everywhere(
    cluster: &Cluster,
    vip: &Vip,
    wanted: impl Fn(&Answer) -> bool,
) -> Result<()> {
    for node in cluster.serving_nodes() {
        for family in Family::BOTH {
            for protocol in Protocol::BOTH {
                let target = vip.on_node(node, family);
                await_answer(cluster.topology.client(), protocol, target, &wanted)?;
            }
        }
    }
    Ok(())
}

/// Waits until a target answers as wanted.
pub fn await_answer(
    client: &Host,
    protocol: Protocol,
    target: SocketAddr,
    wanted: impl Fn(&Answer) -> bool,
) -> Result<Answer> {
    eventually(&format!("{protocol} {target} from {}", client.name), || {
        let answer = dial(client, protocol, target).ask();
        ensure!(wanted(&answer), "{answer}");
        Ok(answer)
    })
}

pub fn dial(client: &Host, protocol: Protocol, target: SocketAddr) -> Dial<'_> {
    Dial::new(&client.netns, protocol, target)
}

/// Opens a connection that has to come about.
pub fn open(dial: Dial) -> Result<Conversation> {
    dial.open()
        .map_err(|answer| anyhow!("opening a connection: {answer}"))
}

/// Demands that a server answers, and returns its name without the port.
pub fn who(answer: Answer) -> Result<String> {
    match answer.who() {
        Some(who) => Ok(who.split(':').next().unwrap_or(who).to_owned()),
        None => bail!("no server answered: {answer}"),
    }
}
