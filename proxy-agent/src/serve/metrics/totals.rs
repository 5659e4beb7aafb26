//! Sums over the backends of a service port that never fall.
//!
//! The datapath counts per backend, and a backend's counters are gone with it. A sum that fell would look like a restart
//! to whoever computes a rate. So what a backend had at the last look stays in the sum of its service port.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use proxy_common::abi::{BackendId, Counter, Generation};

use crate::model::ServicePortKey;

/// Shared: there are far more backends than service ports.
pub type Key = Arc<ServicePortKey>;

/// A backend's id and the generation of its use.
pub type Life = (BackendId, Generation);

#[derive(Default, Debug)]
pub struct Totals {
    /// From backends that are gone.
    departed: HashMap<Key, Counter>,
    /// What was there at the last look.
    seen: HashMap<Life, (Key, Counter)>,
}

impl Totals {
    /// Takes in what there is now, and returns the sums of the service ports that have or had a backend. A service port
    /// that `is_there` denies is forgotten.
    pub fn update(
        &mut self,
        now: HashMap<Life, (Key, Counter)>,
        is_there: impl Fn(&ServicePortKey) -> bool,
    ) -> BTreeMap<Key, Counter> {
        for (life, (key, count)) in self.seen.drain() {
            // The same id may be another service's by now, should two looks be far apart.
            if now.get(&life).is_none_or(|(of, _)| *of != key) {
                add(self.departed.entry(key).or_default(), &count);
            }
        }
        self.departed.retain(|key, _| is_there(key));
        let mut sums: BTreeMap<_, _> = self
            .departed
            .iter()
            .map(|(key, count)| (key.clone(), *count))
            .collect();
        for (key, count) in now.values() {
            add(sums.entry(key.clone()).or_default(), count);
        }
        self.seen = now;
        sums
    }
}

fn add(sum: &mut Counter, one: &Counter) {
    let Counter {
        packets,
        bytes,
        reply_packets,
        reply_bytes,
        connections,
    } = one;
    sum.packets += packets;
    sum.bytes += bytes;
    sum.reply_packets += reply_packets;
    sum.reply_bytes += reply_bytes;
    sum.connections += connections;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family, ObjectName, Protocol};

    fn key(name: &str) -> Key {
        Arc::new(ServicePortKey {
            service: ObjectName::new("default", name),
            port_name: "".into(),
            protocol: Protocol::Tcp,
            family: Family::Ipv4,
        })
    }

    /// Ids and generations, whose they are, and packets.
    type Now<'a> = [((u32, u32), &'a str, u64)];

    fn look(all: &Now<'_>) -> HashMap<Life, (Key, Counter)> {
        let of = |packets| Counter {
            packets,
            ..Counter::default()
        };
        all.iter()
            .map(|&((id, generation), name, packets)| {
                (
                    (BackendId(id), Generation(generation)),
                    (key(name), of(packets)),
                )
            })
            .collect()
    }

    #[test]
    fn a_sum_never_falls_while_backends_come_and_go() {
        let mut totals = Totals::default();
        let mut sum = |now: &Now<'_>| {
            totals.update(look(now), |key| *key.service.name != *"gone")[&key("svc")].packets
        };
        assert_eq!(sum(&[((1, 1), "svc", 5), ((2, 1), "svc", 7)]), 12);
        assert_eq!(sum(&[((1, 1), "svc", 6)]), 13);
        // The id is used again, its counters begin anew.
        assert_eq!(sum(&[((1, 2), "svc", 1), ((2, 2), "other", 9)]), 14);
        assert_eq!(sum(&[]), 14);
        assert_eq!(sum(&[]), 14);
    }

    #[test]
    fn a_service_that_is_gone_is_forgotten() {
        let mut totals = Totals::default();
        totals.update(look(&[((1, 1), "gone", 5)]), |_| true);
        assert!(totals.update(look(&[]), |_| false).is_empty());
        assert!(totals.update(look(&[]), |_| true).is_empty());
    }
}
