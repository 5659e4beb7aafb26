//! The kernel modules that the suites stand on, found in a package and unpacked in the order of loading.
//!
//! `modules.dep` is made when a package is installed, so what a module depends on is read from itself.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use object::{Object as _, ObjectSection as _};

/// What the topologies are made of, what TC programs are attached by before kernel 6.6. Nothing loads a module when
/// it is first used: there is no modprobe in the machine.
const WANTED: [&str; 9] = [
    "veth",
    "bridge",
    "vxlan",
    "sch_ingress",
    "cls_bpf",
    "nf_conntrack",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
];

/// What some kernels lack, or have built in without saying so: the NIC, SCTP, VLAN devices, those without Ethernet headers, and what
/// ESP signs by.
const OPTIONAL: [&str; 17] = [
    "virtio_pci",
    "virtio_net",
    "sctp",
    "8021q",
    "tun",
    "ipip",
    "sit",
    "ip_gre",
    "wireguard",
    "ip_vti",
    "ip6_vti",
    "xfrm_interface",
    "xfrm_user",
    "esp4",
    "esp6",
    "authenc",
    "crypto_null",
];

/// What the rules of kube-proxy's modes are made of: iptables (through nftables, and legacy), nftables, ipvs.
pub const KUBE_PROXY: [&str; 27] = [
    "nft_compat",
    "nft_ct",
    // A part of nf_tables since 5.17.
    "nft_counter",
    "nft_nat",
    "nft_numgen",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "xt_comment",
    "xt_conntrack",
    "xt_mark",
    "xt_tcpudp",
    "xt_addrtype",
    "xt_nat",
    "xt_MASQUERADE",
    "ipt_REJECT",
    "ip6t_REJECT",
    "iptable_filter",
    "iptable_nat",
    "iptable_mangle",
    "ip6table_filter",
    "ip6table_nat",
    "ip6table_mangle",
    "ip_set_hash_ipport",
    "ip_set_hash_ipportip",
    "ip_set_hash_net",
    "ip_vs",
    "ip_vs_rr",
];

/// What uplinks may be, besides NICs, veths and VLANs.
pub const UPLINKS: [&str; 6] = [
    "bonding",
    "macvlan",
    "ipvlan",
    "vrf",
    "team",
    "team_mode_roundrobin",
];

pub struct Module {
    pub name: String,
    pub content: Vec<u8>,
}

/// All wanted modules below `directory`, and those of `others` that are there, each behind those that it depends on.
/// Without a directory, all is built in.
pub fn collect(directory: Option<&Path>, others: &[&str]) -> anyhow::Result<Vec<Module>> {
    let Some(directory) = directory else {
        return Ok(Vec::new());
    };
    let mut files = HashMap::new();
    find(directory, &mut files)?;
    let builtin = fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default();
    let mut modules = Vec::new();
    let optional = OPTIONAL
        .iter()
        .chain(others)
        .copied()
        .filter(|name| files.contains_key(*name));
    for name in WANTED.into_iter().chain(optional) {
        let built_in = builtin
            .lines()
            .any(|line| module_name(Path::new(line)).as_deref() == Some(name));
        if !built_in {
            add(name, &files, &mut modules)?;
        }
    }
    Ok(modules)
}

fn add(
    name: &str,
    files: &HashMap<String, PathBuf>,
    modules: &mut Vec<Module>,
) -> anyhow::Result<()> {
    if modules.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(file) = files.get(name) else {
        bail!("the kernel package has no module {name}");
    };
    let content = unpack(file)?;
    for dependency in dependencies(&content).with_context(|| format!("the module {name}"))? {
        add(&dependency, files, modules)?;
    }
    modules.push(Module {
        name: name.to_owned(),
        content,
    });
    Ok(())
}

fn find(directory: &Path, files: &mut HashMap<String, PathBuf>) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        } else if let Some(name) = module_name(&entry.path()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// The name under which the kernel lists `some/nf-name.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn unpack(file: &Path) -> anyhow::Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(file).with_context(|| format!("reading {}", file.display())),
    };
    let output = Command::new(program)
        .args(["--decompress", "--stdout"])
        .arg(file)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} cannot unpack {}", file.display());
    }
    Ok(output.stdout)
}

fn dependencies(module: &[u8]) -> anyhow::Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file
        .section_by_name(".modinfo")
        .context("no section .modinfo")?;
    Ok(depends(&String::from_utf8_lossy(section.data()?)))
}

/// From the `key=value` strings of `.modinfo`.
fn depends(information: &str) -> Vec<String> {
    information
        .split('\0')
        .filter_map(|field| field.strip_prefix("depends="))
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_depends_on() {
        let fields = "license=GPL\0depends=udp_tunnel,ip6-udp-tunnel\0name=vxlan\0";
        assert_eq!(depends(fields), ["udp_tunnel", "ip6_udp_tunnel"]);
        assert!(depends("depends=\0name=veth\0").is_empty());
    }

    #[test]
    fn a_file_is_named_as_the_kernel_lists_it() {
        let name = |path| module_name(Path::new(path));
        assert_eq!(name("net/cls-bpf.ko.xz").as_deref(), Some("cls_bpf"));
        assert_eq!(name("net/veth.ko").as_deref(), Some("veth"));
        assert_eq!(name("modules.order"), None);
    }
}
