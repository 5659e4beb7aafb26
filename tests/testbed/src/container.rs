//! A container of a DaemonSet in `deploy/`, on a node of the testbed as a runtime makes it.
//!
//! In: the manifest, and a node. Out: a process with the manifest's arguments, variables, capabilities and mounts, in a root of its
//! own that has the agent's binary and nothing else. What the manifest does not mount is not there.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use caps::Capability;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chdir, chroot};
use serde_json::Value;

use crate::agent;
use crate::deployment::{capability, confine_to};
use crate::files;
use crate::patience::eventually_within;
use crate::sockets::http;
use crate::topology::Node;

/// The agent's DaemonSet.
pub const AGENT: &str = include_str!("../../../deploy/base/daemonset.yaml");
/// The one that takes everything away.
pub const CLEANUP: &str = include_str!("../../../deploy/cleanup/daemonset.yaml");

/// What a container is made of.
pub struct Container {
    spec: Value,
    volumes: Value,
    arguments: Vec<String>,
    /// Of the node, and where the container has it.
    mounts: Vec<(PathBuf, PathBuf)>,
}

impl Container {
    /// The container of this name in a DaemonSet.
    pub fn of(manifest: &str, name: &str) -> Result<Self> {
        let object: Value = serde_saphyr::from_str(manifest).context("reading the DaemonSet")?;
        let pod = &object["spec"]["template"]["spec"];
        let mut all = ["initContainers", "containers"]
            .into_iter()
            .filter_map(|field| pod[field].as_array())
            .flatten();
        let spec = all
            .find(|container| container["name"] == name)
            .with_context(|| format!("no container {name}"))?;
        ensure!(pod["hostNetwork"] == true, "not in the node's network");
        Ok(Self {
            spec: spec.clone(),
            volumes: pod["volumes"].clone(),
            arguments: Vec::new(),
            mounts: Vec::new(),
        })
    }

    /// It gets these arguments, too.
    pub fn with(mut self, more: &[&str]) -> Self {
        self.arguments
            .extend(more.iter().map(|it| (*it).to_owned()));
        self
    }

    /// It sees this, too.
    pub fn seeing(mut self, path: &Path, at: &str) -> Self {
        self.mounts.push((path.to_owned(), at.into()));
        self
    }

    /// The path and the port that the kubelet asks by a probe.
    pub fn probe(&self, name: &str) -> Result<(String, u16)> {
        let get = &self.spec[name]["httpGet"];
        let path = get["path"].as_str().with_context(|| format!("no {name}"))?;
        let ports = self.spec["ports"].as_array().context("no ports")?;
        let port = ports.iter().find(|port| port["name"] == get["port"]);
        let port = port.and_then(|port| port["containerPort"].as_u64());
        let port = port.with_context(|| format!("no port {}", get["port"]))?;
        Ok((path.to_owned(), u16::try_from(port)?))
    }

    /// What the manifest mounts, by where it is on this node of the testbed.
    fn all_mounts(&self, node: &Node) -> Result<Vec<(PathBuf, PathBuf)>> {
        let volumes = self.volumes.as_array().context("no volumes")?;
        let mounts = self.spec["volumeMounts"].as_array().context("no mounts")?;
        let mut all = self.mounts.clone();
        for mount in mounts {
            let at = mount["mountPath"].as_str().context("no mountPath")?;
            let volume = volumes
                .iter()
                .find(|volume| volume["name"] == mount["name"]);
            let path = volume.and_then(|volume| volume["hostPath"]["path"].as_str());
            let path = path.with_context(|| format!("{} is no path of the node", mount["name"]))?;
            // Nodes of the testbed have these for themselves.
            let of_node = match path {
                "/sys/fs/bpf" => node.bpffs.clone(),
                "/run/portside" => node.state.clone(),
                _ => path.into(),
            };
            all.push((of_node, at.into()));
        }
        all.sort_by(|a, b| a.1.cmp(&b.1));
        Ok(all)
    }

    fn capabilities(&self) -> Result<Vec<Capability>> {
        let added = self.spec["securityContext"]["capabilities"]["add"].as_array();
        let names = added.into_iter().flatten().filter_map(Value::as_str);
        names.map(capability).collect()
    }

    /// Starts it on `node`.
    pub fn start(&self, node: &Node) -> Result<Running> {
        let binary = agent::binary().context("the agent's path is not set")?;
        let root = Root::make(node, &binary, &self.all_mounts(node)?)?;
        let args = self.spec["args"].as_array().context("no args")?;
        let args = args.iter().filter_map(Value::as_str);
        let args = args.map(|text| text.replace("$(NODE_NAME)", node.name()));
        let path = root.path.clone();
        let log = root.path.with_extension("log");
        let out = File::create(&log)?;
        let mut command = node.netns().command("/proxy-agent")?;
        command
            .args(args)
            .args(&self.arguments)
            .env_clear()
            .env("NODE_NAME", node.name())
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let enter = move || {
            chroot(path.as_path())?;
            chdir("/")?;
            Ok(set_pdeathsig(Signal::SIGKILL)?)
        };
        // SAFETY: between fork and exec the closure makes three system calls; paths of this length are put on the stack.
        unsafe { command.pre_exec(enter) };
        confine_to(&mut command, self.capabilities()?)?;
        files::give_usual(&mut command);
        let child = command.spawn().context("starting the container")?;
        Ok(Running {
            child,
            log,
            _root: root,
        })
    }
}

/// A container's root, gone with its value.
struct Root {
    path: PathBuf,
}

impl Root {
    fn make(node: &Node, binary: &Path, mounts: &[(PathBuf, PathBuf)]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Among the directories of the run, which are unmounted if this process is killed.
        let path = node.state.with_extension(format!("root{number}"));
        fs::create_dir_all(&path)?;
        mount(
            Some("tmpfs"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .context("mounting a container's root")?;
        let root = Self { path };
        let at = |inside: &Path| root.path.join(inside.strip_prefix("/").unwrap_or(inside));
        // No copy: machines have little memory.
        let program = at(Path::new("/proxy-agent"));
        File::create(&program)?;
        bind(&fs::canonicalize(binary)?, &program, true).context("mounting the agent")?;
        // As runtimes mount them; what is of the node's own network there is that of the process that looks.
        let mut kernel = Vec::new();
        for (of_kernel, read_only) in [("/proc", false), ("/proc/sys", true), ("/sys", true)] {
            kernel.push((
                PathBuf::from(of_kernel),
                PathBuf::from(of_kernel),
                read_only,
            ));
        }
        let volumes = mounts
            .iter()
            .map(|(from, to)| (from.clone(), to.clone(), false));
        for (from, to, read_only) in kernel.into_iter().chain(volumes) {
            let target = at(&to);
            if !target.exists() {
                fs::create_dir_all(&target)?;
            }
            bind(&from, &target, read_only)
                .with_context(|| format!("mounting {} at {}", from.display(), to.display()))?;
        }
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(
            None::<&str>,
            &root.path,
            None::<&str>,
            read_only,
            None::<&str>,
        )
        .context("making a container's root read-only")?;
        Ok(root)
    }
}

fn bind(from: &Path, to: &Path, read_only: bool) -> Result<()> {
    let none = None::<&str>;
    mount(Some(from), to, none, MsFlags::MS_BIND, none)?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, to, none, flags, none)?;
    }
    Ok(())
}

impl Drop for Root {
    fn drop(&mut self) {
        // With all that is mounted in it.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.path);
    }
}

/// A container that was started; killed with its value.
pub struct Running {
    child: Child,
    log: PathBuf,
    _root: Root,
}

impl Running {
    /// What it has said, on both outputs.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string())
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Ends it as a kubelet does: it has the manifest's time after SIGTERM.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            Signal::SIGTERM,
        )?;
        eventually_within(GRACE, "ending", || {
            self.child.try_wait()?.context("it runs on")
        })
        .with_context(|| self.log())
    }

    /// Waits until a probe is answered by 200, asked as the kubelet of `node` asks.
    pub fn await_probe(&mut self, node: &Node, at: IpAddr, probe: &(String, u16)) -> Result<()> {
        let (path, port) = probe;
        let target = SocketAddr::new(at, *port);
        let what = format!("{target}{path}");
        let answered = eventually_within(READY_WITHIN, &what, || {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("it ended: {status}");
            }
            let answer = http::fetch(node.netns(), target, path)?;
            ensure!(answer.status == 200, "{}: {}", answer.head, answer.body);
            Ok(())
        });
        answered.with_context(|| self.log())
    }
}

/// `terminationGracePeriodSeconds` of both DaemonSets.
const GRACE: Duration = Duration::from_secs(10);

/// How long the first sync may take, loading and verifying the programs included.
const READY_WITHIN: Duration = Duration::from_secs(60);

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
