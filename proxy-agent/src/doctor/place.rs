//! Mounts, capabilities and the kernel's switches.

use std::{fs, path::Path};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{Check, Verdict, kernel::yes};
use crate::{node::LOOPBACK_SWITCHES, state::Place};

const MOUNTS: &str = "mounts";
const CAPABILITIES: &str = "capabilities";
const SWITCHES: &str = "sysctls";

pub fn mounts(place: &Place) -> Vec<Check> {
    let Place { bpffs, state_dir } = place;
    let is_bpffs = statfs(bpffs).is_ok_and(|at| at.filesystem_type() == BPF_FS_MAGIC);
    let name = format!("bpf filesystem at {}", bpffs.display());
    let bpffs = match is_bpffs {
        true => Check::new(MOUNTS, name, "yes"),
        false => Check::new(MOUNTS, name, "no").verdict(
            Verdict::Problem,
            format!(
                "maps and programs are pinned there: mount -t bpf bpf {}, or name another directory by --bpffs",
                bpffs.display()
            ),
        ),
    };
    let cgroup = cgroup2(&fs::read_to_string("/proc/self/mounts").unwrap_or_default());
    let cgroup = Check::new(MOUNTS, "cgroup v2", cgroup.as_deref().unwrap_or("no"))
        .verdict(Verdict::Note, "not used by this version");
    let has_state = state_dir.is_dir();
    let state = Check::new(
        MOUNTS,
        format!("state directory {}", state_dir.display()),
        yes(has_state),
    )
    .verdict(
        Verdict::Note,
        if has_state {
            "an agent keeps the names of services there, or has kept them"
        } else {
            "made by the agent when it runs"
        },
    );
    vec![bpffs, cgroup, state]
}

/// Where the first cgroup2 file system of a mount table is.
fn cgroup2(mounts: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| at.to_owned())
    })
}

/// Bits of include/uapi/linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

pub fn capabilities() -> Vec<Check> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match effective(&status) {
        Some(set) => judge_capabilities(set),
        None => vec![
            Check::new(CAPABILITIES, "effective", "unknown")
                .verdict(Verdict::Problem, "/proc/self/status has no line CapEff"),
        ],
    }
}

/// The set of the line `CapEff`, in hexadecimal.
fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn judge_capabilities(set: u64) -> Vec<Check> {
    // CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.
    let has = |bit: u32| set & (1 << bit) != 0;
    let or_admin = |bit| has(bit) || has(CAP_SYS_ADMIN);
    let mut checks: Vec<_> = [
        (
            "CAP_NET_ADMIN",
            has(CAP_NET_ADMIN),
            "programs are attached with it",
        ),
        (
            "CAP_BPF",
            or_admin(CAP_BPF),
            "programs are loaded and maps made with it",
        ),
        (
            "CAP_PERFMON",
            or_admin(CAP_PERFMON),
            "the verifier lets programs calculate with pointers by it",
        ),
    ]
    .map(|(name, is_there, purpose)| {
        let check = Check::new(CAPABILITIES, name, yes(is_there));
        if is_there {
            check
        } else {
            check.verdict(Verdict::Problem, format!("missing: {purpose}"))
        }
    })
    .to_vec();
    checks.push(
        Check::new(CAPABILITIES, "CAP_SYS_RESOURCE", yes(has(CAP_SYS_RESOURCE))).verdict(
            Verdict::Note,
            "needed before Linux 5.11, where maps count as locked memory",
        ),
    );
    checks
}

pub fn switches(proc_sys: &Path) -> Vec<Check> {
    let read = |key: &str| {
        fs::read_to_string(proc_sys.join(key))
            .map_or_else(|_| "absent".to_owned(), |value| value.trim().to_owned())
    };
    let mut checks = Vec::new();
    for (key, without) in [
        ("net/ipv4/ip_forward", "packets to pods are not forwarded"),
        (
            "net/ipv6/conf/all/forwarding",
            "IPv6 packets to pods are not forwarded",
        ),
    ] {
        let value = read(key);
        let check = Check::new(SWITCHES, key.replace('/', "."), value.clone());
        checks.push(if value == "1" {
            check
        } else {
            check.verdict(
                Verdict::Fallback,
                format!("{without} by the kernel; CNIs set it"),
            )
        });
    }
    for key in LOOPBACK_SWITCHES {
        let value = read(key);
        let check = Check::new(SWITCHES, key.replace('/', "."), value.clone());
        checks.push(if value == "1" {
            check
        } else {
            check.verdict(
                Verdict::Note,
                "set by the agent when it runs: processes on the node reach services by a node's own address",
            )
        });
    }
    let name = "net.ipv4.conf.all.rp_filter";
    checks.push(
        Check::new(SWITCHES, name, read("net/ipv4/conf/all/rp_filter")).verdict(
            Verdict::Note,
            "any value will do: packets between the edges have real addresses",
        ),
    );
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
        assert_eq!(effective(status), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("CapPrm:\t1\n"), None);
    }

    #[test]
    fn a_missing_capability_is_a_problem() {
        let problems = |set| {
            let judged = judge_capabilities(set);
            judged
                .into_iter()
                .filter(|check| check.verdict == Verdict::Problem)
                .map(|check| check.name)
                .collect::<Vec<_>>()
        };
        let bits = |bits: &[u32]| bits.iter().fold(0, |set, bit| set | 1 << bit);
        assert!(problems(bits(&[CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON])).is_empty());
        assert!(problems(bits(&[CAP_NET_ADMIN, CAP_SYS_ADMIN])).is_empty());
        assert_eq!(problems(bits(&[CAP_BPF])), ["CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(problems(bits(&[CAP_NET_ADMIN])), ["CAP_BPF", "CAP_PERFMON"]);
    }

    #[test]
    fn the_place_of_cgroup2_is_told_from_that_of_version_1() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      none /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2(mounts).as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup2("proc /proc proc rw 0 0\n"), None);
    }
}
