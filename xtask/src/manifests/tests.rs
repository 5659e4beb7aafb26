//! The chart is what the base says, and gives back the base.

use std::fs;

use serde_json::Value;

use super::*;
use crate::workspace;

#[test]
fn the_chart_in_the_repository_is_the_one_that_the_base_makes() {
    run(true).unwrap();
}

#[test]
fn the_image_has_the_version_of_the_workspace() {
    let values = &render(workspace::root()).unwrap()[Path::new("values.yaml")];
    let image = format!("image: portside:{}\n", env!("CARGO_PKG_VERSION"));
    assert!(values.contains(&image), "{values}");
}

/// Evaluates the three forms that a template may hold, as Helm does.
fn evaluate(template: &str, values: &Value) -> String {
    let mut text = String::new();
    for line in template.lines() {
        let Some((before, rest)) = line.split_once("{{") else {
            text.push_str(&format!("{line}\n"));
            continue;
        };
        let expression = rest
            .strip_suffix("}}")
            .expect("ends with the expression")
            .trim();
        // JSON is YAML: its form does not matter here.
        let value = |name: &str| values[name].to_string();
        if expression == ".Release.Namespace" {
            text.push_str(&format!("{before}kube-system\n"));
        } else if let Some(inline) = expression.strip_prefix("toJson .Values.") {
            text.push_str(&format!("{before}{}\n", value(inline)));
        } else {
            let block = expression
                .strip_prefix("- toYaml .Values.")
                .expect("a known form");
            let (name, depth) = block.split_once(" | nindent ").expect("a known form");
            let depth: usize = depth.parse().unwrap();
            assert!(before.trim().is_empty(), "{line}");
            text.push_str(&format!("{:depth$}{}\n", "", value(name)));
        }
    }
    text
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

#[test]
fn with_its_default_values_the_chart_is_the_base() {
    let files = render(workspace::root()).unwrap();
    let values: Value = serde_saphyr::from_str(&files[Path::new("values.yaml")]).unwrap();
    for file in FILES {
        let base = fs::read_to_string(workspace::root().join("deploy/base").join(file)).unwrap();
        let template = &files[&Path::new("templates").join(file)];
        assert_eq!(
            documents(&evaluate(template, &values)),
            documents(&base),
            "{file}"
        );
    }
    for chosen in ["image", "args", "resources", "tolerations", "capabilities"] {
        assert!(!values[chosen].is_null(), "{chosen} has no default");
    }
}

#[test]
fn a_mark_takes_the_value_or_the_block_and_its_comment() {
    let base = "a:\n  # Why b.\n  b: one # helm: b\n  c: # helm: c\n    # Of d.\n    d: [1]\n  e: f\n  n: x # helm: Release.Name\n";
    let Template { text, defaults } = template::template(base).unwrap();
    assert_eq!(
        text,
        "a:\n  # Why b.\n  b: {{ toJson .Values.b }}\n  c:\n    {{- toYaml .Values.c | nindent 4 }}\n  e: f\n  n: {{ .Release.Name }}\n"
    );
    assert_eq!(defaults, "# Why b.\nb: one\nc:\n  # Of d.\n  d: [1]\n");
}

#[test]
fn a_mark_with_nothing_to_mark_is_an_error() {
    for base in ["a: # helm: a\nb: c\n", "- x # helm: a\n"] {
        assert!(template::template(base).is_err(), "{base}");
    }
}
