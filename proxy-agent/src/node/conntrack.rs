//! kube-proxy's settings of connection tracking.
//!
//! Portside's own connections are not tracked by netfilter, but a node has others: what the CNI masquerades, what other rules
//! ask for. Where kube-proxy ran, its values were in force, and they go on to be. Flags, defaults and rules are kube-proxy's
//! (`cmd/kube-proxy/app/conntrack.go` and `server_linux.go` in Kubernetes): 0 leaves a value alone, and a value is written
//! where it differs.
//!
//! The one rule: nothing here ends an agent. Where a value cannot be written, that is said.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use jiff::SignedDuration;
use tracing::{info, warn};

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Connection tracking of the kernel, as with kube-proxy")]
pub struct Conntrack {
    /// Connections that the kernel tracks at most, for each CPU; 0 leaves the limit alone
    #[arg(long = "conntrack-max-per-core", value_name = "N", default_value_t = 32 * 1024)]
    pub max_per_core: u32,
    /// The same limit is at least this, whatever the number of CPUs
    #[arg(long = "conntrack-min", value_name = "N", default_value_t = 128 * 1024)]
    pub min: u32,
    /// How long an established TCP connection may be idle; 0 leaves it alone
    #[arg(long = "conntrack-tcp-timeout-established", value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub established: Duration,
    /// How long a TCP connection may stay in CLOSE_WAIT; 0 leaves it alone
    #[arg(long = "conntrack-tcp-timeout-close-wait", value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub close_wait: Duration,
    /// Take no TCP segment outside of the window for invalid
    #[arg(long = "conntrack-tcp-be-liberal")]
    pub be_liberal: bool,
    /// How long a UDP conversation without an answer is remembered; 0 leaves it alone
    #[arg(long = "conntrack-udp-timeout", value_name = "DURATION", default_value = "0", value_parser = duration)]
    pub udp: Duration,
    /// The same of one with an answer
    #[arg(long = "conntrack-udp-timeout-stream", value_name = "DURATION", default_value = "0", value_parser = duration)]
    pub udp_stream: Duration,
}

/// As in Go: `24h0m0s`, `90s`; `0` needs no unit.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed: Result<SignedDuration, _> = text.parse();
    let parsed = parsed.ok().and_then(|one| Duration::try_from(one).ok());
    parsed.ok_or_else(|| "give a duration, as 24h or 1m30s".to_owned())
}

/// From a look at a kernel without connection tracking until the next: a rule of somebody's may load it.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

impl Conntrack {
    /// Sets the values in the network namespace of the caller, `proc_sys` being where the switches are files; on a thread
    /// of its own that waits for connection tracking to be there.
    pub fn apply(&self, proc_sys: &Path) {
        let wanted = self.wanted(cpus());
        if wanted.is_empty() {
            return;
        }
        let dir = proc_sys.join("net/netfilter");
        let started = thread::Builder::new()
            .name("conntrack".to_owned())
            .spawn(move || {
                while !dir.join(MAX).exists() {
                    thread::sleep(LOOK_AGAIN);
                }
                for (name, value) in wanted {
                    set(&dir.join(name), value);
                }
            });
        if let Err(error) = started {
            warn!("connection tracking of the kernel keeps its settings: {error}");
        }
    }

    /// File names and values, in the order in which they are written.
    fn wanted(&self, cpus: u32) -> Vec<(&'static str, u64)> {
        let mut wanted = Vec::new();
        if self.max_per_core > 0 {
            let max = u64::from(self.max_per_core) * u64::from(cpus);
            let max = max.max(self.min.into());
            wanted.extend([(MAX, max), (BUCKETS, max / 4)]);
        }
        for (name, timeout) in [
            ("nf_conntrack_tcp_timeout_established", self.established),
            ("nf_conntrack_tcp_timeout_close_wait", self.close_wait),
            ("nf_conntrack_udp_timeout", self.udp),
            ("nf_conntrack_udp_timeout_stream", self.udp_stream),
        ] {
            if timeout > Duration::ZERO {
                wanted.push((name, timeout.as_secs()));
            }
        }
        if self.be_liberal {
            wanted.push(("nf_conntrack_tcp_be_liberal", 1));
        }
        wanted
    }
}

const MAX: &str = "nf_conntrack_max";
/// kube-proxy writes the same by the module's parameter, which is not writable in containers: raised, never lowered.
const BUCKETS: &str = "nf_conntrack_buckets";

fn set(path: &PathBuf, value: u64) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let now = fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    if now == Some(value) || (name == BUCKETS && now.is_some_and(|now| now >= value)) {
        return;
    }
    let before = now.map_or_else(|| "?".to_owned(), |now| now.to_string());
    match write(path, value) {
        Ok(()) => info!("{name}: {before} -> {value}"),
        // In another than the initial network namespace these two show the value of that one (since 5.7 without the
        // right to write, d0febd81ae77 in the kernel).
        Err(error) if is_read_only(path) => info!(
            "{name} stays at {before}, {value} was wanted: only the initial network namespace can set it ({error})"
        ),
        Err(error) => warn!(
            "cannot set {} from {before} to {value}: {error}. Connections that other rules of this node track keep the \
             kernel's settings (--conntrack-* 0 asks for no others)",
            path.display()
        ),
    }
}

fn write(path: &Path, value: u64) -> io::Result<()> {
    // Not created: what the kernel lacks is an error.
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, value.to_string().as_bytes())
}

fn is_read_only(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o222 == 0)
}

/// CPUs of the machine, not of this process: the limit is for all.
fn cpus() -> u32 {
    let online = fs::read_to_string("/sys/devices/system/cpu/online");
    let counted = online.ok().and_then(|text| count(text.trim()));
    counted.unwrap_or_else(|| thread::available_parallelism().map_or(1, |n| n.get() as u32))
}

/// How many numbers are in `0-3,8,10-11`.
fn count(list: &str) -> Option<u32> {
    let one = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.split(',').map(one).sum()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        conntrack: Conntrack,
    }

    fn wanted(arguments: &[&str], cpus: u32) -> Vec<(&'static str, u64)> {
        let line = Line::try_parse_from(["x"].iter().chain(arguments)).unwrap();
        line.conntrack.wanted(cpus)
    }

    #[test]
    fn the_defaults_are_kube_proxys() {
        let timeouts = [
            ("nf_conntrack_tcp_timeout_established", 86_400),
            ("nf_conntrack_tcp_timeout_close_wait", 3600),
        ];
        for (cpus, max) in [(1, 131_072), (4, 131_072), (8, 262_144)] {
            let mut all = vec![(MAX, max), (BUCKETS, max / 4)];
            all.extend(timeouts);
            assert_eq!(wanted(&[], cpus), all);
        }
    }

    #[test]
    fn nothing_is_left_alone_and_the_rest_is_set() {
        let nothing = [
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0s",
        ];
        assert_eq!(wanted(&nothing, 4), []);
        let more = [
            "--conntrack-tcp-be-liberal",
            "--conntrack-udp-timeout=30s",
            "--conntrack-udp-timeout-stream=2m0s",
        ];
        let all = wanted(&[&nothing[..], &more].concat(), 4);
        assert_eq!(
            all,
            [
                ("nf_conntrack_udp_timeout", 30),
                ("nf_conntrack_udp_timeout_stream", 120),
                ("nf_conntrack_tcp_be_liberal", 1),
            ]
        );
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, seconds) in [
            ("24h0m0s", 86_400),
            ("1h", 3600),
            ("0s", 0),
            ("0", 0),
            ("1m30s", 90),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "24", "-1h", "a day"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_is_written_where_it_differs_and_buckets_are_never_lowered() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, before, wanted, after) in [
            ("nf_conntrack_max", "65536\n", 131_072, "131072"),
            ("nf_conntrack_max", "262144\n", 131_072, "131072"),
            ("nf_conntrack_buckets", "65536\n", 32_768, "65536\n"),
            ("nf_conntrack_buckets", "16384\n", 32_768, "32768"),
        ] {
            fs::remove_file(at(name)).ok();
            fs::write(at(name), before).unwrap();
            set(&at(name), wanted);
            let found = fs::read_to_string(at(name)).unwrap();
            assert_eq!(found.get(..after.len()), Some(after), "{name} {before:?}");
        }
        set(&at("nf_conntrack_missing"), 1);
        assert!(!at("nf_conntrack_missing").exists());
    }

    #[test]
    fn cpus_are_counted_in_ranges() {
        for (list, number) in [("0", 1), ("0-3", 4), ("0-1,4,6-7", 5)] {
            assert_eq!(count(list), Some(number));
        }
        assert_eq!(count(""), None);
    }
}
