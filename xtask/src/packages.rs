//! Installing distribution packages, on the family that we can test: apt. Other machines get a message.

use std::{
    collections::HashMap,
    path::Path,
    process::{Command, Stdio},
    sync::Once,
};

use anyhow::{Context as _, bail};

use crate::{
    privilege::Root,
    shell::{self, say},
};

/// Whether packages can be installed here, else the reason why not.
pub fn available() -> Result<Root, &'static str> {
    if shell::find("apt-get").is_none() {
        return Err("this machine has no apt-get");
    }
    Root::find().ok_or("installing packages needs root, or sudo without a password")
}

pub fn install(packages: &[&str]) -> anyhow::Result<()> {
    let list = packages.join(" ");
    let root = match available() {
        Ok(root) => root,
        Err(reason) => bail!("cannot install {list}: {reason}"),
    };
    refresh();
    say("Installing", format!("{list} (apt)"));
    let mut command = apt_get(root);
    command
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages);
    shell::run(&mut command).with_context(|| format!("apt-get could not install {list}"))
}

/// The version apt would install of each package; packages that it does not know are left out.
pub fn candidates(packages: &[&str]) -> HashMap<String, String> {
    refresh();
    shell::capture(
        Command::new("apt-cache")
            .env("LC_ALL", "C")
            .arg("policy")
            .args(packages),
    )
    .map_or_else(HashMap::new, |text| parse_policy(&text))
}

/// The packages whose name matches the regular expression.
pub fn search(expression: &str) -> Vec<String> {
    refresh();
    shell::capture(Command::new("apt-cache").args(["search", "--names-only", expression]))
        .map_or_else(Vec::new, |text| {
            text.lines()
                .filter_map(|line| line.split_whitespace().next())
                .map(String::from)
                .collect()
        })
}

/// Fresh package lists, once a run. A failure is not fatal: older lists often still do.
pub fn refresh() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(root) = available() else { return };
        say("Updating", "package lists (apt)");
        if let Err(error) = shell::run(apt_get(root).arg("update")) {
            say("Warning", format!("{error:#}"));
        }
    });
}

fn apt_get(root: Root) -> Command {
    let mut command = root.command(
        Path::new("apt-get"),
        &[("DEBIAN_FRONTEND", Path::new("noninteractive"))],
    );
    command
        .args([
            "-qq",
            "-o",
            "Dpkg::Use-Pty=0",
            "-o",
            "DPkg::Lock::Timeout=300",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn parse_policy(text: &str) -> HashMap<String, String> {
    let mut versions = HashMap::new();
    let mut package = None;
    for line in text.lines() {
        if !line.starts_with(' ') {
            package = line.strip_suffix(':');
        } else if let (Some(package), Some(version)) =
            (package, line.trim().strip_prefix("Candidate: "))
            && version != "(none)"
        {
            versions.insert(package.to_owned(), version.to_owned());
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_gives_the_candidate_of_each_known_package() {
        let versions = parse_policy(
            "rustc:\n  Installed: (none)\n  Candidate: 1.63.0+dfsg1-2\n  Version table:\n     1.63.0+dfsg1-2 500\n\
             gone:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n",
        );
        assert_eq!(
            versions,
            HashMap::from([("rustc".into(), "1.63.0+dfsg1-2".into())])
        );
    }
}
