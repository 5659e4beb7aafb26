//! The checked-in figures, and how far a program may grow beyond them.

use std::{collections::BTreeMap, fs};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{Figures, Report};
use crate::vm::kernels;

/// A program may have this many percent more instructions verified than when the budget was written.
const SLACK_PERCENT: u64 = 10;

/// By the series of the kernel, as `--kernel` takes it.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget(pub BTreeMap<String, Entry>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The kernel that the figures are from, as `uname -r` gives it.
    pub kernel: String,
    pub programs: BTreeMap<String, Figures>,
}

impl Budget {
    pub fn open() -> anyhow::Result<Self> {
        let path = super::budget_file();
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    pub fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Takes the figures of a run as the new budget of its series.
    pub fn set(&mut self, series: &str, kernel: &str, report: Report) {
        let entry = Entry {
            kernel: kernel.to_owned(),
            programs: report.0,
        };
        self.0.insert(series.to_owned(), entry);
    }

    /// For the suite's own test: as if every program had grown to twice its size since.
    pub fn halve(&mut self) {
        for figures in self
            .0
            .values_mut()
            .flat_map(|entry| entry.programs.values_mut())
        {
            figures.instructions /= 2;
        }
    }

    /// The series with their figures, the oldest first.
    pub fn series(&self) -> Vec<&Entry> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(series, _)| (*series == kernels::NEWEST, kernels::numbers(series)));
        all.into_iter().map(|(_, entry)| entry).collect()
    }

    /// What is wrong with a run's figures, a sentence each. So is a series that has none to hold them against.
    pub fn check(&self, series: &str, kernel: &str, report: &Report) -> Vec<String> {
        let Some(Entry {
            kernel: before_on,
            programs,
        }) = self.0.get(series)
        else {
            return vec![format!(
                "{series} has no verifier budget: `--write-docs` writes one"
            )];
        };
        let mut complaints = Vec::new();
        for (program, after) in &report.0 {
            let Some(before) = programs.get(program) else {
                complaints.push(format!(
                    "{program} has no verifier budget for {series}: `--write-docs` writes one"
                ));
                continue;
            };
            let (before, after) = (before.instructions, after.instructions);
            if after * 100 > before * (100 + SLACK_PERCENT) {
                complaints.push(format!(
                    "{program} grew by more than {SLACK_PERCENT} % on {kernel}: {after} verified instructions, \
                     {before} before (on {before_on})"
                ));
            }
        }
        for program in programs.keys() {
            if !report.0.contains_key(program) {
                complaints.push(format!(
                    "{program} was not verified on {kernel}, but the budget has it"
                ));
            }
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(programs: &[(&str, u64)]) -> Report {
        let figures = |instructions| Figures {
            instructions,
            stack: 8,
            size: 16,
        };
        Report(
            programs
                .iter()
                .map(|&(name, instructions)| (name.to_owned(), figures(instructions)))
                .collect(),
        )
    }

    fn budget() -> Budget {
        let mut budget = Budget::default();
        budget.set("6.1", "6.1.0-9", report(&[("a", 1000), ("b", 50)]));
        budget
    }

    fn check(programs: &[(&str, u64)]) -> Vec<String> {
        budget().check("6.1", "6.1.0-10", &report(programs))
    }

    #[test]
    fn a_tenth_more_is_within_the_budget_and_one_beyond_is_not() {
        assert_eq!(check(&[("a", 1100), ("b", 1)]), <[String; 0]>::default());
        assert_eq!(
            check(&[("a", 1101), ("b", 50)]),
            [
                "a grew by more than 10 % on 6.1.0-10: 1101 verified instructions, 1000 before (on 6.1.0-9)"
            ]
        );
    }

    #[test]
    fn a_program_that_comes_or_goes_is_named() {
        assert_eq!(
            check(&[("a", 1000), ("c", 1)]),
            [
                "c has no verifier budget for 6.1: `--write-docs` writes one",
                "b was not verified on 6.1.0-10, but the budget has it",
            ]
        );
    }

    #[test]
    fn a_series_without_a_budget_fails() {
        assert_eq!(
            budget().check("6.6", "6.6.1", &report(&[("a", 1)])),
            ["6.6 has no verifier budget: `--write-docs` writes one"]
        );
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let json = budget().to_json().unwrap();
        assert_eq!(serde_json::from_str::<Budget>(&json).unwrap(), budget());
    }

    #[test]
    fn the_newest_comes_last() {
        let mut budget = Budget::default();
        for series in ["newest", "6.12", "5.10", "6.1"] {
            budget.set(series, series, Report::default());
        }
        let order: Vec<_> = budget
            .series()
            .iter()
            .map(|entry| entry.kernel.as_str())
            .collect();
        assert_eq!(order, ["5.10", "6.1", "6.12", "newest"]);
    }
}
