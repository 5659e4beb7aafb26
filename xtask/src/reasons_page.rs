//! `docs`: the reference of the reasons, `docs/reasons.md`, written from the words that the commands have.

use std::fmt::Write as _;

use proxy_common::reason::{Outcome, Reason, Words};

pub const PATH: &str = "docs/reasons.md";

pub fn page() -> String {
    let mut page = "# Reasons\n\n\
         <!-- written by `cargo xtask docs` from proxy-common/src/reason: change that, not this -->\n\n\
         Why a packet was dropped, or let through untouched. Each reason is counted at each hook: `proxy-agent drops` shows those that\n\
         drop (`--all`: every one), `proxy-agent drops explain REASON` has the words below, and `/metrics` has them as\n\
         `portside_dropped_packets_total` and `portside_passed_packets_total`.\n"
        .to_owned();
    for (outcome, title) in [
        (Outcome::Drop, "Dropped"),
        (Outcome::Pass, "Let through untouched"),
        (Outcome::Translate, "Translated"),
    ] {
        let _ = write!(
            page,
            "\n## {title}\n\n| reason | what it means | what to do |\n|---|---|---|\n"
        );
        for &reason in Reason::ALL {
            if reason.outcome() == outcome {
                let Words { meaning, advice } = reason.words();
                let _ = writeln!(page, "| `{}` | {meaning} | {advice} |", reason.text());
            }
        }
    }
    page
}
