//! What each kernel's verifier made of each program: read from the console, held against a budget, shown in the docs.

mod budget;
mod table;

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vm_protocol::line::VERIFIER;

pub use self::budget::Budget;
use super::docs;
use crate::workspace;

/// One program on one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Instructions that the verifier walked through, each as often as it did.
    pub instructions: u64,
    /// Bytes of the largest frame.
    pub stack: u64,
    /// Bytes of the program as the verifier left it, before the JIT compiler.
    pub size: u64,
}

/// What one machine said.
#[derive(Debug, Default, PartialEq)]
pub struct Report(pub BTreeMap<String, Figures>);

impl Report {
    /// Takes in one line of the console; lines that are none of ours are passed by.
    pub fn read(&mut self, line: &str) {
        self.0.extend(parse(line));
    }
}

fn parse(line: &str) -> Option<(String, Figures)> {
    let mut words = line.strip_prefix(VERIFIER)?.trim_start().split(' ');
    let program = words.next()?.to_owned();
    let mut number = |field: &str| {
        words
            .next()?
            .strip_prefix(field)?
            .strip_prefix('=')?
            .parse()
            .ok()
    };
    let figures = Figures {
        instructions: number("instructions")?,
        stack: number("stack")?,
        size: number("size")?,
    };
    Some((program, figures))
}

fn budget_file() -> PathBuf {
    workspace::root().join("tests/verifier-budget.json")
}

/// Writes the budget, and the table in the docs that shows it.
pub fn write(budget: &Budget) -> anyhow::Result<()> {
    let path = budget_file();
    fs::write(&path, budget.to_json()?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    docs::write(docs::VERIFIER, &table::render(budget))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_read() {
        let mut report = Report::default();
        for line in [
            "verifier: tc_uplink_in instructions=5416 stack=240 size=10352",
            "[    1.0] verifier: no line of ours",
            "verifier: cut instructions=54",
            "verifier: cut instructions=54 stack=8 size=",
            "verifier: swapped stack=8 instructions=54 size=8",
            "test verifier: a b ... ok",
        ] {
            report.read(line);
        }
        let figures = Figures {
            instructions: 5416,
            stack: 240,
            size: 10352,
        };
        assert_eq!(report.0, [("tc_uplink_in".to_owned(), figures)].into());
    }

    #[test]
    fn the_docs_show_the_budget() {
        docs::assert_shown(docs::VERIFIER, &table::render(&Budget::open().unwrap()));
    }
}
