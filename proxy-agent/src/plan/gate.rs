//! The gate's bits. They are only ever added.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use proxy_common::{
    abi::gate::{self, Bit},
    addr::{Be16, Ip4, Ip6},
};

use super::{FrontendAt, Op};

#[derive(Debug)]
pub struct Gate {
    words: Vec<u64>,
    changed: BTreeSet<u32>,
}

impl Gate {
    /// A gate with the bits of `found`.
    pub fn new(found: &[u64]) -> Self {
        let mut words = found.to_vec();
        words.resize(gate::WORDS as usize, 0);
        Self {
            words,
            changed: BTreeSet::new(),
        }
    }

    pub fn open_frontend(&mut self, at: FrontendAt) {
        self.open(match at {
            FrontendAt::Port { addr, .. } | FrontendAt::WholeAddress(addr) => match addr {
                IpAddr::V4(addr) => gate::service_addr(&Ip4::from(addr)),
                IpAddr::V6(addr) => gate::service_addr(&Ip6::from(addr)),
            },
            FrontendAt::NodePort { port, protocol, .. } => {
                gate::node_port(protocol.number(), Be16::new(port))
            }
        });
    }

    pub fn open_backend(&mut self, socket: SocketAddr) {
        self.open(match socket.ip() {
            IpAddr::V4(addr) => gate::backend_addr(&Ip4::from(addr)),
            IpAddr::V6(addr) => gate::backend_addr(&Ip6::from(addr)),
        });
        self.open(gate::backend_port(Be16::new(socket.port())));
    }

    /// The words that changed since the last call.
    pub fn take_ops(&mut self) -> Vec<Op> {
        std::mem::take(&mut self.changed)
            .into_iter()
            .map(|word| Op::Gate {
                word,
                bits: self.words[word as usize],
            })
            .collect()
    }

    fn open(&mut self, Bit { word, mask }: Bit) {
        let bits = &mut self.words[word as usize];
        if *bits & mask == 0 {
            *bits |= mask;
            self.changed.insert(word);
        }
    }
}
