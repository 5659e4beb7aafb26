//! The machine's whole file system: init, suite, object, tools with their libraries, modules.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::{cpio::Archive, kernels::Kernel, modules};
use crate::shell;

/// The suite that prints the verifier's figures; the agent's `doctor` goes with it.
pub const MEASURING: &str = "vm_verifier";

pub struct Payload {
    /// Static, as are the suites.
    pub init: PathBuf,
    /// In the order in which they are run.
    pub suites: Vec<Suite>,
    pub object: PathBuf,
    pub agent: PathBuf,
    /// Programs that are only there, under `/vm`.
    pub programs: Vec<PathBuf>,
    /// Programs that the suites call.
    pub tools: Vec<PathBuf>,
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

/// Writes the archive next to the kernel, and says where.
///
/// `/vm` has what the guest's half, `tests/src/bin/vm_init.rs`, reads: `suites` (a line each, the program and its
/// arguments parted by tabs), `variables` (`NAME=VALUE`) and `modules`, in the order in which they are loaded.
pub fn pack(kernel: &Kernel, payload: &Payload) -> anyhow::Result<PathBuf> {
    let mut archive = Archive::default();
    for (name, file) in [
        ("/init", &payload.init),
        ("/vm/portside", &payload.object),
        ("/vm/proxy-agent", &payload.agent),
    ] {
        archive.file(Path::new(name), &read(file)?);
    }
    for program in &payload.programs {
        let name = program.file_name().context("a program without a name")?;
        archive.file(&Path::new("/vm").join(name), &read(program)?);
    }
    let mut suites = String::new();
    for suite in &payload.suites {
        let path = format!("/vm/{}", suite.name());
        if suite.program != payload.agent {
            archive.file(Path::new(&path), &read(&suite.program)?);
        }
        let line = [path.as_str()]
            .into_iter()
            .chain(suite.arguments.iter().map(String::as_str));
        suites += &(line.collect::<Vec<_>>().join("\t") + "\n");
    }
    archive.file(Path::new("/vm/suites"), suites.as_bytes());
    let variables: String = payload
        .variables
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    archive.file(Path::new("/vm/variables"), variables.as_bytes());
    for tool in &payload.tools {
        let name = tool.file_name().context("a tool without a name")?;
        archive.file(&Path::new("/bin").join(name), &read(tool)?);
    }
    for library in libraries(&payload.tools) {
        archive.file(&library, &read(&library)?);
    }
    let mut order = String::new();
    for module in modules::collect(kernel.modules.as_deref())? {
        let path = format!("/vm/modules.d/{}.ko", module.name);
        archive.file(Path::new(&path), &module.content);
        order += &format!("{path}\n");
    }
    archive.file(Path::new("/vm/modules"), order.as_bytes());
    // The kernel opens it for the init before devtmpfs is there.
    archive.console();
    let path = kernel.directory.join("initramfs.cpio");
    fs::write(&path, archive.finish())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The shared libraries and the loader of these programs.
fn libraries(programs: &[PathBuf]) -> Vec<PathBuf> {
    let text = shell::capture(Command::new("ldd").args(programs)).unwrap_or_default();
    let mut paths = parse_ldd(&text);
    paths.sort();
    paths.dedup();
    paths
}

fn parse_ldd(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter(|line| line.starts_with(char::is_whitespace))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_libraries_and_the_loader() {
        let text = "/sbin/ip:\n\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n";
        let expected = ["/lib/libc.so.6", "/lib64/ld.so.2"].map(PathBuf::from);
        assert_eq!(parse_ldd(text), expected);
    }
}
