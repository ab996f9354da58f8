//! Pins: their records, the events that tell of them, those that were refused, and how a missed release is noticed. Nothing here
//! is particular to a subsystem: what is, is asked of `subsystem`.

pub mod liveness;
pub mod record;
pub mod refused;
pub mod ring;
mod sweep;
