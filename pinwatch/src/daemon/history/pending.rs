//! What happened and is not published yet.

use pinwatch_common::FileKey;

use crate::model::{Happened, PinId};

/// Something that happened to a file, not yet with all that is known of it.
pub struct Pending {
    /// When, nanoseconds since the epoch.
    pub time: i64,
    /// What.
    pub what: Happened,
    /// To which file.
    pub file: Option<FileKey>,
    /// To which pin.
    pub pin: Option<PinId>,
    /// Whom it concerns.
    pub uids: Vec<u32>,
}
