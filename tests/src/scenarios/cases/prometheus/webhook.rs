//! Where Alertmanager's notifications arrive.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::eventually;

/// How long an alert may take: scrape, evaluation, grouping, in a slow guest.
const PATIENCE: Duration = Duration::from_secs(120);

/// Alerts that arrived, the latest last.
#[derive(Clone)]
pub struct Webhook {
    arrived: Arc<Mutex<Vec<Value>>>,
    /// Where it listens.
    pub url: String,
}

impl Webhook {
    /// Listens, for as long as the process lives.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/", listener.local_addr()?);
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let into = arrived.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Ok(alerts) = receive(stream)
                    && let Ok(mut all) = into.lock()
                {
                    all.extend(alerts);
                }
            }
        });
        Ok(Self { arrived, url })
    }

    /// The latest word on an alert.
    fn latest(&self, name: &str) -> Option<Value> {
        let all = self.arrived.lock().ok()?;
        all.iter().rfind(|alert| alert["labels"]["alertname"] == name).cloned()
    }

    /// Waits until the latest word on an alert is `firing` or `resolved`.
    pub fn wait_for(&self, name: &str, status: &str) -> Result<Value> {
        eventually(PATIENCE, || {
            let latest = self.latest(name).with_context(|| format!("nothing of {name} arrived"))?;
            ensure!(latest["status"] == status, "{name} is {} and not {status}", latest["status"]);
            Ok(latest)
        })
    }
}

/// One notification: an HTTP request with JSON.
fn receive(mut stream: TcpStream) -> Result<Vec<Value>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let value: Value = serde_json::from_slice(&body)?;
    Ok(value["alerts"].as_array().cloned().unwrap_or_default())
}
