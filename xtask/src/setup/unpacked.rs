//! Real programs that tests set beside Portside, out of the distribution's packages: unpacked under `target/tools`, not
//! installed, so that nothing is started on this machine and no root is needed.

use std::{
    ffi::OsString,
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
    let bin = unpack("prometheus", Brings::Itself)?.join("usr/bin");
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

/// This machine's program, else the package's. To install it would start a server at port 80, now and at each boot.
pub fn nginx() -> Result<PathBuf> {
    server("nginx")
}

/// This machine's program, else the package's.
pub fn haproxy() -> Result<PathBuf> {
    server("haproxy")
}

/// A server by its name, which is its package's. Its libraries that this machine lacks are unpacked beside it: `../lib`.
fn server(name: &str) -> Result<PathBuf> {
    if let Some(found) = shell::find(name) {
        return Ok(found);
    }
    let program = unpack(name, Brings::Libraries)?.join("usr/sbin").join(name);
    ensure!(
        program.is_file(),
        "the package has no {}",
        program.display()
    );
    Ok(program)
}

/// What is unpacked along with a package.
#[derive(Clone, Copy)]
enum Brings {
    Itself,
    /// All packages that it needs and this machine lacks.
    Libraries,
}

/// Where the files of a package are.
fn unpack(package: &str, brings: Brings) -> Result<PathBuf> {
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
    let unpacked = unpack_into(&work, package, brings).and_then(|()| {
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

fn unpack_into(work: &Path, package: &str, brings: Brings) -> Result<()> {
    crate::packages::refresh();
    say("Downloading", format!("{package} (apt)"));
    let archives = work.join("archives");
    fs::create_dir_all(archives.join("partial"))?;
    let mut download = Command::new("apt-get");
    match brings {
        Brings::Itself => download.args(["-qq", "download"]),
        Brings::Libraries => {
            let mut cache = OsString::from("Dir::Cache::archives=");
            cache.push(&archives);
            // What an installation would fetch, without the locks of one: these are root's.
            download
                .args(["-qq", "install", "--yes", "--no-install-recommends"])
                .args(["--download-only", "-o", "Debug::NoLocking=1", "-o"])
                .arg(cache)
        }
    };
    download
        .arg(package)
        .current_dir(&archives)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    shell::run(&mut download)?;
    let files: Vec<_> = fs::read_dir(&archives)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|it| it == "deb"))
        .collect();
    ensure!(!files.is_empty(), "apt-get brought no package {package}");
    for file in files {
        let mut extract = Command::new("dpkg-deb");
        extract.arg("--extract").arg(file).arg(work.join("files"));
        shell::run(&mut extract)?;
    }
    Ok(())
}
