//! The DaemonSet that takes Portside off every node: whether its containers do.

use anyhow::{Context as _, Result, ensure};

use crate::{
    agent::Container,
    objects::{Object, the},
};

pub fn check(objects: &[Object]) -> Result<()> {
    let daemon_set = the(objects, "DaemonSet")?;
    daemon_set.is_as_the_api_has_it()?;
    for container in [Container::first_of(daemon_set)?, Container::of(daemon_set)?] {
        container.check_rights()?;
        let cli = container.parsed()?;
        let place = cli.cleaned_place().context("it takes nothing down")?;
        for (path, host) in [
            (&place.bpffs, "/sys/fs/bpf"),
            (&place.state_dir, "/run/portside"),
        ] {
            let found = container.host_path(path)?;
            ensure!(
                found == host,
                "{}: it is {found} of the node",
                path.display()
            );
        }
    }
    let labels = daemon_set.at("spec/template/metadata/labels");
    let selector = daemon_set.at("spec/selector/matchLabels");
    ensure!(selector == labels, "{selector} selects no {labels}");
    // One that is left on a node must not be taken for the agent's.
    ensure!(
        labels["app.kubernetes.io/name"] != "portside",
        "the agent's selector takes its pods"
    );
    Ok(())
}
