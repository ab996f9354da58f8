//! `lspins` as a program: on real io_uring buffers, and with daemons good and bad.

mod daemons;
mod options;
mod rings;
mod schema;
mod support;
