//! The cluster that the cases share, and the few sentences that they have in common.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail, ensure};
use libtest_mimic::Trial;
use tests::address::Family;
use tests::agent::Uplink;
use tests::answer::Answer;
use tests::cluster::{Cluster, Vip};
use tests::patience::eventually;
use tests::runner::{Shared, cluster_row};
use tests::sockets::Protocol;
use tests::sockets::client::{Conversation, Dial};
use tests::topology::{Host, Plan, Pod};

pub const CLIENTS: u8 = 10;

pub struct World {
    uplink: Uplink,
    cluster: Arc<Shared<Cluster>>,
}

impl World {
    pub fn new(uplink: Uplink) -> Self {
        Self::of(
            uplink,
            Plan {
                clients: CLIENTS,
                ..Plan::default()
            },
        )
    }

    /// One that is not shared with other cases.
    pub fn of(uplink: Uplink, plan: Plan) -> Self {
        Self {
            uplink,
            cluster: Shared::new(move || Cluster::start(&plan, uplink)),
        }
    }

    pub fn row(
        &self,
        name: impl fmt::Display,
        test: impl FnOnce(&Cluster) -> Result<()> + Send + 'static,
    ) -> Trial {
        cluster_row(row_name(self.uplink, name), &self.cluster, test)
    }
}

pub fn row_name(uplink: Uplink, name: impl fmt::Display) -> String {
    match uplink {
        Uplink::Xdp => format!("xdp: {name}"),
        Uplink::Tc => format!("tc: {name}"),
    }
}

/// A service over TCP and UDP that is programmed on both nodes.
pub fn serve(cluster: &Cluster, name: &str, pods: &[&Pod]) -> Result<Vip> {
    let vip = cluster.publish(name, pods)?;
    await_everywhere(cluster, &vip, |answer| answer.who().is_some())?;
    Ok(vip)
}

/// Waits until a node port of both nodes answers as wanted, in both families and protocols.
pub fn await_everywhere(
    cluster: &Cluster,
    vip: &Vip,
    wanted: impl Fn(&Answer) -> bool,
) -> Result<()> {
    for node in &cluster.topology.nodes {
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

/// Demands that a server answers which saw the client at its own address.
pub fn seen_as_itself(answer: Answer, client: &Host, family: Family) -> Result<String> {
    if let Answer::Ok { client: seen, .. } = &answer {
        let own = client.ip.of(family);
        ensure!(
            seen.ip() == own,
            "the server saw {seen}, not the client's own {own}"
        );
    }
    who(answer)
}
