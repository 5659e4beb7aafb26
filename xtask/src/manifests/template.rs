//! One file of the base -> a template and default values.

use anyhow::{Context as _, ensure};

const MARK: &str = " # helm: ";

/// What becomes of a file of the base.
#[derive(Default, Debug)]
pub struct Template {
    pub text: String,
    /// Its part of `values.yaml`.
    pub defaults: String,
}

/// Replaces what is marked.
pub fn template(base: &str) -> anyhow::Result<Template> {
    let mut template = Template::default();
    let mut comments: Vec<&str> = Vec::new();
    let mut lines = base.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((entry, name)) = line.split_once(MARK) else {
            if line.trim_start().starts_with('#') {
                comments.push(line.trim_start());
            } else {
                comments.clear();
            }
            template.text.push_str(line);
            template.text.push('\n');
            continue;
        };
        let (key, value) = entry
            .split_once(':')
            .with_context(|| format!("{line:?}: a mark belongs behind a key"))?;
        if name.starts_with("Release.") {
            template
                .text
                .push_str(&format!("{key}: {{{{ .{name} }}}}\n"));
            continue;
        }
        for comment in comments.drain(..) {
            template.defaults.push_str(comment);
            template.defaults.push('\n');
        }
        let value = value.trim();
        if !value.is_empty() {
            // JSON stays on its line whatever the user chooses, and is YAML.
            template
                .text
                .push_str(&format!("{key}: {{{{ toJson .Values.{name} }}}}\n"));
            template.defaults.push_str(&format!("{name}: {value}\n"));
            continue;
        }
        // A block: all that is indented further than its key.
        let depth = indent(key);
        let mut block = Vec::new();
        while let Some(line) = lines.next_if(|line| line.trim().is_empty() || indent(line) > depth)
        {
            block.push(line);
        }
        ensure!(!block.is_empty(), "{line:?}: nothing follows the key");
        ensure!(
            block.iter().all(|line| !line.contains(MARK)),
            "{line:?}: a mark within a marked block"
        );
        let inner = indent(block[0]);
        template.text.push_str(&format!(
            "{key}:\n{:inner$}{{{{- toYaml .Values.{name} | nindent {inner} }}}}\n",
            ""
        ));
        template.defaults.push_str(&format!("{name}:\n"));
        for line in block {
            template.defaults.push_str("  ");
            template
                .defaults
                .push_str(line.get(inner..).unwrap_or_default());
            template.defaults.push('\n');
        }
    }
    Ok(template)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}
