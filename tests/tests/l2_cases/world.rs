//! The cluster that the cases share, and the few sentences that they have in common.

use std::fmt;
use std::sync::Arc;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::answer::Answer;
use testbed::cluster::{Cluster, Vip};
use testbed::masquerade;
use testbed::runner::{Shared, ignorable_cluster_row};
use testbed::topology::{Host, Plan, Pod};
use testbed::xdp;
use vm_protocol::{WITH_TC, WITH_XDP};

pub use testbed::ask::{await_answer, await_everywhere, dial, open, who};

pub const CLIENTS: u8 = 10;

pub struct World {
    /// Begins the names of its rows.
    served: &'static str,
    /// Why its rows cannot run here, if so.
    missing: Option<&'static str>,
    /// Whether its rows demand that XDP takes packets of theirs.
    by_xdp: bool,
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
            served: served_by(uplink),
            missing: None,
            by_xdp: uplink == Uplink::Xdp,
            cluster: Shared::new(move || Cluster::start(&plan, uplink)),
        }
    }

    /// The same with an agent on the first node alone.
    pub fn with_first_agent(uplink: Uplink, plan: Plan) -> Self {
        Self {
            served: served_by(uplink),
            missing: None,
            by_xdp: uplink == Uplink::Xdp,
            cluster: Shared::new(move || {
                let cluster = Cluster::build(&plan, uplink)?;
                cluster.start_first_agent()?;
                Ok(cluster)
            }),
        }
    }

    /// The same with agents that have room for so many endpoints.
    pub fn with_room_for(uplink: Uplink, backends: u32) -> Self {
        let services = 1024;
        Self {
            served: served_by(uplink),
            missing: None,
            by_xdp: uplink == Uplink::Xdp,
            cluster: Shared::new(move || {
                let cluster = Cluster::build(&Plan::default(), uplink)?;
                for node in &cluster.topology.nodes {
                    let launch = cluster.launch(node).with_room_for(backends, services);
                    cluster.start_agent(&launch)?;
                }
                Ok(cluster)
            }),
        }
    }

    /// One whose row starts its agents.
    pub fn without_agents(uplink: Uplink, plan: Plan) -> Self {
        Self {
            served: served_by(uplink),
            missing: None,
            by_xdp: uplink == Uplink::Xdp,
            cluster: Shared::new(move || Cluster::build(&plan, uplink)),
        }
    }

    /// One without agents, whose services the kernel's NAT serves by rules like kube-proxy's: what is demanded of
    /// Portside is demanded of them, too.
    pub fn of_rules() -> Self {
        Self::of_rules_on(Plan {
            clients: CLIENTS,
            ..Plan::default()
        })
    }

    /// The same on this topology.
    pub fn of_rules_on(plan: Plan) -> Self {
        Self {
            served: "rules",
            missing: (!masquerade::available()).then_some(masquerade::MISSING),
            by_xdp: false,
            cluster: Shared::new(move || Cluster::build_with_rules(&plan)),
        }
    }

    pub fn row(
        &self,
        name: impl fmt::Display,
        test: impl FnOnce(&Cluster) -> Result<()> + Send + 'static,
    ) -> Trial {
        self.row_unless(None, name, test)
    }

    /// A row that may miss something here.
    pub fn row_unless(
        &self,
        missing: Option<&'static str>,
        name: impl fmt::Display,
        test: impl FnOnce(&Cluster) -> Result<()> + Send + 'static,
    ) -> Trial {
        let by_xdp = self.by_xdp;
        self.trial(missing, name, move |cluster| match by_xdp {
            true => xdp::takes(cluster, || test(cluster)),
            false => test(cluster),
        })
    }

    /// A row whose packets are not XDP's: they do not come by an uplink, are no service's, or go out by another device.
    pub fn row_beside_xdp(
        &self,
        name: impl fmt::Display,
        test: impl FnOnce(&Cluster) -> Result<()> + Send + 'static,
    ) -> Trial {
        self.trial(None, name, test)
    }

    /// The same, where it may miss something here.
    pub fn row_beside_xdp_unless(
        &self,
        missing: Option<&'static str>,
        name: impl fmt::Display,
        test: impl FnOnce(&Cluster) -> Result<()> + Send + 'static,
    ) -> Trial {
        self.trial(missing, name, test)
    }

    fn trial(
        &self,
        missing: Option<&'static str>,
        name: impl fmt::Display,
        test: impl FnOnce(&Cluster) -> Result<()> + Send + 'static,
    ) -> Trial {
        let name = format!("{}: {name}", self.served);
        ignorable_cluster_row(name, self.missing.or(missing), &self.cluster, test)
    }
}

fn served_by(uplink: Uplink) -> &'static str {
    match uplink {
        Uplink::Xdp => WITH_XDP,
        Uplink::Tc => WITH_TC,
    }
}

/// A service over TCP and UDP that is programmed on both nodes.
pub fn serve(cluster: &Cluster, name: &str, pods: &[&Pod]) -> Result<Vip> {
    let vip = cluster.publish(name, pods)?;
    await_everywhere(cluster, &vip, |answer| answer.who().is_some())?;
    Ok(vip)
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
