//! Writes the generated tables of docs/kernels.md, each between two markers.

use std::{fs, path::PathBuf};

use anyhow::Context as _;

use crate::workspace;

/// The names of the tables in their markers.
pub const VERIFIER: &str = "verifier table";
pub const FEATURES: &str = "feature table";

pub fn file() -> PathBuf {
    workspace::root().join("docs/kernels.md")
}

/// Puts a table into the docs.
pub fn write(name: &str, table: &str) -> anyhow::Result<()> {
    let path = file();
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = replace(&text, name, table).with_context(|| path.display().to_string())?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

pub fn row<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

/// The text with what is between the markers replaced.
fn replace(text: &str, name: &str, table: &str) -> anyhow::Result<String> {
    let begin = format!("<!-- {name}: written by `cargo xtask vm-test --write-docs` -->\n");
    let end = format!("<!-- end of the {name} -->\n");
    let (before, rest) = text
        .split_once(&begin)
        .with_context(|| format!("the line {:?} is missing", begin.trim_end()))?;
    let (_, after) = rest
        .split_once(&end)
        .with_context(|| format!("the line {:?} is missing", end.trim_end()))?;
    Ok(format!("{before}{begin}\n{table}\n{end}{after}"))
}

/// For tests: asserts that the docs have this table.
#[cfg(test)]
pub fn assert_shown(name: &str, table: &str) {
    let text = fs::read_to_string(file()).unwrap();
    let fresh = replace(&text, name, table).unwrap();
    assert!(
        text == fresh,
        "docs/kernels.md does not show the {name} as it was measured: run `cargo xtask vm-test --write-docs`"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let begin = "<!-- x: written by `cargo xtask vm-test --write-docs` -->\n";
        let end = "<!-- end of the x -->\n";
        let text = format!("above\n{begin}old\n{end}below\n");
        let once = replace(&text, "x", "new\n").unwrap();
        assert_eq!(once, format!("above\n{begin}\nnew\n\n{end}below\n"));
        assert_eq!(replace(&once, "x", "new\n").unwrap(), once);
        replace("no markers", "x", "new\n").unwrap_err();
        replace(begin, "x", "new\n").unwrap_err();
    }
}
