//! What one machine said, and what is wrong with it.

use super::{console::Ending, verifier::Report};
use crate::test::summary::Summary;

/// Also in the guest's half, `tests/src/bin/vm_init.rs`.
const RELEASE: &str = "vm-test kernel: ";

/// All that is read from a console.
#[derive(Default)]
pub struct Said {
    pub summary: Summary,
    pub report: Report,
    /// The running kernel, as its uname(2) gives it.
    pub release: Option<String>,
}

impl Said {
    /// Takes in one line; those that are none of ours are passed by.
    pub fn read(&mut self, line: &str) {
        self.summary.read(line);
        self.report.read(line);
        if let Some(release) = line.strip_prefix(RELEASE) {
            self.release = Some(release.to_owned());
        }
    }

    /// What is wrong with a run of the suites on the kernel `wanted`, if anything.
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
        if *ending != (Ending::Closed { ok: true }) || self.summary.failed() > 0 {
            return Some("tests failed".into());
        }
        if self.report.0.is_empty() {
            return Some("the verifier's figures are missing".into());
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
    const LINES: [&str; 3] = [
        "vm-test kernel: 6.1.0-56",
        "verifier: tc_uplink_in instructions=5416 stack=240 size=10352",
        "test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
    ];

    fn complaint(lines: &[&str], ending: Ending) -> Option<String> {
        let mut said = Said::default();
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
    fn another_kernel_than_the_one_asked_for_is_named() {
        let mut lines = LINES;
        lines[0] = "vm-test kernel: 5.10.0-32";
        assert_eq!(
            complaint(&lines, CLOSED).as_deref(),
            Some("the kernel that runs is 5.10.0-32, not 6.1.0-56")
        );
    }
}
