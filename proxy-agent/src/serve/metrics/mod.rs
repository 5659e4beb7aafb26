//! `/metrics`, in the OpenMetrics text that Prometheus reads, or in its older format.
//!
//! | file | subject |
//! |---|---|
//! | `measured` | what the loop measured; kube-proxy's names where the thing is the same |
//! | `datapath` | what the maps hold, read at each scrape |
//! | `unserved` | what is left out for want of room |
//! | `totals` | sums over backends that never fall while a backend goes |
//! | `classic` | the older text format |
//! | `process` | memory and processor time of the agent |

mod classic;
mod datapath;
mod measured;
mod process;
mod totals;
mod unserved;

use std::{
    fmt::{self, Write},
    sync::Arc,
};

use hyper::{StatusCode, header::HeaderValue};
use prometheus_client::{encoding::text, registry::Registry};

use self::datapath::Datapath;
use super::{Status, http::Answer};
use crate::datapath::PinDir;

pub use self::measured::{Metrics, Probe};

const CONTENT: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

const CLASSIC: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// All that is exposed.
pub struct Exposition {
    status: Arc<Status>,
    datapath: Registry,
}

impl Exposition {
    pub fn new(status: Arc<Status>, pins: PinDir) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Datapath::new(Arc::clone(&status), pins)));
        registry.register_collector(Box::new(unserved::LeftOut(Arc::clone(&status))));
        Self {
            status,
            datapath: registry,
        }
    }

    /// All metrics, in a format that a client takes which accepts the types in `accept`.
    pub fn answer(&self, accept: &str) -> Answer {
        match self.text() {
            Ok(text) if classic::wants_open_metrics(accept) => {
                Answer::of(StatusCode::OK, CONTENT, text)
            }
            Ok(text) => Answer::of(StatusCode::OK, CLASSIC, classic::text(&text)),
            Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let metrics = &self.status.metrics;
        metrics.set_notices(self.status.notices().counts());
        metrics.encode(&mut text)?;
        text::encode_registry(&mut text, &self.datapath)?;
        text::encode_eof(&mut text)?;
        Ok(text)
    }
}

impl Metrics {
    /// What was measured, as text without an end mark.
    pub fn encode(&self, text: &mut impl Write) -> fmt::Result {
        text::encode_registry(text, self.registry())
    }

    #[cfg(test)]
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        self.encode(&mut text)?;
        Ok(text)
    }
}
