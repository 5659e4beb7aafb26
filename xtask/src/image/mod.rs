//! `image`: the container image of the agent, made without a container tool: an OCI image layout in one tar file.
//!
//! The same agent gives the same bytes: the image holds neither the machine's time nor its users.

mod layout;
mod program;
#[cfg(test)]
mod tests;

use std::{env, fs};

use anyhow::{Context as _, ensure};

use self::layout::Image;
use crate::{
    build::{self, Profile},
    setup,
    shell::say,
    workspace,
};

/// The largest size of the image, in bytes: every node fetches it.
const LIMIT: usize = 20_000_000;

pub fn run(target: Option<&str>) -> anyhow::Result<()> {
    // First, because the build takes minutes.
    let architecture = match target {
        None => env::consts::ARCH,
        Some(target) => setup::cross::architecture(target)?,
    };
    let architecture = oci_architecture(architecture)?;
    let agent = build::all(Profile::Release, target)?.agent;
    let program = fs::read(&agent).with_context(|| format!("reading {}", agent.display()))?;
    // The image holds nothing that it could be linked with.
    program::refuse_dynamic(&program).with_context(|| agent.display().to_string())?;

    let image = Image {
        version: env!("CARGO_PKG_VERSION"),
        architecture,
        program: &program,
    };
    let archive = image.archive()?;
    check_size(archive.len())?;
    let dir = workspace::target_dir().join("image");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let path = dir.join(format!("portside-{}.tar", image.version));
    fs::write(&path, &archive).with_context(|| format!("writing {}", path.display()))?;

    let (file, name) = (path.display(), image.name());
    say(
        "Wrote",
        format!(
            "{name} for linux/{architecture}: {}, of which a node stores {} unpacked",
            megabytes(archive.len()),
            megabytes(program.len())
        ),
    );
    for command in [
        format!("skopeo copy oci-archive:{file} docker://REGISTRY/{name}"),
        format!("ctr --namespace k8s.io images import {file}"),
        format!("podman load --input {file}"),
    ] {
        say("Load with", command);
    }
    println!("{file}");
    Ok(())
}

fn check_size(archive: usize) -> anyhow::Result<()> {
    ensure!(
        archive <= LIMIT,
        "the image has {}, and may have {}: look at what `cargo tree --package proxy-agent` added",
        megabytes(archive),
        megabytes(LIMIT)
    );
    Ok(())
}

fn megabytes(bytes: usize) -> String {
    format!("{}.{:02} MB", bytes / 1_000_000, bytes / 10_000 % 100)
}

/// The architecture's name in the image specification (Go's `GOARCH`), from Rust's name.
fn oci_architecture(rust: &str) -> anyhow::Result<&'static str> {
    match rust {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => anyhow::bail!("no image is made on {other}: only on x86_64 and aarch64"),
    }
}
