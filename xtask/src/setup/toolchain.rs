//! The Rust compilers of this machine, as they describe themselves.

use std::{
    collections::BTreeSet,
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::shell;

/// Overrides the search: the path of a `rustc` that has rust-src.
const EXPLICIT: &str = "PORTSIDE_EBPF_RUSTC";

/// A compiler and a linker that fit each other.
pub struct Toolchain {
    pub compiler: Compiler,
    pub linker: PathBuf,
}

#[derive(Clone, Debug)]
pub struct Compiler {
    pub origin: Origin,
    pub rustc: PathBuf,
    pub sysroot: PathBuf,
    pub version: Version,
    /// The folder of the standard library's sources, links resolved, where it is installed.
    pub sources: Option<PathBuf>,
}

impl Compiler {
    /// The cargo of the same release, which knows the manifests of its standard library. rustup always brings one; a
    /// distribution's may be of another release.
    pub fn own_cargo(&self) -> Option<PathBuf> {
        matches!(self.origin, Origin::Rustup(_))
            .then(|| self.sysroot.join("bin/cargo"))
            .filter(|cargo| cargo.is_file())
    }
}

/// Where a compiler came from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    Explicit,
    /// A rustup toolchain of this name.
    Rustup(String),
    /// Any other one on `PATH`: a distribution's, as a rule.
    System,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version { release, .. } = &self.version;
        match &self.origin {
            Origin::Explicit => write!(f, "rustc {release} ({EXPLICIT})"),
            Origin::Rustup(name) => write!(f, "rustc {release} (rustup {name})"),
            Origin::System => write!(f, "rustc {release} ({})", self.rustc.display()),
        }
    }
}

/// What `rustc -vV` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// With the channel: `1.97.0-nightly`.
    pub release: String,
    /// Major and minor.
    pub number: (u32, u32),
    pub host: String,
    /// Major version of its LLVM.
    pub llvm: u32,
}

impl Version {
    pub fn parse(verbose: &str) -> Option<Self> {
        let field = |name| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let release = field("release:")?;
        Some(Self {
            release: release.to_owned(),
            number: number(release)?,
            host: field("host:")?.to_owned(),
            llvm: field("LLVM version:")?.split('.').next()?.parse().ok()?,
        })
    }

    pub fn is_nightly(&self) -> bool {
        self.release.ends_with("-nightly")
    }
}

/// Major and minor of anything that begins like `1.96.0`.
pub fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-', '+', '~']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The compiler that the user chose, which must then be usable.
pub fn explicit() -> anyhow::Result<Option<Compiler>> {
    let Some(rustc) = env::var_os(EXPLICIT).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let rustc = PathBuf::from(rustc);
    let Some(compiler) = inspect(&rustc, Origin::Explicit) else {
        bail!("{EXPLICIT}={} is not a working rustc", rustc.display());
    };
    if compiler.sources.is_none() {
        bail!(
            "{EXPLICIT}={}: no rust-src in its sysroot {}",
            rustc.display(),
            compiler.sysroot.display()
        );
    }
    Ok(Some(compiler))
}

/// All compilers of rustup, then those on `PATH`, each sysroot once.
pub fn probe() -> Vec<Compiler> {
    let mut seen = BTreeSet::new();
    rustup_toolchains()
        .into_iter()
        .filter_map(|name| {
            let rustc = shell::capture(Command::new("rustup").args([
                "which",
                "rustc",
                "--toolchain",
                &name,
            ]))?;
            inspect(Path::new(rustc.trim()), Origin::Rustup(name))
        })
        .chain(
            system_compilers()
                .into_iter()
                .filter_map(|rustc| inspect(&rustc, Origin::System)),
        )
        .filter(|compiler| seen.insert(fs::canonicalize(&compiler.sysroot).ok()))
        .collect()
}

/// The compiler that builds everything but the eBPF object.
pub fn host_compiler() -> anyhow::Result<Compiler> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    inspect(Path::new(&rustc), Origin::System).context("rustc does not work")
}

/// Names of the rustup toolchains, the default one first.
pub fn rustup_toolchains() -> Vec<String> {
    let list =
        shell::capture(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    parse_toolchains(&list)
}

fn parse_toolchains(list: &str) -> Vec<String> {
    let mut lines: Vec<_> = list
        .lines()
        .filter(|line| !line.starts_with("no installed"))
        .collect();
    lines.sort_by_key(|line| !line.contains("default"));
    lines
        .iter()
        .filter_map(|line| line.split_whitespace().next())
        .map(String::from)
        .collect()
}

/// `rustc`, and `rustc-1.91` as Ubuntu names them, from all of `PATH`. rustup's proxies are left out: what they stand for
/// is known already.
fn system_compilers() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in shell::search_path() {
        if dir.join("rustup").exists() {
            continue;
        }
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| is_rustc(&path.file_name().unwrap_or_default().to_string_lossy()))
            .collect();
        names.sort();
        found.extend(names);
    }
    found
}

fn is_rustc(name: &str) -> bool {
    name == "rustc"
        || name
            .strip_prefix("rustc-")
            .is_some_and(|version| number(version).is_some())
}

fn inspect(rustc: &Path, origin: Origin) -> Option<Compiler> {
    let version = Version::parse(&shell::capture(Command::new(rustc).arg("-vV"))?)?;
    let sysroot = shell::capture(Command::new(rustc).args(["--print", "sysroot"]))?;
    let sysroot = PathBuf::from(sysroot.trim());
    let library = sysroot.join("lib/rustlib/src/rust/library");
    let sources = library
        .join("core/src/lib.rs")
        .is_file()
        .then(|| fs::canonicalize(&library).unwrap_or(library));
    Some(Compiler {
        origin,
        rustc: rustc.to_owned(),
        sysroot,
        version,
        sources,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHTLY: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                           release: 1.97.0-nightly\nLLVM version: 22.1.4\n";

    #[test]
    fn verbose_version_is_read() {
        let version = Version::parse(NIGHTLY).unwrap();
        assert!(version.is_nightly());
        assert_eq!(version.number, (1, 97));
        assert_eq!(version.llvm, 22);
        assert_eq!(version.host, "x86_64-unknown-linux-gnu");
    }

    #[test]
    fn a_compiler_without_llvm_is_not_one_for_us() {
        assert_eq!(Version::parse("release: 1.97.0\nhost: x\n"), None);
    }

    #[test]
    fn the_default_toolchain_comes_first() {
        let list =
            "nightly-x86_64-unknown-linux-gnu\nstable-x86_64-unknown-linux-gnu (active, default)\n";
        assert_eq!(
            parse_toolchains(list),
            [
                "stable-x86_64-unknown-linux-gnu",
                "nightly-x86_64-unknown-linux-gnu"
            ]
        );
        assert!(parse_toolchains("no installed toolchains\n").is_empty());
    }

    #[test]
    fn versioned_compilers_of_a_distribution_are_recognised() {
        for (name, expected) in [
            ("rustc", true),
            ("rustc-1.91", true),
            ("rustc-codegen", false),
            ("rustdoc", false),
        ] {
            assert_eq!(is_rustc(name), expected, "{name}");
        }
    }
}
