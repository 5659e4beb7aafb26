//! The results of looking after the datapath, for `proxy-agent status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::datapath::Findings;

/// Since the agent started.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Looks {
    /// How often something of a sort was taken away and put back.
    pub restored: BTreeMap<String, u64>,
    /// What was put back last.
    pub last: Vec<String>,
    /// What devices lack now.
    pub lacking: Vec<String>,
    /// Why pins are missing now.
    pub unpinned: Option<String>,
}

impl Looks {
    /// Takes in what a look found. Is anything new?
    pub fn add(&mut self, findings: &Findings) -> bool {
        let before = self.clone();
        let Findings {
            restored,
            lacking,
            unpinned,
        } = findings;
        for loss in restored {
            *self.restored.entry(loss.sort().to_owned()).or_default() += 1;
        }
        if !restored.is_empty() {
            self.last = restored.iter().map(ToString::to_string).collect();
        }
        self.lacking = lacking.iter().map(ToString::to_string).collect();
        self.unpinned.clone_from(unpinned);
        *self != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::Loss;

    #[test]
    fn what_is_put_back_is_summed_and_the_last_of_it_named() {
        let mut looks = Looks::default();
        assert!(!looks.add(&Findings::default()));
        let found = |name| Findings {
            restored: vec![Loss::MapPin(name)],
            ..Findings::default()
        };
        assert!(looks.add(&found("GATE")));
        assert!(looks.add(&found("SLOTS")));
        assert!(!looks.add(&Findings::default()));
        assert_eq!(looks.restored["map-pin"], 2);
        assert!(looks.last[0].contains("SLOTS"), "{:?}", looks.last);
    }
}
