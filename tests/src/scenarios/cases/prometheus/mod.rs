//! HTTP, with curl, and with Prometheus and Alertmanager as Debian packages them.

pub mod alerts;
pub mod tls;
pub mod web;
mod webhook;

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::programs::output;
use crate::guest;

/// Where the daemon serves unless told otherwise.
pub const ADDRESS: &str = "127.0.0.1:9746";
/// A Go program in a guest that is 20 times slower than the machine takes a while to be ready.
const START: Duration = Duration::from_secs(120);

/// What curl got: status (0 if there was no answer), body, and what it said.
pub struct Got {
    pub status: u32,
    pub body: String,
    pub error: String,
}

/// Asks with curl.
pub fn curl(arguments: &[&str]) -> Result<Got> {
    let format = ["-sS", "-m", "20", "-o", "/tmp/curl-body", "-w", "%{http_code}"];
    let _ = fs::remove_file("/tmp/curl-body");
    let (_, status, error) = output("curl", &[&format[..], arguments].concat())?;
    let body = String::from_utf8_lossy(&fs::read("/tmp/curl-body").unwrap_or_default()).into_owned();
    Ok(Got { status: status.trim().parse().unwrap_or(0), body, error })
}

/// Waits until something is as wanted. A server that does not answer yet is asked again, too.
pub fn eventually<T>(patience: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    guest::eventually(patience, || Ok(ask()))
}

/// A server that ends with this.
pub struct Server {
    child: Child,
    address: &'static str,
    name: &'static str,
}

impl Server {
    /// Starts one and waits until it is ready.
    fn start(name: &'static str, address: &'static str, arguments: &[&str]) -> Result<Self> {
        let path = format!("/tmp/{name}.log");
        let log = File::create(&path)?;
        let child = Command::new(name)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut server = Self { child, address, name };
        let url = format!("http://{address}/-/ready");
        eventually(START, || {
            if let Some(status) = server.child.try_wait()? {
                bail!("it ended ({status})");
            }
            let got = curl(&[&url])?;
            ensure!(got.status == 200, "not ready: {} {}", got.status, got.error);
            Ok(())
        })
        .with_context(|| format!("{name}: {}", fs::read_to_string(&path).unwrap_or_default()))?;
        Ok(server)
    }

    /// Prometheus with a configuration.
    pub fn prometheus(config: &str) -> Result<Self> {
        let path = "/tmp/prometheus.yml";
        fs::write(path, config)?;
        let _ = fs::remove_dir_all("/tmp/prometheus-data");
        let file = format!("--config.file={path}");
        let arguments = [
            &file,
            "--storage.tsdb.path=/tmp/prometheus-data",
            "--web.listen-address=127.0.0.1:9090",
            "--log.level=warn",
        ];
        Self::start("prometheus", "127.0.0.1:9090", &arguments)
    }

    /// Alertmanager with a configuration.
    pub fn alertmanager(config: &str) -> Result<Self> {
        let path = "/tmp/alertmanager.yml";
        fs::write(path, config)?;
        let file = format!("--config.file={path}");
        let arguments = [
            &file,
            "--storage.path=/tmp/alertmanager-data",
            "--web.listen-address=127.0.0.1:9093",
            "--cluster.listen-address=",
            "--log.level=warn",
        ];
        Self::start("prometheus-alertmanager", "127.0.0.1:9093", &arguments)
    }

    /// What its API says.
    pub fn api(&self, path: &str, arguments: &[&str]) -> Result<Value> {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let got = curl(&[&["-G", &url], arguments].concat())?;
        ensure!(got.status == 200, "{}: {path}: {} {} {}", self.name, got.status, got.body, got.error);
        let value: Value = serde_json::from_str(&got.body)?;
        Ok(value["data"].clone())
    }

    /// The samples of a query: labels and value.
    pub fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>> {
        let data = self.api("query", &["--data-urlencode", &format!("query={expression}")])?;
        let samples = data["result"].as_array().context("no result")?.iter().map(|sample| {
            let value = sample["value"][1].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
            (sample["metric"].clone(), value)
        });
        Ok(samples.collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
