//! What is built for a machine: static programs, so that the initramfs needs no libraries for them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use clap::ValueEnum;

use super::initramfs::{MEASURING, Payload, Suite};
use crate::{
    build::{self, Profile},
    cargo,
    setup::toolchain,
    shell::{self, say},
};

const PROGRAMS: [&str; 5] = ["vm_init", MEASURING, "vm_plant", "vm_uplink", "vm_outside"];
const TESTS: [&str; 3] = ["l1_tables", "l2_cases", "l2_matrix"];
const AGENT: &str = "proxy-agent";

/// How much slower than a real machine one may be that QEMU emulates, on a host with other work.
const PATIENCE: &str = "8";

/// Of the matrix of clients and backends every seventh row: the number is prime to those of its columns.
const SAMPLE: &str = "7";

/// A part of the suites, as `--level` takes it.
#[derive(Clone, Copy, PartialEq, Debug, ValueEnum)]
pub enum Level {
    /// The verifier's figures, what `proxy-agent doctor` finds, packet tables through the loaded programs
    L1,
    /// Topologies of network namespaces with real sockets and the agent
    L2,
    /// A node with a virtio NIC that has native XDP, and a client on the host behind it
    Nic,
}

/// All that machines are given, by name.
pub struct Build {
    object: PathBuf,
    programs: BTreeMap<&'static str, PathBuf>,
}

impl Build {
    pub fn all() -> anyhow::Result<Self> {
        let build::Artifacts { object, agent, .. } = build::all(Profile::Dev)?;
        say("Building", "the suite for virtual machines (static)");
        let target = toolchain::host_compiler()?.version.host;
        let compile = |subcommand: &str, kind: &str, names: &[&str]| {
            let mut command = cargo::command(subcommand);
            command.args(["--quiet", "--package", "tests", "--target", &target]);
            for name in names {
                command.args([kind, name]);
            }
            if subcommand == "test" {
                command.arg("--no-run");
            }
            cargo::executables(
                command
                    .env("RUSTFLAGS", "-C target-feature=+crt-static")
                    .env_remove("CARGO_ENCODED_RUSTFLAGS"),
            )
        };
        let tests = compile("test", "--test", &TESTS)?;
        let built = compile("build", "--bin", &PROGRAMS)?;
        let mut programs = BTreeMap::new();
        for name in PROGRAMS.into_iter().chain(TESTS) {
            let program = built
                .iter()
                .chain(tests.iter().filter(|test| test.is_test))
                .find(|program| program.name == name)
                .with_context(|| format!("cargo built no program {name}"))?;
            programs.insert(name, stripped(name, &program.path)?);
        }
        programs.insert(AGENT, stripped(AGENT, &agent)?);
        Ok(Self { object, programs })
    }

    /// Those of these levels. [`Level::Nic`] takes what [`super::machine::no_wire`] asks for.
    pub fn suites(&self, levels: &[Level], filter: Option<&str>) -> anyhow::Result<Payload> {
        let rows = ["--color=never", filter.unwrap_or_default()];
        let mut suites = Vec::new();
        if levels.contains(&Level::L1) {
            suites.push(self.suite(MEASURING, &[])?);
            suites.push(self.suite(AGENT, &["doctor", "--output", "json"])?);
            suites.push(self.suite("l1_tables", &rows)?);
        }
        if levels.contains(&Level::L2) {
            suites.push(self.suite("l2_cases", &rows)?);
            suites.push(self.suite("l2_matrix", &rows)?);
        }
        let tools = ["ip", "bridge", "nft"]
            .into_iter()
            .map(|tool| shell::find(tool).with_context(|| format!("`{tool}` is not installed")));
        let mut payload = Payload {
            init: self.program("vm_init")?,
            suites,
            object: self.object.clone(),
            agent: self.program(AGENT)?,
            programs: Vec::new(),
            tools: tools.collect::<anyhow::Result<_>>()?,
            wire: None,
            variables: Vec::new(),
        };
        if levels.contains(&Level::Nic) {
            payload.suites.push(self.suite("vm_uplink", &rows)?);
            payload.wire = Some(self.program("vm_outside")?);
        }
        payload.variable("PORTSIDE_PATIENCE", PATIENCE);
        payload.variable("PORTSIDE_SAMPLE", SAMPLE);
        Ok(payload)
    }

    /// A prompt, with the tools of a small system in `/bin` and all suites in `/vm`.
    pub fn prompt(&self, busybox: &Path) -> anyhow::Result<Payload> {
        let busybox = |arguments: &[&str]| Suite {
            program: busybox.to_path_buf(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
        };
        Ok(Payload {
            suites: vec![busybox(&["--install", "-s", "/bin"]), busybox(&["sh"])],
            programs: self.programs.values().cloned().collect(),
            ..self.suites(&[], None)?
        })
    }

    /// The program that brings a machine down, in this way.
    pub fn plant(&self, way: &str) -> anyhow::Result<Suite> {
        self.suite("vm_plant", &[way])
    }

    /// An object with a program that no kernel takes.
    pub fn refused_object(&self) -> anyhow::Result<PathBuf> {
        build::refused_object()
    }

    fn suite(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Suite> {
        let arguments = arguments.iter().filter(|argument| !argument.is_empty());
        Ok(Suite {
            program: self.program(name)?,
            arguments: arguments.map(ToString::to_string).collect(),
        })
    }

    fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let program = self.programs.get(name);
        program
            .cloned()
            .with_context(|| format!("no program {name} was built"))
    }
}

/// A copy without debug information, which is most of a program, and which a machine would unpack at every boot.
fn stripped(name: &str, program: &Path) -> anyhow::Result<PathBuf> {
    let directory = shell::target_dir().join("vm/programs");
    fs::create_dir_all(&directory)
        .with_context(|| format!("making the directory {}", directory.display()))?;
    let copy = directory.join(name);
    shell::run(
        Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .arg(&copy)
            .arg(program),
    )?;
    Ok(copy)
}
