//! What is built for a machine: static programs, so that the initramfs needs no libraries for them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use clap::ValueEnum;
use vm_protocol::{WITH_TC, WITH_XDP, variable};

use super::{
    initramfs::{MEASURING, Payload, Suite},
    modules, tools,
};
use crate::{
    build::{self, Artifacts, Suites},
    shell, workspace,
};

const PROGRAMS: [&str; 5] = ["vm_init", MEASURING, "vm_plant", "vm_uplink", "vm_outside"];
const TESTS: [&str; 6] = [
    "l1_tables",
    "l2_cases",
    "l2_input",
    "l2_matrix",
    "l2_migration",
    "l2_node",
];
const AGENT: &str = "proxy-agent";

/// How much slower than a real machine one may be that QEMU emulates, on a host with other work.
const PATIENCE: &str = "8";

/// More than a machine has processors: many rows wait for most of their time.
const ROWS_AT_ONCE: &str = "--test-threads=3";

/// Of the matrix of clients and backends every seventh row: the number is prime to those of its columns.
const SAMPLE: &str = "7";

/// Of the rows of a node's network those whose devices the development host may lack; a filter asks for others instead.
const STACKS: &str = "stacks:";

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

/// The part of the suites that one machine runs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Share {
    All,
    /// All but what is in the second one.
    First,
    /// The packet tables, the cases with TC on the uplinks, and the matrix: about half of the time that all take.
    Second,
}

impl Share {
    /// Of the machine that runs it on this kernel.
    pub fn name(self, kernel: &str) -> String {
        match self {
            Self::All => kernel.to_owned(),
            Self::First => format!("{kernel} (1 of 2)"),
            Self::Second => format!("{kernel} (2 of 2)"),
        }
    }

    fn has_first(self) -> bool {
        self != Self::Second
    }

    fn has_second(self) -> bool {
        self != Self::First
    }

    /// Of the cases.
    fn skips(self) -> Vec<String> {
        let but = |served: &str| vec!["--skip".to_owned(), format!("{served}: ")];
        match self {
            Self::All => Vec::new(),
            Self::First => but(WITH_TC),
            Self::Second => but(WITH_XDP),
        }
    }
}

/// All that machines are given, by name.
pub struct Build {
    object: PathBuf,
    programs: BTreeMap<&'static str, PathBuf>,
}

impl Build {
    pub fn all() -> anyhow::Result<Self> {
        let targets = TESTS
            .iter()
            .flat_map(|name| ["--test", name])
            .chain(PROGRAMS.iter().flat_map(|name| ["--bin", name]));
        let Suites {
            artifacts: Artifacts { object, agent },
            programs: built,
        } = build::suites(&["tests", "guest"], &targets.collect::<Vec<_>>())?;
        let mut programs = BTreeMap::new();
        for name in PROGRAMS.into_iter().chain(TESTS) {
            let program = built
                .iter()
                .find(|program| program.name == name)
                .with_context(|| format!("cargo built no program {name}"))?;
            programs.insert(name, stripped(name, &program.path)?);
        }
        programs.insert(AGENT, stripped(AGENT, &agent)?);
        Ok(Self { object, programs })
    }

    /// Those of these levels, with uplinks of all kinds or without. [`Level::Nic`] takes what [`super::machine::no_wire`] asks for.
    pub fn suites(
        &self,
        levels: &[Level],
        share: Share,
        filter: Option<&str>,
        stacks: bool,
    ) -> anyhow::Result<Payload> {
        let has = |level, in_share| levels.contains(&level) && in_share;
        let filter = filter.unwrap_or_default();
        let rows = ["--color=never", filter];
        let waiting = [rows.as_slice(), &[ROWS_AT_ONCE]].concat();
        let mut suites = Vec::new();
        if has(Level::L1, share.has_first()) {
            suites.push(self.suite(MEASURING, &[])?);
            suites.push(self.suite(AGENT, &["doctor", "--output", "json"])?);
        }
        if has(Level::L1, share.has_second()) {
            suites.push(self.suite("l1_tables", &rows)?);
        }
        if has(Level::L2, true) {
            let skips = share.skips();
            let skips: Vec<_> = skips.iter().map(String::as_str).collect();
            suites.push(self.suite("l2_cases", &[waiting.as_slice(), &skips].concat())?);
        }
        if has(Level::L2, share.has_first()) {
            suites.push(self.suite("l2_migration", &rows)?);
            if !filter.is_empty() {
                suites.push(self.suite("l2_node", &waiting)?);
                // What it reads and serves is no matter of the kernel's.
                suites.push(self.suite("l2_input", &waiting)?);
            } else if stacks {
                suites.push(self.suite("l2_node", &["--color=never", STACKS, ROWS_AT_ONCE])?);
            }
        }
        if has(Level::L2, share.has_second()) {
            suites.push(self.suite("l2_matrix", &waiting)?);
        }
        let mut payload = Payload {
            init: self.program("vm_init")?,
            suites,
            object: self.object.clone(),
            agent: self.program(AGENT)?,
            programs: Vec::new(),
            tools: tools::collect(&[])?,
            // Rules are a yardstick in both shares.
            modules: if has(Level::L2, true) {
                [modules::KUBE_PROXY.as_slice(), &modules::UPLINKS].concat()
            } else {
                Vec::new()
            },
            wire: None,
            variables: Vec::new(),
        };
        if has(Level::Nic, share.has_first()) {
            payload.suites.push(self.suite("vm_uplink", &rows)?);
            payload.wire = Some(self.program("vm_outside")?);
        }
        payload.variable(variable::PATIENCE, PATIENCE);
        payload.variable(variable::SAMPLE, SAMPLE);
        if !filter.is_empty() {
            payload.variable(variable::BY_NAME, "1");
        }
        Ok(payload)
    }

    /// A prompt, with the tools of a small system in `/bin` and all suites in `/vm`. The shell is the host's bash where it
    /// has one: busybox's prefers its own applets to programs of their name, `ip` among them.
    pub fn prompt(&self, busybox: &Path) -> anyhow::Result<Payload> {
        let suite = |program: PathBuf, arguments: &[&str]| Suite {
            program,
            arguments: arguments.iter().map(ToString::to_string).collect(),
        };
        let shell = match shell::find("bash") {
            Some(bash) => suite(bash, &["--norc", "-i"]),
            None => suite(busybox.to_path_buf(), &["sh"]),
        };
        Ok(Payload {
            suites: vec![
                suite(busybox.to_path_buf(), &["--install", "-s", "/bin"]),
                shell,
            ],
            programs: self.programs.values().cloned().collect(),
            tools: tools::collect(&["bash"])?,
            modules: [modules::KUBE_PROXY.as_slice(), &modules::UPLINKS].concat(),
            ..self.nothing()?
        })
    }

    /// No suite: a machine that comes up and ends.
    pub fn nothing(&self) -> anyhow::Result<Payload> {
        self.suites(&[], Share::All, None, false)
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
    let directory = workspace::target_dir().join("vm/programs");
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
