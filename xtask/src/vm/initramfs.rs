//! The machine's whole file system: init, suite, object, tools with their libraries, modules.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use vm_protocol::place;

use super::{cpio::Archive, kernels::Kernel, modules, tools::File};

/// The suite that prints the verifier's figures; the agent's `doctor` goes with it.
pub const MEASURING: &str = "vm_verifier";

/// What tools know protocols by (protocols(5)).
const PROTOCOLS: &[u8] = b"tcp 6 TCP\nudp 17 UDP\nsctp 132 SCTP\n";

pub struct Payload {
    /// Static, as are the suites.
    pub init: PathBuf,
    /// In the order in which they are run.
    pub suites: Vec<Suite>,
    pub object: PathBuf,
    pub agent: PathBuf,
    /// Programs that are only there, under `/vm`.
    pub programs: Vec<PathBuf>,
    /// Programs that the suites call, with what belongs to them.
    pub tools: Vec<File>,
    /// Kernel modules that are loaded if the kernel has them, besides those that every machine has.
    pub modules: Vec<&'static str>,
    /// The program that lays a wire to a NIC of the machine, if there is to be one; it runs on this host.
    pub wire: Option<PathBuf>,
    /// What the suites have in their environment.
    pub variables: Vec<(String, String)>,
}

/// A program to run.
pub struct Suite {
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

impl Suite {
    pub fn name(&self) -> String {
        let name = self.program.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

impl Payload {
    /// Do some of the suites measure the kernel?
    pub fn measures(&self) -> bool {
        self.suites.iter().any(|suite| suite.name() == MEASURING)
    }

    pub fn variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }
}

/// An archive on disk, gone with its owner: each is large, and of use to one machine only.
pub struct Image {
    pub path: PathBuf,
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes the archive of the machine of this name next to the kernel.
///
/// `/vm` has what the guest's half, `tests/guest/src/bin/vm_init.rs`, reads: see [`place`].
pub fn pack(kernel: &Kernel, payload: &Payload, name: &str) -> anyhow::Result<Image> {
    let mut archive = Archive::default();
    for (name, file) in [
        ("/init", &payload.init),
        (place::OBJECT, &payload.object),
        (place::AGENT, &payload.agent),
    ] {
        archive.file(Path::new(name), &read(file)?);
    }
    for program in &payload.programs {
        let name = program.file_name().context("a program without a name")?;
        archive.file(&Path::new(place::DIRECTORY).join(name), &read(program)?);
    }
    let mut suites = String::new();
    for suite in &payload.suites {
        let path = format!("{}/{}", place::DIRECTORY, suite.name());
        if suite.program != payload.agent {
            archive.file(Path::new(&path), &read(&suite.program)?);
        }
        let line = [path.as_str()]
            .into_iter()
            .chain(suite.arguments.iter().map(String::as_str));
        suites += &(line.collect::<Vec<_>>().join("\t") + "\n");
    }
    archive.file(Path::new(place::SUITES), suites.as_bytes());
    let variables: String = payload
        .variables
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    archive.file(Path::new(place::VARIABLES), variables.as_bytes());
    for File { here, there } in &payload.tools {
        archive.file(there, &read(here)?);
    }
    archive.file(Path::new("/etc/protocols"), PROTOCOLS);
    let mut order = String::new();
    for module in modules::collect(kernel.modules.as_deref(), &payload.modules)? {
        let path = format!("{}.d/{}.ko", place::MODULES, module.name);
        archive.file(Path::new(&path), &module.content);
        order += &format!("{path}\n");
    }
    archive.file(Path::new(place::MODULES), order.as_bytes());
    // The kernel opens it for the init before devtmpfs is there.
    archive.console();
    let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let path = kernel.directory.join(format!("initramfs-{name}.cpio"));
    let image = Image { path };
    fs::write(&image.path, archive.finish())
        .with_context(|| format!("cannot write {}", image.path.display()))?;
    Ok(image)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
