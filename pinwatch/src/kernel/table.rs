//! What is asked of the kernel, by name: `facts` looks these up, `plan` decides by them. Each name is written here once; those of
//! structure members, enumerators and sizes are in the table of `pinwatch_common::subsystems`.

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

/// The flag that asks for pages for the long term: an enumerator since 6.2 or so (b5054174ac7c), a number in a header before.
pub const FOLL_LONGTERM: &str = "FOLL_LONGTERM";
/// Its value where it is no enumerator (include/linux/mm.h of 6.1).
pub const OLD_FOLL_LONGTERM: u64 = 0x10000;

/// A kernel without it has no io_uring.
pub const IO_MAPPED_UBUF: &str = "io_mapped_ubuf";
