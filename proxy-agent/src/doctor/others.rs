//! Finds other software that handles services, or attaches programs to devices, on this node.

use std::{collections::BTreeSet, fs, path::Path};

use super::{Check, Verdict};
use crate::migrate;

const OTHERS: &str = "others";

/// By the name of their process, which the kernel cuts to 15 characters.
const PROGRAMS: [(&str, &str); 5] = [
    ("kube-proxy", "another service proxy: see docs/migration.md"),
    (
        "cilium-agent",
        "a CNI that may be a service proxy, too (kubeProxyReplacement), and has programs at devices",
    ),
    (
        "calico-node",
        "a CNI; in its eBPF mode it is a service proxy, too",
    ),
    (
        "kube-router",
        "a CNI that may be a service proxy, too (--run-service-proxy)",
    ),
    (
        "antrea-agent",
        "a CNI that may be a service proxy, too (AntreaProxy)",
    ),
];

pub fn checks() -> Vec<Check> {
    let running = processes(Path::new("/proc"));
    let mut checks: Vec<_> = PROGRAMS
        .iter()
        .filter(|(name, _)| running.contains(*name))
        .map(|(name, what)| Check::new(OTHERS, *name, "running").verdict(Verdict::Note, *what))
        .collect();
    checks.push(match migrate::left_by_kube_proxy() {
        Ok(left) if left.is_empty() => Check::new(OTHERS, "rules of kube-proxy", "none"),
        Ok(left) => Check::new(OTHERS, "rules of kube-proxy", left.join(", ")).verdict(
            Verdict::Note,
            "they get what the datapath passes on; without kube-proxy: proxy-agent cleanup --kube-proxy",
        ),
        Err(error) => {
            Check::new(OTHERS, "rules of kube-proxy", "unknown").verdict(Verdict::Note, format!("{error:#}"))
        }
    });
    checks
}

/// The names of all processes that can be seen.
fn processes(proc: &Path) -> BTreeSet<String> {
    fs::read_dir(proc)
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_seen_by_name() {
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        assert!(processes(Path::new("/proc")).contains(name.trim()));
    }
}
