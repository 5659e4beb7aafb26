//! Who changes the cluster: `kubectl` where it is installed, else a client of our own that does the same.
//!
//! Both work in the namespace of the API server, as nothing else is on its network.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::indent;
use super::super::scene::Scene;
use api_server::client::Client;
use api_server::resource::Resource;
use testbed::cli::{self, output};

const NAMESPACE: &str = "default";

/// Is there a `kubectl` that runs?
pub fn has_kubectl() -> bool {
    cli::no_kubectl().is_none()
}

pub struct Hands {
    kubectl: bool,
    kubeconfig: PathBuf,
    /// The directory of the files that are applied.
    files: PathBuf,
}

impl Hands {
    pub fn new(scene: &Scene) -> Result<Self> {
        Ok(Self {
            kubectl: has_kubectl(),
            kubeconfig: scene.kubeconfig()?.to_owned(),
            files: scene.topology.run.directory("applied")?,
        })
    }

    /// What whoever watches should know of them.
    pub fn introduction(&self, scene: &Scene) -> String {
        let netns = scene.topology.router.netns.name();
        let kubeconfig = self.kubeconfig.display();
        if self.kubectl {
            format!(
                "  kubeconfig: {kubeconfig}\n  by hand:    nsenter --net=/run/netns/{netns} kubectl --kubeconfig {kubeconfig} get services"
            )
        } else {
            format!(
                "  kubeconfig: {kubeconfig}\n  kubectl is not installed: the same requests are made without it"
            )
        }
    }

    /// Creates or changes objects.
    pub fn apply(
        &self,
        scene: &Scene,
        out: &mut dyn Write,
        name: &str,
        objects: &[Value],
    ) -> Result<()> {
        let file = self.files.join(format!("{name}.yaml"));
        // JSON is YAML.
        let documents = objects
            .iter()
            .map(|object| Ok(format!("---\n{}\n", serde_json::to_string_pretty(object)?)))
            .collect::<Result<String>>()?;
        fs::write(&file, documents).with_context(|| format!("writing {}", file.display()))?;
        let file = file.display().to_string();
        self.act(scene, out, &["apply", "-f", &file], |client| {
            objects.iter().try_for_each(|object| client.apply(object))
        })
    }

    /// Merges a change into an EndpointSlice.
    pub fn patch_slice(
        &self,
        scene: &Scene,
        out: &mut dyn Write,
        slice: &str,
        change: &Value,
    ) -> Result<()> {
        let text = change.to_string();
        let command = ["patch", "endpointslice", slice, "--type=merge", "-p", &text];
        self.act(scene, out, &command, |client| {
            client.patch(Resource::EndpointSlices, slice, change)
        })
    }

    /// Makes the Service `name`, of type NodePort, with the pods of the Service `of`.
    pub fn expose(
        &self,
        scene: &Scene,
        out: &mut dyn Write,
        of: &str,
        name: &str,
        [port, target]: [u16; 2],
    ) -> Result<()> {
        let options = [
            format!("--name={name}"),
            format!("--port={port}"),
            format!("--target-port={target}"),
        ];
        let [name_is, port_is, target_is] = options.each_ref().map(String::as_str);
        let command = [
            "expose",
            "service",
            of,
            "--type=NodePort",
            name_is,
            port_is,
            target_is,
        ];
        self.act(scene, out, &command, |client| {
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"type": "NodePort", "ports": [{"port": port, "targetPort": target}]},
            });
            client.create(&service)
        })
    }

    pub fn delete_service(&self, scene: &Scene, out: &mut dyn Write, name: &str) -> Result<()> {
        self.act(scene, out, &["delete", "service", name], |client| {
            client.delete(Resource::Services, name)
        })
    }

    /// Lists what there is.
    pub fn get(&self, scene: &Scene, out: &mut dyn Write, resources: &str) -> Result<()> {
        if self.kubectl {
            return self.act(scene, out, &["get", resources], |_| Ok(()));
        }
        for plural in resources.split(',') {
            let resource = Resource::from_plural(plural)
                .with_context(|| format!("{plural:?} is not served"))?;
            let path = resource.path(NAMESPACE);
            let (code, list) = client(scene)?.call("GET", &path, &Value::Null)?;
            ensure!(code == 200, "GET {path}: {list}");
            for object in list["items"].as_array().into_iter().flatten() {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                writeln!(out, "    {plural}/{name}")?;
            }
        }
        Ok(())
    }

    /// Runs and shows a command of `kubectl`, or does instead what it is to do.
    fn act(
        &self,
        scene: &Scene,
        out: &mut dyn Write,
        command: &[&str],
        instead: impl FnOnce(Client) -> Result<()>,
    ) -> Result<()> {
        let shown = command.iter().map(|word| quoted(word)).collect::<Vec<_>>();
        if !self.kubectl {
            writeln!(out, "  (as kubectl {})", shown.join(" "))?;
            return instead(client(scene)?);
        }
        writeln!(out, "  $ kubectl {}", shown.join(" "))?;
        let mut kubectl = scene.topology.router.netns.command(cli::kubectl())?;
        kubectl
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(self.files.join("cache"))
            .args(command);
        writeln!(out, "{}", indent(&output(kubectl)?))?;
        Ok(())
    }
}

pub fn client(scene: &Scene) -> Result<Client<'_>> {
    let server = scene.server()?.address();
    Ok(Client::inside(&scene.topology.router.netns, server))
}

/// As a shell would need it.
fn quoted(word: &str) -> String {
    if word.contains(['"', '{', ' ']) {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}
