//! Debian's archive, as this machine reaches it: which mirror its apt uses, what the suites hold, and how a file is
//! fetched. The machine's own apt sources are read and never written.

pub mod index;
pub mod private;
pub mod sources;
pub mod tree;
pub mod version;
