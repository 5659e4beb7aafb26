//! `docs`: the chart's README, whose table of values is written from its `values.yaml`.
//!
//! A comment that begins with `# --` stands before the key that it describes, and is a row with the key's path, its default
//! and its words. A key without such a comment has rows for what is in it.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::workspace;

pub const PATH: &str = "deploy/helm/portside/README.md";
pub const SOURCE: &str = "deploy/helm/portside/values.yaml";

const HEAD: &str = "# The chart of Portside

<!-- written by `cargo xtask docs` from values.yaml: change that, not this -->

Portside replaces kube-proxy on every Linux node, whatever the CNI. The chart installs its agent as a DaemonSet, with a
ServiceAccount and a ClusterRole; a PodMonitor and a PrometheusRule where they are asked for.

```sh
helm install portside deploy/helm/portside --namespace kube-system --values VALUES.yaml
kubectl -n kube-system rollout status daemonset/portside
kubectl -n kube-system exec daemonset/portside -- /proxy-agent status
```

[deploy/recipes](../../recipes/README.md) has a values file for each of the common distributions,
[docs/migration.md](../../../docs/migration.md) the way from kube-proxy and back, and
[docs/operations.md](../../../docs/operations.md) every flag of the agent.

A value that the chart does not know is refused (`values.schema.json`), and so is a flag in `extraArgs` that a value of its own
sets. Names of all objects, those of the whole cluster too, begin with the release's.

`deploy/base` has the same objects for kustomize: a test holds it to what the chart gives with its default values.

## Values

| value | default | meaning |
|---|---|---|
";

pub fn page() -> anyhow::Result<String> {
    let path = workspace::root().join(SOURCE);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut page = HEAD.to_owned();
    for Row {
        path,
        default,
        words,
    } in rows(&text).with_context(|| SOURCE.to_owned())?
    {
        let _ = writeln!(
            page,
            "| `{path}` | `{default}` | {} |",
            words.replace('|', "\\|")
        );
    }
    Ok(page)
}

#[derive(PartialEq, Debug)]
struct Row {
    path: String,
    default: Value,
    words: String,
}

fn rows(text: &str) -> anyhow::Result<Vec<Row>> {
    let values: Value = serde_saphyr::from_str(text)?;
    let mut rows: Vec<Row> = Vec::new();
    // The keys that the line is in, with the depth of each, and whether that key has a row.
    let mut within: Vec<(usize, String, bool)> = Vec::new();
    let mut words: Option<String> = None;
    for (number, line) in text.lines().enumerate() {
        let here = || format!("line {}: {line:?}", number + 1);
        let trimmed = line.trim_start();
        if let Some(comment) = trimmed.strip_prefix('#') {
            let comment = comment.trim();
            match (&mut words, comment.strip_prefix("-- ")) {
                (None, Some(begins)) => words = Some(begins.to_owned()),
                (Some(_), Some(_)) => bail!("{}: the description before has no key", here()),
                (Some(words), None) => {
                    words.push(' ');
                    words.push_str(comment);
                }
                (None, None) => {}
            }
            continue;
        }
        if trimmed.is_empty() {
            ensure!(words.is_none(), "{}: a description without a key", here());
            continue;
        }
        let depth = line.len() - trimmed.len();
        within.retain(|(of, ..)| *of < depth);
        if within.iter().any(|(.., described)| *described) {
            // A part of a default.
            continue;
        }
        let (key, value) = trimmed.split_once(':').with_context(here)?;
        within.push((depth, key.to_owned(), words.is_some()));
        let path: Vec<_> = within.iter().map(|(_, key, _)| key.as_str()).collect();
        match words.take() {
            Some(words) => rows.push(Row {
                default: values
                    .pointer(&format!("/{}", path.join("/")))
                    .with_context(here)?
                    .clone(),
                path: path.join("."),
                words,
            }),
            None => ensure!(value.is_empty(), "{}: no description", here()),
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_has_path_default_and_words() {
        let text = "# Of the file.\n\na:\n  # -- Why b,\n  # told at length.\n  b: [1]\n# -- All of c.\nc:\n  d: word\n  e: 2\n";
        let row = |path: &str, default, words: &str| Row {
            path: path.to_owned(),
            default,
            words: words.to_owned(),
        };
        let expected = [
            row("a.b", json!([1]), "Why b, told at length."),
            row("c", json!({"d": "word", "e": 2}), "All of c."),
        ];
        assert_eq!(rows(text).unwrap(), expected);
    }

    #[test]
    fn a_value_without_words_is_an_error_that_names_its_line() {
        for text in ["a: 1\n", "a:\n  b: 1\n", "# -- Of nothing.\n\na: 1\n"] {
            let error = rows(text).unwrap_err().to_string();
            assert!(error.starts_with("line "), "{text:?}: {error}");
        }
    }
}
