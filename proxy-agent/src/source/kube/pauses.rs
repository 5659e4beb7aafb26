//! Computes the pause after an attempt at a server that failed.
//!
//! In: what came of each attempt. Out: a pause. The one rule: no pause is longer than what its failure calls for.
//!
//! | what failed | pauses |
//! |---|---|
//! | no answer, 5xx, 429 | grow to 4 s: the server may be back at any time, and then nothing is to wait for longer than 5 s |
//! | a refusal (4xx) | grow to 30 s: somebody has to grant a right, or to install a kind |
//! | 410 Gone | none: it is an answer, and the list is to be read anew; a refusal where it comes again and again |
//!
//! A server that gives a `Retry-After` is left alone for that long, see [`super::connect`].

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use kube::runtime::watcher::Error;
use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_millis(500);
/// While a server does not answer, or says that it cannot.
const AWAY: Duration = Duration::from_secs(4);
/// While it answers and refuses.
const REFUSED: Duration = Duration::from_secs(30);
/// A list that was asked for at once is not asked for at once again before.
const ONCE_IN: Duration = Duration::from_secs(5);

/// What an attempt failed of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    Away,
    Refused,
    Gone,
}

impl Failure {
    pub fn of(error: &Error) -> Self {
        match error {
            Error::InitialListFailed(error)
            | Error::WatchStartFailed(error)
            | Error::WatchFailed(error) => match error {
                kube::Error::Api(status) => Self::of_status(status.code),
                _ => Self::Away,
            },
            Error::WatchError(status) => Self::of_status(status.code),
            Error::NoResourceVersion => Self::Refused,
        }
    }

    const fn of_status(code: u16) -> Self {
        match code {
            410 => Self::Gone,
            400..=428 | 430..=499 => Self::Refused,
            _ => Self::Away,
        }
    }
}

/// The pauses of one follower.
#[derive(Default)]
pub struct Pauses {
    last: Option<(Failure, u32)>,
    at_once: Option<Instant>,
    jitter: RandomState,
    drawn: u64,
}

impl Pauses {
    /// An attempt was good: the next pause is a short one.
    pub fn reset(&mut self) {
        self.last = None;
    }

    /// The pause after a failure.
    pub fn after(&mut self, failure: Failure) -> Duration {
        let failure = match failure {
            Failure::Gone if self.may_go_at_once() => {
                self.reset();
                return Duration::ZERO;
            }
            Failure::Gone => Failure::Refused,
            other => other,
        };
        let before = match self.last {
            Some((last, count)) if last == failure => count,
            _ => 0,
        };
        self.last = Some((failure, before + 1));
        let longest = match failure {
            Failure::Away => AWAY,
            Failure::Refused | Failure::Gone => REFUSED,
        };
        let whole = SHORTEST.saturating_mul(1 << before.min(10)).min(longest);
        // Between a half and the whole of it, so that the agents of a cluster do not come together.
        whole.mul_f64(0.5 + self.draw() / 2.0)
    }

    fn may_go_at_once(&mut self) -> bool {
        let now = Instant::now();
        if self.at_once.is_some_and(|at| now < at + ONCE_IN) {
            return false;
        }
        self.at_once = Some(now);
        true
    }

    /// Between 0 and 1.
    fn draw(&mut self) -> f64 {
        self.drawn += 1;
        f64::from(self.jitter.hash_one(self.drawn) as u32) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest of many pauses after the same failure.
    fn longest(pauses: &mut Pauses, failure: Failure) -> Duration {
        let pauses = (0..50).map(|_| pauses.after(failure));
        pauses.max().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_stay_within_what_the_failure_calls_for() {
        let mut pauses = Pauses::default();
        assert!(pauses.after(Failure::Away) <= SHORTEST);
        let away = longest(&mut pauses, Failure::Away);
        assert!(AWAY / 2 < away && away <= AWAY, "{away:?}");
        assert!(
            pauses.after(Failure::Refused) <= SHORTEST,
            "another failure begins anew"
        );
        let refused = longest(&mut pauses, Failure::Refused);
        assert!(REFUSED / 2 < refused && refused <= REFUSED, "{refused:?}");
        pauses.reset();
        assert!(pauses.after(Failure::Refused) <= SHORTEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_history_that_is_gone_is_no_failure_unless_it_always_is() {
        let mut pauses = Pauses::default();
        longest(&mut pauses, Failure::Away);
        assert_eq!(pauses.after(Failure::Gone), Duration::ZERO);
        assert!(pauses.after(Failure::Gone) > Duration::ZERO);
        tokio::time::sleep(ONCE_IN).await;
        assert_eq!(pauses.after(Failure::Gone), Duration::ZERO);
    }

    #[test]
    fn a_server_that_cannot_is_told_from_one_that_refuses() {
        for (code, failure) in [
            (500, Failure::Away),
            (503, Failure::Away),
            (429, Failure::Away),
            (401, Failure::Refused),
            (403, Failure::Refused),
            (404, Failure::Refused),
            (410, Failure::Gone),
        ] {
            assert_eq!(Failure::of_status(code), failure, "{code}");
        }
    }
}
