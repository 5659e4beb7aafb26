//! What a client got, in the notation of the behaviour specification.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// The outcome of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The right content came back, from the server `who`, which saw the client at `client`.
    Ok { who: String, client: SocketAddr },
    /// Refused at once: a reset, or port unreachable.
    Refused,
    /// Nothing came back in time.
    Timeout,
    /// Anything else: another error, or content that is not what was sent.
    Failed(String),
}

impl Answer {
    /// The server's name, if there was a right answer.
    pub fn who(&self) -> Option<&str> {
        match self {
            Self::Ok { who, .. } => Some(who),
            _ => None,
        }
    }

    pub(crate) fn from_error(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::Timeout,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Ok { who, client } => write!(f, "ok who={who} cl={client}"),
            Self::Refused => f.write_str("refused"),
            Self::Timeout => f.write_str("timeout"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// How often each server answered, over a batch of requests; outcomes that are no answer count under their own words.
pub type Tally = BTreeMap<String, usize>;

/// Counts answers by server.
pub fn tally(answers: impl IntoIterator<Item = Answer>) -> Tally {
    let mut tally = Tally::new();
    for answer in answers {
        let key = answer
            .who()
            .map_or_else(|| answer.to_string(), str::to_owned);
        *tally.entry(key).or_default() += 1;
    }
    tally
}
