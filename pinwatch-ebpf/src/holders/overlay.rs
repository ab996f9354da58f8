//! Which files are below one of overlayfs. What is mapped and pinned are those; a lease is on the one above.

use aya_ebpf::{macros::map, maps::Array};
use pinwatch_common::{FileKey, OverlayQuery};

use crate::{
    base::{
        kernel::{offset, read},
        maps::element,
    },
    file::extents::file_key,
};

/// One question, and its answer.
#[map]
static OVERLAY: Array<OverlayQuery> = Array::with_max_entries(1, 0);

const NONE: FileKey = FileKey { ino: 0, dev: 0, generation: 0 };

/// User space runs this by itself: 1 if there is an answer.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/overlay_below")]
extern "C" fn overlay_below(_arguments: *const u64) -> i32 {
    // The daemon asks one thing at a time.
    let Some(mut query) = element(&OVERLAY, 0) else { return 0 };
    let file = query.file;
    if read(file + offset!(file_inode)) != query.inode {
        return 0;
    }
    let private = read(file + offset!(file_private));
    let opened = if query.through == 0 { private } else { read(private + query.through - 1) };
    let upper = read(query.inode - query.vfs_inode + query.upper);
    let inode = |pointer: u64, offset: u64| if pointer == 0 { 0 } else { read(pointer + offset) };
    let (opened, upper) = (inode(opened, offset!(file_inode)), inode(upper, query.dentry_inode));
    query.below[0] = if opened == 0 { NONE } else { file_key(opened) };
    query.below[1] = if upper == 0 { NONE } else { file_key(upper) };
    // Closed meanwhile, its memory is another's.
    i32::from(opened != 0 && read(file + offset!(file_inode)) == query.inode)
}
