//! The version of this binary, in words.

use std::fmt::Write as _;

use proxy_common::abi;
use ring::digest;

/// As the log, the metrics and the API server have it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// All that tells one build from another: `commit` of the source, and the eBPF object that it carries.
pub fn full(commit: Option<&str>, object: &[u8]) -> String {
    let commit = commit.unwrap_or("unknown");
    let object = of_object(object);
    format!(
        "proxy-agent {VERSION}\ncommit: {commit}\nmap ABI: {}\neBPF object: {object}\n",
        abi::VERSION
    )
}

/// What tells one build of the programs from another.
pub fn of_object(object: &[u8]) -> String {
    match object {
        [] => "none".to_owned(),
        bytes => hash(bytes),
    }
}

/// As `sha256sum` prints it.
fn hash(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut text = "sha256:".to_owned();
    for byte in digest.as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_told_by_commit_abi_and_object() {
        let text = full(Some("0123abc"), b"abc");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], format!("proxy-agent {VERSION}"));
        assert_eq!(lines[1], "commit: 0123abc");
        assert_eq!(lines[2], format!("map ABI: {}", abi::VERSION));
        // As FIPS 180-2 has it for these three letters.
        assert_eq!(
            lines[3],
            "eBPF object: sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(full(None, &[]).contains("commit: unknown\n"));
        assert!(full(None, &[]).contains("eBPF object: none\n"));
    }
}
