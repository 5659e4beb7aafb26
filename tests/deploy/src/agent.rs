//! The DaemonSet of the agent: whether its container is one in which the agent runs.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use proxy_agent::cli::Cli;
use serde_json::{Value, json};

use crate::objects::Object;

/// What the kubelet puts in for the node's name.
const NODE: &str = "n1";

/// The container of a DaemonSet of ours.
pub struct Container<'a> {
    pod: &'a Value,
    container: &'a Value,
}

impl<'a> Container<'a> {
    pub fn of(daemon_set: &'a Object) -> Result<Self> {
        Self::the(daemon_set, "containers")
    }

    /// The one among those that run first.
    pub fn first_of(daemon_set: &'a Object) -> Result<Self> {
        Self::the(daemon_set, "initContainers")
    }

    fn the(daemon_set: &'a Object, field: &str) -> Result<Self> {
        let pod = daemon_set.at("spec/template/spec");
        let containers = pod[field]
            .as_array()
            .with_context(|| format!("no {field}"))?;
        ensure!(containers.len() == 1, "{} {field}", containers.len());
        Ok(Self {
            pod,
            container: &containers[0],
        })
    }

    /// The command line as the container runs it; the image's entry point is the agent.
    pub fn command_line(&self) -> Result<Vec<String>> {
        ensure!(self.container["command"].is_null(), "another entry point");
        let args = self.container["args"].as_array().context("no args")?;
        let mut line = vec!["proxy-agent".to_owned()];
        for argument in args {
            let text = argument.as_str().context("an argument is no text")?;
            ensure!(
                !text.contains("$(") || text.contains("$(NODE_NAME)"),
                "{text}: an unknown variable"
            );
            line.push(text.replace("$(NODE_NAME)", NODE));
        }
        Ok(line)
    }

    pub fn parsed(&self) -> Result<Cli> {
        let line = self.command_line()?;
        Cli::try_parse_from(&line).with_context(|| line.join(" "))
    }

    /// The host's path of what the container has at `path`: the longest mount wins.
    pub fn host_path(&self, path: &Path) -> Result<String> {
        let mounts = self.container["volumeMounts"].as_array();
        let mount = mounts
            .into_iter()
            .flatten()
            .filter_map(|mount| {
                let at = mount["mountPath"].as_str()?;
                path.starts_with(at).then_some((at, mount))
            })
            .max_by_key(|(at, _)| at.len());
        let (at, mount) =
            mount.with_context(|| format!("nothing is mounted at {}", path.display()))?;
        ensure!(
            mount["readOnly"] != true,
            "{}: mounted for reading only",
            path.display()
        );
        let volumes = self.pod["volumes"].as_array().context("no volumes")?;
        let volume = volumes
            .iter()
            .find(|volume| volume["name"] == mount["name"]);
        let volume = volume.with_context(|| format!("no volume {}", mount["name"]))?;
        let host = volume["hostPath"]["path"].as_str();
        let host = host.with_context(|| format!("{} is no path of the node", mount["name"]))?;
        let rest = path.strip_prefix(at)?;
        let host = Path::new(host).join(rest);
        Ok(host.to_string_lossy().trim_end_matches('/').to_owned())
    }

    fn port(&self, name: &str) -> Result<Option<u16>> {
        let ports = self.container["ports"].as_array();
        let Some(port) = ports
            .into_iter()
            .flatten()
            .find(|port| port["name"] == name)
        else {
            return Ok(None);
        };
        ensure!(port["protocol"] == "TCP", "{port}");
        // Of a pod in the node's network; the API makes them alike where one is missing.
        ensure!(port["hostPort"] == port["containerPort"], "{port}");
        let number = port["containerPort"].as_u64().context("no number")?;
        Ok(Some(u16::try_from(number)?))
    }

    /// Only what is added, nothing by the back door.
    pub fn check_rights(&self) -> Result<()> {
        let context = &self.container["securityContext"];
        ensure!(
            context["capabilities"]["drop"] == json!(["ALL"]),
            "{context}"
        );
        ensure!(context["allowPrivilegeEscalation"] == false, "{context}");
        ensure!(context["readOnlyRootFilesystem"] == true, "{context}");
        ensure!(context["runAsUser"] == 0, "{context}");
        ensure!(context["privileged"].is_null(), "{context}");
        ensure!(self.pod["hostNetwork"] == true, "not the node's network");
        ensure!(
            self.pod["hostPID"].is_null() && self.pod["hostIPC"].is_null(),
            "more of the host"
        );
        let profile = &self.pod["securityContext"]["seccompProfile"]["type"];
        ensure!(profile.is_string(), "no seccomp profile");
        Ok(())
    }

    pub fn capabilities(&self) -> Vec<&str> {
        let added = self.container["securityContext"]["capabilities"]["add"].as_array();
        added
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    /// A probe asks where the agent answers.
    fn check_probe(&self, name: &str, path: &str, at: SocketAddr) -> Result<()> {
        let probe = &self.container[name]["httpGet"];
        ensure!(
            probe["port"] == "healthz" && probe["path"] == path,
            "{name}: {probe}"
        );
        let host = probe["host"].as_str();
        match (at.ip().is_unspecified(), host) {
            // The kubelet asks the node's address.
            (true, None) => Ok(()),
            (false, Some(host)) if host.parse() == Ok(at.ip()) => Ok(()),
            _ => anyhow::bail!("{name}: the agent listens at {at}, the kubelet asks {host:?}"),
        }
    }
}

/// Where the agent of a DaemonSet serves its metrics.
pub fn metrics_address(daemon_set: &Object) -> Result<Option<SocketAddr>> {
    let cli = Container::of(daemon_set)?.parsed()?;
    let args = cli.run_args().context("it does not run the agent")?;
    Ok(args.serve.metrics_bind.address())
}

/// Whether the agent runs as this DaemonSet has it.
pub fn check(daemon_set: &Object) -> Result<()> {
    let container = Container::of(daemon_set)?;
    let cli = container.parsed()?;
    let args = cli.run_args().context("it does not run the agent")?;
    ensure!(
        args.node_name == NODE,
        "the node's name is {}",
        args.node_name
    );
    let env = container.container["env"].as_array().context("no env")?;
    let names: BTreeMap<_, _> = env
        .iter()
        .map(|variable| (variable["name"].as_str().unwrap_or_default(), variable))
        .collect();
    ensure!(names.len() == env.len(), "a variable stands twice: {env:?}");
    ensure!(
        names
            .get("NODE_NAME")
            .is_some_and(|name| name["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"),
        "NODE_NAME is not the node's"
    );

    // Probes and metrics: one port in the flag, the container and the probe.
    let health = args
        .serve
        .healthz_bind
        .address()
        .context("no probes are served")?;
    ensure!(container.port("healthz")? == Some(health.port()), "healthz");
    container.check_probe("livenessProbe", "/livez", health)?;
    container.check_probe("readinessProbe", "/readyz", health)?;
    let metrics = args.serve.metrics_bind.address();
    ensure!(
        container.port("metrics")? == metrics.map(|at| at.port()),
        "metrics are served at {metrics:?}"
    );

    // What the agent writes to is the node's own.
    for (path, host) in [
        (args.place.bpffs.clone(), "/sys/fs/bpf"),
        (args.place.state_dir.clone(), "/run/portside"),
        (args.proc_sys.join("net"), "/proc/sys/net"),
    ] {
        let found = container.host_path(&path)?;
        ensure!(
            found == host,
            "{}: it is {found} of the node",
            path.display()
        );
    }

    container.check_rights()?;
    // The agent asks name servers before it serves the cluster's.
    let names_of_servers = args.api.api_servers.iter().any(|uri| {
        uri.host()
            .is_some_and(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().is_err())
    });
    ensure!(
        !names_of_servers || container.pod["dnsPolicy"] == "Default",
        "an API server's name is asked of the cluster's own name server"
    );
    let rollout = daemon_set.at("spec/updateStrategy");
    ensure!(
        rollout["type"] == "RollingUpdate" || rollout["rollingUpdate"].is_null(),
        "API servers refuse {rollout}"
    );
    Ok(())
}
