//! gRPC: its server in the applications' pods, and its client outside.

use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use h2::{RecvStream, client, server};
use http::{HeaderMap, Request, Response, StatusCode};
use libtest_mimic::Trial;
use testbed::patience::patient;

use crate::app::RUNTIME;
use crate::controller::SHOP;
use crate::site::{Place, Site};

pub const SERVICE: &str = "shop.Shop";
const METHOD: &str = "/shop.Shop/Ask";

/// On each connection: nginx ends one with its fifth request.
const CALLS: usize = 4;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

pub fn rows(place: &Place) -> Vec<Trial> {
    vec![place.row("gRPC calls are answered", calls)]
}

fn calls(site: &Site) -> Result<()> {
    for (way, family, words) in site.asked() {
        let to = way.grpc(family);
        let stream = site.client().netns.run(|| TcpStream::connect(to));
        let stream = stream.with_context(|| words.clone())?;
        stream.set_nonblocking(true)?;
        let asked = RUNTIME
            .block_on(async { tokio::time::timeout(patient(LIMIT), ask(stream, &words)).await });
        asked
            .context("in time")
            .and_then(|asked| asked)
            .context(words)?;
    }
    Ok(())
}

/// Calls by one connection; each is answered by a pod, and ends with a status.
async fn ask(stream: TcpStream, words: &str) -> Result<()> {
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let (mut client, connection) = client::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    for call in 0..CALLS {
        client = client.ready().await?;
        let request = Request::post(format!("http://{SHOP}{METHOD}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (response, mut sending) = client.send_request(request, false)?;
        let question = format!("{words}, call {call}");
        sending.send_data(frame(&question), true)?;
        let response = response.await?;
        ensure!(response.status() == StatusCode::OK, "{response:?}");
        let mut body = response.into_body();
        let answer = message(&read(&mut body).await?)?;
        let (pod, echo) = answer.split_once(' ').context("who answered")?;
        ensure!(
            pod.starts_with("shop") && echo == question,
            "another answer: {answer}"
        );
        let trailers = body.trailers().await?.context("no trailers")?;
        ensure!(trailers["grpc-status"] == "0", "{trailers:?}");
    }
    connection.abort();
    Ok(())
}

/// Answers calls until it is dropped.
pub async fn serve(socket: TcpListener, pod: String) {
    let Ok(socket) = tokio::net::TcpListener::from_std(socket) else {
        return;
    };
    while let Ok((stream, _)) = socket.accept().await {
        let pod = pod.clone();
        // An error here is the other end of the connection, which reports it.
        tokio::spawn(async move { drop(serve_connection(stream, &pod).await) });
    }
}

async fn serve_connection(stream: tokio::net::TcpStream, pod: &str) -> Result<()> {
    let mut connection = server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, mut respond) = call?;
        let pod = pod.to_owned();
        // The connection has to go on for the rest of the call to arrive.
        tokio::spawn(async move {
            let question = message(&read(&mut request.into_body()).await?)?;
            let head = Response::builder()
                .header("content-type", "application/grpc")
                .body(())?;
            let mut sending = respond.send_response(head, false)?;
            sending.send_data(frame(&format!("{pod} {question}")), false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse()?);
            sending.send_trailers(trailers)?;
            anyhow::Ok(())
        });
    }
    Ok(())
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

/// A message of one field, a text: protobuf in gRPC's frame, which begins with a flag and four bytes of length.
fn frame(text: &str) -> Bytes {
    assert!(text.len() < 128, "its length is one byte");
    let field = [0x0a, text.len() as u8];
    let length = (field.len() + text.len()) as u32;
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&field);
    frame.extend_from_slice(text.as_bytes());
    frame.into()
}

fn message(frame: &[u8]) -> Result<String> {
    let [0, _, _, _, length, 0x0a, size, text @ ..] = frame else {
        bail!("not a message: {frame:?}");
    };
    ensure!(
        usize::from(*size) == text.len() && usize::from(*length) == text.len() + 2,
        "another length: {frame:?}"
    );
    Ok(String::from_utf8(text.to_vec())?)
}
