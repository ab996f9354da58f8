//! The daemon: hooks attached, maps read on demand, answers over a Unix socket and HTTP.
//!
//! `core` owns the four that do the work and know nothing of each other: `hooks` (what is attached), `reconcile` (the table),
//! `history` (what happened; `events` feeds it) and `exporter` (metrics). `serve` is the loop that runs the core, the `socket`
//! and the `web`. Imports go one way: serve, then socket and web, then core, then the four.

mod breaks;
mod check;
pub mod core;
mod error;
mod events;
pub mod exporter;
mod history;
mod hooks;
mod instance;
mod reconcile;
mod serve;
mod settings;
mod socket;
pub mod web;

pub use check::check;
pub use error::DaemonError;
pub use events::FollowError;
pub use hooks::StartError;
pub use instance::InstanceError;
pub use serve::run;
pub use settings::Settings;
