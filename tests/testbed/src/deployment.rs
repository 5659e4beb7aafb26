//! The DaemonSet of `deploy/`: an agent under test has the rights of its container, no others.

use std::collections::HashSet;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use caps::{CapSet, Capability};
use nix::sys::prctl;
use serde_json::Value;

use crate::container::AGENT as DAEMON_SET;

/// The container's `securityContext`.
fn security_context() -> Result<Value> {
    let object: Value = serde_saphyr::from_str(DAEMON_SET).context("reading the DaemonSet")?;
    Ok(object["spec"]["template"]["spec"]["containers"][0]["securityContext"].clone())
}

/// What the container may do: all is dropped, so what is added is all that there is.
fn capabilities() -> Result<HashSet<Capability>> {
    static READ: OnceLock<HashSet<Capability>> = OnceLock::new();
    if let Some(read) = READ.get() {
        return Ok(read.clone());
    }
    let read = read_capabilities()?;
    Ok(READ.get_or_init(|| read).clone())
}

fn read_capabilities() -> Result<HashSet<Capability>> {
    let context = security_context()?;
    let added = context["capabilities"]["add"]
        .as_array()
        .context("the DaemonSet adds no capabilities")?;
    let names = added.iter().filter_map(Value::as_str);
    names.map(capability).collect()
}

/// A capability by the name that Kubernetes gives it.
pub fn capability(name: &str) -> Result<Capability> {
    let capability = format!("CAP_{name}").parse();
    capability.with_context(|| format!("the DaemonSet adds the capability {name}"))
}

/// Starts `command` as a container runtime starts the agent's container: user 0 with the added capabilities alone, and no
/// way to gain others. What entered a namespace before did it with the rights of the caller.
pub fn confine(command: &mut Command) -> Result<()> {
    confine_to(command, capabilities()?)
}

/// The same with other capabilities.
pub fn confine_to(command: &mut Command, kept: impl IntoIterator<Item = Capability>) -> Result<()> {
    let kept = kept.into_iter().collect();
    let dropped: Vec<_> = caps::runtime::thread_all_supported()
        .difference(&kept)
        .copied()
        .collect();
    let confine = move || {
        // At exec, user 0 gets what is in the bounding set or is inheritable (capabilities(7)).
        for capability in &dropped {
            caps::drop(None, CapSet::Bounding, *capability).map_err(std::io::Error::other)?;
        }
        for set in [CapSet::Ambient, CapSet::Inheritable] {
            caps::clear(None, set).map_err(std::io::Error::other)?;
        }
        Ok(prctl::set_no_new_privs()?)
    };
    // SAFETY: between fork and exec the closure makes system calls; it allocates only to say that one of them failed.
    unsafe { command.pre_exec(confine) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::DaemonSet;
    use k8s_openapi::api::core::v1::ServiceAccount;
    use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
    use serde::{Serialize, de::DeserializeOwned};

    use super::*;

    /// An unknown field is lost on the way through the API's own type, one of another type does not get in.
    fn is_as_the_api_has_it<T: Serialize + DeserializeOwned>(object: &Value) {
        let typed: T = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(&serde_json::to_value(typed).unwrap(), object);
    }

    #[test]
    fn manifests_have_only_fields_of_the_api() {
        for file in [
            DAEMON_SET,
            include_str!("../../../deploy/base/rbac.yaml"),
            include_str!("../../../deploy/base/serviceaccount.yaml"),
        ] {
            for object in serde_saphyr::from_multiple::<Value>(file).unwrap() {
                match object["kind"].as_str().unwrap() {
                    "DaemonSet" => is_as_the_api_has_it::<DaemonSet>(&object),
                    "ServiceAccount" => is_as_the_api_has_it::<ServiceAccount>(&object),
                    "ClusterRole" => is_as_the_api_has_it::<ClusterRole>(&object),
                    "ClusterRoleBinding" => is_as_the_api_has_it::<ClusterRoleBinding>(&object),
                    kind => panic!("{kind} is not checked"),
                }
            }
        }
    }

    #[test]
    fn the_container_is_confined_as_the_tests_confine_it() {
        let context = security_context().unwrap();
        assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["runAsUser"], 0);
        assert_eq!(context["privileged"], Value::Null);
    }

    #[test]
    fn a_confined_command_has_what_the_container_has_and_no_more() {
        let mut command = Command::new("cat");
        confine(command.arg("/proc/self/status")).unwrap();
        let Ok(output) = command.output() else {
            // Only who may set capabilities can take them from others.
            assert!(!nix::unistd::Uid::effective().is_root());
            return;
        };
        let status = String::from_utf8(output.stdout).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        // What the caller has not got itself it cannot leave to others.
        let own = caps::read(None, CapSet::Bounding).unwrap();
        let bits = capabilities().unwrap();
        let bits = bits
            .intersection(&own)
            .fold(0, |bits, one| bits | one.bitmask());
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(field(set), format!("{bits:016x}"), "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
    }
}
