//! One copy of each text that many objects repeat: namespaces, names of nodes, ports and zones.
//!
//! An endpoint names its node; of a quarter of a million endpoints each would hold the name for itself. The rule: what comes out of
//! the pool equals what went in, and nothing is kept that no object holds, once the pool has twice what it had after the last look.

use std::{collections::HashSet, sync::Arc};

use super::{EndpointSlice, ObjectName, Service};

/// Below this many texts nobody looks for those that are not held any more.
const FEW: usize = 1024;

#[derive(Default, Debug)]
pub struct Pool {
    texts: HashSet<Arc<str>>,
    /// How many texts were held at the last look.
    held: usize,
}

impl Pool {
    /// Shares the texts of `service` with those of other objects.
    pub fn share_service(&mut self, service: &mut Service) {
        self.share_namespace(&mut service.name);
        for port in &mut service.ports {
            self.share(&mut port.name);
        }
    }

    /// The same for a slice.
    pub fn share_slice(&mut self, slice: &mut EndpointSlice) {
        self.share_namespace(&mut slice.name);
        for port in &mut slice.ports {
            self.share(&mut port.name);
        }
        for endpoint in &mut slice.endpoints {
            let hints = endpoint
                .zone_hints
                .iter_mut()
                .chain(&mut endpoint.node_hints);
            hints
                .chain(&mut endpoint.node)
                .for_each(|text| self.share(text));
        }
    }

    fn share_namespace(&mut self, name: &mut ObjectName) {
        self.share(&mut name.namespace);
    }

    fn share(&mut self, text: &mut Arc<str>) {
        match self.texts.get(&**text) {
            Some(known) => *text = Arc::clone(known),
            None => {
                self.tidy();
                self.texts.insert(Arc::clone(text));
            }
        }
    }

    fn tidy(&mut self) {
        if self.texts.len() >= FEW.max(2 * self.held) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.held = self.texts.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_become_one() {
        let mut pool = Pool::default();
        let [mut one, mut other]: [Arc<str>; 2] = ["node1".into(), "node1".into()];
        pool.share(&mut one);
        pool.share(&mut other);
        assert!(Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn what_no_object_holds_is_not_kept() {
        let mut pool = Pool::default();
        let mut kept: Arc<str> = "kept".into();
        pool.share(&mut kept);
        for number in 0..10 * FEW {
            pool.share(&mut number.to_string().into());
        }
        assert!(pool.texts.len() <= FEW, "{}", pool.texts.len());
        assert!(pool.texts.contains("kept"));
    }
}
