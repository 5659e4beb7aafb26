//! The report: what was found, what follows from it, and whether the agent can run here.

use serde::Serialize;

/// How a finding bears on the agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works in another way, which costs something.
    Fallback,
    /// Worth knowing; nothing depends on it.
    Note,
    /// The agent cannot run, or not rightly.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// A part of the node, the same word for all of its checks.
    pub area: &'static str,
    pub name: String,
    /// In a word or two.
    pub found: String,
    pub verdict: Verdict,
    /// What is chosen, and why; what to do about a problem. May be empty.
    pub follows: String,
}

impl Check {
    pub fn new(area: &'static str, name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            area,
            name: name.into(),
            found: found.into(),
            verdict: Verdict::Ok,
            follows: String::new(),
        }
    }

    #[must_use]
    pub fn verdict(self, verdict: Verdict, follows: impl Into<String>) -> Self {
        Self {
            verdict,
            follows: follows.into(),
            ..self
        }
    }
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// No check is a problem.
    pub ok: bool,
    pub checks: Vec<Check>,
}

impl Report {
    pub fn new(checks: Vec<Check>) -> Self {
        let ok = checks.iter().all(|check| check.verdict != Verdict::Problem);
        Self { ok, checks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_problem_is_enough() {
        let check = |verdict| Check::new("kernel", "x", "y").verdict(verdict, "");
        let fine = [Verdict::Ok, Verdict::Fallback, Verdict::Note].map(check);
        assert!(Report::new(fine.to_vec()).ok);
        let mut checks = fine.to_vec();
        checks.push(check(Verdict::Problem));
        assert!(!Report::new(checks).ok);
    }
}
