//! Writes: addresses into the status of Services, counts into that of pools.
//!
//! The one rule: a status is written at the version of the Service that was decided about, and whether a write that got no
//! answer was made is found out before anything else is ([`fence`]).

use std::{net::IpAddr, time::Duration};

use http::Request;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::debug;

use crate::{
    balancer::{allot::Given, crd::IPAddressPoolStatus, demand::FROM_POOL, object::Service},
    model::ObjectName,
};

/// A write that is not answered by then may have been made or not.
const PATIENCE: Duration = Duration::from_secs(10);
/// Is in a Service that was changed for the sake of its version.
pub const FENCE: &str = "portside.io/fence";

/// What became of a write.
#[derive(Debug)]
pub enum Written {
    /// It was made; this is the object now.
    Done(Box<Service>, String),
    /// It was not, and will not be: the object is another one, or the server does not want it.
    Refused { code: u16, message: String },
    /// Nobody knows.
    InDoubt(String),
}

/// What a Service has to say, where that differs from what it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub given: Option<Given>,
}

impl Wanted {
    /// Does the Service say it?
    pub fn is_said(&self, service: &Service) -> bool {
        let annotations = service.metadata.annotations.as_ref();
        let annotation = |name: &str| {
            annotations
                .and_then(|all| all.get(name))
                .map(String::as_str)
        };
        let (addresses, pool): (&[IpAddr], _) = match &self.given {
            Some(given) => (&given.addresses, Some(&*given.pool)),
            None => (&[], None),
        };
        service.addresses() == addresses
            && annotation(FROM_POOL) == pool
            && annotation(FENCE).is_none()
    }

    fn patch(&self, version: &str) -> Value {
        let given = self.given.as_ref();
        let ingress = given.map(|given| {
            let all = given.addresses.iter().map(|address| json!({"ip": address}));
            all.collect::<Vec<_>>()
        });
        json!({
            "metadata": {
                "resourceVersion": version,
                "annotations": {FROM_POOL: given.map(|given| &*given.pool), FENCE: null},
            },
            "status": {"loadBalancer": {"ingress": ingress}},
        })
    }
}

/// Writes what a Service is to say, if it still is of this version.
pub async fn status(client: &Client, name: &ObjectName, wanted: &Wanted, version: &str) -> Written {
    patch(client, name, &wanted.patch(version)).await
}

async fn patch(client: &Client, name: &ObjectName, change: &Value) -> Written {
    let path = format!(
        "/api/v1/namespaces/{}/services/{}/status",
        name.namespace, name.name
    );
    let request = Request::patch(path)
        .header("Content-Type", "application/merge-patch+json")
        .body(change.to_string().into_bytes())
        .expect("names of objects are those of paths");
    match timeout(PATIENCE, client.request::<Value>(request)).await {
        Err(_) => Written::InDoubt(format!("no answer within {PATIENCE:?}")),
        Ok(Ok(object)) => {
            let version = object["metadata"]["resourceVersion"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            match serde_json::from_value(object) {
                Ok(object) => Written::Done(Box::new(object), version),
                Err(error) => Written::InDoubt(format!("an answer that is no Service: {error}")),
            }
        }
        Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) => {
            Written::Refused {
                code: status.code,
                message: status.message.clone(),
            }
        }
        Ok(Err(error)) => Written::InDoubt(error.to_string()),
    }
}

/// Changes a Service, so that no write of an earlier version is taken any more. Done where there is no such Service, too.
pub async fn fence(client: &Client, name: &ObjectName, mark: &str) -> Result<(), String> {
    loop {
        let path = format!(
            "/api/v1/namespaces/{}/services/{}",
            name.namespace, name.name
        );
        let request = Request::get(path)
            .body(Vec::new())
            .expect("names of objects are those of paths");
        let object = match timeout(PATIENCE, client.request::<Value>(request)).await {
            Err(_) => return Err(format!("no answer within {PATIENCE:?}")),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Ok(()),
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(object)) => object,
        };
        let change = json!({"metadata": {
            "resourceVersion": object["metadata"]["resourceVersion"],
            "annotations": {FENCE: mark},
        }});
        match patch(client, name, &change).await {
            Written::Done(..) | Written::Refused { code: 404, .. } => return Ok(()),
            // Somebody changed it, which does as well, but a late write may be what did.
            Written::Refused { code: 409, .. } => debug!("{name} changes: fenced again"),
            Written::Refused { message, .. } | Written::InDoubt(message) => return Err(message),
        }
    }
}

/// Writes the counts of a pool.
pub async fn counts(
    client: &Client,
    name: &ObjectName,
    counts: &IPAddressPoolStatus,
) -> Result<(), String> {
    let path = format!(
        "/apis/metallb.io/v1beta1/namespaces/{}/ipaddresspools/{}/status",
        name.namespace, name.name
    );
    let request = Request::patch(path)
        .header("Content-Type", "application/merge-patch+json")
        .body(json!({"status": counts}).to_string().into_bytes())
        .expect("names of objects are those of paths");
    match timeout(PATIENCE, client.request::<Value>(request)).await {
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        Ok(Ok(_)) => Ok(()),
        // It is gone.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
    }
}
