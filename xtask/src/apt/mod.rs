//! Debian's archive, as this machine reaches it: which mirror its apt uses, what the suites hold, and how a file is
//! fetched. The machine's own apt sources are read and never written.
//!
//! By hand, though there are crates: debversion would bring regex, chrono and big numbers for the 60 lines of `version`, and
//! deb822-fast copies every field of every package of an index, of which five fields of a few packages are wanted.

pub mod index;
pub mod private;
pub mod sources;
pub mod tree;
pub mod version;
