//! What was dropped, and how much of it a second.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::Result;
use proxy_common::{edge::hook::Hook, reason::Reason};
use serde::Serialize;

use super::View;
use crate::{datapath::Maps, state::Name};

/// From one reading of the counters to the next.
const WINDOW: Duration = Duration::from_secs(1);

/// What became of packets for one reason at one hook.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Count {
    pub reason: Reason,
    pub hook: &'static Hook,
    pub packets: u64,
    pub per_second: f64,
}

/// What was dropped for one reason, at all hooks.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drops {
    pub reason: &'static str,
    pub packets: u64,
    pub per_second: f64,
}

/// What was dropped of one service port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfService {
    /// `namespace/name:port`.
    pub service: String,
    pub refused_packets: u64,
    pub dropped_packets: u64,
    pub held_packets: u64,
}

/// Of every reason at every hook. Takes a second.
pub fn counts(maps: &Maps) -> Result<Vec<Count>> {
    let read = || -> Result<Vec<u64>> {
        let all = Reason::ALL
            .iter()
            .flat_map(|reason| Hook::ALL.iter().map(move |hook| (hook, *reason)));
        all.map(|(hook, reason)| maps.reason_count(hook, reason))
            .collect()
    };
    let before = read()?;
    thread::sleep(WINDOW);
    let after = read()?;
    let all = Reason::ALL
        .iter()
        .flat_map(|reason| Hook::ALL.iter().map(move |hook| (hook, *reason)));
    Ok(all
        .zip(before.into_iter().zip(after))
        .map(|((hook, reason), (before, packets))| Count {
            reason,
            hook,
            packets,
            per_second: packets.saturating_sub(before) as f64 / WINDOW.as_secs_f64(),
        })
        .collect())
}

/// Of each reason to drop that was met, those first of which most are dropped now.
pub fn by_reason(counts: &[Count]) -> Vec<Drops> {
    let mut all: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| reason.is_drop())
        .map(|reason| {
            let of_reason = counts.iter().filter(|count| count.reason == *reason);
            Drops {
                reason: reason.text(),
                packets: of_reason.clone().map(|count| count.packets).sum(),
                per_second: of_reason.map(|count| count.per_second).sum(),
            }
        })
        .filter(|drops| drops.packets > 0)
        .collect();
    all.sort_by(|a, b| {
        b.per_second
            .total_cmp(&a.per_second)
            .then(b.packets.cmp(&a.packets))
    });
    all
}

/// Those service ports of which a packet was refused, dropped or held; both families of one together.
pub fn of_services(view: &View) -> Result<Vec<OfService>> {
    let mut all: BTreeMap<&Name, (u64, u64, u64)> = BTreeMap::new();
    for service in &view.services {
        let count = view.maps.service_count(service.id)?;
        let sum = all.entry(&service.name).or_default();
        sum.0 += count.refused;
        sum.1 += count.dropped;
        sum.2 += view.maps.service_held(service.id)?;
    }
    Ok(all
        .into_iter()
        .filter(|(_, sum)| *sum != (0, 0, 0))
        .map(
            |(name, (refused_packets, dropped_packets, held_packets))| OfService {
                service: name.text(),
                refused_packets,
                dropped_packets,
                held_packets,
            },
        )
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_now_comes_first_and_what_is_let_through_is_no_drop() {
        let at = |reason, packets, per_second| Count {
            reason,
            hook: &Hook::TC_UPLINK_IN,
            packets,
            per_second,
        };
        let counts = [
            at(Reason::LeftToTc, 1_000, 50.0),
            at(Reason::Refused, 100, 0.0),
            at(Reason::SourceRange, 5, 3.0),
            at(Reason::SourceRange, 4, 1.0),
            at(Reason::TableFull, 0, 0.0),
        ];
        let drops = by_reason(&counts);
        let shown: Vec<_> = drops
            .iter()
            .map(|one| (one.reason, one.packets, one.per_second))
            .collect();
        assert_eq!(shown, [("source-range", 9, 4.0), ("refused", 100, 0.0)]);
    }
}
