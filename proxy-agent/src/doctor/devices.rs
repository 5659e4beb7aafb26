//! Reports for each device the programs that it would have, those that it has, and those of others.

use std::collections::BTreeMap;

use anyhow::Result;
use proxy_common::abi::IfIndex;

use super::{Check, Choices, Verdict};
use crate::{
    datapath::{
        XdpMode,
        probe::{self, Found, Tried},
    },
    node::{self, Framing, Judged, Kind, Link, Role, View, XdpAt},
    state::{Loss, Losses},
};

const DEVICES: &str = "devices";
/// So many of devices that are alike are named.
const SHOWN: usize = 8;

/// `tried` is what became of the hooks on a veth.
pub async fn checks(args: &Choices, view: &View, tried: Option<&Tried>) -> Result<Vec<Check>> {
    let attached = node::xdp_programs().await?;
    let pins = args.place.pins();
    let losses = Losses::read(&args.place.losses()).unwrap_or_default();
    let mut checks = Vec::new();
    let mut has_uplink = false;
    let mut alike: BTreeMap<(Role, String), Vec<&str>> = BTreeMap::new();
    for (&index, link) in &view.links {
        let Judged { role, why } = node::judge(view, index, &args.uplinks, &args.workloads);
        has_uplink |= role == Role::Uplink || (role == Role::Tunnel && link.ways.default);
        let check = Check::new(DEVICES, &link.name, role.to_string());
        match role {
            Role::Plain | Role::Workload => alike.entry((role, why)).or_default().push(&link.name),
            Role::Loopback | Role::Tunnel => {
                let at = match link.framing {
                    Framing::Ethernet => "TC",
                    Framing::None | Framing::Other => "TC, as its packets have no link header",
                };
                checks.push(check.verdict(Verdict::Ok, format!("{at}; {why}")));
            }
            Role::Uplink => {
                let hook = &proxy_common::edge::hook::Hook::XDP_UPLINK;
                let known = Known {
                    wanted: args.xdp,
                    attached: attached.get(&index).copied(),
                    own_pin: pins.link(hook.name, index).exists(),
                    driver: driver(index, link, tried),
                    unreliable: node::why_not_native(view, index),
                    lost: losses.at(index, link).map(Loss::text),
                    blind: node::hidden_tags(view, index),
                };
                let (verdict, mode) = known.mode();
                checks.push(check.verdict(verdict, format!("{mode}; {why}")));
            }
        }
        if let Some(better) = node::better_named(view, index, &args.uplinks) {
            checks.push(
                Check::new(DEVICES, &link.name, "not where the node's addresses are")
                    .verdict(Verdict::Problem, better),
            );
        }
        if role != Role::Plain {
            let filters = node::filter_names(index).await?;
            checks.extend(strangers(link, attached.get(&index), filters));
        }
    }
    for (flag, selection) in [
        ("--uplinks", &args.uplinks),
        ("--workloads", &args.workloads),
    ] {
        for name in node::unmatched(view, selection) {
            checks.push(
                Check::new(DEVICES, name, "no such device")
                    .verdict(Verdict::Note, format!("{flag} names it")),
            );
        }
    }
    if !has_uplink {
        checks.push(Check::new(DEVICES, "uplinks", "none").verdict(
            Verdict::Fallback,
            "no device leads out of the node: name it by --uplinks, or NodePorts are not served to outside",
        ));
    }
    checks.extend(
        alike
            .iter()
            .map(|((role, why), names)| grouped(*role, why, names)),
    );
    if !alike.keys().any(|(role, _)| *role == Role::Workload) {
        checks.push(Check::new(DEVICES, "pods' interfaces", "0").verdict(Verdict::Ok, "TC"));
    }
    Ok(checks)
}

/// Devices that are alike, of which a node may have hundreds.
fn grouped(role: Role, why: &str, names: &[&str]) -> Check {
    let shown = names.iter().take(SHOWN).copied();
    let more = names.len().saturating_sub(SHOWN);
    let mut list = shown.collect::<Vec<_>>().join(", ");
    if more > 0 {
        list += &format!(" and {more} more");
    }
    if role == Role::Workload {
        return Check::new(DEVICES, "pods' interfaces", names.len().to_string())
            .verdict(Verdict::Ok, format!("TC; {why}: {list}"));
    }
    Check::new(DEVICES, list, role.to_string())
        .verdict(Verdict::Ok, format!("without programs; {why}"))
}

/// Whether the driver runs XDP programs.
fn driver(index: IfIndex, link: &Link, tried: Option<&Tried>) -> Found {
    match node::driver_has_xdp(index) {
        Ok(true) => Found::Yes,
        Ok(false) => Found::No("its driver has none".to_owned()),
        Err(_) if link.kind == Kind::Veth && tried.is_some() => {
            tried.map_or(Found::Yes, |tried| tried.xdp_native.clone())
        }
        Err(error) => Found::Unknown(format!("{error:#}")),
    }
}

/// What is known of XDP at an uplink.
struct Known {
    wanted: XdpMode,
    attached: Option<XdpAt>,
    /// A link of ours is pinned.
    own_pin: bool,
    driver: Found,
    /// Why what XDP sends back cannot be relied on.
    unreliable: Option<String>,
    /// What was lost of it.
    lost: Option<String>,
    /// Why XDP does not see whose packets some are.
    blind: Option<String>,
}

impl Known {
    fn mode(&self) -> (Verdict, String) {
        let tc = |why: &str| (Verdict::Fallback, format!("TC: {why}"));
        match (self.wanted, &self.attached) {
            (XdpMode::Off, _) => (Verdict::Ok, "TC: --xdp off".to_owned()),
            (_, Some(XdpAt { native, .. })) if self.own_pin => self.own(*native),
            (_, Some(XdpAt { program, .. })) => {
                let id = program.map_or_else(String::new, |id| format!(" (id {id})"));
                tc(&format!("an XDP program of somebody else is attached{id}"))
            }
            (XdpMode::Generic, None) => {
                (Verdict::Ok, "generic XDP and TC: --xdp generic".to_owned())
            }
            (mode, None) => match (
                &self.driver,
                self.blind
                    .as_ref()
                    .or(self.lost.as_ref())
                    .or(self.unreliable.as_ref()),
            ) {
                (_, Some(why)) if mode == XdpMode::Auto => tc(why),
                (Found::Yes, Some(why)) if self.blind.is_some() => (
                    Verdict::Problem,
                    format!("native XDP and TC, but {why}: --xdp auto would use TC"),
                ),
                (Found::Yes, Some(why)) => (
                    Verdict::Note,
                    format!("native XDP and TC; {why}: --xdp auto would use TC"),
                ),
                (Found::Yes, None) => (
                    Verdict::Ok,
                    "native XDP and TC: the driver has it".to_owned(),
                ),
                (Found::No(why), _) if mode == XdpMode::Native => {
                    (Verdict::Problem, format!("no native XDP: {why}"))
                }
                (Found::No(why), _) => tc(why),
                (Found::Unknown(why), _) => (
                    Verdict::Note,
                    format!(
                        "native XDP if the driver takes it, else TC; that shows when it is attached: {why}"
                    ),
                ),
            },
        }
    }

    /// Our own program is at the device.
    fn own(&self, native: bool) -> (Verdict, String) {
        let mode = if native { "native" } else { "generic" };
        let is_so = format!("{mode} XDP and TC: they are attached");
        match (self.blind.as_ref().or(self.lost.as_ref()), &self.unreliable) {
            (Some(wrong), _) if native || self.blind.is_some() => (
                Verdict::Problem,
                format!("{is_so}, but {wrong}: --xdp auto uses TC there"),
            ),
            (None, Some(why)) if native => (
                Verdict::Note,
                format!("{is_so}; {why}: --xdp auto uses TC there"),
            ),
            _ => (Verdict::Ok, is_so),
        }
    }
}

/// Programs of others at a device.
fn strangers(link: &Link, xdp: Option<&XdpAt>, filters: Vec<String>) -> Option<Check> {
    let mut names = filters;
    names.extend(probe::at_device(&link.name));
    if let Some(id) = xdp.and_then(|at| at.program) {
        names.extend(probe::name_of(id));
    }
    names.retain(|name| !probe::is_ours(name));
    names.sort();
    names.dedup();
    (!names.is_empty()).then(|| {
        Check::new(
            DEVICES,
            format!("others' programs at {}", link.name),
            names.join(", "),
        )
        .verdict(
            Verdict::Note,
            "they see packets before or after ours; of two service proxies, one should go",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_of_an_uplink_follows_from_what_is_there() {
        let native = Some(XdpAt {
            native: true,
            program: Some(7),
        });
        let no = || Found::No("its driver has none".into());
        let unknown = || Found::Unknown("why".into());
        use Verdict::{Fallback, Note, Ok, Problem};
        let veth = || Some("a veth".to_owned());
        let lost = || Some("its driver lost 3".to_owned());
        let blind = || Some("its VLANs".to_owned());
        for (wanted, attached, own_pin, driver, unreliable, lost, blind, verdict, begins) in [
            (
                XdpMode::Auto,
                None,
                false,
                Found::Yes,
                None,
                None,
                None,
                Ok,
                "native XDP and TC",
            ),
            (
                XdpMode::Auto,
                None,
                false,
                no(),
                None,
                None,
                None,
                Fallback,
                "TC: its driver",
            ),
            (
                XdpMode::Auto,
                None,
                false,
                unknown(),
                None,
                None,
                None,
                Note,
                "native XDP if",
            ),
            (
                XdpMode::Auto,
                native,
                true,
                unknown(),
                None,
                None,
                None,
                Ok,
                "native XDP and TC: they",
            ),
            (
                XdpMode::Auto,
                native,
                false,
                Found::Yes,
                None,
                None,
                None,
                Fallback,
                "TC: an XDP program",
            ),
            (
                XdpMode::Auto,
                None,
                false,
                Found::Yes,
                veth(),
                None,
                None,
                Fallback,
                "TC: a veth",
            ),
            (
                XdpMode::Auto,
                None,
                false,
                unknown(),
                veth(),
                None,
                None,
                Fallback,
                "TC: a veth",
            ),
            (
                XdpMode::Auto,
                None,
                false,
                Found::Yes,
                None,
                lost(),
                None,
                Fallback,
                "TC: its driver lost",
            ),
            (
                XdpMode::Native,
                None,
                false,
                Found::Yes,
                veth(),
                None,
                None,
                Note,
                "native XDP and TC; a veth",
            ),
            (
                XdpMode::Native,
                native,
                true,
                Found::Yes,
                veth(),
                None,
                None,
                Note,
                "native XDP and TC: they",
            ),
            (
                XdpMode::Native,
                native,
                true,
                Found::Yes,
                veth(),
                lost(),
                None,
                Problem,
                "native XDP and TC: they",
            ),
            (
                XdpMode::Native,
                None,
                false,
                no(),
                None,
                None,
                None,
                Problem,
                "no native XDP",
            ),
            (
                XdpMode::Off,
                None,
                false,
                Found::Yes,
                None,
                None,
                None,
                Ok,
                "TC: --xdp off",
            ),
            (
                XdpMode::Generic,
                None,
                false,
                no(),
                None,
                None,
                None,
                Ok,
                "generic XDP",
            ),
            (
                XdpMode::Auto,
                None,
                false,
                Found::Yes,
                None,
                None,
                blind(),
                Fallback,
                "TC: its VLANs",
            ),
            (
                XdpMode::Native,
                None,
                false,
                Found::Yes,
                None,
                None,
                blind(),
                Problem,
                "native XDP and TC, but its VLANs",
            ),
            (
                XdpMode::Native,
                native,
                true,
                Found::Yes,
                veth(),
                None,
                blind(),
                Problem,
                "native XDP and TC: they are attached, but its VLANs",
            ),
        ] {
            let known = Known {
                wanted,
                attached,
                own_pin,
                driver,
                unreliable,
                lost,
                blind,
            };
            let (found, mode) = known.mode();
            assert!(
                found == verdict && mode.starts_with(begins),
                "{found:?} {mode}"
            );
        }
    }

    #[test]
    fn devices_that_are_alike_are_one_line() {
        let names: Vec<String> = (0..10).map(|number| format!("veth{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let check = grouped(Role::Workload, "why", &names);
        assert_eq!(check.found, "10");
        assert!(check.follows.ends_with("veth7 and 2 more"), "{check:?}");
        let check = grouped(Role::Plain, "it is down", &names[..2]);
        assert_eq!(
            (check.name.as_str(), check.found.as_str()),
            ("veth0, veth1", "plain device")
        );
    }
}
