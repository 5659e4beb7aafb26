//! What a Service asks for by annotations, and the weight that an EndpointSlice gives its endpoints.
//!
//! The one rule: an annotation that is not understood costs itself. It is told, and the default holds.

use super::objects::Metadata;
use crate::model::{Asks, Ignored, WEIGHT};

const SCALE_FROM_ZERO: &str = "portside.io/scale-from-zero";
const BALANCING: &str = "portside.io/load-balancing";
/// The one that comes first counts. The other is Cilium's, with the same meaning (cilium/cilium#46061).
const WEIGHTS: [&str; 2] = ["portside.io/weight", "service.cilium.io/weight"];
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
        balancing: reader.read(BALANCING, str::parse),
        hold: holds
            .unwrap_or(false)
            .then(|| timeout.unwrap_or(DEFAULT_HOLD)),
        ignored: reader.ignored,
    }
}

/// The weight of a slice's endpoints, and what is not understood.
pub fn weight(meta: &Metadata) -> (u16, Vec<Ignored>) {
    let mut reader = Reader {
        meta,
        ignored: Vec::new(),
    };
    let parse = |text: &str| {
        let number = text.parse::<u16>();
        number.map_err(|_| format!("is no weight (0-{})", u16::MAX))
    };
    let mut weights = WEIGHTS.iter();
    let weight = weights.find_map(|name| reader.read(name, parse));
    (weight.unwrap_or(WEIGHT), reader.ignored)
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
    use crate::model::Balancing;

    fn meta(annotations: &[(&str, &str)]) -> Metadata {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Metadata {
            annotations: Some(annotations.iter().map(own).collect()),
            ..Metadata::default()
        }
    }

    fn read(annotations: &[(&str, &str)]) -> Asks {
        asks(&meta(annotations))
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
    fn the_choice_of_an_endpoint_has_a_name() {
        for balancing in Balancing::ALL {
            let asks = read(&[(BALANCING, balancing.text())]);
            assert_eq!(
                (asks.balancing, asks.ignored),
                (Some(balancing), Vec::new())
            );
        }
        let asks = read(&[(BALANCING, "Maglev")]);
        assert_eq!(asks.balancing, None);
        assert_eq!(
            asks.ignored[0].message,
            "\"Maglev\" is none of random, maglev, source-hash"
        );
    }

    #[test]
    fn a_slice_gives_its_endpoints_a_weight_from_0_to_65535() {
        let [own, other] = WEIGHTS;
        for (annotations, weight, ignored) in [
            (&[][..], 1, 0),
            (&[(own, "3")], 3, 0),
            (&[(other, "0")], 0, 0),
            (&[(other, "5"), (own, "65535")], 65_535, 0),
            (&[(own, "65536")], 1, 1),
            (&[(own, "-1"), (other, "7")], 7, 1),
            (&[(own, ""), (other, "x")], 1, 2),
        ] {
            let given = meta(annotations);
            let (found, not_understood) = super::weight(&given);
            assert_eq!(
                (found, not_understood.len()),
                (weight, ignored),
                "{annotations:?}"
            );
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
