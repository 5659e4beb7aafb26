//! The sum of many test runs, read from the lines that libtest (and what imitates it) prints.

use std::fmt;

#[derive(Debug, Default, PartialEq)]
pub struct Summary {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// `name: reason` of each skipped test that gave one.
    skip_reasons: Vec<String>,
}

impl Summary {
    /// Takes in one line of output; lines that are none of ours are passed by.
    pub fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.skipped += count(counts, "ignored");
        } else if let Some((name, reason)) = line
            .strip_prefix("test ")
            .and_then(|test| test.split_once(" ... ignored"))
        {
            // libtest puts a comma before the reason, what imitates it puts brackets around it.
            let reason = reason.trim_start_matches([',', ' ', '(']);
            let reason = reason.trim_end().trim_end_matches(')');
            if !reason.is_empty() {
                self.skip_reasons.push(format!("{}: {reason}", name.trim()));
            }
        }
    }

    pub fn add(&mut self, other: Self) {
        let Self {
            passed,
            failed,
            skipped,
            skip_reasons,
        } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
        self.skip_reasons.extend(skip_reasons);
    }

    /// Counts a test of ours.
    pub fn count(&mut self, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Counts a program that failed without saying so.
    pub fn fail(&mut self) {
        self.failed += 1;
    }

    /// Counts something that could not be run, with its name and the reason.
    pub fn skip(&mut self, reason: String) {
        self.skipped += 1;
        self.skip_reasons.push(reason);
    }

    /// The same with the place named in each reason.
    #[must_use]
    pub fn on(mut self, place: &str) -> Self {
        for reason in &mut self.skip_reasons {
            *reason = format!("{place}: {reason}");
        }
        self
    }

    pub fn failed(&self) -> u64 {
        self.failed
    }

    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Tests that did run.
    pub fn ran(&self) -> u64 {
        self.passed + self.failed
    }

    pub fn skip_reasons(&self) -> &[String] {
        &self.skip_reasons
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// The number before `word` in `ok. 3 passed; 0 failed; ...`.
fn count(counts: &str, word: &str) -> u64 {
    counts
        .split([';', '.'])
        .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_of_all_programs_are_summed() {
        let mut summary = Summary::default();
        for line in [
            "running 4 tests",
            "test a ... ok",
            "test b ... ignored, needs root",
            "test c   ... ignored (needs nft)",
            "test d ... ignored",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.25s",
            "a test that prints: test result",
        ] {
            summary.read(line);
        }
        assert_eq!(summary.to_string(), "13 passed, 2 failed, 1 skipped");
        assert_eq!(summary.skip_reasons(), ["b: needs root", "c: needs nft"]);
        assert_eq!(summary.ran(), 15);
    }

    #[test]
    fn a_place_is_named_with_the_reasons() {
        let mut summary = Summary::default();
        summary.skip("a: needs root".into());
        let summary = summary.on("6.1");
        assert_eq!(summary.skip_reasons(), ["6.1: a: needs root"]);
        assert_eq!(summary.to_string(), "0 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn an_empty_run_ran_nothing() {
        let mut summary = Summary::default();
        summary.read("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        assert_eq!(summary.ran(), 0);
    }
}
