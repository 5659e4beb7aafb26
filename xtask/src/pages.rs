//! `docs`: the pages that are written from the code.

use std::fs;

use anyhow::{Context as _, ensure};

use crate::{chart_page, maps_page, reasons_page, shell::say, workspace};

/// A page, and what it is written from.
struct Page {
    path: &'static str,
    source: &'static str,
    text: fn() -> anyhow::Result<String>,
}

const PAGES: [Page; 3] = [
    Page {
        path: maps_page::PATH,
        source: "proxy-common/src/abi",
        text: || Ok(maps_page::page()),
    },
    Page {
        path: reasons_page::PATH,
        source: "proxy-common/src/reason",
        text: || Ok(reasons_page::page()),
    },
    Page {
        path: chart_page::PATH,
        source: chart_page::SOURCE,
        text: chart_page::page,
    },
];

/// Writes the pages; with `check`, only says whether they are as they would be written.
pub fn run(check: bool) -> anyhow::Result<()> {
    for Page { path, source, text } in PAGES {
        let (path, text) = (workspace::root().join(path), text()?);
        if check {
            let found = fs::read_to_string(&path).unwrap_or_default();
            ensure!(
                found == text,
                "{} is not what {source} says: run `cargo xtask docs`",
                path.display()
            );
            continue;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        say("Wrote", path.display().to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_show_the_code_as_it_is() {
        workspace::open().unwrap();
        run(true).unwrap();
    }
}
