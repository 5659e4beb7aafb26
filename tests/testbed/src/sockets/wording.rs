//! What an echo server and its client say to each other.
//!
//! Over UDP a request is the payload; over TCP and SCTP it is a line `echo <length>`, `late <length>` or `upload <length>` and then
//! the payload, or a line `download <length>` alone. What `late` asks for is an echo [`LATE`] after it; over UDP, a payload that begins
//! with that word does. A reply is a line `who=<name>:<port> client=<address:port> sum=<checksum of the
//! payload>`, and then, for an echo and a download, the payload itself.

use std::net::SocketAddr;
use std::time::Duration;

/// Longer than the coarse step at which the datapath repairs its flows.
pub(super) const LATE: Duration = Duration::from_millis(1500);

pub(super) const LATE_WORD: &str = "late";

/// A running checksum of content; how its stream was cut does not show.
#[derive(Default)]
pub(super) struct Sum(crc32fast::Hasher);

impl Sum {
    pub(super) fn of(content: &[u8]) -> u32 {
        crc32fast::hash(content)
    }

    pub(super) fn add(&mut self, content: &[u8]) {
        self.0.update(content);
    }

    pub(super) fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// The first line of a reply.
pub(super) struct Greeting {
    pub(super) who: String,
    pub(super) client: SocketAddr,
    pub(super) sum: u32,
}

impl Greeting {
    pub(super) fn line(&self) -> String {
        format!("who={} client={} sum={}\n", self.who, self.client, self.sum)
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        Some(Self {
            who: words.next()?.strip_prefix("who=")?.to_owned(),
            client: words.next()?.strip_prefix("client=")?.parse().ok()?,
            sum: words.next()?.strip_prefix("sum=")?.parse().ok()?,
        })
    }
}

/// What a TCP client asks for.
#[derive(Clone, Copy)]
pub(super) enum Request {
    Echo,
    Late,
    Upload,
    Download,
}

impl Request {
    pub(super) fn line(self, length: usize) -> String {
        match self {
            Self::Echo => format!("echo {length}\n"),
            Self::Late => format!("{LATE_WORD} {length}\n"),
            Self::Upload => format!("upload {length}\n"),
            Self::Download => format!("download {length}\n"),
        }
    }

    pub(super) fn parse(line: &str) -> Option<(Self, usize)> {
        let (word, length) = line.trim_end().split_once(' ')?;
        let request = match word {
            "echo" => Self::Echo,
            LATE_WORD => Self::Late,
            "upload" => Self::Upload,
            "download" => Self::Download,
            _ => return None,
        };
        Some((request, length.parse().ok()?))
    }
}
