//! `manifests`: the Helm chart, made from the kustomize base.
//!
//! `deploy/base` is the one source. In it, a comment `# helm: NAME` at the end of a line says that the chart's user may
//! choose what follows the key: the chart has `.Values.NAME` there, and the base's own text, comments included, is the
//! default in `values.yaml`. `# helm: Release.Namespace` stands for what Helm itself knows.
//!
//! | file | subject |
//! |---|---|
//! | `template` | one file of the base -> a template and default values |

mod template;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use self::template::Template;
use crate::{shell::say, workspace};

/// Of the base, what goes into the chart. The rest is kustomize's own.
const FILES: [&str; 3] = ["serviceaccount.yaml", "rbac.yaml", "daemonset.yaml"];

const GENERATED: &str =
    "# Made from deploy/base by `cargo xtask manifests`: change that, not this.\n";

/// Writes the chart; with `check`, only says whether it is as it would be written.
pub fn run(check: bool) -> anyhow::Result<()> {
    let chart = workspace::root().join("deploy/helm/portside");
    for (file, text) in render(workspace::root())? {
        let path = chart.join(file);
        if check {
            let found = fs::read_to_string(&path).unwrap_or_default();
            ensure!(
                found == text,
                "{} is not what deploy/base says: run `cargo xtask manifests`",
                path.display()
            );
            continue;
        }
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        say("Wrote", path.display().to_string());
    }
    Ok(())
}

/// The files of the chart, by their paths in it.
fn render(root: &Path) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let mut values = GENERATED.to_owned();
    let mut files = BTreeMap::new();
    for file in FILES {
        let path = root.join("deploy/base").join(file);
        let base =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let Template { text, defaults } =
            template::template(&base).with_context(|| path.display().to_string())?;
        values.push_str(&defaults);
        files.insert(
            Path::new("templates").join(file),
            format!("{GENERATED}{text}"),
        );
    }
    files.insert("values.yaml".into(), values);
    files.insert("Chart.yaml".into(), description());
    Ok(files)
}

fn description() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{GENERATED}apiVersion: v2\n\
         name: portside\n\
         description: A kube-proxy replacement in Rust and eBPF for any CNI\n\
         type: application\n\
         version: {version}\n\
         appVersion: \"{version}\"\n\
         kubeVersion: \">=1.21.0-0\"\n"
    )
}
