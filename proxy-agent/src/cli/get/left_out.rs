//! One row per Service that there is no room for, or not for all of it.

use anyhow::Result;
use serde::Serialize;

use super::Named;
use crate::{
    cli::output::Row,
    serve::Unserved,
    state::{self, Place},
};

#[derive(PartialEq, Eq, Debug, Serialize)]
#[serde(transparent)]
pub struct LeftOutRow(Unserved);

pub fn rows(place: &Place, namespace: Option<&str>) -> Result<Vec<LeftOutRow>> {
    let all: Vec<Unserved> = state::read(&place.left_out())?;
    let of_namespace = |one: &Unserved| namespace.is_none_or(|wanted| one.namespace == wanted);
    Ok(all
        .into_iter()
        .filter(of_namespace)
        .map(LeftOutRow)
        .collect())
}

impl Row for LeftOutRow {
    const KIND: &'static str = "LeftOut";
    const COLUMNS: &'static [&'static str] = &[
        "NAMESPACE",
        "NAME",
        "PORTS",
        "ADDRESSES",
        "RANGES",
        "ENDPOINTS",
        "LISTS",
        "REASON",
    ];

    fn cells(&self) -> Vec<String> {
        let Self(Unserved {
            namespace,
            service,
            ports,
            addresses,
            ranges,
            endpoints,
            lists,
            reason,
        }) = self;
        vec![
            namespace.clone(),
            service.clone(),
            ports.to_string(),
            addresses.to_string(),
            ranges.to_string(),
            endpoints.to_string(),
            lists.to_string(),
            reason.clone(),
        ]
    }
}

impl Named for LeftOutRow {
    const COUNTS: &'static [&'static str] = &[];

    fn key(&self) -> String {
        format!("{}/{}", self.0.namespace, self.0.service)
    }

    fn service(&self) -> &str {
        &self.0.service
    }
}
