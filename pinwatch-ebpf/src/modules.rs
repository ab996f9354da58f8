//! Modules come and go: probes on the functions of one that was removed are dead, so user space has to know.

use core::ffi::c_void;

use pinwatch_common::event;

use crate::registry::wake;

#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/module_load")]
extern "C" fn module_load(_ctx: *mut c_void) -> i32 {
    wake(event::MODULES);
    0
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/module_free")]
extern "C" fn module_free(_ctx: *mut c_void) -> i32 {
    wake(event::MODULES);
    0
}
