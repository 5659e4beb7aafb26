//! What was dropped, and how much of it a second.

use std::{thread, time::Duration};

use anyhow::Result;
use proxy_common::{edge::hook::Hook, reason::Reason};
use serde::Serialize;

use crate::datapath::Maps;

/// From one reading of the counters to the next.
const WINDOW: Duration = Duration::from_secs(1);

/// What was dropped for one reason, at all hooks.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drops {
    pub reason: &'static str,
    pub packets: u64,
    pub per_second: f64,
}

/// Of each reason to drop that was met, those first of which most are dropped now. Takes a second.
pub fn rates(maps: &Maps) -> Result<Vec<Drops>> {
    let before = sums(maps)?;
    thread::sleep(WINDOW);
    let after = sums(maps)?;
    Ok(of(&before, &after))
}

fn of(before: &[(Reason, u64)], after: &[(Reason, u64)]) -> Vec<Drops> {
    let mut all: Vec<_> = before
        .iter()
        .zip(after)
        .filter(|(_, (_, packets))| *packets > 0)
        .map(|((_, before), (reason, packets))| Drops {
            reason: reason.text(),
            packets: *packets,
            per_second: packets.saturating_sub(*before) as f64 / WINDOW.as_secs_f64(),
        })
        .collect();
    all.sort_by(|a, b| {
        (b.per_second, b.packets)
            .partial_cmp(&(a.per_second, a.packets))
            .unwrap_or(a.reason.cmp(b.reason))
    });
    all
}

fn sums(maps: &Maps) -> Result<Vec<(Reason, u64)>> {
    Reason::ALL
        .iter()
        .filter(|reason| reason.is_drop())
        .map(|&reason| {
            let of_hooks = Hook::ALL.iter().map(|hook| maps.reason_count(hook, reason));
            Ok((reason, of_hooks.sum::<Result<u64>>()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_now_comes_first() {
        let at = |refused, range, full| {
            [
                (Reason::Refused, refused),
                (Reason::SourceRange, range),
                (Reason::TableFull, full),
            ]
        };
        let drops = of(&at(100, 5, 0), &at(100, 9, 0));
        let shown: Vec<_> = drops
            .iter()
            .map(|one| (one.reason, one.packets, one.per_second))
            .collect();
        assert_eq!(shown, [("source-range", 9, 4.0), ("refused", 100, 0.0)]);
    }
}
