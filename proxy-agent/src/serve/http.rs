//! Requests and answers on one socket. One request per connection: probes and scrapes are rare, and a connection that
//! ends after its answer holds nothing.

use std::{convert::Infallible, net::TcpListener, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net, sync::Semaphore, task::JoinSet, time};
use tracing::{debug, warn};

/// How long a client may take to send its request.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer may take, until its last byte is sent.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// Connections at a time, on one socket; others wait.
const CONNECTIONS: usize = 64;
/// From an accept that failed (no file descriptor left) until the next.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A status, headers and a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: String,
}

impl Answer {
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self::of(
            status,
            HeaderValue::from_static("text/plain; charset=utf-8"),
            body,
        )
    }

    pub fn json(status: StatusCode, body: impl Into<String>) -> Self {
        Self::of(status, HeaderValue::from_static("application/json"), body)
    }

    pub fn of(status: StatusCode, content: HeaderValue, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: vec![
                (CONTENT_TYPE, content),
                (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            ],
            body: body.into(),
        }
    }

    pub fn not_found() -> Self {
        Self::text(StatusCode::NOT_FOUND, "404 page not found\n")
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers);
        response
    }
}

/// Answers every request, of whatever method, by its path. Never ends; dropped, it takes its connections along.
pub async fn serve<F>(listener: TcpListener, answer: impl Fn(String) -> F + Clone + Send + 'static)
where
    F: Future<Output = Answer> + Send + 'static,
{
    let listener = match net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!("a socket cannot be served: {error}"),
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!("accepting a connection: {error}");
                time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let answer = answer.clone();
        connections.spawn(async move {
            let _place = place;
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.uri().path().to_owned());
                async move { Ok::<_, Infallible>(answer.await.response()) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_WITHIN)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            match time::timeout(ANSWERED_WITHIN, connection).await {
                Ok(Ok(())) => {}
                // The client's own affair.
                Ok(Err(error)) => debug!("a connection: {error}"),
                Err(late) => debug!("a connection: {late}"),
            }
        });
    }
}
