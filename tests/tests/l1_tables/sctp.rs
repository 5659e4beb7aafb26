//! An SCTP packet of one chunk (RFC 9260 section 3), its CRC32c in full.

use crate::frame::Tcp;

/// The common header and what begins the chunk: type, flags, length, and the initiate tag or a sequence number.
pub const HEADERS: usize = 12 + 8;

const CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

const CHECKSUM: std::ops::Range<usize> = 8..12;

/// The chunk is the one that says of an association what the TCP flags say of a connection.
pub fn packet(ports: [u16; 2], tcp: &Tcp, payload: &[u8]) -> Vec<u8> {
    let (chunk, tag) = match (tcp.syn, tcp.fin, tcp.rst) {
        // INIT, which knows no tag yet, and INIT ACK; SHUTDOWN COMPLETE; ABORT; DATA.
        (true, ..) if !tcp.ack => (1, 0),
        (true, ..) => (2, tcp.acknowledgment),
        (_, true, _) => (14, tcp.acknowledgment),
        (.., true) => (6, tcp.acknowledgment),
        _ => (0, tcp.acknowledgment),
    };
    let mut bytes = Vec::new();
    for port in ports {
        bytes.extend(port.to_be_bytes());
    }
    bytes.extend(u32::to_be_bytes(tag));
    bytes.extend([0; CHECKSUM.end - CHECKSUM.start]);
    bytes.extend([chunk, 0]);
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend(tcp.sequence.to_be_bytes());
    bytes.extend(payload);
    // Chunks end at a multiple of four bytes.
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let checksum = CRC32C.checksum(&bytes);
    bytes[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
    bytes
}
