//! Logs faults of objects in few lines.
//!
//! An object of a few KiB can be wrong in thousands of places, and change every second. So of each object some places are named, and how
//! many more there are; the same over all objects of a batch.

use std::collections::BTreeMap;

use tracing::warn;

use crate::model::{ObjectName, Warning};

/// So many places of one object are named.
const OF_ONE: usize = 5;
/// So many lines there are for what came at once.
const AT_ONCE: usize = 50;

/// Says what is wrong with the objects that came.
pub fn say(warnings: &[Warning]) {
    for line in lines(warnings) {
        warn!("{line}");
    }
}

fn lines(warnings: &[Warning]) -> Vec<String> {
    let mut counts: BTreeMap<&ObjectName, usize> = BTreeMap::new();
    let mut lines = Vec::new();
    let mut unsaid = 0;
    for warning in warnings {
        let count = counts.entry(warning.object()).or_default();
        *count += 1;
        match *count <= OF_ONE && lines.len() < AT_ONCE {
            true => lines.push(warning.to_string()),
            false => unsaid += 1,
        }
    }
    if unsaid > 0 {
        let worst = counts.iter().max_by_key(|(_, count)| **count);
        let worst = worst.map(|(name, count)| format!("; most of all of {name}, {count}"));
        lines.push(format!(
            "and {unsaid} more like these{}",
            worst.unwrap_or_default()
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn refused(name: &str, last: u8) -> Warning {
        Warning::AddressRefused {
            service: ObjectName::new("ns", name),
            addr: IpAddr::from([127, 0, 0, last]),
            reason: "a loopback address".into(),
        }
    }

    #[test]
    fn of_an_object_that_is_wrong_all_over_some_places_are_named() {
        let mut warnings: Vec<_> = (0..200).map(|last| refused("all-wrong", last)).collect();
        warnings.push(refused("wrong", 1));
        let lines = lines(&warnings);
        assert_eq!(lines.len(), 7, "{lines:#?}");
        assert!(lines[5].contains("ns/wrong "), "{lines:#?}");
        assert_eq!(
            lines[6],
            "and 195 more like these; most of all of ns/all-wrong, 200"
        );
        assert_eq!(super::lines(&warnings[..5]).len(), 5);
    }

    #[test]
    fn of_many_objects_at_once_some_are_named() {
        let many: Vec<_> = (0..1000).map(|n| refused(&format!("svc-{n}"), 1)).collect();
        assert_eq!(lines(&many).len(), AT_ONCE + 1);
    }
}
