//! pinwatch: who has pinned which memory, on which file, and does a lease cover it?

pub mod daemon;
pub mod kernel;
pub mod listing;
pub mod model;
pub mod source;
pub mod subsystem;
pub mod wire;
