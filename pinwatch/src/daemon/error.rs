//! Why the daemon cannot run.

use super::hooks::StartError;
use super::instance::InstanceError;
use super::web::WebError;

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another one runs, or its files cannot be made.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The kernel's side.
    #[error(transparent)]
    Start(#[from] StartError),
    /// HTTP cannot be served.
    #[error(transparent)]
    Web(#[from] WebError),
    /// Anything else of the operating system.
    #[error("{what}: {error}")]
    System {
        /// What could not be done.
        what: String,
        /// What the system says.
        error: std::io::Error,
    },
}
