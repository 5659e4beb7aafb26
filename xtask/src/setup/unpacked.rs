//! Real programs that tests set beside Portside, out of the distribution's packages: unpacked under `target/tools`, not
//! installed, so that nothing is started on this machine and no root is needed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    shell::{self, say},
    workspace,
};

/// The directory with `prometheus` and `promtool`: that of this machine, else of the package. Both are static programs.
pub fn prometheus() -> Result<PathBuf> {
    if let (Some(server), Some(tool)) = (shell::find("prometheus"), shell::find("promtool"))
        && server.parent() == tool.parent()
    {
        return Ok(server
            .parent()
            .context("a program has a directory")?
            .to_owned());
    }
    let bin = unpack("prometheus")?.join("usr/bin");
    for program in ["prometheus", "promtool"] {
        let version = Command::new(bin.join(program)).arg("--version").output();
        ensure!(
            version.is_ok_and(|ran| ran.status.success()),
            "{} does not run here",
            bin.join(program).display()
        );
    }
    Ok(bin)
}

/// Where the files of a package are.
fn unpack(package: &str) -> Result<PathBuf> {
    let dir = workspace::target_dir().join("tools").join(package);
    // The directory gets its name when it is whole.
    if dir.exists() {
        return Ok(dir);
    }
    for program in ["apt-get", "dpkg-deb"] {
        ensure!(
            shell::find(program).is_some(),
            "{package} is not installed, and this machine has no {program}"
        );
    }
    let work = dir.with_extension(std::process::id().to_string());
    let unpacked = unpack_into(&work, package).and_then(|()| {
        // Somebody else may have been faster.
        if !dir.exists() {
            fs::rename(work.join("files"), &dir)?;
        }
        Ok(())
    });
    // What is left of it is of no use.
    let _ = fs::remove_dir_all(&work);
    unpacked.with_context(|| {
        format!("{package} is not installed, and its package cannot be unpacked")
    })?;
    Ok(dir)
}

fn unpack_into(work: &Path, package: &str) -> Result<()> {
    crate::packages::refresh();
    say("Downloading", format!("{package} (apt)"));
    fs::create_dir_all(work)?;
    let mut download = Command::new("apt-get");
    download
        .args(["-qq", "download", package])
        .current_dir(work)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    shell::run(&mut download)?;
    let mut files = fs::read_dir(work)?;
    let file = files.find_map(|entry| {
        let path = entry.ok()?.path();
        (path.extension()? == "deb").then_some(path)
    });
    let file = file.with_context(|| format!("apt-get brought no package {package}"))?;
    let mut extract = Command::new("dpkg-deb");
    extract.arg("--extract").arg(file).arg(work.join("files"));
    shell::run(&mut extract)
}
