//! The API server itself, driven by plain HTTP and by kubectl: what an agent is tested on has to be right without it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use api_server::ApiServer;
use api_server::client::Client;
use serde_json::{Value, json};
use testbed::cli;
use testbed::runner::{self, row};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn main() -> ExitCode {
    runner::main(vec![
        row("pages_are_of_one_snapshot", None, pages),
        row("a_watch_shows_selector_transitions", None, transitions),
        row("initial_events_end_with_a_bookmark", None, initial_events),
        row("gone_is_a_status_and_an_event", None, gone),
        row("faults_of_lists_and_watches", None, faults),
        row("refused_requests_get_no_answer", None, refused),
        row(
            "a_killed_server_comes_back_with_what_it_stored",
            None,
            killed,
        ),
        row("a_silent_watch_stays_open", None, silence),
        row("a_page_fails_behind_a_good_one", None, bad_page),
        row(
            "kubectl_applies_exposes_and_deletes",
            cli::no_kubectl(),
            kubectl_drives_it,
        ),
    ])
}

fn start() -> Result<ApiServer> {
    ApiServer::serve(TcpListener::bind("127.0.0.1:0")?)
}

fn call(server: &ApiServer, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
    Client::here(server.address()).call(method, path, body)
}

fn get(server: &ApiServer, path: &str) -> Result<(u16, Value)> {
    call(server, "GET", path, &json!({}))
}

fn create(server: &ApiServer, name: &str) -> Result<Value> {
    let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    let (code, made) = call(server, "POST", SERVICES, &service)?;
    ensure!(code == 201, "{code}: {made}");
    Ok(made)
}

fn watch(server: &ApiServer, query: &str) -> Result<BufReader<TcpStream>> {
    let path = format!("/api/v1/services?watch=true&{query}");
    let answer = Client::here(server.address()).send("GET", &path, "")?;
    ensure!(answer.code == 200, "{}", answer.head);
    Ok(answer.body)
}

/// The next event's type and object; nothing at the end.
fn event(events: &mut BufReader<TcpStream>) -> Result<Option<(String, Value)>> {
    let mut line = String::new();
    if events.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut event: Value = serde_json::from_str(&line)?;
    let kind = event["type"].as_str().context("no type")?.to_owned();
    Ok(Some((kind, event["object"].take())))
}

fn expect(events: &mut BufReader<TcpStream>, kind: &str, name: &str) -> Result<Value> {
    let (seen, object) = event(events)?.context("the watch has ended")?;
    ensure!(
        seen == kind && object["metadata"]["name"] == name,
        "{seen} {object}, not {kind} {name}"
    );
    Ok(object)
}

fn pages() -> Result<()> {
    let server = start()?;
    for name in ["a", "b", "c"] {
        create(&server, name)?;
    }
    let (_, first) = get(&server, "/api/v1/services?limit=2")?;
    ensure!(
        first["items"].as_array().map(Vec::len) == Some(2),
        "{first}"
    );
    ensure!(first["metadata"]["remainingItemCount"] == 1, "{first}");
    let token = first["metadata"]["continue"]
        .as_str()
        .context("no token")?
        .to_owned();
    create(&server, "d")?;
    call(&server, "DELETE", &format!("{SERVICES}/c"), &json!({}))?;
    let next = format!("/api/v1/services?limit=2&continue={token}");
    let (_, second) = get(&server, &next)?;
    let names: Vec<_> = second["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| &one["metadata"]["name"])
        .collect();
    ensure!(names == ["c"], "{second}");
    ensure!(second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]);
    server.script("gone")?;
    let (code, status) = get(&server, &next)?;
    ensure!(code == 410 && status["reason"] == "Expired", "{status}");
    Ok(())
}

fn transitions() -> Result<()> {
    let server = start()?;
    let made = create(&server, "a")?;
    let version = made["metadata"]["resourceVersion"]
        .as_str()
        .context("no version")?
        .to_owned();
    let mut events = watch(
        &server,
        &format!("resourceVersion={version}&labelSelector=!skip"),
    )?;
    let patch = |labels: Value| {
        call(
            &server,
            "PATCH",
            &format!("{SERVICES}/a"),
            &json!({"metadata": {"labels": labels}}),
        )
    };
    patch(json!({"app": "x"}))?;
    expect(&mut events, "MODIFIED", "a")?;
    let (_, hidden) = patch(json!({"skip": "yes"}))?;
    let last = expect(&mut events, "DELETED", "a")?;
    ensure!(
        last["metadata"]["resourceVersion"] == hidden["metadata"]["resourceVersion"],
        "{last}"
    );
    patch(json!({"skip": null}))?;
    expect(&mut events, "ADDED", "a")?;
    call(&server, "DELETE", &format!("{SERVICES}/a"), &json!({}))?;
    expect(&mut events, "DELETED", "a")?;
    Ok(())
}

fn initial_events() -> Result<()> {
    let server = start()?;
    create(&server, "a")?;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=2";
    let mut events = watch(&server, query)?;
    expect(&mut events, "ADDED", "a")?;
    let (kind, mark) = event(&mut events)?.context("no bookmark")?;
    ensure!(
        kind == "BOOKMARK"
            && mark["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true",
        "{mark}"
    );
    let (kind, mark) = event(&mut events)?.context("no second bookmark")?;
    ensure!(
        kind == "BOOKMARK" && mark["metadata"]["annotations"] == json!({}),
        "{mark}"
    );
    while event(&mut events)?.is_some() {}
    Ok(())
}

fn gone() -> Result<()> {
    let server = start()?;
    let made = create(&server, "a")?;
    let version = made["metadata"]["resourceVersion"]
        .as_str()
        .context("no version")?
        .to_owned();
    let mut events = watch(&server, &format!("resourceVersion={version}"))?;
    server.script("gone")?;
    let (kind, status) = event(&mut events)?.context("no event")?;
    ensure!(kind == "ERROR" && status["code"] == 410, "{kind} {status}");
    ensure!(event(&mut events)?.is_none(), "the watch goes on");
    let (code, _) = get(
        &server,
        &format!("/api/v1/services?watch=true&resourceVersion={version}"),
    )?;
    ensure!(code == 410);
    Ok(())
}

fn faults() -> Result<()> {
    let server = start()?;
    server.script("fail list services 503 x1 retry-after 7\nduplicate services\ncut watch services after 2 events")?;
    let answer = Client::here(server.address()).send("GET", "/api/v1/services", "")?;
    let (code, head) = (answer.code, answer.head);
    ensure!(code == 503 && head.contains("retry-after: 7"), "{head}");
    ensure!(get(&server, "/api/v1/services")?.0 == 200);
    create(&server, "a")?;
    server.script("malformed services/default/bad")?;
    let mut events = watch(&server, "")?;
    for name in ["a", "a", "bad", "bad"] {
        expect(&mut events, "ADDED", name)?;
    }
    ensure!(event(&mut events)?.is_none(), "the watch was not cut");
    server.script("heal\nreorder services")?;
    let (_, list) = get(&server, "/api/v1/services")?;
    ensure!(
        list["items"][0]["metadata"]["name"] == "bad" && list["items"][0]["spec"] == "malformed",
        "{list}"
    );
    Ok(())
}

fn refused() -> Result<()> {
    let server = start()?;
    server.script("refuse for 60s")?;
    ensure!(get(&server, "/version").is_err(), "it answered");
    server.script("heal")?;
    ensure!(get(&server, "/version")?.0 == 200);
    Ok(())
}

fn killed() -> Result<()> {
    let server = start()?;
    let made = create(&server, "a")?;
    let mut events = watch(&server, "")?;
    expect(&mut events, "ADDED", "a")?;
    server.stop();
    ensure!(
        !matches!(event(&mut events), Ok(Some(_))),
        "the watch goes on"
    );
    ensure!(get(&server, "/version").is_err(), "it answered");
    server.resume(TcpListener::bind(server.address())?)?;
    let (code, same) = get(&server, &format!("{SERVICES}/a"))?;
    ensure!(code == 200 && same == made, "{same}");
    let version = |object: &Value| -> Option<u64> {
        let version = object["metadata"]["resourceVersion"].as_str()?;
        version.parse().ok()
    };
    let next = create(&server, "b")?;
    ensure!(version(&next) > version(&made), "{next}");
    Ok(())
}

fn silence() -> Result<()> {
    let server = start()?;
    let mut events = watch(&server, "allowWatchBookmarks=true")?;
    server.script("silence\nheal")?;
    create(&server, "a")?;
    let stream = events.get_ref();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(3)))?;
    let waited = event(&mut events);
    let waited = waited.map_err(|error| error.downcast::<std::io::Error>());
    ensure!(
        matches!(&waited, Err(Ok(error)) if error.kind() == std::io::ErrorKind::WouldBlock),
        "{waited:?}"
    );
    let mut others = watch(&server, "")?;
    expect(&mut others, "ADDED", "a").map(drop)
}

fn bad_page() -> Result<()> {
    let server = start()?;
    for name in ["a", "b"] {
        create(&server, name)?;
    }
    server.script("fail page services 503 x1")?;
    let (code, first) = get(&server, "/api/v1/services?limit=1")?;
    ensure!(code == 200, "{first}");
    let token = first["metadata"]["continue"].as_str();
    let next = format!(
        "/api/v1/services?limit=1&continue={}",
        token.context("no token")?
    );
    ensure!(get(&server, &next)?.0 == 503);
    ensure!(get(&server, &next)?.0 == 200);
    Ok(())
}

fn kubectl_drives_it() -> Result<()> {
    let server = start()?;
    let kubectl = |arguments: &[&str], input: &Value| -> Result<String> {
        let mut child = Command::new(cli::kubectl())
            .args([
                "--server",
                &server.url(),
                "--kubeconfig",
                "/dev/null",
                "--cache-dir",
                "/dev/null/none",
            ])
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .context("stdin is piped")?
            .write_all(input.to_string().as_bytes())?;
        let ran = child.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&ran.stderr);
        ensure!(ran.status.success(), "kubectl {arguments:?}: {complaint}");
        Ok(String::from_utf8(ran.stdout)?)
    };
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let apply = ["apply", "-f", "-"];
    kubectl(&apply, &service)?;
    service["spec"]["ports"][0]["targetPort"] = 8080.into();
    kubectl(&apply, &service)?;
    kubectl(
        &[
            "expose",
            "service",
            "web",
            "--name=out",
            "--type=NodePort",
            "--port=81",
        ],
        &json!({}),
    )?;
    let (_, web) = get(&server, &format!("{SERVICES}/web"))?;
    ensure!(
        web["spec"]["ports"] == json!([{"port": 80, "protocol": "TCP", "targetPort": 8080}]),
        "{web}"
    );
    let (_, out) = get(&server, &format!("{SERVICES}/out"))?;
    ensure!(out["spec"]["ports"][0]["nodePort"] == 30000, "{out}");
    let listed = kubectl(&["get", "svc", "-o", "name"], &json!({}))?;
    ensure!(listed == "service/out\nservice/web\n", "{listed}");
    kubectl(&["delete", "service", "web"], &json!({}))?;
    ensure!(get(&server, &format!("{SERVICES}/web"))?.0 == 404);
    Ok(())
}
