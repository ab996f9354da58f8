//! How a task keeps a file, and the record that tells of it.

use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write};
use core::mem::MaybeUninit;
use pinwatch_common::HolderRecord;

use crate::base::kernel::{copy_leader, load, load32, offset, read32};

/// How a task keeps a file.
#[repr(C)]
pub struct FileRef {
    pub seq: *mut seq_file,
    pub task: u64,
    /// Address of the `struct file`.
    pub file: u64,
    /// Its inode; 0 if it was not read yet.
    pub inode: u64,
    /// See [`HolderRecord::via`] and the members behind it.
    pub via: u32,
    pub index: u32,
    pub value: u64,
    pub message: u64,
}

/// Writes a record: the task keeps an anchor, or a lease, by this file.
#[inline(always)]
pub fn emit(by: &FileRef, anchor: u64) {
    let mut record = MaybeUninit::<HolderRecord>::uninit();
    let at = record.as_mut_ptr();
    // SAFETY: all of the record is written; the task has its BTF type, and so has its leader.
    unsafe {
        (*at).anchor = anchor;
        (*at).value = by.value;
        (*at).message = by.message;
        let leader = copy_leader(by.task, &raw mut (*at).start, &raw mut (*at).comm);
        (*at).pid = load32(leader, offset!(task_tgid));
        (*at).uid = read32(load(by.task, offset!(task_cred)) + offset!(cred_euid));
        (*at).via = by.via;
        (*at).index = by.index;
        bpf_seq_write(by.seq, at.cast(), size_of::<HolderRecord>() as u32);
    }
}
