//! What the daemon is started with.

use std::path::PathBuf;

use super::core;
use super::web;

/// What the daemon is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub socket: PathBuf,
    /// What is watched, and how.
    pub core: core::Options,
    /// HTTP.
    pub web: web::Settings,
    /// Whether the kernel counts how often and how long BPF programs run.
    pub statistics: bool,
}
