//! Values that the chart refuses, and whether it says which.

use anyhow::{Result, bail, ensure};
use deploy::programs::Release;
use libtest_mimic::Trial;
use testbed::runner::row;

/// Values, and words of the refusal.
const REFUSED: [(&str, &str); 17] = [
    // As older charts were used: it would take `run --node-name` out of the command line.
    (
        "{args: [--api-servers=https://192.0.2.1:6443]}",
        "'args' not allowed",
    ),
    (
        "{apiServer: 'https://192.0.2.1:6443'}",
        "'apiServer' not allowed",
    ),
    ("{healthz: {prot: 1}}", "'prot' not allowed"),
    ("{image: portside:0.1.0}", "/image"),
    ("{image: {digest: 'sha256:abc'}}", "/image/digest"),
    ("{apiServers: [192.0.2.1:6443]}", "/apiServers/0"),
    // clap takes a flag once.
    ("{extraArgs: [--healthz-bind=0.0.0.0:1]}", "/extraArgs/0"),
    (
        "{extraArgs: [--api-servers, 'https://192.0.2.1']}",
        "/extraArgs/0",
    ),
    ("{extraArgs: ['--xdp off', '-v']}", "/extraArgs/0"),
    ("{healthz: {port: 0}}", "/healthz/port"),
    ("{metrics: {address: localhost}}", "/metrics/address"),
    (
        "{metrics: {port: 10256}}",
        "healthz.port and metrics.port are both 10256",
    ),
    ("{podMonitor: {enabled: true}}", "set metrics.address"),
    (
        "{podMonitor: {enabled: true}, metrics: {enabled: false}}",
        "nothing to read",
    ),
    ("{serviceAccount: {create: false}}", "serviceAccount.name"),
    ("{updateStrategy: {type: Recreate}}", "/updateStrategy/type"),
    ("{log: {level: verbose}}", "/log/level"),
];

pub fn rows(missing: Option<&'static str>) -> Vec<Trial> {
    REFUSED
        .into_iter()
        .map(|(values, words)| {
            row(format!("refused: {values}"), missing, move || {
                refused(values, words)
            })
        })
        .collect()
}

fn refused(values: &str, words: &str) -> Result<()> {
    match Release::USUAL.render(values) {
        Ok(text) => bail!("it was rendered:\n{text}"),
        Err(error) => {
            let error = format!("{error:#}");
            ensure!(error.contains(words), "{error}");
            Ok(())
        }
    }
}
