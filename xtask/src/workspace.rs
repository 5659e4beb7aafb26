//! Finds the checkout that this run builds, and the directory that its build output goes to.
//!
//! Cargo names the package that it runs in `CARGO_MANIFEST_DIR`. A program that somebody starts without cargo looks at
//! its working directory instead. Nothing here is fixed when xtask is compiled: a checkout that was copied or moved
//! together with its `target/` would otherwise build, format and overwrite files in the old place.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context as _, ensure};
use cargo_metadata::MetadataCommand;

/// A checkout, as cargo describes it.
struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

static FOUND: OnceLock<Workspace> = OnceLock::new();

/// Finds the workspace, or says why it cannot be found. `main` calls this before anything else.
pub fn open() -> anyhow::Result<()> {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let workspace = find(package.as_deref())?;
    // A second call finds the same workspace.
    let _ = FOUND.set(workspace);
    Ok(())
}

/// The root of the checkout.
pub fn root() -> &'static Path {
    &found().root
}

/// Where the build output of this checkout goes: `target/`, unless cargo is configured otherwise.
pub fn target_dir() -> &'static Path {
    &found().target
}

fn found() -> &'static Workspace {
    if FOUND.get().is_none() {
        // Only unit tests get here: they have no `main` of ours.
        open().expect("cargo runs unit tests in a package of the workspace");
    }
    FOUND.get().expect("the workspace was just found")
}

fn find(package: Option<&Path>) -> anyhow::Result<Workspace> {
    let mut command = MetadataCommand::new();
    command.no_deps();
    if let Some(directory) = package {
        // Given by its path, and not as the working directory: a relative CARGO_TARGET_DIR counts from there.
        command.manifest_path(directory.join("Cargo.toml"));
    }
    let metadata = command.exec().with_context(|| match package {
        Some(directory) => format!("no cargo workspace at {}", directory.display()),
        None => "the working directory is in no cargo workspace".to_owned(),
    })?;
    let root = metadata.workspace_root.into_std_path_buf();
    ensure!(
        metadata.packages.iter().any(|it| it.name == "xtask"),
        "the workspace {} has no package xtask: run this in a checkout of Portside",
        root.display()
    );
    Ok(Workspace {
        root,
        target: metadata.target_directory.into_std_path_buf(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_the_one_that_holds_the_running_package() {
        let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let workspace = find(package.as_deref()).unwrap();
        assert!(workspace.root.join("xtask/src/workspace.rs").is_file());
    }

    #[test]
    fn a_directory_outside_any_workspace_is_named() {
        let error = find(Some(Path::new("/proc"))).err().unwrap();
        assert!(format!("{error:#}").contains("/proc"), "{error:#}");
    }
}
