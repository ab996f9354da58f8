//! THE table: what a subsystem is. Everything else that both sides of the kernel boundary know of it follows from here.
//!
//! * A new subsystem is one more `subsystem` entry. The compiler then asks for its rooms: `pinwatch-ebpf/src/subsystem/NAME.rs`
//!   (the hooks), `pinwatch/src/subsystem/NAME.rs` (what to attach where), `pinwatch/src/model/object/NAME.rs` (what its pins
//!   are called).
//! * To hook one more function, add a line to `hooks` and an `exit_hook!` or `entry_hook!` of that name to the subsystem's file
//!   in pinwatch-ebpf.
//! * To read one more member of a kernel structure, add a line to a group of `kernel` (structures of vmlinux) or `module`
//!   (structures that may be a module's): `field: ["struct.member", "what older kernels call it"] BYTES,`.
//!
//! What may not be here: anything that only one side knows. What belongs to no subsystem (files, pages, tasks, leases) has the
//! same sections in `subsystems/shared.rs`; how the lists are made from the table is in `subsystems/lists.rs`.
//!
//! The sections of an entry, all of them required, empty or not:
//!
//! * `kinds`: what kernel objects there are, by the number that records carry. Numbers are never given to another kind.
//! * `hooks`: `NAME: exit|entry begin|end|other`. NAME is the BPF program's, and follows through all of pinwatch. `exit` sees the
//!   result of a function, `entry` its arguments only. `begin` records pins, and has scratch memory to do so; `end` releases
//!   them; ends are attached before beginnings.
//! * `carries`: what a thread carries from one program to a later one.
//! * `kernel`, `module`: what is read of kernel structures. The members of a `groups` entry are all there, or none is used: a
//!   BPF program asks with `has!(group)`. Each of the `optional` ones stands alone: `has!(member)`. `values` are enumerators,
//!   `sizes` sizes of structures; `assumed` are offsets and sizes that programs take for granted: where they differ, the group
//!   is off. BYTES is the width that is read, and is checked; 0: it is not read as a number. `choices` are not offsets but
//!   decisions of `pinwatch/src/kernel/plan.rs`.

mod hooks;
mod identity;
mod lists;
mod shared;

pub use hooks::*;
pub use identity::*;

/// The table. It is handed to the macro in brackets, with the argument before it: see `lists`.
#[doc(hidden)]
#[macro_export]
macro_rules! subsystem_table {
    ([$($callback:tt)+] $argument:ident) => { $crate::shared_table! { [$($callback)+] $argument {

/// InfiniBand/RDMA: memory regions, queue buffers.
subsystem rdma: Rdma 'r' {
    kinds {
        /// An RDMA buffer not (yet) known to be of a memory region.
        RdmaBuffer = 1,
        /// An RDMA memory region.
        RdmaMr = 2,
        /// The buffer of a completion queue.
        RdmaCq = 3,
        /// The buffer of a queue pair.
        RdmaQp = 4,
        /// The buffer of a shared receive queue.
        RdmaSrq = 5,
    }
    hooks {
        /// `__ib_umem_get_va`, before 7.0 `ib_umem_get`: a buffer is made.
        rdma_get: exit begin,
        /// `ib_umem_release`
        rdma_release: entry end,
        /// `rdma_restrack_add`: what a buffer is for.
        rdma_track: exit other,
    }
    carries {
        /// The latest `ib_umem` of a thread that nothing was tracked for yet.
        UnnamedUmem,
    }
    kernel {}
    module {
        groups {
            /// The RDMA device.
            rdma_device: RdmaDevice {
                members {
                    ib_device_name: ["ib_device.name"] 64,
                    ib_device_index: ["ib_device.index"] 4,
                }
            }
            /// An RDMA buffer's pages.
            rdma_pages: RdmaPages {
                members {
                    ib_umem_sgl: ["ib_umem.sgt_append.sgt.sgl"] 8,
                }
            }
            /// Numbers and keys of memory regions.
            rdma_names: RdmaNames {
                members {
                    restrack_type: ["rdma_restrack_entry.type"] 4,
                    restrack_id: ["rdma_restrack_entry.id"] 4,
                    ib_mr_res: ["ib_mr.res"] 0,
                    ib_mr_lkey: ["ib_mr.lkey"] 4,
                    ib_mr_rkey: ["ib_mr.rkey"] 4,
                    ib_mr_uobject: ["ib_mr.uobject"] 8,
                    ib_uobject_ufile: ["ib_uobject.ufile"] 8,
                }
                values {
                    restrack_cq: "RDMA_RESTRACK_CQ",
                    restrack_qp: "RDMA_RESTRACK_QP",
                    restrack_mr: "RDMA_RESTRACK_MR",
                    restrack_srq: "RDMA_RESTRACK_SRQ",
                }
            }
        }
    }
}

/// io_uring: registered buffers, and what else a ring keeps in memory of its user.
subsystem io_uring: IoUring 'u' {
    kinds {
        /// A registered io_uring buffer.
        IoUring = 6,
        /// What an io_uring ring keeps in memory of its user, other than buffers.
        IoUringMemory = 12,
    }
    hooks {
        /// `io_sqe_buffer_register`
        io_register: exit begin,
        /// `io_release_ubuf`, 6.15 and later.
        io_release: entry end,
        /// `io_buffer_unmap`, before that.
        io_unmap: entry end,
        /// The same, once it has dropped its reference.
        io_unmap_done: exit end,
        /// `io_register_clone_buffers`
        io_clone: exit other,
        /// `io_pin_pages`
        io_pin: exit other,
        /// `io_register_pbuf_ring`
        io_provide: exit begin,
        /// `__io_uaddr_map`
        io_queues: exit begin,
        /// `io_create_region`
        io_region: exit begin,
        /// `io_free_region`
        io_region_free: entry end,
    }
    carries {
        /// A buffer that a thread is dropping a reference of.
        LeavingBuffer,
        /// How far a thread has come in its array of iovecs.
        IovecProgress,
        /// The latest array of pages that a thread has got from `io_pin_pages`.
        RingPages,
    }
    kernel {
        groups {
            /// io_uring's structs.
            io_uring: IoUring {
                members {
                    io_buf_bvec: ["io_mapped_ubuf.bvec"] 0,
                    io_buf_bvecs: ["io_mapped_ubuf.nr_bvecs"] 4,
                }
            }
        }
        optional {
            /// 6.13 and later.
            io_node_buf: ["io_rsrc_node.buf"] 8,
            /// Before 6.13.
            io_ctx_user_bufs: ["io_ring_ctx.user_bufs"] 8,
            io_ctx_buffers: ["io_ring_ctx.buf_table.nodes", "io_ring_ctx.user_bufs"] 8,
            io_ctx_buffer_count: ["io_ring_ctx.buf_table.nr", "io_ring_ctx.nr_user_bufs"] 4,
            /// Missing where a buffer has one owner only (before 6.12).
            io_buf_refs: ["io_mapped_ubuf.refs"] 4,
            /// Missing where buffers are not coalesced (before 6.12).
            io_buf_folio_shift: ["io_mapped_ubuf.folio_shift"] 4,
            io_ctx_files: ["io_ring_ctx.file_table.data.nodes", "io_ring_ctx.file_table.files"] 8,
            io_ctx_file_count: ["io_ring_ctx.file_table.data.nr", "io_ring_ctx.nr_user_files"] 4,
            /// Missing where the table has the files themselves (before 6.13).
            io_node_file: ["io_rsrc_node.file_ptr"] 8,
            task_io_uring: ["task_struct.io_uring"] 8,
            io_task_rings: ["io_uring_task.registered_rings"] 128,
            io_ctx_queues: ["io_ring_ctx.ring_region", "io_ring_ctx.ring_pages"] 0,
            /// Before 6.13.
            io_ctx_queues_number: ["io_ring_ctx.n_ring_pages"] 2,
            io_ctx_entries: ["io_ring_ctx.sq_region", "io_ring_ctx.sqe_pages"] 0,
        }
        choices {
            /// 1: `io_sqe_buffer_register` returns an `io_rsrc_node *` (6.13 and later); 0: an int, the buffer being in `*pimu`.
            io_uring_returns_node,
            /// How many arguments `io_sqe_buffer_register` has.
            io_register_args,
            /// 1: what rings keep in user memory is found by `io_pin_pages` (before 6.13).
            io_ring_memory,
            /// 1: `io_create_region` takes the ring (before 6.19 or so), not the user.
            io_region_takes_ring,
        }
    }
    module {}
}

/// AF_XDP umems.
subsystem xdp: Xdp 'x' {
    kinds {
        /// An AF_XDP umem.
        Xdp = 7,
    }
    hooks {
        /// `xdp_umem_create`
        xdp_create: exit begin,
        /// `unpin_user_pages_dirty_lock`, of a umem's array of pages.
        xdp_release: entry end,
    }
    carries {}
    kernel {
        groups {
            /// AF_XDP's structs.
            xdp: Xdp {
                members {
                    xdp_pages: ["xdp_umem.pgs"] 8,
                    xdp_id: ["xdp_umem.id"] 4,
                }
                assumed {
                    "xdp_umem_reg.addr" = 0,
                    "xdp_umem_reg.len" = 8,
                }
            }
        }
        optional {
            xdp_sock_umem: ["xdp_sock.umem"] 8,
            xdp_sock_pool: ["xdp_sock.pool"] 8,
            xdp_users: ["xdp_umem.users"] 4,
            xdp_pool_umem: ["xsk_buff_pool.umem"] 8,
        }
    }
    module {}
}

/// DMA buffers made of memfds.
subsystem udmabuf: Udmabuf 'd' {
    kinds {
        /// A udmabuf: a DMA buffer made of memfds.
        Udmabuf = 9,
    }
    hooks {
        /// `dma_buf_export`
        udmabuf_export: exit other,
        /// `udmabuf_create`
        udmabuf_create: exit begin,
        /// `release_udmabuf`
        udmabuf_release: entry end,
    }
    carries {
        /// The latest udmabuf that a thread has exported.
        ExportedDmaBuf,
    }
    kernel {
        groups {
            /// udmabuf's structs.
            udmabuf: Udmabuf {
                members {
                    dma_buf_file: ["dma_buf.file"] 8,
                    /// Of a udmabuf, its `struct udmabuf`.
                    dma_buf_private: ["dma_buf.priv"] 8,
                    /// A page (6.13 and later) or a folio for each page.
                    udmabuf_pages: ["udmabuf.pages", "udmabuf.folios"] 8,
                }
                assumed {
                    "dma_buf_export_info.exp_name" = 0,
                    "udmabuf_create_list.count" = 4,
                    "udmabuf_create_item.memfd" = 0,
                    "udmabuf_create_item.offset" = 8,
                    "udmabuf_create_item.size" = 16,
                }
                assumed_sizes {
                    "udmabuf_create_item" = 24,
                }
            }
        }
        optional {
            /// Missing where folios are pinned and not counted (before 6.13).
            udmabuf_pinned: ["udmabuf.nr_pinned"] 8,
            /// Where they are not counted, a list of them.
            udmabuf_folios: ["udmabuf.unpin_list"] 0,
        }
    }
    module {}
}

/// DMA mappings of VFIO.
subsystem vfio: Vfio 'v' {
    kinds {
        /// A DMA mapping of VFIO (type1).
        Vfio = 10,
    }
    hooks {
        /// `vfio_pin_pages_remote`
        vfio_pin: exit begin,
        /// `vfio_unmap_unpin`
        vfio_unpin: entry end,
    }
    carries {}
    kernel {}
    module {
        groups {
            /// VFIO's structs.
            vfio: Vfio {
                members {
                    vfio_dma_iova: ["vfio_dma.iova"] 8,
                    vfio_dma_vaddr: ["vfio_dma.vaddr"] 8,
                    vfio_dma_prot: ["vfio_dma.prot"] 4,
                }
            }
        }
        optional {
            vfio_dma_memory: ["vfio_dma.mm"] 8,
            vfio_group_container: ["vfio_group.container"] 8,
            /// Without it a group's file and a device's are not known as anchors.
            vfio_group_next: ["vfio_group.container_next"] 16,
            vfio_device_group: ["vfio_device.group"] 8,
            /// 6.4 and later: before, a device's file has the device itself.
            vfio_file_device: ["vfio_device_file.device"] 8,
        }
        choices {
            /// 1: VFIO's mappings are traced.
            vfio_watched,
        }
    }
}

/// User memory that V4L2 devices use as buffers.
subsystem v4l2: V4l2 'm' {
    kinds {
        /// User memory given to a V4L2 device as a buffer.
        V4l2 = 11,
    }
    hooks {
        /// `vb2_create_framevec`
        v4l2_create: exit begin,
        /// `vb2_destroy_framevec`
        v4l2_destroy: entry end,
    }
    carries {}
    kernel {
        optional {
            inode_rdev: ["inode.i_rdev"] 4,
        }
    }
    module {
        groups {
            /// V4L2's structs.
            v4l2: V4l2 {
                members {
                    frame_is_pfns: ["frame_vector.is_pfns"] 1,
                    frame_pages: ["frame_vector.ptrs"] 0,
                }
            }
        }
        choices {
            /// 1: `vb2_create_framevec` is told whether the device writes (since 6.2 or so).
            frame_told_write,
        }
    }
}

/// Whatever no subsystem claims.
subsystem unclaimed: Unclaimed 'n' {
    kinds {
        /// Pages that were pinned for the long term by a caller that no hook of a subsystem knows.
        Unclaimed = 8,
    }
    hooks {
        /// `pin_user_pages`
        pin_pages: exit begin,
        /// `pin_user_pages_fast`
        pin_fast: exit begin,
        /// `pin_user_pages_remote`
        pin_remote: exit begin,
        /// `pin_user_pages_unlocked`
        pin_unlocked: exit begin,
        /// `memfd_pin_folios`
        pin_folios: exit begin,
    }
    carries {
        /// The latest pin of a thread that nobody has claimed.
        UnclaimedPin,
    }
    kernel {
        choices {
            /// Value of `FOLL_LONGTERM`; 0: pins that no subsystem claims are not looked for.
            long_term,
            /// How many arguments `pin_user_pages` has.
            pin_pages_args,
        }
    }
    module {}
}

    } } };
}
