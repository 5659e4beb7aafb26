//! How an agent is started: its binary, its flags, the rights of its container.

use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, setrlimit};

use crate::clock::Clock;
use crate::deployment;
use crate::files;
use crate::memory_group::MemoryGroup;
use crate::topology::Node;

/// The variable that names the agent's static binary.
pub const BINARY_VARIABLE: &str = vm_protocol::variable::AGENT;

/// Sizes of an agent's tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tables {
    pub flows: u32,
    pub backends: u32,
    pub services: u32,
}

impl Tables {
    /// More than a test needs, and small enough that many agents share a machine. New flows have a quarter of the room: one that
    /// waits for its first reply loses it where many others come meanwhile.
    const USUAL: Self = Self {
        flows: 32_768,
        backends: 4096,
        services: 1024,
    };

    fn arguments(self) -> [String; 6] {
        let Self {
            flows,
            backends,
            services,
        } = self;
        [
            "--max-flows".to_owned(),
            flows.to_string(),
            "--max-backends".to_owned(),
            backends.to_string(),
            "--max-services".to_owned(),
            services.to_string(),
        ]
    }
}

/// Where on an uplink the packets are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Uplink {
    Xdp,
    Tc,
}

fn xdp_mode(uplink: Uplink) -> &'static str {
    match uplink {
        Uplink::Xdp => "native",
        Uplink::Tc => "off",
    }
}

/// The agent's binary, if the environment names one.
pub fn binary() -> Option<PathBuf> {
    std::env::var_os(BINARY_VARIABLE).map(PathBuf::from)
}

/// What one of the agent's commands prints about the datapath of `node`.
pub fn ask(node: &Node, arguments: &[&str]) -> Result<String> {
    let binary = binary().with_context(|| format!("{BINARY_VARIABLE} is not set"))?;
    let output = Command::new(binary)
        .args(arguments)
        .arg("--bpffs")
        .arg(&node.bpffs)
        .arg("--state-dir")
        .arg(&node.state)
        .output()
        .context("starting the agent's command")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {complaint}");
    String::from_utf8(output.stdout).context("the output is text")
}

/// Where an agent learns of Services.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory of manifests.
    Manifests(PathBuf),
    /// The API server that this file names.
    Kubeconfig(PathBuf),
    /// API servers by their URLs.
    ApiServers(Vec<String>),
}

/// What a process may have of something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Open files.
    Files(u64),
    /// Bytes of address space.
    AddressSpace(u64),
}

/// An agent that is to be started on a node.
pub struct Launch<'a> {
    node: &'a Node,
    source: &'a Source,
    name: &'a str,
    /// `None` for the agent's own defaults.
    tables: Option<Tables>,
    tc: &'a str,
    xdp: &'a str,
    /// In place of the topology's.
    uplinks: Option<&'a str>,
    more: &'a [&'a str],
    limit: Option<Limit>,
    group: Option<&'a MemoryGroup>,
    clock: Option<&'a Clock>,
    /// In place of the agent that is tested.
    program: Option<&'a Path>,
}

impl<'a> Launch<'a> {
    pub fn new(node: &'a Node, source: &'a Source, uplink: Uplink) -> Self {
        Self {
            node,
            source,
            name: node.name(),
            tables: Some(Tables::USUAL),
            tc: "auto",
            xdp: xdp_mode(uplink),
            uplinks: None,
            more: &[],
            limit: None,
            group: None,
            clock: None,
            program: None,
        }
    }

    /// It is the agent of another build.
    pub fn of_program(self, program: &'a Path) -> Self {
        Self {
            program: Some(program),
            ..self
        }
    }

    /// It takes itself for the agent of the node of this name.
    pub fn named(self, name: &'a str) -> Self {
        Self { name, ..self }
    }

    /// It learns of Services from here.
    pub fn following(self, source: &'a Source) -> Self {
        Self { source, ..self }
    }

    /// Room for so many endpoints and service ports.
    pub fn with_room_for(self, backends: u32, services: u32) -> Self {
        let tables = Tables {
            backends,
            services,
            ..self.tables.unwrap_or(Tables::USUAL)
        };
        self.with_tables(tables)
    }

    /// The tables that an agent has by itself.
    pub fn with_default_tables(self) -> Self {
        Self {
            tables: None,
            ..self
        }
    }

    /// Tables of other sizes.
    pub fn with_tables(self, tables: Tables) -> Self {
        let tables = Some(tables);
        Self { tables, ..self }
    }

    /// It takes an uplink's packets here.
    pub fn at(self, uplink: Uplink) -> Self {
        self.with_xdp(xdp_mode(uplink))
    }

    /// It uses XDP as `--xdp` has it.
    pub fn with_xdp(self, xdp: &'a str) -> Self {
        Self { xdp, ..self }
    }

    /// It is told of these uplinks, as `--uplinks` has them, in place of those of the topology.
    pub fn with_uplinks(self, uplinks: &'a str) -> Self {
        let uplinks = Some(uplinks);
        Self { uplinks, ..self }
    }

    /// It gets these arguments, too.
    pub fn with(self, more: &'a [&'a str]) -> Self {
        Self { more, ..self }
    }

    /// It may have no more than this, and cannot give itself more.
    pub fn limited_to(self, limit: Limit) -> Self {
        let limit = Some(limit);
        Self { limit, ..self }
    }

    /// It begins in this control group.
    pub fn within(self, group: &'a MemoryGroup) -> Self {
        let group = Some(group);
        Self { group, ..self }
    }

    /// It has this wall clock in place of the machine's.
    pub fn by(self, clock: &'a Clock) -> Self {
        let clock = Some(clock);
        Self { clock, ..self }
    }

    /// It attaches TC programs in this way, as `--tc` has it.
    pub fn attaching_by(self, tc: &'a str) -> Self {
        Self { tc, ..self }
    }

    pub(super) fn node(&self) -> &Node {
        self.node
    }

    pub(super) fn clock(&self) -> Option<&Clock> {
        self.clock
    }

    pub(super) fn command(&self) -> Result<Command> {
        let Self {
            node,
            source,
            name,
            tables,
            tc,
            xdp,
            uplinks,
            more,
            limit,
            group,
            clock,
            program,
        } = self;
        let binary = program.map(Path::to_path_buf).or_else(binary);
        let binary = binary.with_context(|| format!("{BINARY_VARIABLE} is not set"))?;
        let mut command = node.netns().command(binary)?;
        let uplinks = uplinks.map_or_else(|| node.uplinks(), str::to_owned);
        command
            .arg("run")
            .args(["--node-name", name, "--workloads", "auto", "--xdp", xdp])
            .args(["--uplinks", &uplinks])
            .arg("--bpffs")
            .arg(&node.bpffs)
            .arg("--cgroup")
            .arg(&node.cgroup)
            .arg("--state-dir")
            .arg(&node.state)
            .args(["--tc", tc])
            .args(tables.iter().flat_map(|tables| tables.arguments()))
            .args(*more);
        match source {
            Source::Manifests(dir) => command.arg("--manifests").arg(dir),
            Source::Kubeconfig(file) => command.arg("--kubeconfig").arg(file),
            Source::ApiServers(urls) => command.arg("--api-servers").arg(urls.join(",")),
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        deployment::confine(&mut command)?;
        files::give_usual(&mut command);
        if let Some(limit) = *limit {
            let (resource, most) = match limit {
                Limit::Files(most) => (Resource::RLIMIT_NOFILE, most),
                Limit::AddressSpace(most) => (Resource::RLIMIT_AS, most),
            };
            // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
            unsafe { command.pre_exec(move || Ok(setrlimit(resource, most, most)?)) };
        }
        if let Some(group) = group {
            let mut processes = group.processes()?;
            // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
            unsafe { command.pre_exec(move || processes.write_all(b"0")) };
        }
        if clock.is_some() {
            Clock::prepare(&mut command);
        }
        Ok(command)
    }
}
