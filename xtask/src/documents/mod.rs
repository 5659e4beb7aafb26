//! What the documents name exists: commands, flags, metrics, reasons, files and headings.
//!
//! The commands are asked of clap, the reasons of the core, the metrics of the names in the agent's source. What belongs to others
//! (kubeadm's flags, say) is listed with its owner.

mod commands;
mod metrics;
mod paths;
mod scan;

use std::{
    fs,
    path::{Path, PathBuf},
};

use self::scan::{Piece, pieces};
use crate::workspace;

/// A text, by its path in the checkout.
struct Document {
    path: PathBuf,
    text: String,
}

fn documents() -> Vec<Document> {
    workspace::open().unwrap();
    let root = workspace::root();
    let mut found = Vec::new();
    let mut directories = vec![root.join("docs"), root.join("deploy")];
    let files = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let mut paths: Vec<_> = files(root)
        .into_iter()
        .filter(|path| path.is_file())
        .collect();
    while let Some(directory) = directories.pop() {
        for path in files(&directory) {
            if path.is_dir() {
                directories.push(path);
            } else {
                paths.push(path);
            }
        }
    }
    for path in paths {
        let is_text = path.extension().is_some_and(|it| it == "md")
            || path.ends_with("NOTES.txt")
            || path.ends_with("alerts.yaml");
        if is_text {
            found.push(Document {
                text: fs::read_to_string(&path).unwrap(),
                path: path.strip_prefix(root).unwrap().to_owned(),
            });
        }
    }
    assert!(found.len() > 20, "only {} documents", found.len());
    found
}

/// Looks at each piece of each document; `what` says what is wrong with it.
fn check(what: impl Fn(&Document, &Piece) -> Vec<String>) {
    let mut wrong = Vec::new();
    let mut looked = 0;
    for document in documents() {
        for (line, piece) in pieces(&document.text) {
            looked += 1;
            for complaint in what(&document, &piece) {
                wrong.push(format!("{}:{line}: {complaint}", document.path.display()));
            }
        }
    }
    assert!(looked > 1000, "only {looked} pieces");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_and_flag_exists() {
    let programs = commands::Programs::new();
    check(|_, piece| programs.complaints(piece));
}

#[test]
fn every_metric_exists() {
    let names = metrics::names();
    for document in documents() {
        let unknown = metrics::unknown(&names, &document.text);
        assert!(
            unknown.is_empty(),
            "{}: {unknown:?}",
            document.path.display()
        );
    }
}

#[test]
fn every_reason_exists() {
    check(|_, piece| commands::unknown_reasons(piece));
}

#[test]
fn every_file_and_heading_exists() {
    let documents = documents();
    check(|document, piece| paths::complaints(&documents, document, piece));
}
