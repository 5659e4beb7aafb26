//! Maps service ids to Service names, for the CLI. The maps hold no names, so the agent writes them to a file.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use proxy_common::abi::ServiceId;
use serde::{Deserialize, Serialize};

use crate::{model::ServicePortKey, state};

/// The names of all services, by id.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Names(pub BTreeMap<u32, Name>);

/// The names of one service port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Name {
    pub namespace: String,
    pub service: String,
    /// Empty for the only port of a service, if it has no name.
    pub port: String,
}

impl Name {
    /// `namespace/service:port`.
    pub fn text(&self) -> String {
        let Self {
            namespace,
            service,
            port,
        } = self;
        if port.is_empty() {
            format!("{namespace}/{service}")
        } else {
            format!("{namespace}/{service}:{port}")
        }
    }
}

impl Names {
    pub fn of<'a>(services: impl Iterator<Item = (ServiceId, &'a ServicePortKey)>) -> Self {
        Self(
            services
                .map(|(id, key)| {
                    let name = Name {
                        namespace: key.service.namespace.to_string(),
                        service: key.service.name.to_string(),
                        port: key.port_name.to_string(),
                    };
                    (id.0, name)
                })
                .collect(),
        )
    }

    /// The names of service `id`; where they are not known, the id stands for them.
    pub fn get(&self, id: ServiceId) -> Name {
        self.0.get(&id.0).cloned().unwrap_or_else(|| Name {
            namespace: "?".to_owned(),
            service: format!("#{id}"),
            port: String::new(),
        })
    }

    /// `namespace/service:port`.
    pub fn text(&self, id: ServiceId) -> String {
        self.get(id).text()
    }

    /// The names in `file`; none where no agent has written it yet.
    pub fn read(file: &Path) -> Result<Self> {
        state::read(file)
    }

    /// Replaces `file`.
    pub fn write(&self, file: &Path) -> Result<()> {
        state::write(file, self)
    }
}
