//! How far the agent is, and what brings it on.
//!
//! ```text
//! Starting --> Serving --> Unsure --> Refilling --> Serving
//! ```
//!
//! A failed write leads to `Unsure` from anywhere. Where no program was attached, `Unsure` leads back to `Starting`.
//!
//! The one rule: nothing is written before the source's lists are complete, and nothing while it is unsure what the maps hold.

use std::time::Instant;

/// How far the agent is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// No program of this agent is attached yet: first all that the source has is written.
    Starting,
    /// The maps hold all that was written, and the programs see packets. What changes is written as it comes.
    Serving,
    /// A write failed: nobody knows what the maps hold. At that time they are read, and all is written anew.
    Unsure { until: Instant, before: Attached },
    /// They were read, and all is to be written. Programs that were attached run on meanwhile.
    Refilling,
}

/// Were programs attached before it was unsure what the maps hold?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attached {
    No,
    Yes,
}

/// What a sync writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    All,
    Changes,
}

impl Phase {
    /// Do programs of this agent see packets?
    pub const fn is_attached(self) -> bool {
        match self {
            Self::Starting => false,
            Self::Serving | Self::Refilling => true,
            Self::Unsure { before, .. } => matches!(before, Attached::Yes),
        }
    }

    /// What is to be written now that the source's lists are complete, or are not.
    pub const fn writes(self, lists_are_complete: bool) -> Option<Write> {
        match self {
            Self::Unsure { .. } => None,
            _ if !lists_are_complete => None,
            Self::Starting | Self::Refilling => Some(Write::All),
            Self::Serving => Some(Write::Changes),
        }
    }

    /// A write failed, or the tables are to be made anew: the maps are read at that time.
    pub const fn lose(&mut self, until: Instant) {
        let before = if self.is_attached() {
            Attached::Yes
        } else {
            Attached::No
        };
        *self = Self::Unsure { until, before };
    }

    /// Is it unsure what the maps hold?
    pub const fn is_unsure(self) -> bool {
        matches!(self, Self::Unsure { .. })
    }

    /// When the maps are to be read.
    pub const fn next_due(self) -> Option<Instant> {
        match self {
            Self::Unsure { until, .. } => Some(until),
            Self::Starting | Self::Serving | Self::Refilling => None,
        }
    }

    /// Goes on where the maps are to be read by now; says whether they are.
    pub fn reads(&mut self, now: Instant) -> bool {
        let Self::Unsure { until, before } = *self else {
            return false;
        };
        let is_due = until <= now;
        if is_due {
            *self = match before {
                Attached::Yes => Self::Refilling,
                Attached::No => Self::Starting,
            };
        }
        is_due
    }

    /// Everything is written, and the programs are attached.
    pub const fn serve(&mut self) {
        *self = Self::Serving;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_is_written_before_the_lists_are_complete_and_all_of_it_then() {
        assert_eq!(Phase::Starting.writes(false), None);
        assert_eq!(Phase::Starting.writes(true), Some(Write::All));
        assert!(!Phase::Starting.is_attached());
        let mut phase = Phase::Starting;
        phase.serve();
        assert!(phase.is_attached());
        assert_eq!(phase.writes(true), Some(Write::Changes));
        assert_eq!(phase.writes(false), None);
    }

    #[test]
    fn after_a_failed_write_the_maps_are_read_first_and_written_anew() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        for (before, attached, after) in [
            (Phase::Starting, false, Phase::Starting),
            (Phase::Serving, true, Phase::Refilling),
            (Phase::Refilling, true, Phase::Refilling),
        ] {
            let mut phase = before;
            phase.lose(later);
            assert_eq!(phase.is_attached(), attached, "{before:?}");
            assert_eq!(phase.writes(true), None, "{before:?}");
            assert_eq!(phase.next_due(), Some(later));
            assert!(!phase.reads(now));
            assert!(phase.is_unsure());
            // Failed once more meanwhile.
            phase.lose(later);
            assert!(phase.reads(later));
            assert_eq!(phase, after);
            assert_eq!(phase.writes(true), Some(Write::All), "{before:?}");
        }
    }
}
