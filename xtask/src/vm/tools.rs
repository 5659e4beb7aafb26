//! The host's programs that the suites call in a machine, with their libraries and the files that they load at run time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::shell;

/// The programs that make topologies.
const NEEDED: [&str; 3] = ["ip", "bridge", "nft"];

/// The programs that make kube-proxy's rules. If the host lacks one, the rows that need it are skipped with that reason.
const OPTIONAL: [&str; 14] = [
    "iptables-legacy",
    "iptables-legacy-save",
    "iptables-legacy-restore",
    "ip6tables-legacy",
    "ip6tables-legacy-save",
    "ip6tables-legacy-restore",
    "iptables-nft",
    "iptables-nft-save",
    "iptables-nft-restore",
    "ip6tables-nft",
    "ip6tables-nft-save",
    "ip6tables-nft-restore",
    "ipset",
    "ipvsadm",
];

/// Where distributions keep what iptables loads for each match and target.
const EXTENSIONS: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/xtables",
    "/usr/lib64/xtables",
    "/usr/lib/xtables",
];

/// A file of the host's.
pub struct File {
    pub here: PathBuf,
    /// Its path in the machine.
    pub there: PathBuf,
}

/// All of these that are there, and `more`. Programs are in `/bin`, under the name by which a program of many names knows what to be.
///
/// # Errors
/// Where one that is needed is not installed.
pub fn collect(more: &[&'static str]) -> anyhow::Result<Vec<File>> {
    let mut programs = Vec::new();
    for name in NEEDED {
        let found = shell::find(name).with_context(|| format!("`{name}` is not installed"))?;
        programs.push((name, found));
    }
    for name in OPTIONAL.iter().chain(more).copied() {
        programs.extend(shell::find(name).map(|found| (name, found)));
    }
    let same = |path: PathBuf| File {
        there: path.clone(),
        here: path,
    };
    let mut files: Vec<_> = libraries(programs.iter().map(|(_, path)| path.as_path()))
        .into_iter()
        .chain(extensions())
        .map(same)
        .collect();
    files.extend(programs.into_iter().map(|(name, here)| File {
        here,
        there: Path::new("/bin").join(name),
    }));
    Ok(files)
}

/// The shared libraries and the loader of these programs.
fn libraries<'a>(programs: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let text = shell::capture(Command::new("ldd").args(programs)).unwrap_or_default();
    let mut paths = parse_ldd(&text);
    paths.sort();
    paths.dedup();
    paths
}

fn parse_ldd(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter(|line| line.starts_with(char::is_whitespace))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

fn extensions() -> Vec<PathBuf> {
    let directory = EXTENSIONS
        .into_iter()
        .find_map(|path| fs::read_dir(path).ok());
    directory
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_libraries_and_the_loader() {
        let text = "/sbin/ip:\n\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n";
        let expected = ["/lib/libc.so.6", "/lib64/ld.so.2"].map(PathBuf::from);
        assert_eq!(parse_ldd(text), expected);
    }
}
