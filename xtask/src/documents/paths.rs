//! Files of the checkout, and headings that links lead to.

use std::path::{Component, Path, PathBuf};

use super::{Document, scan::Piece};
use crate::workspace;

/// Directories at the root, by which a path of the checkout is told from another's.
const ROOMS: [&str; 7] = [
    "proxy-common/",
    "proxy-ebpf/",
    "proxy-agent/src",
    "tests/",
    "xtask/src",
    "deploy/",
    "docs/",
];

pub fn complaints(documents: &[Document], document: &Document, piece: &Piece) -> Vec<String> {
    match piece {
        Piece::Code(text) => text.split(' ').filter_map(missing).collect(),
        Piece::Shell(text) => text.split(' ').filter_map(missing).collect(),
        Piece::Link(target) => link(documents, document, target).into_iter().collect(),
    }
}

/// A path of the checkout that is not there.
fn missing(word: &str) -> Option<String> {
    let path = word.trim_matches(|of: char| "[](),;'\"".contains(of));
    if !ROOMS.iter().any(|room| path.starts_with(room)) {
        return None;
    }
    // `tests/tests/l2_*`, `.../NAME.yaml`, `flow.rs::name`: as far as it is one path.
    let path = path.split("::").next().unwrap_or(path);
    let end = path.find(['*', '{', '<']).or_else(|| {
        let mut at = 0;
        for part in path.split('/') {
            if part.starts_with(|of: char| of.is_ascii_uppercase())
                && part
                    .split('.')
                    .next()
                    .is_some_and(|name| name.chars().all(|of| of.is_ascii_uppercase()))
                && part != "README.md"
            {
                return Some(at);
            }
            at += part.len() + 1;
        }
        None
    });
    let (path, beginning) = match end {
        Some(end) => path[..end].rsplit_once('/').unwrap_or((&path[..end], "")),
        None => (path, ""),
    };
    let full = workspace::root().join(path);
    let there = match beginning {
        "" => full.exists(),
        _ => full.read_dir().is_ok_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(beginning))
            })
        }),
    };
    (!there).then(|| format!("no file {word}"))
}

/// A link within the checkout that leads nowhere.
fn link(documents: &[Document], document: &Document, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = match file {
        "" => document.path.clone(),
        _ => plain(&document.path.parent()?.join(file)),
    };
    if !workspace::root().join(&path).exists() {
        return Some(format!("no file {target}"));
    }
    if heading.is_empty() {
        return None;
    }
    let found = documents.iter().find(|document| document.path == path);
    let there = found.is_some_and(|found| headings(&found.text).any(|it| it == heading));
    (!there).then(|| format!("no heading {target}"))
}

fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// As GitHub names them: small letters, hyphens for spaces, and nothing else but letters, digits, hyphens and underscores.
fn headings(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title
                .chars()
                .filter_map(|of| match of {
                    ' ' => Some('-'),
                    of if of.is_alphanumeric() || of == '-' || of == '_' => Some(of),
                    _ => None,
                })
                .collect()
        })
}

#[test]
fn what_is_not_there_is_seen() {
    assert_eq!(missing("tests/tests/l2_*"), None);
    assert_eq!(missing("deploy/recipes/NAME/values.yaml"), None);
    assert_eq!(missing("https://example.org/tests/x"), None);
    assert!(missing("tests/tests/l9_*").is_some());
    assert!(missing("proxy-agent/src/nothing.rs").is_some());
    let document = Document {
        path: "docs/maps.md".into(),
        text: "# One Two\n## It's `three`\n".to_owned(),
    };
    let documents = [document];
    let there = |target| link(&documents, &documents[0], target);
    assert_eq!(there("#one-two"), None);
    assert_eq!(there("#its-three"), None);
    assert_eq!(there("../README.md"), None);
    assert!(there("#one_two").is_some());
    assert!(there("nothing.md").is_some());
}
