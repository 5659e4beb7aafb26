//! From bytes to a view: options, extension headers, fragments, and lengths that do not add up.

use crate::world::*;
use proxy_common::{
    abi::{SCTP, TCP, UDP},
    addr::{V4, V6},
    reason::PassReason,
    wire::parse::{Ip, ParseIp, Parsed, Part, View, parse, tcp},
};

/// Bytes of a frame before its network header.
const L3: usize = 14;

fn opening<F: Net>(proto: u8) -> Frame<F> {
    Frame::new(proto, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT))
}

fn view<F: Net>(packet: &Buffer) -> View<F::Addr> {
    match parse::<F, Buffer>(packet) {
        Parsed::Transport(view) => view,
        other => panic!("{other:?}"),
    }
}

fn refusal<F: Net>(packet: &Buffer) -> Option<PassReason> {
    match parse::<F, Buffer>(packet) {
        Parsed::Other(reason) => Some(reason),
        _ => None,
    }
}

/// Writes the length of an IP packet that was changed, and of IPv4 its sum.
fn amend<F: Net>(bytes: &mut [u8]) {
    let len = bytes.len() - L3;
    if F::IS_V6 {
        bytes[18..20].copy_from_slice(&(len as u16 - 40).to_be_bytes());
        return;
    }
    bytes[16..18].copy_from_slice(&(len as u16).to_be_bytes());
    bytes[24..26].fill(0);
    let end = L3 + usize::from(bytes[L3] & 15) * 4;
    let check = !sum(&bytes[L3..end]);
    bytes[24..26].copy_from_slice(&check.to_be_bytes());
}

/// Puts extension headers of these types and lengths between the IP header and the rest.
fn extended(frame: &Frame<V6>, extensions: &[(u8, usize)]) -> Buffer {
    let mut bytes = frame.build().bytes;
    let mut at = 54;
    let mut field = 20;
    for (kind, len) in extensions {
        let next = bytes[field];
        bytes[field] = *kind;
        let mut header = vec![0; *len];
        header[0] = next;
        // A fragment header has no length; its 0 there is reserved.
        if *kind != 44 {
            header[1] = (*len / 8 - 1) as u8;
        }
        bytes.splice(at..at, header);
        field = at;
        at += len;
    }
    amend::<V6>(&mut bytes);
    Buffer::new(bytes)
}

fn a_view_shows_what_the_headers_say<F: Net>(proto: u8) {
    let frame = opening::<F>(proto).ttl(17);
    let packet = frame.build();
    let view = view::<F>(&packet);
    assert_eq!(view.tuple, frame.tuple);
    let Ip {
        src,
        dst,
        proto: found,
        l4,
        len,
        part,
        datagram,
        ttl,
    } = view.ip;
    assert_eq!(
        (src, dst, found, ttl),
        (frame.tuple.src, frame.tuple.dst, proto, 17)
    );
    assert_eq!((l4, part, datagram), (F::HEADER_LEN, Part::Whole, 0));
    assert_eq!(len as usize, packet.bytes.len() - L3);
    assert!(view.has_ports());
    assert_eq!(
        (view.is_tcp(), view.is_sctp(), view.is_connected()),
        (proto == TCP, proto == SCTP, proto != UDP)
    );
}

/// What the flags of a segment, or the first chunk of an SCTP packet, say of the connection.
fn flags_tell_how_a_connection_stands<F: Net>() {
    let none = [false; 5];
    for (flags, expected) in [
        // opens, accepts, acknowledges, resets, ends
        (tcp::SYN, [true, false, false, false, false]),
        (tcp::SYN | tcp::ACK, [false, true, true, false, false]),
        (tcp::ACK, [false, false, true, false, false]),
        (tcp::FIN | tcp::ACK, [false, false, true, false, true]),
        (tcp::RST, [false, false, false, true, true]),
        (tcp::RST | tcp::ACK, [false, false, true, true, true]),
        (tcp::SYN | tcp::RST, [false, false, false, true, true]),
        (tcp::SYN | tcp::FIN, [false, false, false, false, true]),
        (
            tcp::SYN | tcp::ACK | tcp::FIN,
            [false, false, true, false, true],
        ),
        (
            tcp::SYN | tcp::ACK | tcp::RST,
            [false, false, true, true, true],
        ),
        // PSH and URG mean nothing to a connection's state.
        (tcp::SYN | 0x28, [true, false, false, false, false]),
        (0, none),
    ] {
        let view = view::<F>(&opening::<F>(TCP).flags(flags).build());
        let found = [
            view.opens(),
            view.accepts(),
            view.acknowledges(),
            view.resets(),
            view.ends(),
        ];
        assert_eq!(found, expected, "flags {flags:#x}");
    }
    let l4 = L3 + F::HEADER_LEN;
    for (chunk, expected) in [
        (1, [true, false, false, false, false]),
        (2, [false, true, true, false, false]),
        (6, [false, false, false, true, true]),
        (14, [false, false, false, true, true]),
        // DATA, SACK, HEARTBEAT, SHUTDOWN, SHUTDOWN ACK, COOKIE ECHO, COOKIE ACK.
        (0, [false, false, true, false, false]),
        (3, [false, false, true, false, false]),
        (4, [false, false, true, false, false]),
        (7, [false, false, true, false, false]),
        (8, [false, false, true, false, false]),
        (10, [false, false, true, false, false]),
        (11, [false, false, true, false, false]),
    ] {
        let mut packet = opening::<F>(SCTP).build();
        packet.bytes[l4 + 12] = chunk;
        let view = view::<F>(&packet);
        let found = [
            view.opens(),
            view.accepts(),
            view.acknowledges(),
            view.resets(),
            view.ends(),
        ];
        assert_eq!(found, expected, "chunk {chunk}");
    }
}

fn a_view_shows_the_numbers_of_a_connection<F: Net>() {
    let l4 = L3 + F::HEADER_LEN;
    let mut segment = opening::<F>(TCP).flags(tcp::ACK);
    segment.seq = 0x0102_0304;
    segment.ack = 0x0506_0708;
    let seen = view::<F>(&segment.build());
    assert_eq!((seen.claims, seen.shows), (0x0102_0304, 0x0506_0708));
    // A SYN counts as one byte, and numbers wrap.
    for (seq, claims) in [(0x0102_0304, 0x0102_0305), (u32::MAX, 0)] {
        let mut syn = opening::<F>(TCP);
        syn.seq = seq;
        assert_eq!(view::<F>(&syn.build()).claims, claims);
    }
    let mut init = opening::<F>(SCTP).build();
    init.bytes[l4 + 4..l4 + 8].copy_from_slice(&[1, 2, 3, 4]);
    init.bytes[l4 + 16..l4 + 20].copy_from_slice(&[5, 6, 7, 8]);
    let seen = view::<F>(&init);
    assert_eq!((seen.shows, seen.claims), (0x0102_0304, 0x0506_0708));
    // Only an INIT and its answer have an initiate tag.
    init.bytes[l4 + 12] = 0;
    assert_eq!(view::<F>(&init).claims, 0);
    // One that is cut off before its tag says nothing that could be held against an answer.
    let mut short = opening::<F>(SCTP).build().bytes;
    short.truncate(l4 + 18);
    amend::<F>(&mut short);
    assert_eq!(
        refusal::<F>(&Buffer::new(short)),
        Some(PassReason::BadHeader)
    );
}

#[test]
fn ipv4_options_are_stepped_over() {
    for words in 1..=10 {
        let frame = opening::<V4>(TCP);
        let mut bytes = frame.build().bytes;
        bytes[L3] = 0x45 + words as u8;
        bytes.splice(34..34, vec![1; 4 * words]);
        amend::<V4>(&mut bytes);
        let view = view::<V4>(&Buffer::new(bytes));
        assert_eq!(view.ip.l4, 20 + 4 * words);
        assert_eq!(view.tuple, frame.tuple);
        assert!(view.opens());
    }
}

#[test]
fn an_ipv4_header_of_another_version_or_too_short_is_bad() {
    for first in [0x55, 0x65, 0x05, 0x44, 0x40] {
        let mut packet = opening::<V4>(TCP).build();
        packet.bytes[L3] = first;
        // With the sum that would be right.
        packet.bytes[24..26].fill(0);
        let check = !sum(&packet.bytes[L3..34]);
        packet.bytes[24..26].copy_from_slice(&check.to_be_bytes());
        assert_eq!(
            refusal::<V4>(&packet),
            Some(PassReason::BadHeader),
            "{first:#x}"
        );
    }
    let mut packet = opening::<V6>(TCP).build();
    packet.bytes[L3] = 0x40;
    assert_eq!(refusal::<V6>(&packet), Some(PassReason::BadHeader));
}

#[test]
fn an_ipv4_header_whose_sum_is_wrong_is_bad() {
    let mut packet = opening::<V4>(TCP).build();
    packet.bytes[25] ^= 1;
    assert_eq!(refusal::<V4>(&packet), Some(PassReason::BadHeader));
}

#[test]
fn the_fragment_field_of_ipv4_tells_the_part() {
    for (field, part) in [
        ([0x00, 0x00], Part::Whole),
        // "Don't fragment", and the reserved bit.
        ([0x40, 0x00], Part::Whole),
        ([0x80, 0x00], Part::Whole),
        ([0x20, 0x00], Part::First),
        ([0x60, 0x00], Part::First),
        ([0x20, 0x01], Part::Later),
        ([0x00, 0x01], Part::Later),
        ([0x1f, 0xff], Part::Later),
        ([0x10, 0x00], Part::Later),
    ] {
        let mut packet = opening::<V4>(UDP).build();
        packet.bytes[18..20].copy_from_slice(&[0xab, 0xcd]);
        packet.bytes[20..22].copy_from_slice(&field);
        amend::<V4>(&mut packet.bytes);
        let view = view::<V4>(&packet);
        assert_eq!(view.ip.part, part, "{field:x?}");
        assert_eq!(view.has_ports(), part != Part::Later);
        let id = u32::from_ne_bytes([0xab, 0xcd, 0, 0]);
        assert_eq!(
            view.ip.datagram,
            if part == Part::Whole { 0 } else { id },
            "{field:x?}"
        );
        assert_eq!(
            view.tuple.sport.get(),
            if part == Part::Later { 0 } else { 4000 }
        );
    }
}

#[test]
fn extension_headers_are_stepped_over() {
    let frame = opening::<V6>(UDP);
    for (extensions, l4) in [
        (&[(0, 8)][..], 48),
        (&[(43, 24)], 64),
        (&[(60, 2048)], 2088),
        (&[(0, 8), (60, 16)], 64),
        (&[(0, 8), (43, 8), (60, 8), (60, 16)], 80),
        // An atomic fragment (RFC 6946): a whole datagram.
        (&[(44, 8)], 48),
        (&[(44, 8), (60, 16)], 64),
    ] {
        let view = view::<V6>(&extended(&frame, extensions));
        assert_eq!(
            (view.ip.l4, view.ip.proto, view.ip.part),
            (l4, UDP, Part::Whole),
            "{extensions:?}"
        );
        assert_eq!(view.tuple, frame.tuple);
    }
}

#[test]
fn extension_headers_that_are_too_many_unknown_or_cut_off_are_left_alone() {
    let frame = opening::<V6>(UDP);
    let five = [(0, 8), (60, 8), (60, 8), (60, 8), (60, 8)];
    assert_eq!(
        refusal::<V6>(&extended(&frame, &five)),
        Some(PassReason::Extension)
    );
    // The authentication header (51) is no extension here: nobody can change what it covers.
    assert_eq!(
        refusal::<V6>(&extended(&frame, &[(51, 8)])),
        Some(PassReason::NotService)
    );
    assert_eq!(
        refusal::<V6>(&extended(&frame, &[(59, 8)])),
        Some(PassReason::NotService)
    );
    for kind in [0, 43, 44, 60] {
        for len in [0, 1] {
            let mut bytes = extended(&frame, &[(kind, 8)]).bytes;
            bytes.truncate(54 + len);
            amend::<V6>(&mut bytes);
            assert_eq!(
                refusal::<V6>(&Buffer::new(bytes)),
                Some(PassReason::BadHeader),
                "{kind}, {len} bytes"
            );
        }
        assert!(V6::is_extension(kind) && !V4::is_extension(kind));
    }
    for other in [TCP, UDP, SCTP, 50, 51, 58, 59] {
        assert!(!V6::is_extension(other), "{other}");
    }
}

#[test]
fn a_fragment_header_tells_the_part() {
    for (field, part) in [
        ([0x00, 0x00], Part::Whole),
        // Two reserved bits (RFC 8200 section 4.5).
        ([0x00, 0x06], Part::Whole),
        ([0x00, 0x01], Part::First),
        ([0x00, 0x08], Part::Later),
        ([0x00, 0x09], Part::Later),
        ([0x80, 0x00], Part::Later),
    ] {
        let mut packet = extended(&opening::<V6>(UDP), &[(44, 8)]);
        packet.bytes[56..58].copy_from_slice(&field);
        packet.bytes[58..62].copy_from_slice(&[1, 2, 3, 4]);
        let view = view::<V6>(&packet);
        assert_eq!(view.ip.part, part, "{field:x?}");
        let id = u32::from_ne_bytes([1, 2, 3, 4]);
        assert_eq!(
            view.ip.datagram,
            if part == Part::Whole { 0 } else { id },
            "{field:x?}"
        );
        assert_eq!((view.ip.l4, view.ip.proto), (48, UDP));
    }
    // Behind the header of a later fragment is no header, whatever it looks like.
    let mut packet = extended(&opening::<V6>(UDP), &[(44, 8), (60, 8)]);
    packet.bytes[57] = 8;
    assert_eq!(refusal::<V6>(&packet), Some(PassReason::NotService));
    // The first one has them, and its transport header.
    packet.bytes[57] = 1;
    assert_eq!(view::<V6>(&packet).ip.l4, 56);
}

fn a_packet_that_is_shorter_than_its_header_says_is_bad<F: Net>(proto: u8) {
    let frame = opening::<F>(proto);
    let whole = frame.build();
    // One byte less than the IP header tells of. One more is padding.
    let mut cut = whole.clone();
    cut.bytes.pop();
    assert_eq!(refusal::<F>(&cut), Some(PassReason::BadHeader));
    let mut padded = whole.clone();
    padded.bytes.push(0);
    assert_eq!(view::<F>(&padded).tuple, frame.tuple);
    // Several segments in one buffer: the header's length is nobody's.
    let mut segments = cut.clone();
    segments.gso = 1400;
    assert_eq!(view::<F>(&segments).tuple, frame.tuple);
}

fn a_transport_header_is_whole_or_bad<F: Net>(proto: u8) {
    let l4 = L3 + F::HEADER_LEN;
    for len in 0..=20 {
        let mut bytes = opening::<F>(proto).payload(20).build().bytes;
        bytes.truncate(l4 + len);
        if proto == UDP && len >= 6 {
            bytes[l4 + 4..l4 + 6].copy_from_slice(&(len as u16).to_be_bytes());
        }
        amend::<F>(&mut bytes);
        let is_whole = match proto {
            TCP => len >= 20,
            // The common header alone, or an INIT up to its tag.
            SCTP => matches!(len, 12 | 13 | 20..),
            _ => len >= 8,
        };
        let expected = (!is_whole).then_some(PassReason::BadHeader);
        assert_eq!(refusal::<F>(&Buffer::new(bytes)), expected, "{len} bytes");
    }
}

fn a_transport_header_that_tells_of_too_much_or_too_little_is_bad<F: Net>() {
    let l4 = L3 + F::HEADER_LEN;
    // The frame has 20 bytes of header and 5 of payload: 6 words would reach beyond.
    for (words, is_good) in [
        (0, false),
        (4, false),
        (5, true),
        (6, true),
        (7, false),
        (15, false),
    ] {
        let mut packet = opening::<F>(TCP).payload(4).build();
        packet.bytes[l4 + 12] = words << 4;
        assert_eq!(refusal::<F>(&packet).is_none(), is_good, "{words} words");
        packet.gso = 1400;
        assert_eq!(
            refusal::<F>(&packet).is_none(),
            words >= 5,
            "{words} words of several segments"
        );
    }
    for (len, is_good) in [
        (0, false),
        (7, false),
        (8, true),
        (12, true),
        (13, true),
        (14, false),
        (0xffff, false),
    ] {
        let mut packet = opening::<F>(UDP).build();
        packet.bytes[l4 + 4..l4 + 6].copy_from_slice(&u16::to_be_bytes(len));
        assert_eq!(refusal::<F>(&packet).is_none(), is_good, "{len} bytes");
    }
}

#[test]
fn a_first_fragment_holds_a_part_of_what_its_udp_header_tells() {
    let mut first = opening::<V4>(UDP).build();
    first.bytes[20] = 0x20;
    first.bytes[38..40].copy_from_slice(&3000u16.to_be_bytes());
    amend::<V4>(&mut first.bytes);
    assert_eq!(view::<V4>(&first).ip.part, Part::First);
}

#[test]
fn several_packets_of_sctp_in_one_buffer_are_data() {
    let mut packet = opening::<V4>(SCTP).build();
    packet.gso = 1400;
    packet.bytes.truncate(34 + 12);
    let view = view::<V4>(&packet);
    assert!(view.acknowledges() && !view.opens() && !view.ends());
    packet.bytes.truncate(34 + 11);
    assert_eq!(refusal::<V4>(&packet), Some(PassReason::BadHeader));
}

fn icmp_errors_are_told_from_other_messages<F: Net>() {
    for kind in 0..=255 {
        let about = opening::<F>(UDP).build();
        let mut packet = icmp_error::<F>(&F::addr(200), kind, 0, &about.bytes, 8);
        let is_error = if F::IS_V6 {
            (1..=4).contains(&kind)
        } else {
            [3, 11, 12].contains(&kind)
        };
        assert_eq!(F::is_icmp_error(kind), is_error, "type {kind}");
        match parse::<F, Buffer>(&packet) {
            Parsed::IcmpError(ip) => {
                assert!(is_error, "type {kind}");
                assert_eq!((ip.l4, ip.proto), (F::HEADER_LEN, F::ICMP_PROTO));
            }
            Parsed::Other(PassReason::NotService) => assert!(!is_error, "type {kind}"),
            other => panic!("type {kind}: {other:?}"),
        }
        if is_error && !F::IS_V6 {
            packet.bytes[20] = 0x20;
            amend::<F>(&mut packet.bytes);
            assert_eq!(
                refusal::<F>(&packet),
                Some(PassReason::NotService),
                "a fragment of type {kind}"
            );
        }
    }
}

#[test]
fn other_protocols_are_of_no_service() {
    for proto in [0, 1, 2, 4, 5, 7, 16, 18, 41, 47, 50, 51, 131, 133, 255] {
        let mut packet = opening::<V4>(UDP).build();
        packet.bytes[23] = proto;
        amend::<V4>(&mut packet.bytes);
        if proto != 1 {
            assert_eq!(
                refusal::<V4>(&packet),
                Some(PassReason::NotService),
                "{proto}"
            );
        }
    }
}

cases! {
    a_view_shows_what_the_headers_say
    a_packet_that_is_shorter_than_its_header_says_is_bad
    a_transport_header_is_whole_or_bad
}
families! {
    flags_tell_how_a_connection_stands
    a_view_shows_the_numbers_of_a_connection
    a_transport_header_that_tells_of_too_much_or_too_little_is_bad
    icmp_errors_are_told_from_other_messages
}
