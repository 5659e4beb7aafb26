//! Release, BTF, JIT compiler, BPF features, and the ways in which programs can be attached.

use std::{fs, path::Path};

use anyhow::Result;
use nix::sys::utsname::uname;

use super::{Check, Verdict};
use crate::{
    datapath::{
        TcMode,
        probe::{self, Feature, Found, Tried, Without},
    },
    node,
};

const KERNEL: &str = "kernel";
const BPF: &str = "bpf";
const HOOKS: &str = "hooks";

pub fn checks(proc_sys: &Path) -> Vec<Check> {
    let mut checks = vec![release(), btf(), jit(proc_sys)];
    checks.extend(probe::features().iter().map(feature));
    checks
}

fn release() -> Check {
    let release = uname().map_or_else(
        |error| error.to_string(),
        |system| {
            format!(
                "{} {}",
                system.release().display(),
                system.machine().display()
            )
        },
    );
    Check::new(KERNEL, "release", release)
}

fn btf() -> Check {
    let found = yes(Path::new("/sys/kernel/btf/vmlinux").exists());
    Check::new(KERNEL, "BTF of the kernel", found).verdict(
        Verdict::Note,
        "not needed: the programs read no structure of the kernel that moves",
    )
}

fn jit(proc_sys: &Path) -> Check {
    let value = fs::read_to_string(proc_sys.join("net/core/bpf_jit_enable"));
    match value.as_deref().map(str::trim) {
        Ok("0") => Check::new(KERNEL, "BPF JIT compiler", "off").verdict(
            Verdict::Fallback,
            "programs are interpreted, several times slower: set net.core.bpf_jit_enable to 1",
        ),
        Ok(_) => Check::new(KERNEL, "BPF JIT compiler", "on"),
        Err(_) => Check::new(KERNEL, "BPF JIT compiler", "unknown").verdict(
            Verdict::Note,
            "net.core.bpf_jit_enable is shown in the node's own network namespace only",
        ),
    }
}

fn feature(feature: &Feature) -> Check {
    let Feature {
        name,
        found,
        without,
    } = feature;
    let check = Check::new(BPF, name, word(found));
    match (found, without) {
        (Found::Yes, Without::Nothing | Without::Less(_)) => check,
        (Found::Yes | Found::No(_), Without::Same) => {
            check.verdict(Verdict::Note, "not used by this version")
        }
        (Found::No(_), Without::Less(then)) => check.verdict(Verdict::Fallback, *then),
        (Found::No(_), Without::Nothing) => check.verdict(
            Verdict::Problem,
            "the datapath needs it: a newer kernel is needed",
        ),
        (Found::Unknown(reason), Without::Nothing) => check.verdict(Verdict::Problem, reason),
        (Found::Unknown(reason), _) => check.verdict(Verdict::Note, reason),
    }
}

/// Loads the object, and attaches it in a network namespace that is made for this, where that is allowed.
pub fn try_hooks(object: &[u8]) -> Result<Tried> {
    let datapath = probe::load(object)?;
    match node::Scratch::make() {
        Ok(scratch) => Ok(scratch.run(|device| Tried::at(datapath, device))),
        Err(error) => Ok(Tried::nowhere(&datapath, &format!("{error:#}"))),
    }
}

pub fn hook_checks(tried: &Result<Tried>, tc: TcMode) -> Vec<Check> {
    const LOADS: &str = "the datapath loads";
    let tried = match tried {
        Ok(tried) => tried,
        Err(error) => {
            return vec![
                Check::new(HOOKS, LOADS, "no").verdict(Verdict::Problem, format!("{error:#}")),
            ];
        }
    };
    let mut checks = vec![Check::new(HOOKS, LOADS, "yes")];
    checks.extend(tc_checks(tried, tc));
    let native = Check::new(HOOKS, "native XDP on a veth", word(&tried.xdp_native));
    checks.push(match &tried.xdp_native {
        Found::Yes => native,
        Found::No(_) => native.verdict(
            Verdict::Fallback,
            reason(&tried.xdp_native, "TC does its work"),
        ),
        Found::Unknown(why) => native.verdict(Verdict::Note, why),
    });
    checks.push(
        Check::new(HOOKS, "generic XDP", word(&tried.xdp_generic)).verdict(
            Verdict::Note,
            reason(
                &tried.xdp_generic,
                "only where `--xdp generic` asks for it: slower than TC",
            ),
        ),
    );
    let (batches, follows) = match tried.batch {
        Found::Yes => (Verdict::Ok, "chosen: many elements are written in one call"),
        _ => (
            Verdict::Fallback,
            "each element of a map is written by a call of its own",
        ),
    };
    checks.push(
        Check::new(HOOKS, "batch operations on maps", word(&tried.batch))
            .verdict(batches, reason(&tried.batch, follows)),
    );
    checks
}

fn tc_checks(tried: &Tried, tc: TcMode) -> [Check; 2] {
    let Tried { tcx, clsact, .. } = tried;
    let links = Check::new(HOOKS, "TC links (tcx)", word(tcx));
    let filters = Check::new(HOOKS, "clsact filters", word(clsact));
    match (tc, tcx, clsact) {
        (TcMode::Auto, Found::Yes, _) => [
            links.verdict(Verdict::Ok, "chosen: programs are attached by links"),
            filters.verdict(
                Verdict::Note,
                reason(clsact, "not used: the kernel has TC links"),
            ),
        ],
        (TcMode::Auto, Found::Unknown(why), _) => [
            links.verdict(
                Verdict::Note,
                format!("chosen where the kernel has them: {why}"),
            ),
            filters.verdict(Verdict::Note, "chosen where it has none"),
        ],
        (TcMode::Auto, Found::No(_), Found::Yes) => [
            links.verdict(
                Verdict::Fallback,
                reason(tcx, "the kernel has none (they came with Linux 6.6)"),
            ),
            filters.verdict(Verdict::Ok, "chosen: the kernel has no TC links"),
        ],
        (TcMode::Auto, Found::No(_), _) => [
            links.verdict(
                Verdict::Problem,
                reason(tcx, "neither way of attaching TC programs works"),
            ),
            filters.verdict(
                Verdict::Problem,
                reason(clsact, "the modules sch_ingress and cls_bpf are needed"),
            ),
        ],
        (TcMode::Tcx, ..) => [
            forced(links, tcx, "chosen by `--tc tcx`"),
            filters.verdict(Verdict::Note, "not used: `--tc tcx`"),
        ],
        (TcMode::Clsact, ..) => [
            links.verdict(Verdict::Note, "not used: `--tc clsact`"),
            forced(filters, clsact, "chosen by `--tc clsact`"),
        ],
    }
}

fn forced(check: Check, found: &Found, chosen: &str) -> Check {
    let verdict = match found {
        Found::Yes => Verdict::Ok,
        Found::No(_) => Verdict::Problem,
        Found::Unknown(_) => Verdict::Note,
    };
    check.verdict(verdict, reason(found, chosen))
}

pub fn word(found: &Found) -> &'static str {
    match found {
        Found::Yes => "yes",
        Found::No(_) => "no",
        Found::Unknown(_) => "unknown",
    }
}

/// What follows, with what the kernel said about it.
fn reason(found: &Found, follows: &str) -> String {
    match found {
        Found::No(said) | Found::Unknown(said) if !said.is_empty() => format!("{follows}: {said}"),
        _ => follows.to_owned(),
    }
}

pub fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(tcx: Found, clsact: Found) -> Tried {
        Tried {
            xdp_native: Found::Yes,
            xdp_generic: Found::Yes,
            tcx,
            clsact,
            batch: Found::Yes,
        }
    }

    #[test]
    fn the_chosen_way_of_tc_follows_from_what_the_kernel_has() {
        let no = || Found::No(String::new());
        let unknown = || Found::Unknown("no CAP_SYS_ADMIN".to_owned());
        use Verdict::{Fallback, Note, Ok, Problem};
        for (tcx, clsact, mode, expected) in [
            (Found::Yes, Found::Yes, TcMode::Auto, [Ok, Note]),
            (Found::Yes, no(), TcMode::Auto, [Ok, Note]),
            (no(), Found::Yes, TcMode::Auto, [Fallback, Ok]),
            (no(), no(), TcMode::Auto, [Problem, Problem]),
            (no(), Found::Yes, TcMode::Tcx, [Problem, Note]),
            (unknown(), unknown(), TcMode::Auto, [Note, Note]),
            (unknown(), unknown(), TcMode::Tcx, [Note, Note]),
            (Found::Yes, no(), TcMode::Clsact, [Note, Problem]),
        ] {
            let case = format!("{tcx:?} {clsact:?} {mode:?}");
            let checks = tc_checks(&tried(tcx, clsact), mode);
            assert_eq!(checks.map(|check| check.verdict), expected, "{case}");
        }
    }

    #[test]
    fn a_needed_feature_that_is_missing_is_a_problem() {
        let no = || Found::No(String::new());
        for (found, without, expected) in [
            (no(), Without::Nothing, Verdict::Problem),
            (no(), Without::Same, Verdict::Note),
            (no(), Without::Less("that"), Verdict::Fallback),
            (Found::Yes, Without::Nothing, Verdict::Ok),
            (Found::Yes, Without::Less("that"), Verdict::Ok),
        ] {
            let case = format!("{found:?} {without:?}");
            let check = feature(&Feature {
                name: "x".into(),
                found,
                without,
            });
            assert_eq!(check.verdict, expected, "{case}");
        }
    }
}
