//! Which compilers can build the eBPF object, best first: a pure function of what was probed.

use std::path::Path;

use super::toolchain::{Compiler, Origin, number};

/// What aya needs; the workspace's `rust-version` says the same.
pub const MINIMUM: (u32, u32) = (1, 89);

pub struct Selection {
    /// Best first.
    pub usable: Vec<Compiler>,
    /// With the reason.
    pub passed_over: Vec<(Compiler, String)>,
}

/// An explicit choice, then rustup's nightly (it allows unstable features of itself), then its other toolchains, then
/// the system's.
pub fn select(compilers: Vec<Compiler>) -> Selection {
    let mut usable = Vec::new();
    let mut passed_over = Vec::new();
    for compiler in compilers {
        match objection(&compiler) {
            None => usable.push(compiler),
            Some(reason) => passed_over.push((compiler, reason)),
        }
    }
    usable.sort_by_key(|compiler| match compiler.origin {
        Origin::Explicit => 0,
        Origin::Rustup(_) if compiler.version.is_nightly() => 1,
        Origin::Rustup(_) => 2,
        Origin::System => 3,
    });
    Selection {
        usable,
        passed_over,
    }
}

fn objection(compiler: &Compiler) -> Option<String> {
    if compiler.version.number < MINIMUM {
        return Some(format!("older than {}.{}", MINIMUM.0, MINIMUM.1));
    }
    let Some(sources) = &compiler.sources else {
        return Some("no rust-src".into());
    };
    match source_version(sources) {
        Some((major, minor)) if (major, minor) != compiler.version.number => {
            Some(format!("its sources are those of {major}.{minor}"))
        }
        _ => None,
    }
}

/// Distributions keep the sources in a folder `rustc-1.96.0`, a package of its own that may be out of step.
fn source_version(sources: &Path) -> Option<(u32, u32)> {
    sources
        .components()
        .find_map(|part| number(part.as_os_str().to_str()?.strip_prefix("rustc-")?))
}

#[cfg(test)]
mod tests {
    use super::{super::toolchain::Version, *};

    fn compiler(origin: Origin, release: &str, sources: Option<&str>) -> Compiler {
        Compiler {
            origin,
            rustc: "rustc".into(),
            sysroot: "/sysroot".into(),
            version: Version {
                release: release.into(),
                number: number(release).unwrap(),
                host: "x86_64-unknown-linux-gnu".into(),
                llvm: 22,
            },
            sources: sources.map(Into::into),
        }
    }

    fn rustup(release: &str, sources: Option<&str>) -> Compiler {
        compiler(Origin::Rustup(release.into()), release, sources)
    }

    #[test]
    fn a_nightly_with_sources_goes_before_stable_and_system() {
        let selection = select(vec![
            compiler(
                Origin::System,
                "1.96.0",
                Some("/usr/src/rustc-1.96.0/library"),
            ),
            rustup("1.95.0", Some("/s/library")),
            rustup("1.97.0-nightly", Some("/n/library")),
        ]);
        let order: Vec<_> = selection
            .usable
            .iter()
            .map(|c| c.version.release.as_str())
            .collect();
        assert_eq!(order, ["1.97.0-nightly", "1.95.0", "1.96.0"]);
        assert!(selection.passed_over.is_empty());
    }

    #[test]
    fn each_compiler_passed_over_has_its_reason() {
        for (candidate, expected) in [
            (rustup("1.97.0-nightly", None), "no rust-src"),
            (
                compiler(
                    Origin::System,
                    "1.63.0",
                    Some("/usr/src/rustc-1.63.0/library"),
                ),
                "older than 1.89",
            ),
            (
                compiler(
                    Origin::System,
                    "1.96.0",
                    Some("/usr/src/rustc-1.95.0/library"),
                ),
                "its sources are those of 1.95",
            ),
        ] {
            let selection = select(vec![candidate]);
            assert!(selection.usable.is_empty());
            assert_eq!(selection.passed_over[0].1, expected);
        }
    }
}
