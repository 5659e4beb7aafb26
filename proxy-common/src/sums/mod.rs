//! Checksums: the internet checksum, and SCTP's CRC32c. They know no packet.

pub mod crc32c;
pub mod internet;
