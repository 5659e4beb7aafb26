//! ESP in tunnel mode between two hosts, by keys that both have: states and policies as an IKE daemon would install them.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::Result;

use crate::netns::Netns;

/// Signed and not encrypted (RFC 2410), which every kernel with ESP can without a source of random numbers: 46 bytes of overhead
/// over IPv4 and 66 over IPv6, and up to 3 of padding.
const CIPHER: &str = "auth-trunc 'hmac(sha256)' \
     0x4a506f8431b64ddea94f1ff1e07aab5b0ec51ed24a506f8431b64ddea94f1ff1 128 \
     enc 'ecb(cipher_null)' ''";

const SPI: &str = "0x1000";

/// Packets of both families between `own` and `peer`: of the policies that this selector has (a VTI's key is the mark that it looks
/// up with, an XFRM interface has a number), by states that are bound to `states`, if to anything.
pub(super) fn protect(
    netns: &Netns,
    own: IpAddr,
    peer: IpAddr,
    states: &str,
    policies: &str,
) -> Result<()> {
    let mut lines = String::new();
    for (source, destination, directions) in
        [(own, peer, ["out"].as_slice()), (peer, own, &["in", "fwd"])]
    {
        let _ = writeln!(
            lines,
            "xfrm state add src {source} dst {destination} proto esp spi {SPI} reqid 1 mode tunnel \
             flag af-unspec {CIPHER} {states}"
        );
        for direction in directions {
            for all in ["0.0.0.0/0", "::/0"] {
                let _ = writeln!(
                    lines,
                    "xfrm policy add src {all} dst {all} dir {direction} {policies} \
                     tmpl src {source} dst {destination} proto esp reqid 1 mode tunnel"
                );
            }
        }
    }
    netns.ip(&lines)
}
