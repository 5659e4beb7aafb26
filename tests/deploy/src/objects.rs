//! Rendered text as documents.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::ServiceAccount,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// An object of the API.
#[derive(Clone, PartialEq, Debug)]
pub struct Object(pub Value);

/// The objects of a text, in its order; a key that stands twice is an error.
pub fn read(text: &str) -> Result<Vec<Object>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("no YAML")?;
    let documents = documents.into_iter().filter(|document| !document.is_null());
    Ok(documents.map(Object).collect())
}

/// The one object of this kind.
pub fn the<'a>(objects: &'a [Object], kind: &str) -> Result<&'a Object> {
    let mut all = of_kind(objects, kind);
    let one = all.next().with_context(|| format!("no {kind}"))?;
    ensure!(all.next().is_none(), "two objects of kind {kind}");
    Ok(one)
}

pub fn of_kind<'a>(objects: &'a [Object], kind: &str) -> impl Iterator<Item = &'a Object> {
    objects.iter().filter(move |object| object.kind() == kind)
}

impl Object {
    pub fn kind(&self) -> &str {
        self.0["kind"].as_str().unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub fn namespace(&self) -> Option<&str> {
        self.0["metadata"]["namespace"].as_str()
    }

    /// What is at a path, as `spec/template/spec`.
    pub fn at(&self, path: &str) -> &Value {
        self.0.pointer(&format!("/{path}")).unwrap_or(&Value::Null)
    }

    /// Without the labels that tell a release, which a base for kustomize has not.
    pub fn without_release(mut self) -> Self {
        forget_release(&mut self.0);
        self
    }

    /// An unknown field is lost on the way through the API's own type, one of another type does not get in. Kinds that come with
    /// an operator are taken as they are.
    pub fn is_as_the_api_has_it(&self) -> Result<()> {
        fn compare<T: Serialize + DeserializeOwned>(object: &Value) -> Result<()> {
            let typed: T = serde_json::from_value(object.clone())?;
            let (there, back) = (object, serde_json::to_value(typed)?);
            ensure!(
                same(there, &back),
                "the API has it as {back}, here it is {there}"
            );
            Ok(())
        }
        match self.kind() {
            "DaemonSet" => compare::<DaemonSet>(&self.0),
            "Deployment" => compare::<Deployment>(&self.0),
            "Role" => compare::<Role>(&self.0),
            "RoleBinding" => compare::<RoleBinding>(&self.0),
            "ServiceAccount" => compare::<ServiceAccount>(&self.0),
            "ClusterRole" => compare::<ClusterRole>(&self.0),
            "ClusterRoleBinding" => compare::<ClusterRoleBinding>(&self.0),
            "PodMonitor" | "PrometheusRule" => Ok(()),
            kind => anyhow::bail!("{kind} is not checked"),
        }
        .with_context(|| self.to_string())
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

/// The same but for what is empty: the API's types leave that out.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            keys.into_iter().all(|key| {
                same(
                    a.get(key).unwrap_or(&Value::Null),
                    b.get(key).unwrap_or(&Value::Null),
                )
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        _ => a == b || (is_empty(a) && is_empty(b)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

fn forget_release(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for label in [
                "app.kubernetes.io/instance",
                "app.kubernetes.io/managed-by",
                "app.kubernetes.io/version",
                "helm.sh/chart",
            ] {
                fields.remove(label);
            }
            fields.values_mut().for_each(forget_release);
        }
        Value::Array(all) => all.iter_mut().for_each(forget_release),
        _ => {}
    }
}
