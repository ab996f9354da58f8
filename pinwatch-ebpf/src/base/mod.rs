//! What everything else stands on: reading the kernel, maps, scratch memory, what a thread carries, the shape of a hook.
//! Nothing here knows what a pin, a file or a subsystem is.

pub mod hook;
pub mod kernel;
pub mod maps;
pub mod preempt;
pub mod scratch;
pub mod thread_slot;
