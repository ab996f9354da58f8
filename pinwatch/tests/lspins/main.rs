//! `lspins` as a program: on real io_uring buffers, and with daemons good and bad.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod daemons;
mod events;
mod options;
mod rings;
mod schema;
mod support;
