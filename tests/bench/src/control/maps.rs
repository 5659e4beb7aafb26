//! What the agent has programmed, read from its pinned maps.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use proxy_agent::datapath::{Maps, PinDir};
use proxy_agent::plan::FrontendAt;
use proxy_common::abi::{Service, ServiceId};

use super::objects::{self, Served};
use testbed::topology::Node;

/// Between two looks; the kernel's timers add about as much.
const PAUSE: Duration = Duration::from_micros(30);
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Programmed {
    maps: Maps,
    /// Service ids by their ClusterIPs.
    ids: HashMap<IpAddr, ServiceId>,
}

impl Programmed {
    pub fn open(node: &Node) -> Result<Self> {
        let maps = PinDir::new(&node.bpffs).open_maps()?;
        let frontends = maps.image()?.frontends.into_iter();
        let ids = frontends
            .filter_map(|(at, to)| match at {
                FrontendAt::Port { addr, .. } => Some((addr, to.service())),
                _ => None,
            })
            .collect();
        Ok(Self { maps, ids })
    }

    /// An error unless every service has exactly its endpoints.
    pub fn ensure_complete(&self, all: &[Served]) -> Result<()> {
        ensure!(
            self.ids.len() == all.len(),
            "{} services, not {}",
            self.ids.len(),
            all.len()
        );
        all.iter().try_for_each(|served| self.ensure_exact(served))
    }

    /// Waits until the value of a service is another one than `before`, looks whether its endpoints are the service's, and
    /// says when it came.
    pub fn wait_for_change(&self, served: &Served, before: &Service) -> Result<Instant> {
        let began = Instant::now();
        loop {
            let value = self.value(served)?;
            let now = Instant::now();
            if value != *before {
                self.ensure_exact(served)?;
                return Ok(now);
            }
            if now - began > PATIENCE {
                bail!("the change of a service did not come to the maps within {PATIENCE:?}");
            }
            thread::sleep(PAUSE);
        }
    }

    pub fn value(&self, served: &Served) -> Result<Service> {
        let id = self
            .ids
            .get(&served.cluster_ip().into())
            .context("a service has no frontend")?;
        Ok(self.maps.services.get(id, 0)?)
    }

    fn ensure_exact(&self, served: &Served) -> Result<()> {
        let extent = self.value(served)?.internal;
        let mut found = BTreeSet::new();
        for slot in extent.slots() {
            let backend = self
                .maps
                .v4
                .backends
                .get(&self.maps.slots.get(&slot.0, 0)?.0, 0)?;
            found.insert(SocketAddr::new(
                IpAddr::V4(backend.addr.into()),
                backend.port.get(),
            ));
        }
        let wanted: BTreeSet<_> = served
            .endpoints
            .iter()
            .map(|&one| SocketAddr::new(objects::endpoint_ip(one).into(), objects::TARGET_PORT))
            .collect();
        ensure!(
            found == wanted,
            "service {} has {found:?}, not {wanted:?}",
            served.cluster_ip()
        );
        Ok(())
    }
}
