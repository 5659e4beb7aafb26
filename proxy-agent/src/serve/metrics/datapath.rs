//! Metrics from the maps, which are read at each scrape.
//!
//! In: the pinned maps, and the names of the services that the loop left. Where they cannot be read, `portside_datapath_up`
//! is 0 and the rest is missing; the log says why.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use proxy_common::{
    abi::{BackendFlags, Counter, ServiceCounter, ServiceId, names},
    edge::hook::Hook,
    reason::{Outcome, Reason},
};
use tracing::warn;

use super::totals::{Key, Totals};
use crate::{
    datapath::{Occupancy, PinDir},
    model::ServicePortKey,
    serve::Status,
};

pub struct Datapath {
    status: Arc<Status>,
    pins: PinDir,
    totals: Mutex<Totals>,
}

/// One look at the maps.
struct Look {
    maps: Vec<Occupancy>,
    reasons: Vec<(Reason, &'static Hook, u64)>,
    services: BTreeMap<Key, OfService>,
}

#[derive(Default)]
struct OfService {
    count: ServiceCounter,
    held: u64,
    /// Endpoints that new connections may use.
    endpoints: i64,
    traffic: Counter,
}

type Labels<'a, const N: usize> = [(&'static str, &'a str); N];
/// Name, help, type, and how it is read off.
type OfServices = (
    &'static str,
    &'static str,
    MetricType,
    fn(&OfService) -> u64,
);

const OF_SERVICES: [OfServices; 5] = [
    (
        "portside_service_connections",
        "New connections of a service port",
        MetricType::Counter,
        |service| service.count.connections,
    ),
    (
        "portside_service_refused_packets",
        "Packets that were answered by a refusal, because no endpoint is there",
        MetricType::Counter,
        |service| service.count.refused,
    ),
    (
        "portside_service_dropped_packets",
        "Packets to a service port that were dropped",
        MetricType::Counter,
        |service| service.count.dropped,
    ),
    (
        "portside_service_pending_packets",
        "First packets to a service port that were held, because no endpoint is there yet",
        MetricType::Counter,
        |service| service.held,
    ),
    (
        "portside_service_endpoints",
        "Endpoints that new connections to a service port may use",
        MetricType::Gauge,
        |service| service.endpoints.unsigned_abs(),
    ),
];

impl Datapath {
    pub fn new(status: Arc<Status>, pins: PinDir) -> Self {
        Self {
            status,
            pins,
            totals: Mutex::default(),
        }
    }

    fn look(&self) -> Result<Look> {
        let maps = self.pins.open_maps()?;
        let names = self.status.names();
        let image = maps.image()?;
        let end = end_of(names.keys().map(|id| id.0));
        let counts = maps.service_counts_below(end)?;
        let held = maps.service_held_below(end)?;
        let mut of_ids: HashMap<ServiceId, OfService> = HashMap::with_capacity(names.len());
        for &id in names.keys() {
            let of_id = of_ids.entry(id).or_default();
            of_id.count = counts.get(id.0 as usize).copied().unwrap_or_default();
            of_id.held = held.get(id.0 as usize).copied().unwrap_or_default();
        }
        let used = || {
            image
                .backends
                .iter()
                .filter(|(_, entry)| !entry.flags.is_empty())
        };
        let counts = maps.backend_counts_below(end_of(used().map(|(id, _)| id.0)))?;
        let mut traffic = HashMap::new();
        for (&id, entry) in used() {
            let (Some(key), Some(of_service)) =
                (names.get(&entry.service), of_ids.get_mut(&entry.service))
            else {
                continue;
            };
            if entry.flags.intersects(BackendFlags::CHOSEN) {
                of_service.endpoints += 1;
            }
            let count = counts.get(id.0 as usize).copied().unwrap_or_default();
            // Most of many backends had none yet.
            if count != Counter::default() {
                traffic.insert((id, entry.generation), (Arc::clone(key), count));
            }
        }
        let mut services: BTreeMap<Key, OfService> = names
            .iter()
            .filter_map(|(id, key)| Some((Arc::clone(key), of_ids.remove(id)?)))
            .collect();
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, sum) in totals.update(traffic, |key| services.contains_key(key)) {
            services.entry(key).or_default().traffic = sum;
        }
        let mut reasons = Vec::new();
        for &reason in Reason::ALL.iter().filter(|r| **r != Reason::NotService) {
            for hook in &Hook::ALL {
                reasons.push((reason, hook, maps.reason_count(hook, reason)?));
            }
        }
        Ok(Look {
            maps: maps.occupancy(&image, &self.pins)?,
            reasons,
            services,
        })
    }
}

/// Behind the last of ids in ascending order.
fn end_of(ids: impl Iterator<Item = u32>) -> u32 {
    ids.last().map_or(0, |last| last.saturating_add(1))
}

impl fmt::Debug for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datapath")
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}

impl Collector for Datapath {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let look = self.look();
        ConstGauge::new(i64::from(look.is_ok())).encode(encoder.encode_descriptor(
            "portside_datapath_up",
            "1 where the maps could be read",
            None,
            MetricType::Gauge,
        )?)?;
        match look {
            Ok(look) => {
                encode_maps(&mut encoder, &look.maps)?;
                encode_reasons(&mut encoder, &look.reasons)?;
                encode_services(&mut encoder, &look.services)
            }
            Err(error) => {
                warn!("/metrics without the datapath: {error:#}");
                Ok(())
            }
        }
    }
}

fn encode_maps(encoder: &mut DescriptorEncoder, maps: &[Occupancy]) -> fmt::Result {
    type Read = fn(&Occupancy) -> i64;
    let metrics: [(&str, &str, Read); 2] = [
        ("portside_map_entries", "Entries of a map", |map| {
            map.used as i64
        }),
        ("portside_map_capacity", "Room of a map", |map| {
            i64::from(map.size)
        }),
    ];
    for (name, help, read) in metrics {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for map in maps {
            let labels: Labels<1> = [("map", map.map)];
            ConstGauge::new(read(map)).encode(family.encode_family(&labels)?)?;
        }
    }
    let name = "portside_flows";
    let help = "Tracked connections through services; each is two entries of its maps";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (index, ip_family) in ["IPv4", "IPv6"].into_iter().enumerate() {
        let of_flows = [names::FLOWS, names::DATAGRAMS, names::PENDING].map(|names| names[index]);
        let entries: usize = maps
            .iter()
            .filter(|map| of_flows.contains(&map.map))
            .map(|map| map.used)
            .sum();
        let labels: Labels<1> = [("ip_family", ip_family)];
        ConstGauge::new((entries / 2) as i64).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn encode_reasons(
    encoder: &mut DescriptorEncoder,
    reasons: &[(Reason, &'static Hook, u64)],
) -> fmt::Result {
    for (name, help, outcome) in [
        (
            "portside_dropped_packets",
            "Packets that were dropped, or refused with an answer",
            Outcome::Drop,
        ),
        (
            "portside_passed_packets",
            "Packets that were left to the next layer untouched, other than those of no service",
            Outcome::Pass,
        ),
        (
            "portside_translated_packets",
            "Packets that the slow path translated: the first ones of connections above all",
            Outcome::Translate,
        ),
    ] {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        let of_kind = reasons.iter().filter(|(r, ..)| r.outcome() == outcome);
        for (reason, hook, count) in of_kind {
            let labels: Labels<2> = [("reason", reason.text()), ("hook", hook.name)];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn encode_services(
    encoder: &mut DescriptorEncoder,
    services: &BTreeMap<Key, OfService>,
) -> fmt::Result {
    for (name, help, kind, read) in OF_SERVICES {
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for (key, service) in services {
            let text = Text::of(key);
            let labels = text.labels();
            let value = family.encode_family(&labels)?;
            match kind {
                MetricType::Gauge => ConstGauge::new(read(service) as i64).encode(value)?,
                _ => ConstCounter::new(read(service)).encode(value)?,
            }
        }
    }
    type Read = fn(&Counter) -> [u64; 2];
    let metrics: [(&str, &str, Read); 2] = [
        (
            "portside_service_packets",
            "Packets through a service port",
            |count| [count.packets, count.reply_packets],
        ),
        (
            "portside_service_bytes",
            "Bytes (of layer 3) through a service port",
            |count| [count.bytes, count.reply_bytes],
        ),
    ];
    for (name, help, read) in metrics {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (key, service) in services {
            let text = Text::of(key);
            let values = read(&service.traffic);
            for (direction, value) in ["request", "reply"].into_iter().zip(values) {
                let [a, b, c, d, e] = text.labels();
                let labels: Labels<6> = [a, b, c, d, e, ("direction", direction)];
                ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    Ok(())
}

/// The parts of a service port's name as text.
struct Text<'a> {
    key: &'a ServicePortKey,
    protocol: String,
    family: String,
}

impl<'a> Text<'a> {
    fn of(key: &'a ServicePortKey) -> Self {
        Self {
            key,
            protocol: key.protocol.to_string(),
            family: key.family.to_string(),
        }
    }

    fn labels(&self) -> Labels<'_, 5> {
        [
            ("service_namespace", &self.key.service.namespace),
            ("service_name", &self.key.service.name),
            ("port", &self.key.port_name),
            ("protocol", &self.protocol),
            ("ip_family", &self.family),
        ]
    }
}
