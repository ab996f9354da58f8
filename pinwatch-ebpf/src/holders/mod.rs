//! Who keeps what: the holders of anchors, and leases with what happens to them.

mod anchors;
mod holder_record;
mod iterators;
mod lease_events;
mod leases;
mod overlay;
