//! Reads what one machine prints, and says what is wrong with it.

use vm_protocol::line;

use super::{console::Ending, features, verifier::Report};
use crate::test::summary::Summary;

/// All that is read from a console.
#[derive(Default)]
pub struct Said {
    /// Do some of its suites measure the kernel?
    pub measures: bool,
    pub summary: Summary,
    pub report: Report,
    /// The running kernel, as its uname(2) gives it.
    pub release: Option<String>,
    /// What `proxy-agent doctor` found.
    pub doctor: features::Reader,
}

/// How the program that measures begins what is wrong.
const COMPLAINT: &str = "vm_verifier: ";

impl Said {
    /// Of a machine whose suites measure the kernel, or do not.
    pub fn of(measures: bool) -> Self {
        Self {
            measures,
            ..Self::default()
        }
    }

    /// Reads one line. Lines of other programs are ignored.
    pub fn read(&mut self, line: &str) {
        if let Some(release) = line.strip_prefix(line::KERNEL) {
            self.release = Some(release.trim().to_owned());
        } else if let Some(suite) = line.strip_prefix(line::SUITE) {
            self.summary.begin(suite.trim());
        } else if let Some(complaint) = line.strip_prefix(COMPLAINT) {
            self.summary.fail("the object", complaint);
        }
        self.summary.read(line);
        self.report.read(line);
        self.doctor.read(line);
    }

    /// The first failed test, if there is one, and how many more there are.
    pub fn failed_tests(&self) -> Option<String> {
        match self.summary.failures() {
            [] if self.summary.failed() == 0 => None,
            [] => Some("tests failed".into()),
            [one] => Some(format!("tests failed: {one}")),
            [first, others @ ..] => {
                Some(format!("tests failed: {first} (and {} more)", others.len()))
            }
        }
    }

    /// What is wrong with a run of the suites on the kernel `wanted` beside its tests, if anything.
    pub fn complaint(&self, ending: &Ending, wanted: &str) -> Option<String> {
        match ending {
            Ending::Closed { .. } => {}
            other => return Some(other.to_string()),
        }
        match &self.release {
            None => return Some("the machine does not say which kernel runs".into()),
            Some(release) if release != wanted => {
                return Some(format!("the kernel that runs is {release}, not {wanted}"));
            }
            Some(_) => {}
        }
        if self.summary.failed() > 0 {
            // What a failed program did not come to is not missing.
            return None;
        }
        if *ending != (Ending::Closed { ok: true }) {
            return Some("a program failed that named no test".into());
        }
        if self.measures && self.report.0.is_empty() {
            return Some("the verifier's figures are missing".into());
        }
        if self.measures && self.doctor.features.is_none() {
            return Some("the report of `proxy-agent doctor` is missing".into());
        }
        if self.summary.ran() + self.summary.skipped() == 0 {
            return Some("no test was run".into());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: Ending = Ending::Closed { ok: true };
    const LINES: [&str; 6] = [
        "vm-test kernel: 6.1.0-56",
        "verifier: tc_uplink_in instructions=5416 stack=240 size=10352",
        "{",
        "\"checks\": []",
        "}",
        "test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
    ];

    fn complaint(lines: &[&str], ending: Ending) -> Option<String> {
        let mut said = Said::of(true);
        lines.iter().for_each(|line| said.read(line));
        said.complaint(&ending, "6.1.0-56")
    }

    #[test]
    fn a_run_is_right_only_if_nothing_is_missing() {
        assert_eq!(complaint(&LINES, CLOSED), None);
        for missing in LINES {
            let mut lines = LINES.to_vec();
            lines.retain(|line| *line != missing);
            assert!(complaint(&lines, CLOSED).is_some(), "{missing}");
        }
        assert!(complaint(&LINES, Ending::Closed { ok: false }).is_some());
        assert!(complaint(&LINES, Ending::Stalled).is_some());
    }

    #[test]
    fn the_first_failure_is_quoted_with_its_suite() {
        let lines = [
            LINES[0],
            "vm-test suite: vm_verifier",
            "vm_verifier: program a: the kernel refuses it: Permission denied",
            "vm-test suite: l1_tables",
            "---- row/ipv4/tcp ----",
            "tc_uplink_in: a wrong checksum",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ];
        let failed = |lines: &[&str]| {
            let mut said = Said::of(true);
            lines.iter().for_each(|line| said.read(line));
            assert_eq!(
                said.complaint(&Ending::Closed { ok: false }, "6.1.0-56"),
                None
            );
            said.failed_tests()
        };
        assert_eq!(
            failed(&lines).as_deref(),
            Some(
                "tests failed: vm_verifier: the object: program a: the kernel refuses it: Permission denied (and 1 more)"
            )
        );
        assert_eq!(
            failed(&[&lines[..1], &lines[3..]].concat()).as_deref(),
            Some("tests failed: l1_tables: row/ipv4/tcp: tc_uplink_in: a wrong checksum")
        );
        assert_eq!(
            complaint(&LINES, Ending::Closed { ok: false }).as_deref(),
            Some("a program failed that named no test")
        );
    }

    #[test]
    fn another_kernel_than_the_one_asked_for_is_named() {
        let mut lines = LINES;
        lines[0] = "vm-test kernel: 5.10.0-32";
        assert_eq!(
            complaint(&lines, CLOSED).as_deref(),
            Some("the kernel that runs is 5.10.0-32, not 6.1.0-56")
        );
    }
}
