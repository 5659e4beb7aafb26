//! What the agent says of itself, for the commands: that it lives, whether it is ready, whom it hears, which programs it wants where.
//!
//! Times are seconds since the machine's start, by a clock that nobody sets (CLOCK_BOOTTIME): the commands' own clock shows the same.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::datapath::Wanted;

/// Said anew at least this often, so that silence tells.
pub const EVERY: Duration = Duration::from_secs(5);

/// The agent's word.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Word {
    pub process: u32,
    pub version: String,
    /// Which build its programs are of ([`crate::version::of_object`]); an older agent does not say it.
    #[serde(default)]
    pub object: Option<String>,
    /// When the agent began.
    pub started: u64,
    /// When this was said.
    pub said: u64,
    /// Why it is not ready, if so.
    pub not_ready: Option<String>,
    /// Since when an update waits to be written.
    pub waiting_since: Option<u64>,
    pub source: Source,
    /// Programs that are to be at devices.
    pub hooks: Vec<Wanted>,
}

/// Where the agent has Services from.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Source {
    /// `API server URL`, or `folder PATH`.
    pub name: String,
    /// When it was last heard.
    pub heard: Option<u64>,
    /// What cannot be read of it now, and why not.
    pub trouble: Vec<String>,
}

impl Source {
    /// A server has a word now and then; a folder that does not change has none.
    pub fn is_server(&self) -> bool {
        !self.name.starts_with("folder ")
    }
}

impl Word {
    /// Does it say the same, whenever it was said?
    pub fn is_as(&self, other: &Self) -> bool {
        let timeless = |word: &Self| {
            let mut word = word.clone();
            word.said = 0;
            word.source.heard = None;
            word
        };
        timeless(self) == timeless(other)
    }
}

/// Seconds since the machine's start.
pub fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| time.tv_sec().max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_only_later_says_the_same() {
        let word = Word {
            process: 7,
            said: 10,
            ..Word::default()
        };
        let mut later = word.clone();
        later.said = 15;
        later.source.heard = Some(14);
        assert!(word.is_as(&later));
        later.source.trouble.push("no answer".to_owned());
        assert!(!word.is_as(&later));
    }
}
