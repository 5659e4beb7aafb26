//! A directory as people and tools change it: edited in place, replaced, mounted, half written.

mod oddities;
mod one_file;
mod readings;
mod watching;

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::{
    directory::{Directory, Reading},
    manifest,
    tree::Tree,
    *,
};
use crate::model::{Event, Node, ObjectName, Service};

const NODE_PORT: &str = "
apiVersion: v1
kind: Service
metadata: {name: np-svc}
spec:
  selector: {app: np-pods}
  ports: [{name: http, protocol: TCP, port: 80, targetPort: 80, nodePort: 30000}]
  type: NodePort
";

fn service_yaml(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 10.96.0.1, ports: [{{port: {port}}}]}}\n"
    )
}

fn node_yaml(name: &str, zone: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: {zone}}}}}\n"
    )
}

fn slice_yaml(name: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{{port: 8080}}]\nendpoints: [{{addresses: [10.1.0.1]}}]\n"
    )
}

/// What a batch says, as `+svc:80`, `-svc`, `+slice/svc-1`, `node:a`, `synced`.
fn said(batch: &[Event]) -> Vec<String> {
    let text = |event: &Event| match event {
        Event::ServiceUpserted(Service { name, ports, .. }) => {
            format!("+{}:{}", name.name, ports[0].port)
        }
        Event::ServiceDeleted(name) => format!("-{}", name.name),
        Event::SliceUpserted(slice) => format!("+slice/{}", slice.name.name),
        Event::SliceDeleted(name) => format!("-slice/{}", name.name),
        Event::NodeChanged(Node { zone, .. }) => {
            format!("node:{}", zone.as_deref().unwrap_or_default())
        }
        Event::Synced(_) => "synced".into(),
    };
    batch.iter().map(text).collect()
}
