//! One mechanism after the other, and the report.

use std::{io::Write, path::Path};

use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::LinkAttribute;

use super::{iptables, nftables, owned, tool};

/// Removes what kube-proxy leaves in this network namespace and says on `out` what that was. What is gone already
/// costs nothing; one mechanism that fails does not stop the others.
///
/// # Errors
/// Where something was not removed, or no tool is installed that could have looked.
pub async fn remove_kube_proxy(out: &mut dyn Write) -> Result<()> {
    let mut run = Run {
        out,
        found: false,
        looked: false,
        absent: Vec::new(),
        failed: Vec::new(),
    };
    for family in ["iptables", "ip6tables"] {
        let mut present = false;
        for variant in ["-legacy", "-nft"] {
            present |= run.iptables(&format!("{family}{variant}"))?;
        }
        if !present {
            run.iptables(family)?;
        }
    }
    run.nftables()?;
    run.ipvs().await?;
    run.finish()
}

struct Run<'a> {
    out: &'a mut dyn Write,
    /// Something of kube-proxy was there.
    found: bool,
    /// A packet filter's tool answered.
    looked: bool,
    absent: Vec<String>,
    failed: Vec<String>,
}

impl Run<'_> {
    /// Whether the tool is installed.
    fn iptables(&mut self, tool: &str) -> Result<bool> {
        let save = format!("{tool}-save");
        let Some(dump) = self.run(&save, &[], "") else {
            return Ok(!self.absent.contains(&save));
        };
        self.looked = true;
        let plan = iptables::plan(&dump);
        if plan.restore.is_empty() {
            return Ok(true);
        }
        // The lock of the legacy tables may be held by somebody for a moment: 5 s, as kube-proxy waits.
        let restore = format!("{tool}-restore");
        let done = self.run(&restore, &["-w", "5", "--noflush"], &plan.restore);
        if done.is_none() {
            return Ok(true);
        }
        for table in &plan.tables {
            self.say(&format!(
                "{tool}: table {}: removed {} chains and {} rules that led there",
                table.name, table.chains, table.jumps
            ))?;
            if !table.kept.is_empty() {
                let kept = table.kept.join(", ");
                self.say(&format!(
                    "{tool}: table {}: left {kept}, which other chains use",
                    table.name
                ))?;
            }
        }
        Ok(true)
    }

    fn nftables(&mut self) -> Result<()> {
        let Some(list) = self.run("nft", &["list", "tables"], "") else {
            return Ok(());
        };
        self.looked = true;
        let families = nftables::families(&list);
        let mut held = nftables::held(&list);
        if !families.is_empty()
            && self
                .run("nft", &["-f", "-"], &nftables::plan(&families))
                .is_some()
        {
            for family in &families {
                self.say(&format!("nft: removed table {family} {}", owned::NFT_TABLE))?;
            }
            held.extend(families);
            held.sort_unstable();
            held.dedup();
        }
        for family in held {
            writeln!(
                self.out,
                "nft: table {family} {} lets connections that were there end in peace; later: nft delete table {family} {0}",
                nftables::HOLDING_TABLE
            )?;
        }
        Ok(())
    }

    /// The virtual servers go only where kube-proxy's device is: without it they are somebody else's.
    async fn ipvs(&mut self) -> Result<()> {
        match remove_device().await {
            Ok(false) => {}
            Ok(true) => {
                self.say(&format!("removed device {}", owned::IPVS_DEVICE))?;
                // A kernel whose module is not loaded has none, and ipvsadm would fail.
                if Path::new("/proc/net/ip_vs").exists()
                    && self.run("ipvsadm", &["--clear"], "").is_some()
                {
                    self.say("ipvsadm: removed all virtual servers")?;
                }
            }
            Err(error) => self.failed.push(format!("{error:#}")),
        }
        let Some(list) = self.run("ipset", &["list", "-name"], "") else {
            return Ok(());
        };
        for set in list.lines().filter(|name| owned::is_set(name)) {
            if self.run("ipset", &["destroy", set], "").is_some() {
                self.say(&format!("ipset: removed set {set}"))?;
            }
        }
        Ok(())
    }

    /// What a tool printed; none where it is absent or failed, which is noted.
    fn run(&mut self, program: &str, arguments: &[&str], input: &str) -> Option<String> {
        match tool::run(program, arguments, input) {
            Ok(Some(printed)) => return Some(printed),
            Ok(None) => self.absent.push(program.to_owned()),
            Err(error) => self.failed.push(format!("{error:#}")),
        }
        None
    }

    fn say(&mut self, line: &str) -> Result<()> {
        self.found = true;
        Ok(writeln!(self.out, "{line}")?)
    }

    fn finish(self) -> Result<()> {
        if !self.absent.is_empty() {
            let absent = self.absent.join(", ");
            writeln!(self.out, "not installed, so not asked: {absent}")?;
        }
        if !self.failed.is_empty() {
            bail!("{}", self.failed.join("\n"));
        }
        if !self.looked {
            bail!(
                "neither iptables-save nor nft is installed here: run this where the node's own tools are"
            );
        }
        if !self.found {
            writeln!(self.out, "nothing of kube-proxy was found")?;
        }
        Ok(())
    }
}

/// Whether the dummy device of the ipvs mode was there.
async fn remove_device() -> Result<bool> {
    let (connection, netlink, _) = rtnetlink::new_connection().context("opening netlink")?;
    let connection = tokio::spawn(connection);
    let removed = async {
        let mut links = netlink.link().get().execute();
        while let Some(link) = links.try_next().await.context("listing the devices")? {
            let name = LinkAttribute::IfName(owned::IPVS_DEVICE.to_owned());
            if link.attributes.contains(&name) {
                let index = link.header.index;
                let deleted = netlink.link().del(index).execute().await;
                deleted.with_context(|| format!("removing device {}", owned::IPVS_DEVICE))?;
                return Ok(true);
            }
        }
        Ok(false)
    };
    let removed = removed.await;
    connection.abort();
    removed
}
