//! A `bpf-linker` for a compiler: its LLVM must read the compiler's bitcode, so be at least as new.
//!
//! The program does not say which LLVM it carries. So the two are tried on each other, with [`PROBE`] compiled by the
//! one and linked by the other.

use std::{
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::toolchain::Compiler;
use crate::{
    cargo, packages,
    shell::{self, say},
    workspace,
};

/// The smallest program for a BPF target. It needs no `core`, which is what makes the trial quick.
const PROBE: &str = include_str!("linker_probe.rs");

/// The release that we install, and the LLVM versions that it builds against.
const RELEASE: &str = "^0.13";
const BUILDS_WITH: RangeInclusive<u32> = 21..=23;

/// An installed linker that fits.
pub fn find(compiler: &Compiler) -> Option<PathBuf> {
    installed()
        .into_iter()
        .find(|linker| fits(linker, compiler))
}

/// Builds and installs one where cargo puts programs.
pub fn install(compiler: &Compiler) -> anyhow::Result<PathBuf> {
    let wanted = compiler.version.llvm;
    if wanted > *BUILDS_WITH.end() {
        bail!("bpf-linker {RELEASE} has no LLVM as new as its {wanted}");
    }
    let result = from_source(wanted);
    if let Err(error) = &result {
        if shell::find("cargo-binstall").is_none() {
            return Err(result.unwrap_err());
        }
        say("Failed", format!("bpf-linker from source: {error:#}"));
        say("Installing", "bpf-linker (cargo binstall)");
        shell::run(cargo::command("binstall").args(["--no-confirm", "--force", "bpf-linker"]))?;
    }
    find(compiler).context("installed, but it does not read this compiler's bitcode")
}

/// Compiles bpf-linker against the oldest LLVM that is new enough.
fn from_source(wanted: u32) -> anyhow::Result<()> {
    let llvm = match Llvm::find(wanted) {
        Some(llvm) => llvm,
        None => Llvm::install(wanted)?,
    };
    say(
        "Installing",
        format!(
            "bpf-linker for LLVM {} (cargo install, some minutes)",
            llvm.major
        ),
    );
    shell::run(
        cargo::command("install")
            // Forced, because one that does not fit may be in the way.
            .args(["--quiet", "--force", "bpf-linker", "--version", RELEASE])
            .args([
                "--no-default-features",
                "--features",
                &format!("llvm-{}", llvm.major),
            ])
            .arg("--target-dir")
            .arg(workspace::target_dir().join("bpf-linker"))
            .env("LLVM_PREFIX", &llvm.prefix),
    )
}

/// An LLVM with its development files.
struct Llvm {
    major: u32,
    prefix: PathBuf,
}

impl Llvm {
    fn find(wanted: u32) -> Option<Self> {
        (wanted..=*BUILDS_WITH.end())
            .filter(|major| BUILDS_WITH.contains(major))
            .find_map(|major| {
                [format!("llvm-config-{major}"), "llvm-config".into()]
                    .iter()
                    .filter_map(|name| Self::inspect(&shell::find(name)?))
                    .find(|llvm| llvm.major == major)
            })
    }

    fn inspect(config: &Path) -> Option<Self> {
        let ask = |what| shell::capture(Command::new(config).arg(what));
        let major = ask("--version")?.split('.').next()?.parse().ok()?;
        let library = PathBuf::from(ask("--libdir")?.trim()).join("libLLVM.so");
        library.exists().then_some(())?;
        Some(Self {
            major,
            prefix: ask("--prefix")?.trim().into(),
        })
    }

    fn install(wanted: u32) -> anyhow::Result<Self> {
        if let Err(reason) = packages::available() {
            bail!("no LLVM {wanted} with development files, and {reason}");
        }
        let names: Vec<_> = (wanted..=*BUILDS_WITH.end())
            .filter(|major| BUILDS_WITH.contains(major))
            .map(|major| format!("llvm-{major}-dev"))
            .collect();
        let known = packages::candidates(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let package = names
            .iter()
            .find(|name| known.contains_key(*name))
            .with_context(|| format!("no package among {}", names.join(", ")))?;
        packages::install(&[package, "gcc", "g++", "libc6-dev"])?;
        Self::find(wanted).with_context(|| format!("{package} brought no llvm-config that works"))
    }
}

/// All linkers on `PATH` and where cargo installs to.
fn installed() -> Vec<PathBuf> {
    cargo::program_dirs()
        .into_iter()
        .map(|dir| dir.join("bpf-linker"))
        .filter(|file| file.is_file())
        .collect()
}

/// Whether the linker reads the compiler's bitcode. A compiler that cannot build the probe gets the benefit of the
/// doubt: the real build will tell.
fn fits(linker: &Path, compiler: &Compiler) -> bool {
    trial(linker, compiler).unwrap_or(true)
}

fn trial(linker: &Path, compiler: &Compiler) -> anyhow::Result<bool> {
    let dir = workspace::target_dir().join("linker-probe");
    fs::create_dir_all(&dir)?;
    let [source, bitcode, object] = ["probe.rs", "probe.bc", "probe.o"].map(|name| dir.join(name));
    fs::write(&source, PROBE)?;
    let quiet =
        |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let compiled = quiet(
        Command::new(&compiler.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .args([
                "--edition=2024",
                "--target=bpfel-unknown-none",
                "-Cpanic=abort",
                "--emit=obj",
                "-o",
            ])
            .args([&bitcode, &source]),
    )?;
    if !compiled.success() {
        bail!("the probe does not compile");
    }
    let linked = quiet(
        Command::new(linker)
            .args(["--export=probe", "-o"])
            .args([&object, &bitcode]),
    )?;
    Ok(linked.success())
}
