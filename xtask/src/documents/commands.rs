//! Commands and flags, asked of clap; and words that look like a reason.

use std::collections::BTreeSet;

use clap::{Command, CommandFactory as _};
use proxy_common::reason::Reason;

use super::scan::Piece;

/// Flags of others, by whose they are.
const FOREIGN: [(&str, &[&str]); 8] = [
    ("kubeadm", &["--skip-phases"]),
    ("the kubelet", &["--cluster-dns"]),
    ("the API server", &["--endpoint-reconciler-type"]),
    ("k0s", &["--single"]),
    ("the Azure CLI", &["--kube-proxy-config"]),
    ("helm", &["--set"]),
    ("cargo", &["--release"]),
    (
        "the benchmark, which has its own command line",
        &[
            "--markdown",
            "--services",
            "--endpoints",
            "--changes",
            "--rate",
        ],
    ),
];

pub struct Programs {
    agent: Command,
    xtask: Command,
    flags: BTreeSet<String>,
}

impl Programs {
    pub fn new() -> Self {
        let mut agent = proxy_agent::cli::Cli::command();
        let mut xtask = crate::Cli::command();
        // Gives each command the flags that all have.
        agent.build();
        xtask.build();
        let mut flags: BTreeSet<_> = FOREIGN
            .iter()
            .flat_map(|(_, flags)| flags.iter().map(|flag| (*flag).to_owned()))
            .collect();
        let mut commands = vec![&agent, &xtask];
        while let Some(command) = commands.pop() {
            flags.extend(flags_of(command));
            commands.extend(command.get_subcommands());
        }
        Self {
            agent,
            xtask,
            flags,
        }
    }

    /// What is not there.
    pub fn complaints(&self, piece: &Piece) -> Vec<String> {
        let (Piece::Code(text) | Piece::Shell(text)) = piece else {
            return Vec::new();
        };
        let words: Vec<_> = text.split_whitespace().map(bare).collect();
        let mut wrong = Vec::new();
        for (at, word) in words.iter().enumerate() {
            // `cargo test -p proxy-agent` is about the package.
            if at > 0 && ["-p", "--package"].contains(&words[at - 1]) {
                continue;
            }
            let (command, rest) = match *word {
                "proxy-agent" | "/proxy-agent" => (&self.agent, &words[at + 1..]),
                "xtask" if at > 0 && words[at - 1] == "cargo" => (&self.xtask, &words[at + 1..]),
                _ => continue,
            };
            wrong.extend(called(command, until_the_next(rest)));
        }
        // `cleanup --kube-proxy`, `--max-flows`: of whichever program has it.
        if let (Piece::Code(_), Some(first)) = (piece, words.first()) {
            let command = self.agent.find_subcommand(first);
            let command = command.filter(|_| words[1..].iter().any(|word| word.starts_with("--")));
            if let Some(command) = command {
                wrong.extend(called(command, &words[1..]));
            } else if first.starts_with("--") {
                wrong.extend(words.iter().filter_map(|word| self.unknown(word)));
            }
        }
        wrong
    }

    fn unknown(&self, word: &str) -> Option<String> {
        let name = word.split('=').next().filter(|name| is_flag(name))?;
        let known = match name.strip_suffix('*') {
            Some(beginning) => self.flags.iter().any(|flag| flag.starts_with(beginning)),
            None => self.flags.contains(name),
        };
        (!known).then(|| format!("nobody has {name}"))
    }
}

/// A flag by its long name; in capitals it stands for any.
fn is_flag(word: &str) -> bool {
    word.strip_prefix("--")
        .is_some_and(|name| name.starts_with(|of: char| of.is_ascii_lowercase()))
}

/// A word without what a document puts around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|of: char| "[]()'\"`,;".contains(of))
}

/// The words of one command of a line.
fn until_the_next<'a>(words: &'a [&'a str]) -> &'a [&'a str] {
    let end = words
        .iter()
        .position(|word| ["|", "||", "&&", ">", "&", "--"].contains(word));
    &words[..end.unwrap_or(words.len())]
}

fn flags_of(command: &Command) -> impl Iterator<Item = String> {
    let longs = command
        .get_arguments()
        .filter_map(|argument| argument.get_long());
    longs
        .map(|long| format!("--{long}"))
        .chain(["--help".to_owned(), "--version".to_owned()])
}

/// What is wrong with a call.
fn called(program: &Command, words: &[&str]) -> Vec<String> {
    let mut command = program;
    let mut wrong = Vec::new();
    let takes_anything = |command: &Command| {
        command
            .get_arguments()
            .any(|argument| argument.is_trailing_var_arg_set())
    };
    for (at, word) in words.iter().enumerate() {
        if let Some(within) = command.find_subcommand(word) {
            command = within;
            continue;
        }
        let is_word = word.chars().all(|of| of.is_ascii_lowercase() || of == '-');
        if at == 0 && !word.is_empty() && is_word && !word.starts_with('-') {
            wrong.push(format!("{} has no command {word}", program.get_name()));
            return wrong;
        }
        let name = word.split('=').next().unwrap_or_default();
        if is_flag(name) && !takes_anything(command) && !flags_of(command).any(|flag| flag == name)
        {
            wrong.push(format!("{} has no {name}", command.get_name()));
        }
    }
    wrong
}

/// Words of other things that are written as reasons are.
const NO_REASONS: &[&str] = &[
    "bpf-linker",
    "bpfel-unknown-none",
    "cargo-deny",
    "disable-kube-proxy",
    "link-pin",
    "local-host",
    "map-pin",
    "netlink-packet-generic",
    "portside-holds-nat",
    "proxy-agent",
    "proxy-common",
    "proxy-ebpf",
    "qemu-user-static",
    "remote-host",
    "run-kubelite-with-args",
    "rust-version",
    "rx-vlan-offload",
    "left-out",
    "load-balancing",
    "hold-timeout",
    "netlink-packet-core",
    "source-hash",
    "vm-test",
    // Stands for one that is added.
    "your-reason",
];

/// Words like `source-check` that are no reason, and nothing else that is known.
pub fn unknown_reasons(piece: &Piece) -> Vec<String> {
    let Piece::Code(text) = piece else {
        return Vec::new();
    };
    let word = text.strip_prefix("drops explain ").unwrap_or(text);
    let parts = || word.split('-');
    let is_part =
        |part: &str| !part.is_empty() && part.chars().all(|letter| letter.is_ascii_lowercase());
    if parts().count() < 2 || !parts().all(is_part) {
        return Vec::new();
    }
    let mut reasons = Reason::ALL.iter().map(|reason| reason.text());
    if reasons.any(|reason| reason == word) || NO_REASONS.contains(&word) {
        Vec::new()
    } else {
        vec![format!("no reason is called {word}")]
    }
}

#[test]
fn a_reason_that_is_not_there_is_seen() {
    let wrong = |text: &str| unknown_reasons(&Piece::Code(text.to_owned()));
    for text in [
        "source-check",
        "drops explain REASON",
        "--source-check",
        "no",
        "1-a",
    ] {
        assert!(wrong(text).is_empty(), "{text}");
    }
    for text in ["source-chek", "drops explain no-road"] {
        assert_eq!(wrong(text).len(), 1, "{text}");
    }
}

#[test]
fn what_is_not_there_is_seen() {
    let programs = Programs::new();
    let wrong = |text: &str| programs.complaints(&Piece::Shell(text.to_owned()));
    for text in [
        "proxy-agent get services -A",
        "kubectl exec POD -- /proxy-agent drops explain REASON",
        "proxy-agent run [--api-servers URL,URL] | head",
        "cargo xtask test --level l3 \"random edits\"",
        "cargo xtask demo --whatever",
        "proxy-agent",
    ] {
        assert!(wrong(text).is_empty(), "{text}: {:?}", wrong(text));
    }
    for text in [
        "proxy-agent gett services",
        "proxy-agent run --healtz-bind=0",
        "proxy-agent cleanup --all",
        "PORTSIDE_X=1 cargo xtask tst",
        "cargo xtask test --levels l0",
    ] {
        assert_eq!(wrong(text).len(), 1, "{text}");
    }
    let span = |text: &str| programs.complaints(&Piece::Code(text.to_owned()));
    assert!(span("--conntrack-*").is_empty() && span("cleanup --kube-proxy").is_empty());
    assert_eq!(
        span("--contrack-*").len() + span("cleanup --kubeproxy").len(),
        2
    );
}
