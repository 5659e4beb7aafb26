//! Lists the files that count, and the directories to watch for them.
//!
//! Files count that are named `*.yaml`, `*.yml` or `*.json` and are not hidden, in the directory and those below it, in
//! the order of their paths. Hidden directories and links to directories below are not entered: of the two views that
//! a mounted ConfigMap has of a file (`..data/svc.yaml` and the link `svc.yaml`), one is enough.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

#[derive(Default, Debug)]
pub struct Tree {
    /// Path relative to the directory, and path to open.
    pub files: BTreeMap<PathBuf, PathBuf>,
    /// Directories in which an entry changes when a file or the way to it does.
    pub dirs: BTreeSet<PathBuf>,
}

impl Tree {
    pub fn walk(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.add_way_to(root);
        tree.enter(root, Path::new(""))?;
        Ok(tree)
    }

    fn enter(&mut self, dir: &Path, relative: &Path) -> io::Result<()> {
        self.dirs.insert(dir.to_owned());
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let (path, relative) = (entry.path(), relative.join(&name));
            let kind = entry.file_type()?;
            if kind.is_dir() {
                match self.enter(&path, &relative) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            } else if is_manifest(&name) && is_there(&path) {
                if kind.is_symlink() {
                    self.add_way_to(&path);
                }
                self.files.insert(relative, path);
            }
        }
        Ok(())
    }

    /// Both ends of a link: where it lies, and where what it leads to lies.
    fn add_way_to(&mut self, path: &Path) {
        for path in [std::path::absolute(path), fs::canonicalize(path)]
            .into_iter()
            .flatten()
        {
            self.dirs.extend(path.parent().map(Path::to_owned));
        }
    }
}

/// Not a link that leads nowhere. What is no regular file is for the reading to complain of.
fn is_there(path: &Path) -> bool {
    !matches!(fs::metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Is this the name of a file that counts?
pub fn is_manifest(name: &OsStr) -> bool {
    let hidden = name.as_encoded_bytes().starts_with(b".");
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}
