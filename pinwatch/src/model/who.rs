//! Who did something.

use serde::{Deserialize, Serialize};

use super::name::Name;

/// A process as it is named in an event: it may be gone by the time that somebody reads of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Process id (thread group).
    pub pid: u32,
    /// Command name; empty if it is not known.
    pub comm: Name,
    /// User id, if known.
    pub uid: Option<u32>,
}
