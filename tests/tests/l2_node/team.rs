//! The mode of a team device, which a daemon (teamd) sets by generic netlink: without one, a team carries nothing.

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use proxy_agent::netlink::{Error, NLM_F_ACK, attribute, generic, nested};
use testbed::netns::Netns;

/// The type of an option that is text (the kernel's include/net/netlink.h).
const NLA_STRING: u8 = 5;

/// include/uapi/linux/if_team.h.
mod wanted {
    pub const OPTIONS_SET: u8 = 1;
    pub const TEAM_IFINDEX: u16 = 1;
    pub const LIST_OPTION: u16 = 2;
    pub const ITEM_OPTION: u16 = 1;
    pub const OPTION_NAME: u16 = 1;
    pub const OPTION_TYPE: u16 = 3;
    pub const OPTION_DATA: u16 = 4;
}

/// Gives the team `device`, which has no port yet, its mode: `roundrobin` for one.
pub fn set_mode(netns: &Netns, device: &str, mode: &str) -> Result<()> {
    netns.run(|| {
        let teams = generic::Family::open("team")
            .context("asking for the generic netlink family of teams")?;
        let index = if_nametoindex(device)?;
        let option = [
            attribute(wanted::OPTION_NAME, b"mode\0"),
            attribute(wanted::OPTION_TYPE, &[NLA_STRING]),
            attribute(wanted::OPTION_DATA, format!("{mode}\0").as_bytes()),
        ];
        let item = nested(wanted::ITEM_OPTION, &option);
        let attributes = [
            attribute(wanted::TEAM_IFINDEX, &index.to_ne_bytes()),
            nested(wanted::LIST_OPTION, &[item]),
        ]
        .concat();
        match teams.ask(wanted::OPTIONS_SET, NLM_F_ACK, &attributes) {
            // The mode is set, and nobody listens to the event that tells of it (team_nl_cmd_options_set, 5.10).
            Err(Error::Refused(error)) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {
                Ok(())
            }
            other => other
                .map(drop)
                .with_context(|| format!("setting the mode of {device} to {mode}")),
        }
    })
}
