//! Requests and answers on one socket. One request per connection: probes and scrapes are rare, and a connection that
//! ends after its answer holds nothing. Who may be connected is for `room` to say.

use std::{
    convert::Infallible,
    net::TcpListener,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net, net::TcpStream, sync::oneshot, task::JoinSet, time};
use tracing::{debug, warn};

use super::room::{Permit, Room};

/// How long a client may take to send its request.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer may take, until its last byte is sent.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// The largest request, its headers included; what is larger is answered by 431.
const REQUEST_BYTES: usize = 16 * 1024;
/// That connections were turned away is said at most this often.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// From an accept that failed (no file descriptor left) until the next.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What a request asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    pub path: String,
    /// The types that its client takes, as the header `Accept` has them; empty for none.
    pub accept: String,
}

impl Asked {
    fn by<B>(request: &Request<B>) -> Self {
        let accept = request.headers().get_all(ACCEPT).iter();
        let accept: Vec<_> = accept.filter_map(|types| types.to_str().ok()).collect();
        Self {
            path: request.uri().path().to_owned(),
            accept: accept.join(","),
        }
    }
}

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
pub async fn serve<F>(
    listener: TcpListener,
    room: Room,
    answer: impl Fn(Asked) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Answer> + Send + 'static,
{
    let listener = match net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!("a socket cannot be served: {error}"),
    };
    let mut connections = JoinSet::new();
    let mut said: Option<Instant> = None;
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!("accepting a connection: {error}");
                room.make_room();
                time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // Where the connection has ended already there is no address.
        let Ok(own) = stream.local_addr() else {
            continue;
        };
        if let Some((permit, leave)) = room.enter(peer, own) {
            connections.spawn(converse(stream, permit, leave, answer.clone()));
        }
        if said.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
            let turned_away = room.take_turned_away();
            if turned_away > 0 {
                said = Some(Instant::now());
                warn!(
                    "port {}: {turned_away} connections turned away, as their clients had more of them than their share \
                     or sent no request (the last came from {})",
                    own.port(),
                    peer.ip().to_canonical()
                );
            }
        }
    }
}

/// One connection, until it is answered, late, or has to go.
async fn converse<F>(
    stream: TcpStream,
    permit: Permit,
    leave: oneshot::Receiver<()>,
    answer: impl Fn(Asked) -> F,
) where
    F: Future<Output = Answer>,
{
    let service = service_fn(|request: Request<Incoming>| {
        permit.is_asking();
        let answer = answer(Asked::by(&request));
        async move { Ok::<_, Infallible>(answer.await.response()) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .max_buf_size(REQUEST_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let has_to_leave = async {
        if leave.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        served = time::timeout(ANSWERED_WITHIN, connection) => match served {
            Ok(Ok(())) => {}
            // The client's own affair.
            Ok(Err(error)) => debug!("a connection: {error}"),
            Err(late) => debug!("a connection: {late}"),
        },
        () = has_to_leave => {}
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, SocketAddr, TcpStream},
        thread,
    };

    use super::*;
    use crate::serve::room::Limits;

    const LIMITS: Limits = Limits {
        client: 4,
        outside: 8,
        inside: 8,
    };

    /// A server of its own thread, which ends with the process.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .unwrap()
                .block_on(serve(listener, Room::new(LIMITS), |asked| async {
                    Answer::text(StatusCode::OK, asked.path)
                }));
        });
        at
    }

    fn send(at: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(at).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        // The server may have had enough before all is sent.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    const GOOD: &[u8] = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn connections_without_a_request_keep_nobody_from_an_answer() {
        let at = server();
        let slow: Vec<_> = (0..200)
            .map(|_| {
                let mut stream = TcpStream::connect(at).unwrap();
                stream.write_all(b"GET /livez HTTP/1.1\r\nHost:").unwrap();
                stream
            })
            .collect();
        let began = Instant::now();
        let answer = send(at, GOOD);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(began.elapsed() < REQUEST_WITHIN, "{:?}", began.elapsed());
        drop(slow);
    }

    #[test]
    fn requests_that_are_malformed_or_too_large_are_refused() {
        let at = server();
        let header = |bytes: usize| {
            let value = "a".repeat(bytes);
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n").into_bytes()
        };
        for (what, request, status) in [
            (
                "no HTTP",
                b"\x16\x03\x01\x02\x00\x01\r\n\r\n".to_vec(),
                "400",
            ),
            (
                "a header without a name",
                b"GET / HTTP/1.1\r\n: a\r\n\r\n".to_vec(),
                "400",
            ),
            ("a large header", header(REQUEST_BYTES), "431"),
            (
                "a large path",
                format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(REQUEST_BYTES)).into_bytes(),
                "4",
            ),
            (
                "a body that does not come",
                b"POST / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n".to_vec(),
                "200",
            ),
            ("a header that fits", header(1000), "200"),
        ] {
            let answer = send(at, &request);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{what}: {answer:?}"
            );
        }
        assert!(send(at, GOOD).starts_with("HTTP/1.1 200"));
    }
}
