//! One controller at a time, and no write of an earlier one that comes late.
//!
//! A Lease says who leads, as it does for all of Kubernetes. That alone is not enough: a leader may be held up between its
//! decision and the arrival of its write, for longer than the Lease. An API server takes such a write if the Service has
//! not changed meanwhile, whatever has become of the pools and of the other Services.
//!
//! So the Lease also names the Services that the leader is about to write ([`Leadership::declare`]), before it writes them.
//! Both the names and a change of leader are writes of one object at a known version: the next leader knows every Service
//! of which a late write may be on its way. It changes each of them ([`super::fence`]) before it gives any address: a
//! late write is of an older version then, and is refused.

use std::{
    collections::BTreeMap,
    sync::{
        PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::model::ObjectName;

/// The names of Services that the leader is about to write.
const INTENTS: &str = "portside.io/about-to-write";

/// What can go wrong with the Lease.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("another controller leads")]
    Lost,
    #[error("the Lease cannot be written: {0}")]
    Unavailable(kube::Error),
    #[error("the Lease cannot be written in time")]
    Late,
}

/// Who asks for the Lease, and where.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub name: String,
    pub namespace: String,
    /// One process has one, and no other ever has the same.
    pub identity: String,
    pub length: Duration,
}

/// This process leads, for as long as it says so in time.
#[derive(Debug)]
pub struct Leadership {
    api: Api<Lease>,
    candidate: Candidate,
    held: Mutex<Held>,
    /// What was asked for in time holds until then. Beside `held`, which is in use while the server is asked.
    until: std::sync::Mutex<Instant>,
    is_lost: AtomicBool,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    /// No write to the Services that it names is on its way any more.
    is_settled: bool,
}

/// Waits until this process leads. What comes out beside are the Services that an earlier leader may still write.
pub async fn acquire(
    client: &Client,
    candidate: &Candidate,
) -> Result<(Leadership, Vec<ObjectName>)> {
    let api: Api<Lease> = Api::namespaced(client.clone(), &candidate.namespace);
    let pause = candidate.length / 10;
    // The version that was seen last, and since when: clocks of two machines are never compared.
    let mut seen: Option<(String, Instant)> = None;
    let mut told = String::new();
    loop {
        let asked = Instant::now();
        let lease = match timeout(candidate.length, api.get_opt(&candidate.name)).await {
            Ok(Ok(lease)) => lease,
            Ok(Err(error)) => {
                tell(
                    &mut told,
                    format!("cannot read Lease {}: {error}", candidate.name),
                );
                sleep(pause).await;
                continue;
            }
            Err(_) => continue,
        };
        let written = match lease {
            None => {
                let lease = candidate.lease(&Lease::default());
                api.create(&PostParams::default(), &lease).await
            }
            Some(lease) => {
                let version = lease.metadata.resource_version.clone().unwrap_or_default();
                let spec = lease.spec.clone().unwrap_or_default();
                let holder = spec.holder_identity.unwrap_or_default();
                let length = spec
                    .lease_duration_seconds
                    .and_then(|seconds| u64::try_from(seconds).ok());
                let length = length.map_or(candidate.length, Duration::from_secs);
                let since = match &seen {
                    Some((known, since)) if *known == version => *since,
                    _ => asked,
                };
                seen = Some((version, since));
                if !holder.is_empty() && since.elapsed() < length {
                    tell(&mut told, format!("{holder} leads: waiting"));
                    sleep(pause).await;
                    continue;
                }
                api.replace(
                    &candidate.name,
                    &PostParams::default(),
                    &candidate.lease(&lease),
                )
                .await
            }
        };
        match written {
            Ok(lease) => {
                info!("leading, as {}", candidate.identity);
                let former = intents(&lease);
                let held = Held {
                    lease,
                    is_settled: false,
                };
                let leadership = Leadership {
                    api,
                    candidate: candidate.clone(),
                    held: Mutex::new(held),
                    until: std::sync::Mutex::new(asked + candidate.patience()),
                    is_lost: AtomicBool::new(false),
                };
                return Ok((leadership, former));
            }
            // Another one was there first.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => {
                tell(
                    &mut told,
                    format!("cannot write Lease {}: {error}", candidate.name),
                );
                sleep(pause).await;
            }
        }
    }
}

fn tell(told: &mut String, text: String) {
    if *told != text {
        info!("{text}");
        *told = text;
    }
}

impl Candidate {
    /// From a renewal that is asked for to the end of what the leader counts on, which comes before others count it out.
    fn patience(&self) -> Duration {
        self.length * 2 / 3
    }

    /// The Lease with this process as its holder; names of Services stay.
    fn lease(&self, before: &Lease) -> Lease {
        let spec = before.spec.clone().unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..before.metadata.clone()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(self.length.as_secs().try_into().unwrap_or(i32::MAX)),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(spec.lease_transitions.unwrap_or(0).saturating_add(1)),
                ..spec
            }),
        }
    }
}

/// The Services that a Lease names.
fn intents(lease: &Lease) -> Vec<ObjectName> {
    let annotations = lease.metadata.annotations.as_ref();
    let text = annotations
        .and_then(|all| all.get(INTENTS))
        .map_or("", String::as_str);
    let names = text.split(',').filter_map(|name| name.split_once('/'));
    names
        .map(|(namespace, name)| ObjectName::new(namespace, name))
        .collect()
}

impl Leadership {
    /// Does this process lead, as far as it can know?
    pub fn is_held(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        !self.is_lost.load(Ordering::Relaxed) && Instant::now() < until
    }

    /// Every write to the Services that were declared has had its answer.
    pub async fn settled(&self) {
        self.held.lock().await.is_settled = true;
    }

    /// Keeps the Lease until it is lost.
    pub async fn keep(&self) {
        loop {
            sleep(self.candidate.length / 5).await;
            match self.write(|_| {}).await {
                Ok(()) => debug!("the Lease is renewed"),
                Err(Trouble::Lost) => return,
                Err(error) => warn!("{error}"),
            }
            if !self.is_held() {
                self.is_lost.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Says that these Services, and no others, are about to be written.
    pub async fn declare(&self, services: &[ObjectName]) -> Result<(), Trouble> {
        let names: Vec<_> = services.iter().map(ToString::to_string).collect();
        let text = names.join(",");
        self.write(|lease| {
            let annotations = lease.metadata.annotations.get_or_insert_with(BTreeMap::new);
            match text.is_empty() {
                true => annotations.remove(INTENTS),
                false => annotations.insert(INTENTS.to_owned(), text.clone()),
            };
        })
        .await
    }

    /// Gives the Lease up, so that nobody has to wait for its end. To be called by one who writes no more.
    pub async fn release(&self) -> Result<()> {
        let released = self.write(|lease| {
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = Some(String::new());
            }
        });
        released.await.context("giving up the Lease")?;
        self.is_lost.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn write(&self, change: impl Fn(&mut Lease)) -> Result<(), Trouble> {
        let mut held = self.held.lock().await;
        if self.is_lost.load(Ordering::Relaxed) {
            return Err(Trouble::Lost);
        }
        // What was written without an answer is there, and of a later version.
        for _ in 0..2 {
            let asked = Instant::now();
            let mut lease = held.lease.clone();
            if let Some(spec) = &mut lease.spec {
                spec.renew_time = Some(MicroTime(Timestamp::now()));
            }
            if held.is_settled
                && let Some(annotations) = &mut lease.metadata.annotations
            {
                annotations.remove(INTENTS);
            }
            change(&mut lease);
            let parameters = PostParams::default();
            let written = self.api.replace(&self.candidate.name, &parameters, &lease);
            match timeout(self.candidate.length / 3, written).await {
                Ok(Ok(lease)) => {
                    *held = Held {
                        is_settled: intents(&lease).is_empty(),
                        lease,
                    };
                    *self.until.lock().unwrap_or_else(PoisonError::into_inner) =
                        asked + self.candidate.patience();
                    return Ok(());
                }
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => {}
                Ok(Err(error)) => return Err(Trouble::Unavailable(error)),
                Err(_) => return Err(Trouble::Late),
            }
            let now = match timeout(
                self.candidate.length / 3,
                self.api.get(&self.candidate.name),
            )
            .await
            {
                Ok(now) => now.map_err(Trouble::Unavailable)?,
                Err(_) => return Err(Trouble::Late),
            };
            let holder = now
                .spec
                .as_ref()
                .and_then(|spec| spec.holder_identity.as_deref());
            if holder != Some(&self.candidate.identity) {
                self.is_lost.store(true, Ordering::Relaxed);
                return Err(Trouble::Lost);
            }
            held.lease = now;
        }
        Err(Trouble::Late)
    }
}
