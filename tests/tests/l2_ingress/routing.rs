//! Hosts and paths, TLS, kept connections, HTTP/2 and uploads, by every way in.

use std::fs;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::patience::eventually;
use testbed::sockets::client::unique_content;

use crate::app;
use crate::controller::{BLOG, SHOP};
use crate::curl::Curl;
use crate::site::{Place, Site};

const MEBIBYTE: usize = 1 << 20;

pub fn rows(place: &Place) -> Vec<Trial> {
    vec![
        place.row("hosts and paths lead to their applications", routing),
        place.row("each name shows its certificate, and HTTP/2 is spoken", tls),
        place.row("a connection is kept alive", keep_alive),
        place.row(
            "1 MiB goes up through a link narrower than the client knows",
            upload,
        ),
    ]
}

fn routing(site: &Site) -> Result<()> {
    for (way, family, words) in site.asked() {
        for (name, path, app) in [
            (SHOP, "/", Some("shop")),
            (SHOP, "/cart?item=1", Some("shop")),
            (SHOP, "/blog/1", Some("blog")),
            (BLOG, "/", Some("blog")),
            ("nobody.example", "/", None),
        ] {
            let reply = Curl::new(site.client(), name, way.http(family)).get(path);
            let reply = reply.with_context(|| words.clone())?;
            let (status, found) = match app {
                Some(_) => (200, Some(reply.field("app")?)),
                None => (404, None),
            };
            ensure!(
                reply.status == status && found == app,
                "{words}: {name}{path}: {reply:?}"
            );
            if app.is_some() {
                // The controller that is asked there.
                let controller = reply.field("ingress")?;
                let wanted: &[_] = match way.name {
                    "node ports" => &["i1", "i2"],
                    "a load balancer's address" => &["i1"],
                    "the host's network" => &["node1"],
                    _ => &["i3"],
                };
                ensure!(wanted.contains(&controller), "{words}: {reply:?}");
            }
        }
    }
    Ok(())
}

fn tls(site: &Site) -> Result<()> {
    let certificate = |name: &str| site.certificates.certificate(name);
    for (way, family, words) in site.asked() {
        let ask = |name, trusted: &str| {
            let trusted = certificate(trusted);
            let curl = Curl::new(site.client(), name, way.https(family));
            curl.trusting(&trusted).get_all(["/", "/", "/"])
        };
        for (name, app) in [(SHOP, "shop"), (BLOG, "blog")] {
            let replies = ask(name, name).with_context(|| words.clone())?;
            for reply in &replies {
                ensure!(
                    reply.status == 200 && reply.version == "2" && reply.field("app")? == app,
                    "{words}: {name}: {reply:?}"
                );
                ensure!(
                    reply.client == replies[0].client,
                    "{words}: not one connection: {replies:?}"
                );
            }
        }
        let wrong = ask(SHOP, BLOG);
        let refused = wrong.is_err_and(|error| format!("{error:#}").contains("certificate"));
        ensure!(refused, "{words}: one certificate serves both names");
    }
    Ok(())
}

fn keep_alive(site: &Site) -> Result<()> {
    for (way, family, words) in site.asked() {
        let curl = site.curl(site.client(), way, family);
        let replies = curl.get_all(["/1", "/2", "/blog/3", "/4"]);
        let replies = replies.with_context(|| words.clone())?;
        let first = &replies[0];
        for reply in &replies {
            ensure!(
                reply.client == first.client && reply.version == "1.1",
                "{words}: not one connection: {replies:?}"
            );
            ensure!(
                reply.field("ingress")? == first.field("ingress")?,
                "{words}: a connection went elsewhere: {replies:?}"
            );
        }
    }
    Ok(())
}

fn upload(site: &Site) -> Result<()> {
    let directory = site.cluster.topology.run.directory("uploads")?;
    for (number, (way, family, words)) in site.asked().enumerate() {
        let content = unique_content(MEBIBYTE);
        let file = directory.join(format!("{}{number}", way.name.replace(' ', "-")));
        fs::write(&file, &content)?;
        let body = format!("@{}", file.display());
        let sum = app::crc(&content).to_string();
        let curl = site.curl(site.client(), way, family);
        let curl = curl.with(&["--data-binary", &body]);
        // To each of the controllers that may serve it, and by each to both pods of the application.
        let mut missing = match way.name {
            "node ports" => vec!["i1 shop1", "i1 shop2", "i2 shop1", "i2 shop2"],
            "a load balancer's address" => vec!["i1 shop1", "i1 shop2"],
            _ => Vec::new(),
        };
        eventually(&format!("{words}: all pods take it"), || {
            let reply = curl.get("/upload")?;
            let length = MEBIBYTE.to_string();
            ensure!(
                reply.status == 200
                    && reply.field("length")? == length
                    && reply.field("sum")? == sum,
                "it came as another: {reply:?}"
            );
            let took = format!("{} {}", reply.field("ingress")?, reply.field("pod")?);
            missing.retain(|pair| *pair != took);
            ensure!(missing.is_empty(), "none to {missing:?} yet");
            Ok(())
        })?;
    }
    Ok(())
}
