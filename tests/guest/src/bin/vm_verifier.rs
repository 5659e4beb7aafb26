//! What this kernel's verifier says of each program of the object: one line a program, for `cargo xtask vm-test`.
//!
//! The statistics are in the verifier's log, which aya shows only of a load that failed. So each program is loaded once
//! with no file descriptor left to give: that fails after the verifier, whose log is then complete. Kernels since 5.16
//! tell the number of instructions of a loaded program, too; there both have to agree.

use std::{env, fs, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    EbpfLoader, VerifierLogLevel,
    programs::{Program, ProgramError},
};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use vm_protocol::line::VERIFIER;
use vm_protocol::variable::OBJECT;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("vm_verifier: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let path = env::var_os(OBJECT).with_context(|| format!("{OBJECT} is not set"))?;
    let object = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .load(&object)
        .context("loading the eBPF object")?;
    let mut programs: Vec<_> = ebpf.programs_mut().collect();
    programs.sort_by_key(|(name, _)| *name);
    ensure!(!programs.is_empty(), "the object has no programs");
    for (name, program) in programs {
        let (statistics, size) = measure(program).with_context(|| format!("program {name}"))?;
        let Statistics {
            instructions,
            stack,
        } = statistics;
        println!("{VERIFIER} {name} instructions={instructions} stack={stack} size={size}");
    }
    Ok(())
}

/// The verifier's statistics, and the bytes of the program as the verifier left it.
fn measure(program: &mut Program) -> Result<(Statistics, u32)> {
    let statistics = Statistics::parse(&log(program)?)?;
    load(program)?;
    let info = program.info()?;
    if let Some(counted) = info.verified_instruction_count() {
        ensure!(
            counted == statistics.instructions,
            "verified instructions: {} in the log, {counted} in bpf_prog_info",
            statistics.instructions
        );
    }
    let size = info
        .size_translated()
        .context("bpf_prog_info has no xlated_prog_len")?;
    Ok((statistics, size))
}

/// The log of a load that gets through the verifier, and fails at its file descriptor.
fn log(program: &mut Program) -> Result<String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let outcome = {
        let _limit = Descriptors::limit(0, hard, soft)?;
        load(program)
    };
    match outcome {
        Err(ProgramError::LoadError {
            io_error,
            verifier_log,
        }) => {
            ensure!(
                io_error.raw_os_error() == Some(nix::libc::EMFILE),
                "the kernel refuses it: {io_error}\n{verifier_log}"
            );
            Ok(verifier_log.to_string())
        }
        Err(error) => Err(error.into()),
        Ok(()) => bail!("it was loaded with no file descriptor left"),
    }
}

fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// A limit of the process's file descriptors, lifted when it goes.
struct Descriptors {
    soft: rlim_t,
    hard: rlim_t,
}

impl Descriptors {
    fn limit(to: rlim_t, hard: rlim_t, soft: rlim_t) -> Result<Self> {
        setrlimit(Resource::RLIMIT_NOFILE, to, hard)?;
        Ok(Self { soft, hard })
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard);
    }
}

/// What `print_verification_stats` of kernel/bpf/verifier.c says.
#[derive(Debug, PartialEq)]
struct Statistics {
    /// Instructions that the verifier walked through, each as often as it did.
    instructions: u32,
    /// Bytes of the largest frame: the log has one for each function.
    stack: u32,
}

impl Statistics {
    fn parse(log: &str) -> Result<Self> {
        let after = |prefix: &str| {
            log.lines()
                .find_map(|line| line.strip_prefix(prefix))
                .with_context(|| format!("the verifier's log has no line `{prefix}`: {log:?}"))
        };
        let processed = after("processed ")?;
        let instructions = processed
            .split_once(" insns")
            .and_then(|(number, _)| number.parse().ok())
            .with_context(|| format!("`processed {processed}` has no number of instructions"))?;
        let depths = after("stack depth ")?;
        // Newer kernels close the line with the deepest chain of calls.
        let frames = depths.split(' ').next().unwrap_or(depths);
        let frames: Vec<u32> = frames
            .split('+')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("`stack depth {depths}` has no number"))?;
        Ok(Self {
            instructions,
            stack: frames.into_iter().max().unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statistics_are_read_from_the_log() {
        let log = "verification time 812 usec\nstack depth 96+128+0\n\
                   processed 4711 insns (limit 1000000) max_states_per_insn 4 total_states 9 peak_states 9 mark_read 3\n";
        let expected = Statistics {
            instructions: 4711,
            stack: 128,
        };
        assert_eq!(Statistics::parse(log).unwrap(), expected);
    }

    #[test]
    fn one_function_has_one_frame() {
        let log = "stack depth 64 max 64\nprocessed 5 insns (limit 1000000)\n";
        assert_eq!(Statistics::parse(log).unwrap().stack, 64);
    }

    #[test]
    fn a_log_without_statistics_is_an_error() {
        for log in [
            "",
            "stack depth 8\n",
            "processed 5 insns (limit 1)\n",
            "stack depth x\nprocessed 5 insns\n",
            "stack depth 8\nprocessed many insns\n",
        ] {
            Statistics::parse(log).unwrap_err();
        }
    }
}
