//! The machine's whole file system: init, suite, object, tools with their libraries, modules.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::{cpio::Archive, kernels::Kernel, modules};
use crate::shell;

pub struct Payload {
    /// Static, as are the suites.
    pub init: PathBuf,
    /// In the order in which they are run.
    pub suites: Vec<PathBuf>,
    pub object: PathBuf,
    /// Programs that the suite calls.
    pub tools: Vec<PathBuf>,
    pub filter: Option<String>,
}

/// Writes the archive next to the kernel, and says where.
pub fn pack(kernel: &Kernel, payload: &Payload) -> anyhow::Result<PathBuf> {
    let mut archive = Archive::default();
    for (name, file) in [("/init", &payload.init), ("/vm/portside", &payload.object)] {
        archive.file(Path::new(name), &read(file)?);
    }
    let mut suites = String::new();
    for (index, file) in payload.suites.iter().enumerate() {
        let path = format!("/vm/suite{index}");
        archive.file(Path::new(&path), &read(file)?);
        suites += &format!("{path}\n");
    }
    archive.file(Path::new("/vm/suites"), suites.as_bytes());
    for tool in &payload.tools {
        let name = tool.file_name().context("a tool without a name")?;
        archive.file(&Path::new("/bin").join(name), &read(tool)?);
    }
    for library in libraries(&payload.tools) {
        archive.file(&library, &read(&library)?);
    }
    let mut order = String::new();
    for module in modules::collect(&kernel.modules)? {
        let path = format!("/vm/modules.d/{}.ko", module.name);
        archive.file(Path::new(&path), &module.content);
        order += &format!("{path}\n");
    }
    archive.file(Path::new("/vm/modules"), order.as_bytes());
    let filter = payload.filter.as_deref().unwrap_or_default();
    let arguments = format!("--color=never\n{filter}");
    archive.file(Path::new("/vm/arguments"), arguments.as_bytes());
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
