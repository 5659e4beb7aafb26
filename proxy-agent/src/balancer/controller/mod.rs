//! The controller: `proxy-agent controller`, a Deployment with rights of its own.
//!
//! In: Services, pools and namespaces, from an API server. Out: addresses in the status of Services, Events that say who has
//! which and why not, counts in the status of pools.
//!
//! The one rule: nothing is written by a process that may not lead any more, and what an earlier leader may still write is
//! made harmless before anything is given (`lease`).
//!
//! | file | subject |
//! |---|---|
//! | `access` | what it asks an API server for |
//! | `lease` | who leads, and what an earlier leader may still write |
//! | `lead` | what the leader does |
//! | `world` | what it knows of the cluster |
//! | `write` | statuses, at the version that was decided about |
//! | `tell` | Events |

pub mod access;
mod lead;
mod lease;
mod tell;
mod world;
mod write;

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use self::{
    lead::Leader,
    lease::{Candidate, Trouble},
    tell::Teller,
};
use super::demand::Classes;
use crate::source::{
    Heard,
    kube::{Options, client},
};

/// How to run.
#[derive(Clone, Debug)]
pub struct Config {
    pub api: Options,
    pub classes: Classes,
    /// Without one, that of the pod.
    pub pool_namespace: Option<String>,
    pub lease_namespace: Option<String>,
    pub lease_name: String,
    pub lease_length: Duration,
    pub identity: String,
    pub events: bool,
}

/// Runs until a signal ends it.
pub async fn run(config: Config) -> Result<()> {
    let mut end = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let client = client(&config.api, &Heard::default()).await?;
    let own = |namespace: &Option<String>| match namespace {
        Some(namespace) => namespace.clone(),
        None => client.default_namespace().to_owned(),
    };
    let pool_namespace = own(&config.pool_namespace);
    let candidate = Candidate {
        name: config.lease_name,
        namespace: own(&config.lease_namespace),
        identity: config.identity.clone(),
        length: config.lease_length,
    };
    let teller = Teller::start(client.clone(), config.identity, config.events);
    info!(
        "IPAddressPools of namespace {pool_namespace}, Lease {}/{}",
        candidate.namespace, candidate.name
    );
    loop {
        let (leadership, former) = tokio::select! {
            acquired = lease::acquire(&client, &candidate) => acquired?,
            _ = end.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let leader = Leader::new(
            &client,
            &config.classes,
            &pool_namespace,
            &leadership,
            &teller,
        );
        tokio::select! {
            trouble = leader.lead(former) => warn!("leading no more: {trouble}"),
            () = leadership.keep() => warn!("leading no more: {}", Trouble::Lost),
            _ = end.recv() => return leave(&leadership).await,
            _ = interrupt.recv() => return leave(&leadership).await,
        }
    }
}

/// What was being written then is in the Lease still, for the next leader.
async fn leave(leadership: &lease::Leadership) -> Result<()> {
    info!("ending");
    if let Err(error) = leadership.release().await {
        warn!("{error:#}");
    }
    Ok(())
}
