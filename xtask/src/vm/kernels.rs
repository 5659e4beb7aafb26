//! Debian's cloud kernels, from the machine's own package sources or, for series that these lack, from other suites
//! of the same mirror. Kept under `target/vm`, where a kernel that was fetched once is found again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    shell::{self, say},
    workspace,
};

pub const NEWEST: &str = "newest";

const SUITES: [&str; 4] = ["bullseye", "bookworm", "trixie", "sid"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

pub struct Kernel {
    /// As `uname -r` gives it.
    pub version: String,
    pub image: PathBuf,
    /// The directory that the version's modules are in; a kernel of one's own may have all built in.
    pub modules: Option<PathBuf>,
    /// Where what is made for it is kept.
    pub directory: PathBuf,
}

/// Says why the kernel of a series cannot be fetched here; `None` if it can.
pub fn unobtainable(series: &str) -> Option<String> {
    if is_path(series) {
        return None;
    }
    let has_apt = ["apt-get", "dpkg-deb"]
        .map(shell::find)
        .iter()
        .all(Option::is_some);
    (!has_apt && !directory(series).join("complete").exists()).then(|| {
        "kernel packages are fetched by apt-get and dpkg-deb, which it does not have".into()
    })
}

fn directory(series: &str) -> PathBuf {
    workspace::target_dir().join("vm").join(series)
}

/// Returns the kernel of a series, fetched if it is not here yet, or the kernel at a path.
pub fn get(series: &str) -> anyhow::Result<Kernel> {
    if is_path(series) {
        return of_path(Path::new(series));
    }
    let directory = directory(series);
    if !directory.join("complete").exists() {
        fetch(series, &directory).with_context(|| {
            format!(
                "it could not be fetched. By hand: unpack Debian's package linux-image-*-cloud-amd64 of it \
                 (`dpkg-deb -x`) into {0} and create the empty file {0}/complete",
                directory.display()
            )
        })?;
    }
    open(directory)
}

/// Whether a kernel was asked for by its file, not by its series.
pub fn is_path(series: &str) -> bool {
    series.contains('/')
}

/// A directory into which a kernel package was unpacked, or the image of a kernel whose modules are where it would look
/// for them on the machine that it is for.
fn of_path(path: &Path) -> anyhow::Result<Kernel> {
    if path.is_dir() {
        let kernel = open(path.to_path_buf())?;
        let directory = scratch(&kernel.version)?;
        return Ok(Kernel {
            directory,
            ..kernel
        });
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let version = version_of_image(&bytes)
        .with_context(|| format!("{} is no bzImage of x86", path.display()))?;
    let boot = path.parent().unwrap_or(Path::new("."));
    let places = ["../lib/modules", "../usr/lib/modules"]
        .map(|place| boot.join(place))
        .into_iter()
        .chain(["/lib/modules".into()]);
    let modules = places
        .map(|place| place.join(&version))
        .find(|place| place.is_dir());
    if modules.is_none() {
        say(
            "Using",
            format!("no modules: there is no lib/modules/{version}"),
        );
    }
    Ok(Kernel {
        directory: scratch(&version)?,
        image: path.to_path_buf(),
        modules,
        version,
    })
}

/// The first word of the version that a bzImage carries (Documentation/arch/x86/boot.rst: `HdrS`, `kernel_version`).
fn version_of_image(image: &[u8]) -> Option<String> {
    const HEADER: usize = 0x200;
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?);
    let text = image.get(HEADER + usize::from(at)..)?;
    let end = text.iter().position(|byte| [b' ', 0].contains(byte))?;
    String::from_utf8(text[..end].to_vec()).ok()
}

fn scratch(version: &str) -> anyhow::Result<PathBuf> {
    let directory = workspace::target_dir().join("vm/own").join(version);
    fs::create_dir_all(&directory)
        .with_context(|| format!("making the directory {}", directory.display()))?;
    Ok(directory)
}

fn open(directory: PathBuf) -> anyhow::Result<Kernel> {
    for modules in ["usr/lib/modules", "lib/modules"] {
        let Ok(entries) = fs::read_dir(directory.join(modules)) else {
            continue;
        };
        for entry in entries {
            let modules = entry?.path();
            let version = modules
                .file_name()
                .context("a directory has a name")?
                .to_string_lossy()
                .into_owned();
            let images = [
                directory.join(format!("boot/vmlinuz-{version}")),
                modules.join("vmlinuz"),
            ];
            if let Some(image) = images.into_iter().find(|image| image.is_file()) {
                return Ok(Kernel {
                    version,
                    image,
                    modules: Some(modules),
                    directory,
                });
            }
        }
    }
    bail!("there is no kernel with modules in {}", directory.display())
}

fn fetch(series: &str, directory: &Path) -> anyhow::Result<()> {
    if shell::find("apt-get").is_none() || shell::find("dpkg-deb").is_none() {
        bail!("this machine has no apt-get and dpkg-deb");
    }
    let own = Apt {
        options: Vec::new(),
    };
    let (apt, package) = match (series != NEWEST).then(|| own.package(series)).flatten() {
        Some(package) => (own, package),
        None => {
            let apt = Apt::of_other_suites()?;
            let package = apt.package(series).with_context(|| {
                format!(
                    "no suite of {} has a cloud kernel {series}",
                    SUITES.join(", ")
                )
            })?;
            (apt, package)
        }
    };
    say("Fetching", &package);
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory)?;
    let mut packages = vec![package.clone()];
    if let Some(version) = package.strip_prefix("linux-binary-") {
        packages.push(format!("linux-modules-{version}"));
    }
    shell::run(
        apt.command("apt-get")
            .args(["-qq", "download"])
            .args(&packages)
            .current_dir(directory),
    )?;
    for entry in fs::read_dir(directory)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            shell::run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(directory))?;
            fs::remove_file(&file)?;
        }
    }
    fs::write(directory.join("complete"), "")?;
    Ok(())
}

/// apt with package lists of its own, or the machine's.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn of_other_suites() -> anyhow::Result<Self> {
        let mirror = mirror().context("the machine's package sources name no Debian mirror")?;
        let root = workspace::target_dir().join("vm/apt");
        for directory in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(root.join(directory))?;
        }
        let sources: String = SUITES
            .iter()
            .map(|suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))
            .collect();
        fs::write(root.join("sources.list"), sources)?;
        let root = root.display();
        let options = [
            format!("Dir::Etc::sourcelist={root}/sources.list"),
            "Dir::Etc::sourceparts=-".into(),
            format!("Dir::State={root}/state"),
            format!("Dir::Cache={root}/cache"),
            "APT::Sandbox::User=root".into(),
        ];
        let apt = Self {
            options: options.into(),
        };
        say(
            "Updating",
            format!("lists of {} ({mirror})", SUITES.join(", ")),
        );
        shell::run(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    /// The package with the newest kernel of a series.
    fn package(&self, series: &str) -> Option<String> {
        let names = shell::capture(self.command("apt-cache").args([
            "search",
            "--names-only",
            "^linux-(image|binary)-[0-9].*-cloud-amd64$",
        ]))?;
        newest(
            names.lines().filter_map(|line| line.split(' ').next()),
            series,
        )
    }
}

/// A series is met by `linux-image-6.1.0-56-...`, not by the meta-package `linux-image-6.12-...`, nor by 6.12 if it
/// is 6.1. Of one version, `linux-binary` goes before `linux-image`, which is then without content.
fn newest<'a>(names: impl Iterator<Item = &'a str>, series: &str) -> Option<String> {
    names
        .filter_map(|name| {
            let (kind, version) = name.strip_prefix("linux-")?.split_once('-')?;
            let numbers = numbers(version);
            let meets = series == NEWEST || version.starts_with(&format!("{series}."));
            (meets && numbers.len() >= 3).then_some((numbers, kind == "binary", name))
        })
        .max()
        .map(|(.., name)| name.to_owned())
}

/// The version before `-cloud-amd64` as numbers, for comparison.
pub fn numbers(version: &str) -> Vec<u64> {
    version
        .trim_end_matches("-cloud-amd64")
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// The Debian mirror that the machine installs from.
fn mirror() -> Option<String> {
    let sites = shell::capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(SITE)",
        "Created-By: Packages",
        "Label: Debian",
    ]))?;
    sites.lines().next().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_tells_its_version() {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        let text = b"6.1.0-56-cloud-amd64 (debian-kernel) #1 SMP\0";
        image[0x300..0x300 + text.len()].copy_from_slice(text);
        assert_eq!(
            version_of_image(&image).as_deref(),
            Some("6.1.0-56-cloud-amd64")
        );
        assert_eq!(version_of_image(&image[..0x20f]), None);
        assert_eq!(version_of_image(b"no image"), None);
    }

    #[test]
    fn the_newest_of_a_series_is_taken() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-7.2.13+deb14-cloud-amd64",
            "linux-binary-7.2.13+deb14-cloud-amd64",
        ];
        let newest = |series| newest(names.into_iter(), series);
        assert_eq!(newest("6.1").as_deref(), Some(names[1]));
        assert_eq!(newest("6.12").as_deref(), Some(names[3]));
        assert_eq!(newest(NEWEST).as_deref(), Some(names[5]));
        assert_eq!(newest("4.19"), None);
    }
}
