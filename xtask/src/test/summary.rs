//! Sums up many test runs from the lines that libtest and its imitators print.
//!
//! What it prints in the end is for a reader who sees only the last lines of a long log: skipped tests, one line for
//! each reason; then each failed test with the first lines of what it said; then the counts.

use std::fmt;

/// Lines of a failure that are kept.
const LINES: usize = 5;
/// With more failures than this, each is told in one line.
const FAILURES_IN_FULL: usize = 8;
/// Names of skipped tests that a line has.
const NAMES: usize = 3;
/// Characters of a line, or of a name, beyond which it is cut.
const LINE_WIDTH: usize = 300;
const NAME_WIDTH: usize = 60;

#[derive(Debug, Default, PartialEq)]
pub struct Summary {
    passed: u64,
    failed: u64,
    skipped: u64,
    failures: Vec<Failure>,
    skips: Vec<Skip>,
    /// The suite whose output is read.
    suite: String,
    /// The failure whose lines are being read.
    quoted: Option<usize>,
}

/// A test that failed, or something beside the tests.
#[derive(Debug, PartialEq)]
pub struct Failure {
    /// The suite and the machine, as far as they are known.
    place: String,
    name: String,
    /// The first lines of what it said.
    lines: Vec<String>,
}

#[derive(Debug, PartialEq)]
struct Skip {
    place: String,
    name: String,
    reason: String,
}

impl Summary {
    /// What is read from here on is this suite's.
    pub fn begin(&mut self, suite: &str) {
        suite.clone_into(&mut self.suite);
        self.quoted = None;
    }

    /// Takes in one line of output; lines that are none of ours are passed by.
    pub fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.quoted = None;
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.skipped += count(counts, "ignored");
        } else if let Some(name) = headline(line) {
            self.quoted = Some(self.failure(name));
        } else if line == "failures:" {
            // Around what the tests said: a list of names comes behind it.
            self.quoted = None;
        } else if let Some(quoted) = self.quoted {
            self.failures[quoted].add(line);
        } else if let Some((name, outcome)) = line
            .strip_prefix("test ")
            .and_then(|test| test.split_once(" ... "))
        {
            let name = name.trim();
            if outcome == "FAILED" {
                // Told here as well: a program that is killed later never comes to what its tests said.
                self.failure(name);
            } else if let Some(reason) = outcome.strip_prefix("ignored") {
                // libtest puts a comma before the reason, what imitates it puts brackets around it.
                let reason = reason.trim_start_matches([',', ' ', '(']);
                let reason = reason.trim_end().trim_end_matches(')');
                if !reason.is_empty() {
                    self.note_skip(name, reason);
                }
            }
        }
    }

    /// The failure of this test of the suite, which is noted if it was not yet.
    fn failure(&mut self, name: &str) -> usize {
        let known = self
            .failures
            .iter()
            .position(|one| one.place == self.suite && one.name == name);
        known.unwrap_or_else(|| {
            self.note_failure(name, "");
            self.failures.len() - 1
        })
    }

    fn note_failure(&mut self, name: &str, said: &str) {
        let mut failure = Failure {
            place: self.suite.clone(),
            name: name.to_owned(),
            lines: Vec::new(),
        };
        said.lines().for_each(|line| failure.add(line));
        self.failures.push(failure);
    }

    fn note_skip(&mut self, name: &str, reason: &str) {
        self.skips.push(Skip {
            place: self.suite.clone(),
            name: name.to_owned(),
            reason: reason.to_owned(),
        });
    }

    pub fn add(&mut self, other: Self) {
        let Self {
            passed,
            failed,
            skipped,
            failures,
            skips,
            suite: _,
            quoted: _,
        } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
        self.failures.extend(failures);
        self.skips.extend(skips);
    }

    /// Counts a test of ours: `wrong` is what is wrong, if anything.
    pub fn count(&mut self, name: &str, wrong: Option<&str>) {
        match wrong {
            None => self.passed += 1,
            Some(wrong) => self.fail(name, wrong),
        }
    }

    /// Counts something that failed and that no test's line tells of.
    pub fn fail(&mut self, name: &str, wrong: &str) {
        self.failed += 1;
        self.note_failure(name, wrong);
    }

    /// Counts something that could not be run.
    pub fn skip(&mut self, name: &str, reason: &str) {
        self.skipped += 1;
        self.note_skip(name, reason);
    }

    /// The same on this machine.
    #[must_use]
    pub fn on(mut self, place: &str) -> Self {
        let failures = self.failures.iter_mut().map(|one| &mut one.place);
        let skips = self.skips.iter_mut().map(|one| &mut one.place);
        for inner in failures.chain(skips) {
            *inner = match inner.as_str() {
                "" => place.to_owned(),
                inner => format!("{place}, {inner}"),
            };
        }
        self
    }

    pub fn failed(&self) -> u64 {
        self.failed
    }

    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Tests that did run.
    pub fn ran(&self) -> u64 {
        self.passed + self.failed
    }

    /// All that is to be told in the end, the counts last.
    pub fn report(&self) -> String {
        let mut report = self.skip_lines();
        report.extend(self.failure_lines());
        report.push(self.to_string());
        report.join("\n")
    }

    /// One line for each reason.
    fn skip_lines(&self) -> Vec<String> {
        let mut reasons: Vec<&str> = Vec::new();
        for skip in &self.skips {
            if !reasons.contains(&skip.reason.as_str()) {
                reasons.push(&skip.reason);
            }
        }
        let lines = reasons.into_iter().map(|reason| {
            let names: Vec<_> = self
                .skips
                .iter()
                .filter(|skip| skip.reason == reason)
                .map(Skip::to_string)
                .collect();
            let shown = names[..names.len().min(NAMES)].join("; ");
            match names.len() {
                1 => format!("skipped: {reason}: {shown}"),
                few if few <= NAMES => format!("skipped {few}: {reason}: {shown}"),
                many => format!(
                    "skipped {many}: {reason}: {shown}; and {} more",
                    many - NAMES
                ),
            }
        });
        lines.collect()
    }

    fn failure_lines(&self) -> Vec<String> {
        let in_full = self.failures.len() <= FAILURES_IN_FULL;
        let shown = if in_full { LINES } else { 1 };
        let mut lines = Vec::new();
        for failure in &self.failures {
            lines.push(format!("failed: {}", failure.title()));
            let said = failure.lines.iter().take(shown);
            lines.extend(said.map(|line| format!("    {line}")));
        }
        // Counted, but no line told of them.
        let silent = self.failed.saturating_sub(self.failures.len() as u64);
        if silent > 0 {
            lines.push(format!("failed: {silent} that did not say their names"));
        }
        lines
    }
}

impl Failure {
    /// Takes in one more line of what was said, if there is room.
    fn add(&mut self, line: &str) {
        let line = line.trim();
        if self.lines.len() < LINES && !line.is_empty() {
            self.lines.push(cut(line, LINE_WIDTH));
        }
    }

    fn title(&self) -> String {
        match self.place.as_str() {
            "" => self.name.clone(),
            place => format!("{place}: {}", self.name),
        }
    }
}

/// In one line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines.first() {
            None => f.write_str(&self.title()),
            Some(first) => write!(f, "{}: {first}", self.title()),
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, name, .. } = self;
        let name = cut(name, NAME_WIDTH);
        match place.as_str() {
            "" => f.write_str(&name),
            place => write!(f, "{place}: {name}"),
        }
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

/// The test whose words follow: `---- NAME ----`, in libtest `---- NAME stdout ----`.
fn headline(line: &str) -> Option<&str> {
    let name = line.strip_prefix("---- ")?.strip_suffix(" ----")?;
    Some(name.strip_suffix(" stdout").unwrap_or(name))
}

fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
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

    fn read(suite: &str, lines: &[&str]) -> Summary {
        let mut summary = Summary::default();
        summary.begin(suite);
        lines.iter().for_each(|line| summary.read(line));
        summary
    }

    #[test]
    fn result_lines_of_all_programs_are_summed() {
        let summary = read(
            "s",
            &[
                "running 4 tests",
                "test a ... ok",
                "test b ... ignored, needs root",
                "test c   ... ignored (needs nft)",
                "test d ... ignored",
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
                "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.25s",
                "a test that prints: test result",
            ],
        );
        assert_eq!(summary.to_string(), "13 passed, 2 failed, 1 skipped");
        assert_eq!(
            summary.skip_lines(),
            ["skipped: needs root: s: b", "skipped: needs nft: s: c"]
        );
        assert_eq!(summary.ran(), 15);
    }

    #[test]
    fn failures_come_right_before_the_counts_with_their_first_lines() {
        let mut total = Summary::default();
        total.add(
            read("l2_cases", &[
                "test xdp: a row   ... FAILED",
                "test another      ... ok",
                "test without root ... ignored (needs root)",
                "",
                "failures:",
                "",
                "---- xdp: a row ----",
                "first",
                "",
                "second",
                "test third ... ignored (is no test)",
                "4",
                "5",
                "6",
                "",
                "failures:",
                "    xdp: a row",
                "",
                "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.25s",
            ]),
        );
        total.add(
            read("L0", &[
                "test tests::it_holds ... FAILED",
                "failures:",
                "---- tests::it_holds stdout ----",
                "",
                "thread 'tests::it_holds' (7) panicked at src/lib.rs:1:1:",
                "failures:",
                "    tests::it_holds",
                "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            ]),
        );
        assert_eq!(
            total.report().lines().collect::<Vec<_>>(),
            [
                "skipped: needs root: l2_cases: without root",
                "failed: l2_cases: xdp: a row",
                "    first",
                "    second",
                "    test third ... ignored (is no test)",
                "    4",
                "    5",
                "failed: L0: tests::it_holds",
                "    thread 'tests::it_holds' (7) panicked at src/lib.rs:1:1:",
                "1 passed, 2 failed, 1 skipped",
            ]
        );
    }

    #[test]
    fn rows_skipped_for_one_reason_share_a_line() {
        let mut total = Summary::default();
        for kernel in ["5.10", "6.1"] {
            let rows = ["a", "b"].map(|row| format!("test {row} ... ignored (needs XDP)"));
            let suite = read("l1", &rows.each_ref().map(String::as_str));
            total.add(suite.on(kernel));
        }
        total.skip("virtio", "no /dev/net/tun");
        assert_eq!(
            total.skip_lines(),
            [
                "skipped 4: needs XDP: 5.10, l1: a; 5.10, l1: b; 6.1, l1: a; and 1 more",
                "skipped: no /dev/net/tun: virtio",
            ]
        );
    }

    #[test]
    fn a_program_that_is_killed_leaves_the_names_of_its_failed_tests() {
        let mut summary = read("l2_node", &["test a ... FAILED", "test b ... "]);
        summary.fail("the program", "signal: 9 (SIGKILL)");
        assert_eq!(
            summary.report().lines().collect::<Vec<_>>(),
            [
                "failed: l2_node: a",
                "failed: l2_node: the program",
                "    signal: 9 (SIGKILL)",
                "0 passed, 1 failed, 0 skipped",
            ]
        );
    }

    #[test]
    fn many_failures_are_told_in_a_line_each_and_none_is_left_out() {
        let mut summary = Summary::default();
        for row in 0..20 {
            summary.count(&format!("row {row}"), Some("first\nsecond"));
        }
        summary.count("good", None);
        let report = summary.report();
        assert_eq!(report.lines().count(), 20 * 2 + 1, "{report}");
        assert!(!report.contains("second"), "{report}");
        let silent = read(
            "s",
            &[
                "test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
            ],
        );
        assert_eq!(
            silent.report(),
            "failed: 2 that did not say their names\n0 passed, 2 failed, 0 skipped"
        );
    }

    #[test]
    fn suites_with_a_test_of_the_same_name_are_told_apart() {
        let mut machine = read("one", &["test a ... FAILED"]);
        machine.begin("two");
        machine.read("test a ... FAILED");
        let total = machine.on("6.1");
        let titles: Vec<_> = total.failures().iter().map(Failure::title).collect();
        assert_eq!(titles, ["6.1, one: a", "6.1, two: a"]);
    }

    #[test]
    fn a_line_is_cut_within_what_it_says_and_never_within_a_character() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("äöü", 2), "äö...");
    }

    #[test]
    fn an_empty_run_ran_nothing() {
        let summary = read(
            "s",
            &[
                "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            ],
        );
        assert_eq!(summary.ran(), 0);
    }
}
