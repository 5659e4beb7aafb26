//! Requests over HTTP/1.1.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Result;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time;

use super::aggregation::Aggregator;
use super::asked::Asked;
use super::faults::Verb;
use super::object::Object;
use super::query::Query;
use super::resource::{Resource, Subresource, Target};
use super::status::Refusal;
use super::store::Key;
use super::watch::Watch;
use super::{Shared, discovery, list, openapi, patch, protobuf, scale, table};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Accepts connections for ever.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // An error is of the one connection (accept(2)); the next may be well.
        if let Ok((connection, _)) = listener.accept().await {
            // As servers in Go do: an event is not held back until the one before it is acknowledged.
            let _ = connection.set_nodelay(true);
            tokio::spawn(connection_of(connection, Arc::clone(&shared)));
        }
    }
}

async fn connection_of(connection: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move {
            // An error ends the connection without an answer.
            anyhow::ensure!(!shared.faults().refuses(), "refused by the script");
            Ok(answer(shared, request).await)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(connection), service)
        .await;
    // Clients go as they like, and a script may refuse them: neither is an error here.
    drop(served);
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    shared.asked().insert(Asked::of(&request));
    respond(shared, request).await.unwrap_or_else(|refusal| {
        let mut response = whole(refusal.code, &refusal.status());
        if let Some(seconds) = refusal.retry_after {
            response
                .headers_mut()
                .insert(hyper::header::RETRY_AFTER, seconds.into());
        }
        response
    })
}

async fn respond(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path().to_owned();
    if request.method() == Method::GET
        && let Some(mut document) = discovery::document(&path).or_else(|| openapi::document(&path))
    {
        if let Some(groups) = document.get_mut("groups").and_then(Value::as_array_mut) {
            groups.extend(Aggregator::groups(&shared.store));
        }
        return Ok(whole(200, &document));
    }
    let asked = request.uri().path_and_query();
    let asked = asked.map_or(path.as_str(), |asked| asked.as_str());
    let passed = shared
        .aggregator
        .pass(&shared.store, request.method(), asked);
    if let Some(answer) = passed.await {
        return Ok(answer?.map(|body| body.boxed_unsync()));
    }
    let target = Target::parse(&path)
        .ok_or_else(|| Refusal::new(404, "the server could not find the requested resource"))?;
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    if request.method() == Method::GET {
        let accept = request.headers().get(hyper::header::ACCEPT);
        let accept = accept.and_then(|types| types.to_str().ok());
        let as_table = accept.is_some_and(table::is_wanted);
        return read(shared, target, query, as_table).await;
    }
    let method = request.method().clone();
    let strategic = request
        .headers()
        .get(hyper::header::CONTENT_TYPE)
        .is_some_and(|kind| {
            kind.as_bytes()
                .starts_with(b"application/strategic-merge-patch")
        });
    let kind = request.headers().get(hyper::header::CONTENT_TYPE);
    let protobuf = kind.is_some_and(|kind| kind.as_bytes().ends_with(b"protobuf"));
    let body = request.into_body().collect().await;
    let body = body.map_err(|error| Refusal::new(400, format!("the body: {error}")))?;
    let change = Change {
        method,
        strategic,
        protobuf,
        grace: query.grace,
        body: body.to_bytes(),
    };
    if change.method == Method::PATCH
        && let Some(failure) = shared.faults().take_failure(Verb::Patch, target.resource)
    {
        return Err(failure);
    }
    let mut healed = shared.healed.subscribe();
    if change.method == Method::PATCH && shared.faults().holds(target.resource) {
        // It is on its way, whatever becomes of its client.
        let held = tokio::spawn(async move {
            let _ = healed.changed().await;
            write(&shared, target, &change)
        });
        let written = held.await;
        return written.unwrap_or_else(|error| Err(Refusal::new(500, error.to_string())));
    }
    write(&shared, target, &change)
}

async fn read(
    shared: Arc<Shared>,
    target: Target,
    query: Query,
    as_table: bool,
) -> Result<Response<Body>, Refusal> {
    let resource = target.resource;
    if let (Some(name), false) = (&target.name, query.watch) {
        let key = (target.namespace.clone().unwrap_or_default(), name.clone());
        let object = shared.store.get(resource, &key)?;
        if as_table {
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            let one = std::iter::once(&**object);
            return Ok(whole(200, &table::of(resource, one, &metadata)));
        }
        return Ok(part(200, object, target.subresource));
    }
    let verb = match (query.watch, query.continue_token()) {
        (true, _) => Verb::Watch,
        (false, None) => Verb::List,
        (false, Some(_)) => Verb::Page,
    };
    let failure = shared.faults().take_failure(verb, resource);
    if let Some(failure) = failure {
        return Err(failure);
    }
    if !query.watch {
        let (delay, reversed) = {
            let faults = shared.faults();
            (faults.page_delay(resource), faults.reorders(resource))
        };
        if let Some(delay) = delay {
            time::sleep(delay).await;
        }
        let page = list::list(&shared.store, &target, &query, reversed, as_table)?;
        return Ok(response(200, Full::from(page).boxed_unsync()));
    }
    let watch = Watch::begin(shared, target, query)?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(watch.send(sender));
    let lines = stream::unfold(receiver, |mut receiver| async {
        let line = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(line)), receiver))
    });
    Ok(response(200, StreamBody::new(lines).boxed_unsync()))
}

/// What a request that writes says of how.
struct Change {
    method: Method,
    /// Is a patch strategic?
    strategic: bool,
    /// Is the body protobuf? Else it is JSON.
    protobuf: bool,
    /// The seconds that a deletion leaves the object; nothing where the request names none.
    grace: Option<u64>,
    body: Bytes,
}

impl Change {
    fn parsed(&self) -> Result<Value, Refusal> {
        if self.protobuf {
            return protobuf::read(&self.body);
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Refusal::new(400, format!("the body is no JSON: {error}")))
    }

    /// `old` after a PUT or a PATCH of the object or of a part of it.
    fn applied(
        &self,
        resource: Resource,
        old: &Value,
        subresource: Option<Subresource>,
    ) -> Result<Value, Refusal> {
        let before = match subresource {
            Some(Subresource::Scale) => &scale::of(old),
            Some(Subresource::Status) | None => old,
        };
        let asked = self.parsed()?;
        let asked = match (self.method.as_str(), self.strategic) {
            ("PUT", _) => asked,
            (_, strategic) => {
                let mut new = before.clone();
                if strategic {
                    patch::merge_strategically(&mut new, &asked);
                } else {
                    patch::merge(&mut new, &asked);
                }
                new
            }
        };
        match subresource {
            None => Ok(asked),
            Some(Subresource::Scale) => scale::applied(old, &asked),
            Some(Subresource::Status) => {
                let mut new = old.clone();
                new["status"] = asked["status"].clone();
                // The spec is not heard. Annotations and labels are, but for custom resources
                // (`PrepareForUpdate` in pkg/registry/core/service and in apiextensions-apiserver).
                if !resource.is_custom() {
                    for field in ["annotations", "labels"] {
                        new["metadata"][field] = asked["metadata"][field].clone();
                    }
                }
                new["metadata"]["resourceVersion"] = asked["metadata"]["resourceVersion"].clone();
                Ok(new)
            }
        }
    }
}

fn write(shared: &Shared, target: Target, change: &Change) -> Result<Response<Body>, Refusal> {
    let store = &shared.store;
    let Target {
        resource,
        namespace,
        name,
        subresource,
    } = target;
    let namespace = namespace.unwrap_or_default();
    match (change.method.as_str(), name, subresource) {
        ("POST", None, None) => {
            let object = change.parsed()?;
            let name = object["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            if name.is_empty() || (resource.namespaced() && namespace.is_empty()) {
                return Err(Refusal::new(
                    422,
                    "metadata.name or the path's namespace is missing",
                ));
            }
            let key: Key = (namespace, name);
            Ok(stored(201, store.create(resource, key, object)?))
        }
        ("PUT" | "PATCH", Some(name), subresource) => {
            let written = store.update(resource, (namespace, name), |old| {
                change.applied(resource, old, subresource)
            })?;
            Ok(part(200, written, subresource))
        }
        ("DELETE", Some(name), None) => {
            let key = (namespace, name.clone());
            if resource == Resource::Pods && change.grace != Some(0) {
                // Who runs the pod removes it when it has ended.
                return Ok(stored(
                    200,
                    store.begin_deletion(resource, key, change.grace)?,
                ));
            }
            let gone = store.delete(resource, key)?;
            let details =
                json!({"name": name, "kind": resource.plural(), "uid": gone["metadata"]["uid"]});
            Ok(whole(
                200,
                &json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
                }),
            ))
        }
        (method, ..) => Err(Refusal::new(405, format!("{method} is not served here"))),
    }
}

fn stored(code: u16, object: Arc<Object>) -> Response<Body> {
    response(code, Full::from(object.text().clone()).boxed_unsync())
}

/// What a request that names a part of an object is answered with.
fn part(code: u16, object: Arc<Object>, subresource: Option<Subresource>) -> Response<Body> {
    match subresource {
        Some(Subresource::Scale) => whole(code, &scale::of(&object)),
        Some(Subresource::Status) | None => stored(code, object),
    }
}

fn whole(code: u16, document: &Value) -> Response<Body> {
    response(code, Full::from(document.to_string()).boxed_unsync())
}

fn response(code: u16, body: Body) -> Response<Body> {
    Response::builder()
        .status(code)
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(body)
        .expect("the status is one of HTTP's")
}
