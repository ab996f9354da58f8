//! What a pin, a file and a process are, and the table that holds them.
//!
//! The files here import each other by name, never through this file's list, which is for everybody else: so a circle cannot
//! hide in it.
//!
//! Pure: no I/O, no clock, no kernel, and nothing of this crate's other modules. Everything that
//! crosses the socket between daemon and `lspins` is one of these types (see [`crate::wire`]).

mod cgroup;
mod count;
pub mod coverage;
mod doubt;
mod event;
mod extent;
mod file;
mod gap;
mod index;
mod lease;
mod name;
pub mod object;
mod pin;
mod process;
mod refusal;
mod table;
mod visibility;
mod who;
mod words;

pub use cgroup::Workload;
pub use count::KernelCount;
pub use coverage::{Coverage, CoverageState, LeasePolicy, OnFile};
pub use doubt::{Doubt, Doubts, UnknownDoubts};
pub use event::{Event, Happened, LeaseTag, Outcome};
pub use extent::{Extent, Extents, Part, Parts, Segment, parts_of};
pub use file::{Backing, Device, File, FileId};
pub use gap::{FullMap, Gap, GapCode};
pub use index::{FileIndex, HoldingIndex, ProcessIndex};
pub use lease::{Breaker, Lease, LeaseKind, LeaseMode, LeaseState, Waiter};
pub use name::Name;
pub use object::Object;
pub use pin::{HeldState, HiddenVia, Holder, Holding, Mode, Origin, Pin, PinId, Subsystem, Via};
pub use process::{Namespaces, Process};
pub use refusal::{Counter, Reason, Refusal};
pub use table::Table;
pub use who::Who;
