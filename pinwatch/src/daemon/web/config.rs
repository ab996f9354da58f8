//! The web configuration file, in the format of the Prometheus exporter-toolkit: TLS, headers, users. It is read anew when it
//! or a file that it names has changed; while it has errors, what was read before stays in use.
//!
//! <https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md>
//!
//! The YAML is read by serde-saphyr: the format is YAML, so that a subset of our own would refuse files that the toolkit takes.
//! The crate is young, but its forerunner serde_yaml is archived, and it forbids unsafe code in itself, is fuzzed,
//! keeps to budgets against documents that expand, and is MIT or Apache-2.0. It sees this one file, which
//! only the administrator writes; its serializer is not built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};
use rustls::ServerConfig;
use serde::Deserialize;

use super::problem::{ConfigError, Problem};
use super::tls::TlsSection;
use super::watched_file::{self, Mark};

/// A configuration has no more users.
const USERS: usize = 1000;
/// bcrypt's cost as `htpasswd` allows it. One more doubles the time that each check takes.
const COSTS: std::ops::RangeInclusive<u32> = 4..=17;
/// The headers that may be set.
const HEADERS: [&str; 5] = [
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tls_server_config: Option<TlsSection>,
    #[serde(default)]
    http_server_config: Option<Http>,
    #[serde(default)]
    basic_auth_users: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    /// HTTP/2 is not spoken whatever this says: no client needs it.
    #[serde(default, rename = "http2")]
    _http2: Option<bool>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// What a configuration says.
#[derive(Default)]
pub struct Config {
    /// How TLS is spoken, if at all.
    pub tls: Option<Arc<ServerConfig>>,
    /// Password hashes by user; empty: no password is needed.
    pub users: BTreeMap<String, String>,
    /// What each answer says besides.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A configuration and the files that it came from.
pub struct Loaded {
    /// What was last read without an error.
    pub config: Arc<Config>,
    path: Option<PathBuf>,
    marks: Vec<(PathBuf, Mark)>,
}

impl Loaded {
    /// Reads a file; without one there is neither TLS nor a password.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut loaded = Self { config: Arc::default(), path: path.map(Path::to_owned), marks: Vec::new() };
        loaded.load()?;
        Ok(loaded)
    }

    /// Reads it again if a file of it has changed: whether that was so. The marks are of before reading: what changes
    /// meanwhile is noticed the next time.
    ///
    /// # Errors
    /// [`ConfigError`]: what was there before stays.
    pub fn follow(&mut self) -> Result<bool, ConfigError> {
        if self.marks.iter().all(|(path, was)| watched_file::mark(path) == *was) {
            return Ok(false);
        }
        self.load().map(|()| true)
    }

    fn load(&mut self) -> Result<(), ConfigError> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let before = watched_file::mark(&path);
        let result = read(&path);
        let mut marks = vec![(path, before)];
        match &result {
            Ok((_, files)) => marks.extend(files.iter().map(|(file, was)| (file.clone(), *was))),
            // A certificate that is being replaced is read again.
            Err(_) => marks
                .extend(self.marks.iter().skip(1).map(|(file, _)| (file.clone(), watched_file::mark(file)))),
        }
        self.marks = marks;
        self.config = Arc::new(result?.0);
        Ok(())
    }
}

/// A configuration, and the other files that it is made of.
fn read(path: &Path) -> Result<(Config, Vec<(PathBuf, Mark)>), ConfigError> {
    let failed = |problem: Problem| ConfigError::new(path, problem);
    let text = watched_file::read(path)?;
    let text = String::from_utf8(text).map_err(|error| failed(error.into()))?;
    let is_blank =
        |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#') || line.trim() == "---";
    let file: File = match text.lines().all(is_blank) {
        true => File::default(),
        false => serde_saphyr::from_str(&text)
            .map_err(|error| failed(Problem::Yaml(first_line(&error.to_string()))))?,
    };
    let users = file.basic_auth_users.unwrap_or_default();
    if users.len() > USERS {
        return Err(failed(Problem::TooManyUsers { users: users.len(), most: USERS }));
    }
    for (user, hash) in &users {
        let parts = hash.parse::<bcrypt::HashParts>();
        // Neither the hash nor what is wrong with it is printed: it is a secret.
        let Ok(parts) = parts else {
            return Err(failed(Problem::NoHash(user.clone())));
        };
        if !COSTS.contains(&parts.get_cost()) {
            let (least, most) = (*COSTS.start(), *COSTS.end());
            return Err(failed(Problem::Cost { user: user.clone(), cost: parts.get_cost(), least, most }));
        }
    }
    let mut headers = Vec::new();
    for (name, value) in file.http_server_config.unwrap_or_default().headers {
        let Some(known) = HEADERS.iter().find(|known| known.eq_ignore_ascii_case(&name)) else {
            return Err(failed(Problem::Header { name, allowed: &HEADERS }));
        };
        let name = HeaderName::from_bytes(known.as_bytes()).map_err(|error| failed(error.into()))?;
        headers.push((name, HeaderValue::from_str(&value).map_err(|error| failed(error.into()))?));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let (tls, files) = match file.tls_server_config {
        Some(section) => section.load(path, folder)?,
        None => (None, Vec::new()),
    };
    Ok((Config { tls, users, headers }, files))
}

/// The parser's message without its picture of the text, which may be a secret.
fn first_line(text: &str) -> String {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no valid YAML").to_owned()
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
