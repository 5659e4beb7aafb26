//! Reads what `proxy-agent doctor` found in each machine from the console, keeps it, and writes it into the docs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, iter,
    path::PathBuf,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{docs, kernels};
use crate::workspace;

/// Areas of a report that are about the kernel, not about the machine around it.
const AREAS: [&str; 2] = ["bpf", "hooks"];
/// Checks of other areas that are about the kernel.
const CHECKS: [&str; 1] = ["BTF of the kernel"];

/// What was found, by the check's name.
pub type Features = BTreeMap<String, String>;

/// The report's lines, from the brace that opens it to the one that closes it.
#[derive(Default)]
pub struct Reader {
    text: Option<String>,
    pub features: Option<Features>,
}

#[derive(Deserialize)]
struct Report {
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    area: String,
    name: String,
    found: String,
}

impl Reader {
    /// Takes in one line of the console.
    pub fn read(&mut self, line: &str) {
        if line == "{" {
            self.text = Some(String::new());
        }
        let Some(text) = &mut self.text else { return };
        text.push_str(line);
        text.push('\n');
        if line == "}" {
            let report = serde_json::from_str(text);
            self.text = None;
            self.features = report.ok().map(features);
        }
    }
}

fn features(report: Report) -> Features {
    report
        .checks
        .into_iter()
        .filter(|check| {
            AREAS.contains(&check.area.as_str()) || CHECKS.contains(&check.name.as_str())
        })
        .map(|check| (check.name, check.found))
        .collect()
}

/// What was found, by the kernel's series as `--kernel` takes it.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen(BTreeMap<String, Entry>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// As `uname -r` gives it.
    kernel: String,
    features: Features,
}

impl Seen {
    pub fn open() -> anyhow::Result<Self> {
        let path = file();
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    pub fn set(&mut self, series: &str, kernel: &str, features: Features) {
        let kernel = kernel.to_owned();
        let entry = Entry { kernel, features };
        self.0.insert(series.to_owned(), entry);
    }

    /// Writes the file, and the table in the docs that shows it.
    pub fn write(&self) -> anyhow::Result<()> {
        let path = file();
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        docs::write(docs::FEATURES, &self.table())
    }

    /// A row for each feature, a column for each kernel, the oldest first.
    fn table(&self) -> String {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(series, _)| (*series == kernels::NEWEST, kernels::numbers(series)));
        let names: BTreeSet<_> = all
            .iter()
            .flat_map(|(_, entry)| entry.features.keys())
            .collect();
        let versions = all
            .iter()
            .map(|(_, entry)| entry.kernel.trim_end_matches("-cloud-amd64"));
        let mut text = docs::row(iter::once("feature").chain(versions));
        text += &format!("|---|{}\n", "---|".repeat(all.len()));
        for name in names {
            let found = all
                .iter()
                .map(|(_, entry)| entry.features.get(name).map_or("", String::as_str));
            text += &docs::row(iter::once(name.as_str()).chain(found));
        }
        text
    }
}

fn file() -> PathBuf {
    workspace::root().join("tests/kernel-features.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_found_between_other_lines() {
        let mut reader = Reader::default();
        for line in [
            "vm-test kernel: 6.1",
            "}",
            "{",
            "  \"ok\": true,",
            "  \"checks\": [",
            "    {\"area\": \"hooks\", \"name\": \"tcx\", \"found\": \"no\", \"verdict\": \"ok\", \"follows\": \"\"},",
            "    {\"area\": \"mounts\", \"name\": \"bpffs\", \"found\": \"yes\", \"verdict\": \"ok\", \"follows\": \"\"}",
            "  ]",
            "}",
            "test result: ok.",
        ] {
            reader.read(line);
        }
        let expected = Features::from([("tcx".into(), "no".into())]);
        assert_eq!(reader.features, Some(expected));
    }

    #[test]
    fn a_report_that_another_line_broke_is_none() {
        let mut reader = Reader::default();
        for line in ["{", "[ 1.0] kernel speaking", "}"] {
            reader.read(line);
        }
        assert_eq!(reader.features, None);
    }

    #[test]
    fn the_docs_show_what_was_seen() {
        docs::assert_shown(docs::FEATURES, &Seen::open().unwrap().table());
    }

    #[test]
    fn a_feature_that_one_machine_did_not_tell_has_an_empty_cell() {
        let mut seen = Seen::default();
        let found = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|&(name, found)| (name.to_owned(), found.to_owned()))
                .collect()
        };
        seen.set(
            "newest",
            "7.2.1-cloud-amd64",
            found(&[("a", "yes"), ("b", "yes")]),
        );
        seen.set("5.10", "5.10.0-35-cloud-amd64", found(&[("a", "no")]));
        assert_eq!(
            seen.table(),
            "| feature | 5.10.0-35 | 7.2.1 |\n|---|---|---|\n| a | no | yes |\n| b |  | yes |\n"
        );
    }
}
