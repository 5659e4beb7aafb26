//! An independent look at checksums: every sum is computed again in full, byte by byte.

/// SCTP's (RFC 9260 appendix A).
pub const CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

const ETHERNET: usize = 14;

/// The one's complement sum of big-endian 16-bit words (RFC 1071); an odd byte is padded.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]) as u32;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Where the parts of an IP packet are.
struct Layout {
    proto: u8,
    l4: usize,
    end: usize,
    is_fragment: bool,
    /// Source and destination.
    addrs: Vec<u8>,
    header_ok: bool,
}

fn layout(ip: &[u8]) -> Option<Layout> {
    match ip.first()? >> 4 {
        4 => {
            let l4 = (ip[0] & 15) as usize * 4;
            Some(Layout {
                proto: *ip.get(9)?,
                l4,
                end: u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]) as usize,
                is_fragment: u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x3fff != 0,
                addrs: ip.get(12..20)?.to_vec(),
                header_ok: sum(ip.get(..l4)?) == 0xffff,
            })
        }
        6 => {
            let mut proto = *ip.get(6)?;
            let mut l4 = 40;
            let mut is_fragment = false;
            loop {
                match proto {
                    0 | 43 | 60 => {
                        proto = *ip.get(l4)?;
                        l4 += (*ip.get(l4 + 1)? as usize + 1) * 8;
                    }
                    44 => {
                        let offset = u16::from_be_bytes([*ip.get(l4 + 2)?, *ip.get(l4 + 3)?]);
                        is_fragment |= offset & 0xfff9 != 0;
                        proto = *ip.get(l4)?;
                        l4 += 8;
                    }
                    _ => break,
                }
            }
            Some(Layout {
                proto,
                l4,
                end: 40 + u16::from_be_bytes([ip[4], ip[5]]) as usize,
                is_fragment,
                addrs: ip.get(8..40)?.to_vec(),
                header_ok: true,
            })
        }
        _ => None,
    }
}

/// The checksum field of an SCTP packet, which counts as 0 in its own sum.
pub fn sctp_field(packet: &[u8]) -> [u8; 4] {
    let mut digest = CRC32C.digest();
    digest.update(&packet[..8]);
    digest.update(&[0; 4]);
    digest.update(&packet[12..]);
    digest.finalize().to_le_bytes()
}

/// Are all checksums of a frame right: the IPv4 header's, TCP's, UDP's, SCTP's, ICMP's, and the IPv4 header's in what an
/// ICMP error quotes? What a fragment or a cut-off packet does not show counts as right.
pub fn check(frame: &[u8]) -> Result<(), String> {
    let ip = &frame[ETHERNET..];
    let l = layout(ip).ok_or("no IP header")?;
    if !l.header_ok {
        return Err("IPv4 header".into());
    }
    if l.is_fragment {
        return Ok(());
    }
    let Some(segment) = ip.get(l.l4..l.end) else {
        return Ok(());
    };
    if l.proto == 132 {
        return match segment.get(8..12) {
            Some(field) if field != sctp_field(segment) => Err("SCTP".into()),
            _ => Ok(()),
        };
    }
    let mut pseudo = l.addrs.clone();
    pseudo.extend((segment.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, l.proto]);
    let (before, name): (&[u8], _) = match l.proto {
        6 => (&pseudo, "TCP"),
        17 if segment.get(6..8) == Some(&[0, 0]) => return Ok(()),
        17 => (&pseudo, "UDP"),
        1 => (&[], "ICMP"),
        58 => (&pseudo, "ICMPv6"),
        _ => return Ok(()),
    };
    if sum(&[before, segment].concat()) != 0xffff {
        return Err(name.into());
    }
    if matches!(
        (l.proto, segment.first()),
        (1, Some(3 | 11 | 12)) | (58, Some(1..=4))
    ) {
        let quoted = segment.get(8..).and_then(layout);
        let quoted = quoted.ok_or("nothing quoted")?;
        if !quoted.header_ok {
            return Err("quoted IPv4 header".into());
        }
    }
    Ok(())
}

/// Gives a frame, or what is left of one, the checksums that its bytes ask for, as if its sender had meant them. What has none, a
/// fragment or a packet that was cut off, keeps what it has.
pub fn repair(frame: &mut [u8]) {
    let Some(ip) = frame.get_mut(ETHERNET..) else {
        return;
    };
    repair_header(ip);
    let Some(l) = layout(ip).filter(|l| !l.is_fragment) else {
        return;
    };
    let Some(segment) = ip.get_mut(l.l4..l.end) else {
        return;
    };
    if matches!(
        (l.proto, segment.first()),
        (1, Some(3 | 11 | 12)) | (58, Some(1..=4))
    ) && let Some(quoted) = segment.get_mut(8..)
    {
        repair_header(quoted);
    }
    let (field, has_pseudo) = match l.proto {
        132 => {
            if segment.len() >= 12 {
                let field = sctp_field(segment);
                segment[8..12].copy_from_slice(&field);
            }
            return;
        }
        1 => (2, false),
        58 => (2, true),
        6 => (16, true),
        17 => (6, true),
        _ => return,
    };
    if segment.len() < field + 2 {
        return;
    }
    segment[field..field + 2].fill(0);
    let mut covered = Vec::new();
    if has_pseudo {
        covered.extend(&l.addrs);
        covered.extend((segment.len() as u32).to_be_bytes());
        covered.extend([0, 0, 0, l.proto]);
    }
    covered.extend_from_slice(segment);
    let check = match !sum(&covered) {
        0 if l.proto == 17 => 0xffff,
        check => check,
    };
    segment[field..field + 2].copy_from_slice(&check.to_be_bytes());
}

/// The same of an IPv4 header; another one has no checksum.
fn repair_header(ip: &mut [u8]) {
    let len = match ip.first() {
        Some(first) if first >> 4 == 4 => (first & 15) as usize * 4,
        _ => return,
    };
    if let Some(header) = ip.get_mut(..len).filter(|header| header.len() >= 20) {
        header[10..12].fill(0);
        let check = !sum(header);
        header[10..12].copy_from_slice(&check.to_be_bytes());
    }
}
