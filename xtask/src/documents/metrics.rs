//! Metrics: the names in the agent's source, and those that a text names.

use std::{collections::BTreeSet, fs};

use crate::workspace;

const PREFIXES: [&str; 3] = ["portside_", "kubeproxy_", "process_"];
/// What the exposition adds to a name, by the metric's type.
const SUFFIXES: [&str; 5] = ["", "_total", "_bucket", "_sum", "_count"];

/// The names that the agent registers, without the exposition's suffixes.
pub fn names() -> BTreeSet<String> {
    let directory = workspace::root().join("proxy-agent/src/serve/metrics");
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        let mut prefix = String::new();
        for literal in literals(text) {
            let before = &text[..literal.0];
            if before.trim_end().ends_with("sub_registry_with_prefix(") {
                prefix = format!("{}_", literal.1);
            } else if before
                .trim_end_matches("format!(")
                .trim_end()
                .ends_with(".register(")
            {
                names.insert(format!("{prefix}{}", literal.1));
            } else if PREFIXES.iter().any(|prefix| literal.1.starts_with(prefix)) {
                names.insert(literal.1.to_owned());
            }
        }
    }
    assert!(names.len() > 30, "{names:?}");
    names
}

/// The string literals of a source, with where they begin.
fn literals(text: &str) -> Vec<(usize, &str)> {
    let quotes: Vec<_> = text.match_indices('"').map(|(at, _)| at).collect();
    let pairs = quotes.chunks_exact(2);
    pairs
        .map(|pair| (pair[0], &text[pair[0] + 1..pair[1]]))
        .collect()
}

/// Whether a name is this one of the source, where `{kind}` stands for one word.
fn is(known: &str, name: &str) -> bool {
    let Some((before, rest)) = known.split_once('{') else {
        return known == name;
    };
    let after = rest.split_once('}').map_or("", |(_, after)| after);
    let word = name
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after));
    word.is_some_and(|word| ["service", "endpoint", "healthz", "livez"].contains(&word))
}

/// The metrics of a text that do not exist.
pub fn unknown(names: &BTreeSet<String>, text: &str) -> Vec<String> {
    let is_part = |of: char| of.is_ascii_alphanumeric() || "_{},*".contains(of);
    let mut unknown = Vec::new();
    for word in text.split(|of: char| !is_part(of)) {
        if !PREFIXES.iter().any(|prefix| word.starts_with(prefix)) {
            continue;
        }
        for name in alternatives(word.trim_end_matches([',', '}'])) {
            // A label's braces end the name; `kubeproxy_*` stands for many.
            let name = name.split('{').next().unwrap_or_default();
            let known = match name.strip_suffix(['*', '_']) {
                Some(beginning) => names.iter().any(|known| known.starts_with(beginning)),
                None => SUFFIXES.iter().any(|suffix| {
                    let short = name.strip_suffix(suffix);
                    short.is_some_and(|short| {
                        names
                            .iter()
                            .any(|known| is(known, short) || is(known, name))
                    })
                }),
            };
            if !known {
                unknown.push(name.to_owned());
            }
        }
    }
    unknown
}

/// `a_{b,c}_d` stands for two, and so on.
fn alternatives(word: &str) -> Vec<String> {
    let Some((before, rest)) = word.split_once('{') else {
        return vec![word.to_owned()];
    };
    let (choices, after) = rest.split_once('}').unwrap_or((rest, ""));
    if !choices.contains(',') || choices.contains('=') {
        return vec![before.to_owned()];
    }
    choices
        .split(',')
        .flat_map(|choice| alternatives(&format!("{before}{choice}{after}")))
        .collect()
}

#[test]
fn what_is_not_there_is_seen() {
    let names = names();
    for text in [
        "`portside_flows`",
        "portside_dropped_packets_total{reason=\"x\"}",
        "kubeproxy_sync_proxy_rules_{service,endpoint}_changes_{total,pending}",
        "rate(kubeproxy_network_programming_duration_seconds_bucket[5m])",
        "`kubeproxy_*`",
        "process_cpu_seconds_total",
    ] {
        assert!(unknown(&names, text).is_empty(), "{text}: {names:?}");
    }
    for text in [
        "`portside_flow`",
        "kubeproxy_sync_proxy_rules_{service,pod}_changes_total",
        "portside_nothing_*",
    ] {
        assert_eq!(unknown(&names, text).len(), 1, "{text}");
    }
}
