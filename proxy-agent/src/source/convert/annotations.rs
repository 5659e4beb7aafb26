//! What a Service asks for by annotations.
//!
//! The one rule: an annotation that is not understood costs itself. It is told, and the default holds.

use super::objects::Metadata;
use crate::model::{Asks, Ignored};

const SCALE_FROM_ZERO: &str = "portside.io/scale-from-zero";
const HOLD_TIMEOUT: &str = "portside.io/hold-timeout";

/// Seconds for which a client's first packets wait, where the Service does not say.
const DEFAULT_HOLD: u32 = 60;
const MAX_HOLD: u32 = 3600;
/// Of a value that may be as long as an object.
const SHOWN: usize = 64;

pub fn asks(meta: &Metadata) -> Asks {
    let mut reader = Reader {
        meta,
        ignored: Vec::new(),
    };
    let holds = reader.read(SCALE_FROM_ZERO, |text| match text {
        "hold" => Ok(true),
        "refuse" => Ok(false),
        _ => Err("is none of hold, refuse".to_owned()),
    });
    let timeout = reader.read(HOLD_TIMEOUT, hold_timeout);
    Asks {
        hold: holds
            .unwrap_or(false)
            .then(|| timeout.unwrap_or(DEFAULT_HOLD)),
        ignored: reader.ignored,
    }
}

struct Reader<'a> {
    meta: &'a Metadata,
    ignored: Vec<Ignored>,
}

impl Reader<'_> {
    /// The value of an annotation, if it is there and understood.
    fn read<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.meta.annotations.as_ref()?.get(name)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(problem) => {
                let shown: String = text.chars().take(SHOWN).collect();
                let more = if shown.len() < text.len() { "..." } else { "" };
                self.ignored.push(Ignored {
                    field: format!("metadata.annotations[{name}]"),
                    message: format!("{shown:?}{more} {problem}"),
                });
                None
            }
        }
    }
}

/// Seconds, also as `90s`, `2m` or `1h`.
fn hold_timeout(text: &str) -> Result<u32, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let unit = units.iter().find_map(|(unit, seconds)| {
        let number = text.strip_suffix(unit)?;
        Some((number, *seconds))
    });
    let (number, unit) = unit.unwrap_or((text, 1));
    let seconds = number
        .parse()
        .ok()
        .and_then(|number: u32| number.checked_mul(unit));
    seconds
        .filter(|seconds| (1..=MAX_HOLD).contains(seconds))
        .ok_or_else(|| format!("is no time from 1s to {MAX_HOLD}s (as 90s, 2m, 1h)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)]) -> Asks {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        asks(&Metadata {
            annotations: Some(annotations.iter().map(own).collect()),
            ..Metadata::default()
        })
    }

    #[test]
    fn first_packets_wait_where_the_service_says_so_and_as_long() {
        let hold = (SCALE_FROM_ZERO, "hold");
        for (annotations, waits) in [
            (&[][..], None),
            (&[hold], Some(60)),
            (&[(SCALE_FROM_ZERO, "refuse")], None),
            (&[(HOLD_TIMEOUT, "5s")], None),
            (&[hold, (HOLD_TIMEOUT, "5")], Some(5)),
            (&[hold, (HOLD_TIMEOUT, "90s")], Some(90)),
            (&[hold, (HOLD_TIMEOUT, "2m")], Some(120)),
            (&[hold, (HOLD_TIMEOUT, "1h")], Some(3600)),
        ] {
            let asks = read(annotations);
            assert_eq!((asks.hold, asks.ignored), (waits, Vec::new()));
        }
    }

    #[test]
    fn what_is_not_understood_is_told_and_costs_itself() {
        let hold = (SCALE_FROM_ZERO, "hold");
        for timeout in ["", "0", "-1", "61m", "3601", "5d", "s", "99999999h", "1.5s"] {
            let asks = read(&[hold, (HOLD_TIMEOUT, timeout)]);
            assert_eq!(asks.hold, Some(60), "{timeout}");
            assert_eq!(
                asks.ignored[0].to_string(),
                format!(
                    "metadata.annotations[portside.io/hold-timeout]: {timeout:?} is no time from 1s to 3600s (as 90s, 2m, 1h)"
                )
            );
        }
        let long = "x".repeat(100_000);
        let asks = read(&[(SCALE_FROM_ZERO, &long), (HOLD_TIMEOUT, "5s")]);
        assert_eq!(asks.hold, None);
        let text = asks.ignored[0].to_string();
        assert!(
            text.len() < 200 && text.ends_with("... is none of hold, refuse"),
            "{text}"
        );
    }
}
