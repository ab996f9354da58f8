//! What is asked of the kernel, by name: `facts` looks these up, `plan` decides by them. Each name is written here once.

use pinwatch_common::{ModuleOffsets, Offsets};

/// Modules that have something to hook, if they are not built in: RDMA's (`ib_uverbs_support` is new in 7.x, and `ib_umem`
/// moved to `ib_core` there), VFIO's, V4L2's.
pub const MODULES: &[&str] =
    &["ib_core", "ib_uverbs", "ib_uverbs_support", "vfio", "vfio_iommu_type1", "videobuf2_memops"];

/// A function that may be hooked, with what our programs take for granted of it.
pub struct FunctionRule {
    /// Its symbol.
    pub symbol: &'static str,
    /// Its first parameters, as `btf::Function` tells them.
    pub params: &'static [&'static str],
    /// What it may return.
    pub returns: &'static [&'static str],
}

/// 7.x: static, but out of line; all other `ib_umem_get_*` call it.
pub const IB_UMEM_GET_VA: FunctionRule = FunctionRule { symbol: "__ib_umem_get_va", ..IB_UMEM_GET };
/// 6.x.
pub const IB_UMEM_GET: FunctionRule = FunctionRule {
    symbol: "ib_umem_get",
    params: &["ib_device *", "int", "int", "int"],
    returns: &["ib_umem *"],
};
/// The end of an RDMA buffer.
pub const IB_UMEM_RELEASE: FunctionRule =
    FunctionRule { symbol: "ib_umem_release", params: &["ib_umem *"], returns: &["void"] };
/// Gives memory regions, queues and the like their numbers.
pub const RDMA_RESTRACK_ADD: FunctionRule =
    FunctionRule { symbol: "rdma_restrack_add", params: &["rdma_restrack_entry *"], returns: &["void"] };
/// Before 6.13 it returns an int, and the buffer through its third parameter.
pub const IO_SQE_BUFFER_REGISTER: FunctionRule = FunctionRule {
    symbol: "io_sqe_buffer_register",
    params: &["io_ring_ctx *", "iovec *"],
    returns: &["int", "io_rsrc_node *"],
};
/// 6.15 and later.
pub const IO_RELEASE_UBUF: FunctionRule =
    FunctionRule { symbol: "io_release_ubuf", params: &["void *"], returns: &["void"] };
/// Before 6.13; later it takes a node.
pub const IO_BUFFER_UNMAP: FunctionRule = FunctionRule {
    symbol: "io_buffer_unmap",
    params: &["io_ring_ctx *", "io_mapped_ubuf **"],
    returns: &["void"],
};
/// 6.12 and later: puts the buffers of one ring into another.
pub const IO_REGISTER_CLONE_BUFFERS: FunctionRule = FunctionRule {
    symbol: "io_register_clone_buffers",
    params: &["io_ring_ctx *", "void *"],
    returns: &["int"],
};
/// The start of an AF_XDP umem.
pub const XDP_UMEM_CREATE: FunctionRule =
    FunctionRule { symbol: "xdp_umem_create", params: &["xdp_umem_reg *"], returns: &["xdp_umem *"] };
/// The end of one: `xdp_umem_release` is inlined before 7.x, so it is known by its array of pages.
pub const UNPIN_PAGES: FunctionRule = FunctionRule {
    symbol: "unpin_user_pages_dirty_lock",
    params: &["page **", "int", "int"],
    returns: &["void"],
};
/// Takes a lease, or changes or drops one: all file systems come by here, with a plain lease, a delegation or a layout.
pub const GENERIC_SETLEASE: FunctionRule =
    FunctionRule { symbol: "generic_setlease", params: &["file *", "int"], returns: &["int"] };
/// Changes a lease, or takes it away, whoever does it.
pub const LEASE_MODIFY: FunctionRule =
    FunctionRule { symbol: "lease_modify", params: &["file_lease *", "int"], returns: &["int"] };
/// The same before 6.9.
pub const LEASE_MODIFY_LOCK: FunctionRule = FunctionRule { params: &["file_lock *", "int"], ..LEASE_MODIFY };
/// Gives out pages of a process for longer or shorter. Before 6.5 it has one parameter more.
pub const PIN_USER_PAGES: FunctionRule =
    FunctionRule { symbol: "pin_user_pages", params: &["int", "int", "int", "page **"], returns: &["int"] };
/// The same without a lock held.
pub const PIN_USER_PAGES_FAST: FunctionRule =
    FunctionRule { symbol: "pin_user_pages_fast", ..PIN_USER_PAGES };
/// The same for another process.
pub const PIN_USER_PAGES_REMOTE: FunctionRule = FunctionRule {
    symbol: "pin_user_pages_remote",
    params: &["mm_struct *", "int", "int", "int", "page **"],
    returns: &["int"],
};
/// The same, with its parameters in another order.
pub const PIN_USER_PAGES_UNLOCKED: FunctionRule = FunctionRule {
    symbol: "pin_user_pages_unlocked",
    params: &["int", "int", "page **", "int"],
    returns: &["int"],
};
/// 6.11 and later: pages of a file, without a mapping.
pub const MEMFD_PIN_FOLIOS: FunctionRule = FunctionRule {
    symbol: "memfd_pin_folios",
    params: &["file *", "int", "int", "folio **", "int"],
    returns: &["int"],
};
/// Pins memory that rings keep, and buffers.
pub const IO_PIN_PAGES: FunctionRule =
    FunctionRule { symbol: "io_pin_pages", params: &["int", "int", "int *"], returns: &["page **"] };
/// Makes a ring of provided buffers.
pub const IO_REGISTER_PBUF_RING: FunctionRule =
    FunctionRule { symbol: "io_register_pbuf_ring", params: &["io_ring_ctx *", "void *"], returns: &["int"] };
/// 6.5 to 6.12: the queues of a ring in user memory.
pub const IO_UADDR_MAP: FunctionRule = FunctionRule {
    symbol: "__io_uaddr_map",
    params: &["page ***", "int *", "int", "int"],
    returns: &["void *"],
};
/// 6.13 and later: memory of a ring. Its first parameter is the ring, or the user.
pub const IO_CREATE_REGION: FunctionRule =
    FunctionRule { symbol: "io_create_region", params: &[], returns: &["int"] };
/// The end of one.
pub const IO_FREE_REGION: FunctionRule =
    FunctionRule { symbol: "io_free_region", params: &[], returns: &["void"] };
/// Makes a DMA buffer, of whatever kind.
pub const DMA_BUF_EXPORT: FunctionRule =
    FunctionRule { symbol: "dma_buf_export", params: &["dma_buf_export_info *"], returns: &["dma_buf *"] };
/// Makes one of memfds. Out of line since it pins their pages (6.11).
pub const UDMABUF_CREATE: FunctionRule = FunctionRule {
    symbol: "udmabuf_create",
    params: &["miscdevice *", "udmabuf_create_list *", "udmabuf_create_item *"],
    returns: &["int"],
};
/// The end of one.
pub const RELEASE_UDMABUF: FunctionRule =
    FunctionRule { symbol: "release_udmabuf", params: &["dma_buf *"], returns: &["void"] };
/// Pins a piece of a DMA mapping.
pub const VFIO_PIN_PAGES_REMOTE: FunctionRule = FunctionRule {
    symbol: "vfio_pin_pages_remote",
    params: &["vfio_dma *", "int", "int"],
    returns: &["int"],
};
/// Unpins all of a DMA mapping.
pub const VFIO_UNMAP_UNPIN: FunctionRule =
    FunctionRule { symbol: "vfio_unmap_unpin", params: &["vfio_iommu *", "vfio_dma *"], returns: &["int"] };
/// Pins user memory for a V4L2 device. From 6.2 or so on it has a third parameter: whether the device writes.
pub const VB2_CREATE_FRAMEVEC: FunctionRule =
    FunctionRule { symbol: "vb2_create_framevec", params: &["int", "int"], returns: &["frame_vector *"] };
/// Unpins it.
pub const VB2_DESTROY_FRAMEVEC: FunctionRule =
    FunctionRule { symbol: "vb2_destroy_framevec", params: &["frame_vector *"], returns: &["void"] };
/// Never hooked: where it is (6.3 and later), or soon after, direct I/O pins pages by the same functions.
pub const IOV_ITER_EXTRACT_PAGES: FunctionRule =
    FunctionRule { symbol: "iov_iter_extract_pages", params: &[], returns: &["int"] };
/// Never hooked: it tells a kernel without AF_XDP.
pub const XSK_BIND: FunctionRule = FunctionRule { symbol: "xsk_bind", params: &[], returns: &["int"] };

/// What programs call, see `pinwatch_common::KERNEL_CALLS`: 6.10 and later.
pub const PREEMPT_DISABLE: FunctionRule =
    FunctionRule { symbol: "bpf_preempt_disable", params: &[], returns: &["void"] };
/// As above.
pub const PREEMPT_ENABLE: FunctionRule = FunctionRule { symbol: "bpf_preempt_enable", ..PREEMPT_DISABLE };
/// As above: 6.14 and later.
pub const IRQ_SAVE: FunctionRule =
    FunctionRule { symbol: "bpf_local_irq_save", params: &["int *"], returns: &["void"] };
/// As above.
pub const IRQ_RESTORE: FunctionRule = FunctionRule { symbol: "bpf_local_irq_restore", ..IRQ_SAVE };

/// All of them.
pub const FUNCTIONS: &[FunctionRule] = &[
    IB_UMEM_GET_VA,
    IB_UMEM_GET,
    IB_UMEM_RELEASE,
    RDMA_RESTRACK_ADD,
    IO_SQE_BUFFER_REGISTER,
    IO_RELEASE_UBUF,
    IO_BUFFER_UNMAP,
    IO_REGISTER_CLONE_BUFFERS,
    XDP_UMEM_CREATE,
    UNPIN_PAGES,
    XSK_BIND,
    GENERIC_SETLEASE,
    LEASE_MODIFY,
    PIN_USER_PAGES,
    PIN_USER_PAGES_FAST,
    PIN_USER_PAGES_REMOTE,
    PIN_USER_PAGES_UNLOCKED,
    MEMFD_PIN_FOLIOS,
    IO_PIN_PAGES,
    IO_REGISTER_PBUF_RING,
    IO_UADDR_MAP,
    IO_CREATE_REGION,
    IO_FREE_REGION,
    DMA_BUF_EXPORT,
    UDMABUF_CREATE,
    RELEASE_UDMABUF,
    VFIO_PIN_PAGES_REMOTE,
    VFIO_UNMAP_UNPIN,
    VB2_CREATE_FRAMEVEC,
    VB2_DESTROY_FRAMEVEC,
    IOV_ITER_EXTRACT_PAGES,
    PREEMPT_DISABLE,
    PREEMPT_ENABLE,
    IRQ_SAVE,
    IRQ_RESTORE,
];

/// What a set of offsets is good for. They are filled in together or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Which ranges of which files.
    Extents,
    /// The files' names.
    Paths,
    /// Looking at an extent's first page.
    PageCheck,
    /// The creator's command name and start time.
    Owners,
    /// The file descriptor that the creator used.
    Anchors,
    /// Who keeps an anchor.
    Holders,
    /// Leases on files.
    Leases,
    /// By which system call a lease is broken.
    Breakers,
    /// Whether a page is pinned.
    PageState,
    /// What counts against RLIMIT_MEMLOCK.
    Limits,
    /// io_uring's structs.
    IoUring,
    /// AF_XDP's structs.
    Xdp,
    /// udmabuf's structs.
    Udmabuf,
    /// VFIO's structs.
    Vfio,
    /// V4L2's structs.
    V4l2,
    /// The RDMA device.
    RdmaDevice,
    /// The RDMA buffer's pages.
    RdmaPages,
    /// Numbers and keys of memory regions.
    RdmaNames,
    /// Not in every kernel that can be traced: 0 where it is missing.
    Optional,
}

/// Where an offset comes from and goes to.
pub struct OffsetRule<T: 'static> {
    /// The member; of several the first that exists.
    pub paths: &'static [&'static str],
    /// The width in bytes that our programs read; 0: not read as a number.
    pub bytes: u32,
    /// What it is good for.
    pub part: Part,
    /// The field to fill in.
    pub slot: fn(&mut T) -> &mut u64,
}

const fn rule<T>(
    part: Part,
    paths: &'static [&'static str],
    bytes: u32,
    slot: fn(&mut T) -> &mut u64,
) -> OffsetRule<T> {
    OffsetRule { paths, bytes, part, slot }
}

/// vmlinux's structs.
#[rustfmt::skip]
pub const OFFSETS: &[OffsetRule<Offsets>] = &[
    rule(Part::Extents, &["vm_area_struct.vm_start"], 8, |o| &mut o.vma_start),
    rule(Part::Extents, &["vm_area_struct.vm_end"], 8, |o| &mut o.vma_end),
    rule(Part::Extents, &["vm_area_struct.vm_flags"], 8, |o| &mut o.vma_flags),
    rule(Part::Extents, &["vm_area_struct.vm_pgoff"], 8, |o| &mut o.vma_pgoff),
    rule(Part::Extents, &["vm_area_struct.vm_file"], 8, |o| &mut o.vma_file),
    rule(Part::Extents, &["file.f_inode"], 8, |o| &mut o.file_inode),
    rule(Part::Extents, &["inode.i_ino"], 8, |o| &mut o.inode_ino),
    rule(Part::Extents, &["inode.i_generation"], 4, |o| &mut o.inode_generation),
    rule(Part::Extents, &["inode.i_sb"], 8, |o| &mut o.inode_sb),
    rule(Part::Extents, &["super_block.s_dev"], 4, |o| &mut o.sb_dev),
    rule(Part::Paths, &["file.f_path"], 16, |o| &mut o.file_path),
    rule(Part::Paths, &["inode.i_mode"], 2, |o| &mut o.inode_mode),
    rule(Part::Optional, &["inode.i_flags"], 4, |o| &mut o.inode_flags),
    rule(Part::Paths, &["super_block.s_magic"], 8, |o| &mut o.sb_magic),
    rule(Part::Paths, &["super_block.s_type"], 8, |o| &mut o.sb_type),
    rule(Part::Paths, &["file_system_type.name"], 8, |o| &mut o.fstype_name),
    rule(Part::Paths, &["dentry.d_parent"], 8, |o| &mut o.dentry_parent),
    rule(Part::Paths, &["dentry.d_name.hash_len"], 8, |o| &mut o.dentry_hash_len),
    rule(Part::Paths, &["dentry.d_name.name"], 8, |o| &mut o.dentry_name),
    rule(Part::Paths, &["mount.mnt"], 0, |o| &mut o.mount_mnt),
    rule(Part::Paths, &["mount.mnt_parent"], 8, |o| &mut o.mount_parent),
    rule(Part::Paths, &["mount.mnt_mountpoint"], 8, |o| &mut o.mount_mountpoint),
    rule(Part::Paths, &["vfsmount.mnt_root"], 8, |o| &mut o.vfsmount_root),
    rule(Part::PageCheck, &["file.f_mapping"], 8, |o| &mut o.file_mapping),
    rule(Part::PageCheck, &["page.mapping"], 8, |o| &mut o.page_mapping),
    rule(Part::PageCheck, &["page.compound_head", "page.compound_info"], 8, |o| &mut o.page_head),
    rule(Part::Owners, &["task_struct.group_leader"], 8, |o| &mut o.task_leader),
    rule(Part::Owners, &["task_struct.comm"], 16, |o| &mut o.task_comm),
    rule(Part::Owners, &["task_struct.start_boottime"], 8, |o| &mut o.task_start),
    rule(Part::Anchors, &["pt_regs.di"], 8, |o| &mut o.regs_arg0),
    rule(Part::Anchors, &["pt_regs.si"], 8, |o| &mut o.regs_arg1),
    rule(Part::Anchors, &["pt_regs.dx"], 8, |o| &mut o.regs_arg2),
    rule(Part::Anchors, &["pt_regs.r10"], 8, |o| &mut o.regs_arg3),
    rule(Part::PageState, &["page._refcount"], 4, |o| &mut o.page_references),
    rule(Part::PageState, &["folio._pincount"], 4, |o| &mut o.folio_pins),
    rule(Part::PageState, &["folio.index"], 8, |o| &mut o.folio_index),
    rule(Part::PageState, &["address_space.host"], 8, |o| &mut o.mapping_host),
    rule(Part::PageState, &["task_struct.mm"], 8, |o| &mut o.task_mm),
    rule(Part::PageState, &["pt_regs.ax"], 8, |o| &mut o.regs_result),
    rule(Part::Limits, &["mm_struct.pinned_vm"], 8, |o| &mut o.mm_pinned),
    rule(Part::Limits, &["mm_struct.locked_vm"], 8, |o| &mut o.mm_locked),
    rule(Part::Limits, &["cred.user"], 8, |o| &mut o.cred_user),
    rule(Part::Limits, &["user_struct.locked_vm"], 8, |o| &mut o.user_locked),
    rule(Part::Limits, &["task_struct.signal"], 8, |o| &mut o.task_signal),
    rule(Part::Limits, &["signal_struct.rlim"], 0, |o| &mut o.limits),
    rule(Part::IoUring, &["io_mapped_ubuf.bvec"], 0, |o| &mut o.io_buf_bvec),
    rule(Part::IoUring, &["io_mapped_ubuf.nr_bvecs"], 4, |o| &mut o.io_buf_bvecs),
    // 6.13 and later have the first of these two, earlier kernels the second.
    rule(Part::Optional, &["io_rsrc_node.buf"], 8, |o| &mut o.io_node_buf),
    rule(Part::Optional, &["io_ring_ctx.user_bufs"], 8, |o| &mut o.io_ctx_user_bufs),
    rule(Part::Optional, &["io_ring_ctx.buf_table.nodes", "io_ring_ctx.user_bufs"], 8, |o| &mut o.io_ctx_buffers),
    rule(Part::Optional, &["io_ring_ctx.buf_table.nr", "io_ring_ctx.nr_user_bufs"], 4, |o| &mut o.io_ctx_buffer_count),
    rule(Part::Optional, &["io_mapped_ubuf.refs"], 4, |o| &mut o.io_buf_refs),
    rule(Part::Optional, &["io_mapped_ubuf.folio_shift"], 4, |o| &mut o.io_buf_folio_shift),
    rule(Part::Holders, &["file.private_data"], 8, |o| &mut o.file_private),
    rule(Part::Holders, &["task_struct.tgid"], 4, |o| &mut o.task_tgid),
    rule(Part::Owners, &["task_struct.cred"], 8, |o| &mut o.task_cred),
    rule(Part::Owners, &["cred.uid"], 4, |o| &mut o.cred_uid),
    rule(Part::Holders, &["cred.euid"], 4, |o| &mut o.cred_euid),
    rule(Part::Holders, &["socket.sk"], 8, |o| &mut o.socket_sk),
    rule(Part::Holders, &["sock_common.skc_family"], 2, |o| &mut o.sock_family),
    rule(Part::Holders, &["sock.sk_receive_queue"], 0, |o| &mut o.sock_receive_queue),
    rule(Part::Holders, &["sk_buff.cb"], 48, |o| &mut o.skb_cb),
    rule(Part::Holders, &["unix_skb_parms.fp"], 8, |o| &mut o.unix_parms_fp),
    rule(Part::Holders, &["scm_fp_list.count"], 2, |o| &mut o.fp_list_count),
    rule(Part::Holders, &["scm_fp_list.fp"], 0, |o| &mut o.fp_list_files),
    rule(Part::Holders, &["task_struct.files"], 8, |o| &mut o.task_files),
    rule(Part::Holders, &["files_struct.fdt"], 8, |o| &mut o.files_table),
    rule(Part::Holders, &["fdtable.max_fds"], 4, |o| &mut o.table_size),
    rule(Part::Holders, &["fdtable.fd"], 8, |o| &mut o.table_files),
    rule(Part::Holders, &["file.f_op"], 8, |o| &mut o.file_operations),
    rule(Part::Leases, &["inode.i_flctx"], 8, |o| &mut o.inode_leases),
    rule(Part::Leases, &["file_lock_context.flc_lease"], 0, |o| &mut o.context_leases),
    rule(Part::Leases, &["file_lease.c.flc_list", "file_lock.fl_list"], 0, |o| &mut o.lease_list),
    rule(Part::Leases, &["file_lease.c.flc_file", "file_lock.fl_file"], 8, |o| &mut o.lease_file),
    rule(Part::Leases, &["file_lease.c.flc_flags", "file_lock.fl_flags"], 4, |o| &mut o.lease_flags),
    rule(Part::Leases, &["file_lease.c.flc_type", "file_lock.fl_type"], 1, |o| &mut o.lease_type),
    rule(Part::Leases, &["file_lease.c.flc_pid", "file_lock.fl_pid"], 4, |o| &mut o.lease_pid),
    rule(Part::Leases, &["file_lease.fl_break_time", "file_lock.fl_break_time"], 8, |o| &mut o.lease_break_time),
    rule(Part::Leases, &["file_lease.fl_downgrade_time", "file_lock.fl_downgrade_time"], 8, |o| &mut o.lease_downgrade_time),
    rule(Part::Breakers, &["pt_regs.orig_ax"], 8, |o| &mut o.regs_call),
    rule(Part::Breakers, &["pt_regs.cs"], 0, |o| &mut o.regs_cs),
    rule(Part::Breakers, &["task_struct.flags"], 4, |o| &mut o.task_flags),
    // A kernel may lack io_uring or AF_XDP.
    rule(Part::Optional, &["io_ring_ctx.file_table.data.nodes", "io_ring_ctx.file_table.files"], 8, |o| &mut o.io_ctx_files),
    rule(Part::Optional, &["io_ring_ctx.file_table.data.nr", "io_ring_ctx.nr_user_files"], 4, |o| &mut o.io_ctx_file_count),
    rule(Part::Optional, &["io_rsrc_node.file_ptr"], 8, |o| &mut o.io_node_file),
    rule(Part::Optional, &["task_struct.io_uring"], 8, |o| &mut o.task_io_uring),
    rule(Part::Optional, &["io_uring_task.registered_rings"], 128, |o| &mut o.io_task_rings),
    rule(Part::Optional, &["xdp_sock.umem"], 8, |o| &mut o.xdp_sock_umem),
    rule(Part::Optional, &["xdp_sock.pool"], 8, |o| &mut o.xdp_sock_pool),
    rule(Part::Optional, &["xdp_umem.users"], 4, |o| &mut o.xdp_users),
    rule(Part::Optional, &["xsk_buff_pool.umem"], 8, |o| &mut o.xdp_pool_umem),
    rule(Part::Xdp, &["xdp_umem.pgs"], 8, |o| &mut o.xdp_pages),
    rule(Part::Xdp, &["xdp_umem.id"], 4, |o| &mut o.xdp_id),
    rule(Part::Udmabuf, &["dma_buf.file"], 8, |o| &mut o.dma_buf_file),
    rule(Part::Udmabuf, &["dma_buf.priv"], 8, |o| &mut o.dma_buf_private),
    rule(Part::Udmabuf, &["udmabuf.pages", "udmabuf.folios"], 8, |o| &mut o.udmabuf_pages),
    rule(Part::Optional, &["udmabuf.nr_pinned"], 8, |o| &mut o.udmabuf_pinned),
    rule(Part::Optional, &["udmabuf.unpin_list"], 0, |o| &mut o.udmabuf_folios),
    rule(Part::Optional, &["io_ring_ctx.ring_region", "io_ring_ctx.ring_pages"], 0, |o| &mut o.io_ctx_queues),
    rule(Part::Optional, &["io_ring_ctx.n_ring_pages"], 2, |o| &mut o.io_ctx_queues_number),
    rule(Part::Optional, &["io_ring_ctx.sq_region", "io_ring_ctx.sqe_pages"], 0, |o| &mut o.io_ctx_entries),
    rule(Part::Optional, &["inode.i_rdev"], 4, |o| &mut o.inode_rdev),
];

/// Modules' structs.
#[rustfmt::skip]
pub const MODULE_OFFSETS: &[OffsetRule<ModuleOffsets>] = &[
    rule(Part::RdmaDevice, &["ib_device.name"], 64, |o| &mut o.ib_device_name),
    rule(Part::RdmaDevice, &["ib_device.index"], 4, |o| &mut o.ib_device_index),
    rule(Part::RdmaPages, &["ib_umem.sgt_append.sgt.sgl"], 8, |o| &mut o.ib_umem_sgl),
    rule(Part::RdmaNames, &["rdma_restrack_entry.type"], 4, |o| &mut o.restrack_type),
    rule(Part::RdmaNames, &["rdma_restrack_entry.id"], 4, |o| &mut o.restrack_id),
    rule(Part::RdmaNames, &["ib_mr.res"], 0, |o| &mut o.ib_mr_res),
    rule(Part::RdmaNames, &["ib_mr.lkey"], 4, |o| &mut o.ib_mr_lkey),
    rule(Part::RdmaNames, &["ib_mr.rkey"], 4, |o| &mut o.ib_mr_rkey),
    rule(Part::RdmaNames, &["ib_mr.uobject"], 8, |o| &mut o.ib_mr_uobject),
    rule(Part::RdmaNames, &["ib_uobject.ufile"], 8, |o| &mut o.ib_uobject_ufile),
    rule(Part::Vfio, &["vfio_dma.iova"], 8, |o| &mut o.vfio_dma_iova),
    rule(Part::Vfio, &["vfio_dma.vaddr"], 8, |o| &mut o.vfio_dma_vaddr),
    rule(Part::Vfio, &["vfio_dma.prot"], 4, |o| &mut o.vfio_dma_prot),
    rule(Part::Optional, &["vfio_dma.mm"], 8, |o| &mut o.vfio_dma_memory),
    rule(Part::Optional, &["vfio_group.container"], 8, |o| &mut o.vfio_group_container),
    rule(Part::Optional, &["vfio_group.container_next"], 16, |o| &mut o.vfio_group_next),
    rule(Part::Optional, &["vfio_device.group"], 8, |o| &mut o.vfio_device_group),
    // 6.4 and later.
    rule(Part::Optional, &[VFIO_FILE_DEVICE], 8, |o| &mut o.vfio_file_device),
    rule(Part::V4l2, &["frame_vector.is_pfns"], 1, |o| &mut o.frame_is_pfns),
    rule(Part::V4l2, &["frame_vector.ptrs"], 0, |o| &mut o.frame_pages),
];

/// Members that our programs read without being told where: layouts that have not changed in ten years. If one does, its
/// part is off.
pub const FIXED: &[(&str, u64, Part)] = &[
    ("path.mnt", 0, Part::Paths),
    ("path.dentry", 8, Part::Paths),
    ("bio_vec.bv_page", 0, Part::PageCheck),
    ("bio_vec.bv_offset", 12, Part::PageCheck),
    ("scatterlist.page_link", 0, Part::PageCheck),
    ("scatterlist.length", 12, Part::PageCheck),
    ("xdp_umem_reg.addr", 0, Part::Xdp),
    ("xdp_umem_reg.len", 8, Part::Xdp),
    ("dma_buf_export_info.exp_name", 0, Part::Udmabuf),
    ("udmabuf_create_list.count", 4, Part::Udmabuf),
    ("udmabuf_create_item.memfd", 0, Part::Udmabuf),
    ("udmabuf_create_item.offset", 8, Part::Udmabuf),
    ("udmabuf_create_item.size", 16, Part::Udmabuf),
    ("list_head.next", 0, Part::Leases),
    ("sk_buff.next", 0, Part::Holders),
    ("sk_buff_head.next", 0, Part::Holders),
];

/// Sizes that our programs step by without being told.
pub const FIXED_SIZES: &[(&str, u32, Part)] = &[
    ("bio_vec", 16, Part::PageCheck),
    ("scatterlist", 32, Part::PageCheck),
    ("udmabuf_create_item", 24, Part::Udmabuf),
];

/// An enumerator whose value the programs are told, and where it goes.
pub type EnumeratorRule = (&'static str, fn(&mut ModuleOffsets) -> &mut u64);

/// All of [`Part::RdmaNames`].
pub const ENUMERATORS: &[EnumeratorRule] = &[
    ("RDMA_RESTRACK_CQ", |o| &mut o.restrack_cq),
    ("RDMA_RESTRACK_QP", |o| &mut o.restrack_qp),
    ("RDMA_RESTRACK_MR", |o| &mut o.restrack_mr),
    ("RDMA_RESTRACK_SRQ", |o| &mut o.restrack_srq),
];

/// An enumerator of the kernel proper, and where its value goes.
pub type KernelEnumeratorRule = (&'static str, fn(&mut Offsets) -> &mut u64);

/// Those of [`Part::PageState`].
pub const KERNEL_ENUMERATORS: &[KernelEnumeratorRule] = &[(PG_HEAD, |o| &mut o.page_large)];
/// The bit of a large folio's first page.
pub const PG_HEAD: &str = "PG_head";
/// The flag that asks for pages for the long term: an enumerator since 6.2 or so (b5054174ac7c), a number in a header before.
pub const FOLL_LONGTERM: &str = "FOLL_LONGTERM";
/// Its value where it is no enumerator (include/linux/mm.h of 6.1).
pub const OLD_FOLL_LONGTERM: u64 = 0x10000;

/// What a VFIO device's file leads to the device by (6.4 and later).
pub const VFIO_FILE_DEVICE: &str = "vfio_device_file.device";
/// `sizeof(struct page)`.
pub const PAGE: &str = "page";
/// A kernel without it has no io_uring.
pub const IO_MAPPED_UBUF: &str = "io_mapped_ubuf";
/// Structs whose sizes are asked for.
pub const STRUCTS: &[&str] = &[PAGE, IO_MAPPED_UBUF, "bio_vec", "scatterlist", "udmabuf_create_item"];
