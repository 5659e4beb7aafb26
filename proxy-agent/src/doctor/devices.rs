//! What each device would have, what it has, and who else is there.

use anyhow::Result;

use super::{Check, Choices, Verdict};
use crate::{
    datapath::{
        XdpMode,
        probe::{self, Found, Tried},
    },
    node::{self, Kind, Link, Role, View, XdpAt},
};

const DEVICES: &str = "devices";

/// `tried` is what became of the hooks on a veth.
pub async fn checks(args: &Choices, view: &View, tried: Option<&Tried>) -> Result<Vec<Check>> {
    let roles = node::roles(view, &args.uplinks, &args.workloads);
    let attached = node::xdp_programs().await?;
    let pins = args.place.pins();
    let mut checks = Vec::new();
    let mut workloads = 0;
    for (&index, link) in &view.links {
        let role = roles.get(&index).copied().unwrap_or(Role::Plain);
        match role {
            Role::Plain => {}
            Role::Workload => workloads += 1,
            Role::Loopback | Role::Tunnel => {
                checks.push(
                    Check::new(DEVICES, &link.name, role.to_string()).verdict(Verdict::Ok, "TC"),
                );
            }
            Role::Uplink => {
                let hook = &proxy_common::hook::Hook::XDP_UPLINK;
                let known = Known {
                    wanted: args.xdp,
                    attached: attached.get(&index).copied(),
                    own_pin: pins.link(hook.name, index).exists(),
                    driver: driver(index, link, tried),
                };
                let (verdict, mode) = known.mode();
                checks
                    .push(Check::new(DEVICES, &link.name, role.to_string()).verdict(verdict, mode));
            }
        }
        if role != Role::Plain {
            let filters = node::filter_names(index).await?;
            checks.extend(strangers(link, attached.get(&index), filters));
        }
    }
    if !roles.values().any(|role| *role == Role::Uplink) {
        checks.push(Check::new(DEVICES, "uplinks", "none").verdict(
            Verdict::Fallback,
            "no device leads out of the node: name it by --uplinks, or NodePorts are not served to outside",
        ));
    }
    checks.push(
        Check::new(DEVICES, "pods' interfaces", workloads.to_string()).verdict(Verdict::Ok, "TC"),
    );
    Ok(checks)
}

/// Whether the driver runs XDP programs.
fn driver(index: u32, link: &Link, tried: Option<&Tried>) -> Found {
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
}

impl Known {
    fn mode(&self) -> (Verdict, String) {
        let tc = |why: &str| (Verdict::Fallback, format!("TC: {why}"));
        match (self.wanted, &self.attached) {
            (XdpMode::Off, _) => (Verdict::Ok, "TC: --xdp off".to_owned()),
            (_, Some(XdpAt { native, .. })) if self.own_pin => {
                let mode = if *native { "native" } else { "generic" };
                (Verdict::Ok, format!("{mode} XDP and TC: they are attached"))
            }
            (_, Some(XdpAt { program, .. })) => {
                let id = program.map_or_else(String::new, |id| format!(" (id {id})"));
                tc(&format!("an XDP program of somebody else is attached{id}"))
            }
            (XdpMode::Generic, None) => {
                (Verdict::Ok, "generic XDP and TC: --xdp generic".to_owned())
            }
            (mode, None) => match &self.driver {
                Found::Yes => (
                    Verdict::Ok,
                    "native XDP and TC: the driver has it".to_owned(),
                ),
                Found::No(why) if mode == XdpMode::Native => {
                    (Verdict::Problem, format!("no native XDP: {why}"))
                }
                Found::No(why) => tc(why),
                Found::Unknown(why) => (
                    Verdict::Note,
                    format!(
                        "native XDP if the driver takes it, else TC; that shows when it is attached: {why}"
                    ),
                ),
            },
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
        for (wanted, attached, own_pin, driver, verdict, begins) in [
            (
                XdpMode::Auto,
                None,
                false,
                Found::Yes,
                Ok,
                "native XDP and TC",
            ),
            (XdpMode::Auto, None, false, no(), Fallback, "TC: its driver"),
            (XdpMode::Auto, None, false, unknown(), Note, "native XDP if"),
            (
                XdpMode::Auto,
                native,
                true,
                unknown(),
                Ok,
                "native XDP and TC: they",
            ),
            (
                XdpMode::Auto,
                native,
                false,
                Found::Yes,
                Fallback,
                "TC: an XDP program",
            ),
            (XdpMode::Native, None, false, no(), Problem, "no native XDP"),
            (XdpMode::Off, None, false, Found::Yes, Ok, "TC: --xdp off"),
            (XdpMode::Generic, None, false, no(), Ok, "generic XDP"),
        ] {
            let known = Known {
                wanted,
                attached,
                own_pin,
                driver,
            };
            let (found, mode) = known.mode();
            assert!(
                found == verdict && mode.starts_with(begins),
                "{found:?} {mode}"
            );
        }
    }
}
