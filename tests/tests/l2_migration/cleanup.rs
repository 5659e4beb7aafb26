//! `proxy-agent cleanup --kube-proxy` in a network namespace with rules of kube-proxy and of others.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use testbed::agent::binary;
use testbed::netns::Netns;
use testbed::run::Run;
use testbed::runner::{no_agent, row};

/// Dumps of a node with kube-proxy, a kubelet and CNIs.
const DUMP: &str = include_str!("../../../proxy-agent/src/migrate/testdata/iptables-save");
const DUMP6: &str = include_str!("../../../proxy-agent/src/migrate/testdata/ip6tables-save");

/// What the dumps have of kube-proxy that has to stay, as a CNI's chain uses the first of them.
const KEPT: [&str; 2] = ["KUBE-MARK-MASQ", "KUBE-POSTROUTING"];

const NFT: &str = "
    table ip kube-proxy { chain nat-prerouting { type nat hook prerouting priority dstnat; }; }
    table ip6 kube-proxy { chain nat-prerouting { type nat hook prerouting priority dstnat; }; }
    table inet kube-proxy { chain other { }; }
    table ip others { chain kube-proxy { }; }
";

pub fn rows() -> Vec<Trial> {
    let mut rows = vec![
        row(
            "nftables tables of kube-proxy go, others stay",
            no_agent(),
            nftables,
        ),
        row(
            "the dummy device of the ipvs mode goes, others stay",
            no_agent(),
            device,
        ),
        row(
            "sets of the ipvs mode go, others stay",
            no_agent().or_else(|| {
                cannot("ipset", &["list"]).then_some("the kernel or the machine lacks ipset")
            }),
            sets,
        ),
        row(
            "virtual servers go with the device of the ipvs mode, and stay without it",
            no_agent().or_else(|| {
                cannot("ipvsadm", &["--list", "--numeric"])
                    .then_some("the kernel or the machine lacks ipvs")
            }),
            virtual_servers,
        ),
        row("what was cleaned up is found no more", no_agent(), nothing),
    ];
    for variant in ["legacy", "nft"] {
        for (program, dump) in [("iptables", DUMP), ("ip6tables", DUMP6)] {
            let tool = format!("{program}-{variant}");
            let missing = no_agent().or_else(|| {
                cannot(&tool, &["-t", "nat", "-S"])
                    .then_some("the kernel or the machine lacks this variant of iptables")
            });
            rows.push(row(
                format!("{tool}: chains of kube-proxy go, every rule of others stays"),
                missing,
                move || iptables(&tool, dump),
            ));
        }
    }
    rows
}

/// Whether a tool does not work here.
fn cannot(tool: &str, arguments: &[&str]) -> bool {
    let works = || -> Result<bool> {
        let run = Run::start()?;
        let netns = Netns::create(run.netns_name("probe"))?;
        let tried = netns.command(tool)?.args(arguments).output()?;
        Ok(tried.status.success())
    };
    !works().unwrap_or(false)
}

fn nftables() -> Result<()> {
    in_namespace(|netns| {
        netns.batch("nft", &["-f", "-"], NFT)?;
        let said = cleanup(netns)?;
        ensure!(said.contains("nft: removed table ip kube-proxy"), "{said}");
        ensure!(said.contains("nft: removed table ip6 kube-proxy"), "{said}");
        let left = output(netns, "nft", &["list", "tables"])?;
        let expected = [
            "table inet kube-proxy",
            "table ip others",
            "table ip portside-holds-nat",
            "table ip6 portside-holds-nat",
        ];
        let mut left: Vec<_> = left.lines().collect();
        left.sort_unstable();
        ensure!(left == expected, "left: {left:?}");
        Ok(())
    })
}

/// Told by its name: bridges stand in for dummies, which not every kernel has.
fn device() -> Result<()> {
    in_namespace(|netns| {
        netns.ip("link add kube-ipvs0 type bridge\nlink add kube-ipvs1 type bridge\n")?;
        let said = cleanup(netns)?;
        ensure!(said.contains("removed device kube-ipvs0"), "{said}");
        let left = output(netns, "ip", &["-brief", "link"])?;
        ensure!(!left.contains("kube-ipvs0"), "{left}");
        ensure!(left.contains("kube-ipvs1"), "{left}");
        Ok(())
    })
}

fn virtual_servers() -> Result<()> {
    in_namespace(|netns| {
        netns.batch(
            "ipvsadm",
            &["--restore"],
            "-A -t 10.96.0.1:443 -s rr\n-a -t 10.96.0.1:443 -r 10.244.0.2:6443 -m\n",
        )?;
        let servers = || output(netns, "ipvsadm", &["--save", "--numeric"]);
        let before = servers()?;
        ensure!(before.contains("10.96.0.1:443"), "before: {before}");
        cleanup(netns)?;
        let after = servers()?;
        ensure!(after == before, "somebody else's: {after}");
        netns.ip("link add kube-ipvs0 type bridge\n")?;
        let said = cleanup(netns)?;
        ensure!(
            said.contains("ipvsadm: removed all virtual servers"),
            "{said}"
        );
        let after = servers()?;
        ensure!(after.is_empty(), "left: {after}");
        Ok(())
    })
}

fn sets() -> Result<()> {
    in_namespace(|netns| {
        netns.batch(
            "ipset",
            &["restore"],
            "create KUBE-CLUSTER-IP hash:ip,port\n\
             create KUBE-6-LOOP-BACK hash:ip,port,ip family inet6\n\
             create KUBE-SRC-MINE hash:net\n\
             add KUBE-CLUSTER-IP 10.96.0.1,tcp:443\n",
        )?;
        let said = cleanup(netns)?;
        for gone in ["KUBE-CLUSTER-IP", "KUBE-6-LOOP-BACK"] {
            ensure!(said.contains(&format!("removed set {gone}")), "{said}");
        }
        let left = output(netns, "ipset", &["list", "-name"])?;
        ensure!(left == "KUBE-SRC-MINE\n", "left: {left}");
        Ok(())
    })
}

fn nothing() -> Result<()> {
    in_namespace(|netns| {
        netns.batch("nft", &["-f", "-"], NFT)?;
        netns.ip("link add kube-ipvs0 type bridge\n")?;
        cleanup(netns)?;
        let said = cleanup(netns)?;
        ensure!(said.contains("nothing of kube-proxy was found"), "{said}");
        Ok(())
    })
}

fn iptables(tool: &str, dump: &str) -> Result<()> {
    in_namespace(|netns| {
        let (save, restore) = (format!("{tool}-save"), format!("{tool}-restore"));
        netns.batch(&restore, &[], dump)?;
        let before = output(netns, &save, &[])?;
        let said = cleanup(netns)?;
        ensure!(
            said.contains(&format!("{tool}: table nat: removed")),
            "{said}"
        );
        let after = output(netns, &save, &[])?;
        // A rule is someone else's if it names no chain of kube-proxy, or only those that stay.
        let keeps = before.contains("CNI-HOSTPORT-SETMARK");
        let expected: Vec<_> = lines(&before)
            .filter(|line| {
                line.split_whitespace()
                    .map(|word| word.trim_start_matches(':'))
                    .all(|word| {
                        let kubelet = ["FIREWALL", "KUBELET-CANARY", "MARK-DROP", "IPTABLES-HINT"];
                        match word.strip_prefix("KUBE-") {
                            Some(rest) => {
                                kubelet.contains(&rest) || (keeps && KEPT.contains(&word))
                            }
                            None => true,
                        }
                    })
            })
            .collect();
        let after: Vec<_> = lines(&after).collect();
        ensure!(
            after == expected,
            "left:\n{}\nexpected:\n{}",
            after.join("\n"),
            expected.join("\n")
        );
        ensure!(after.len() < lines(&before).count(), "nothing was removed");
        Ok(())
    })
}

/// Chains without their counters, and rules.
fn lines(dump: &str) -> impl Iterator<Item = &str> {
    dump.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" [").next().unwrap_or(line))
}

fn in_namespace(test: impl FnOnce(&Netns) -> Result<()>) -> Result<()> {
    let run = Run::start()?;
    test(&Netns::create(run.netns_name("node"))?)
}

/// What the command says.
pub fn cleanup(netns: &Netns) -> Result<String> {
    let binary = binary().context("no agent binary")?;
    finish(netns.command(binary)?.args(["cleanup", "--kube-proxy"]))
}

fn output(netns: &Netns, program: &str, arguments: &[&str]) -> Result<String> {
    finish(netns.command(program)?.args(arguments))
}

fn finish(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
