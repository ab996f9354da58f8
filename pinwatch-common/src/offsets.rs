//! Every kernel offset and every per-kernel choice that a BPF program needs. User space fills them in from BTF
//! (`pinwatch/src/kernel/plan.rs`); none is ever compiled in.

macro_rules! offsets {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$field_doc])* pub $field: u64),+ }

        impl $name {
            /// All zero: what the BPF object holds until user space fills it in.
            pub const ZERO: Self = Self { $($field: 0),+ };
        }
    };
}

offsets! {
    /// Offsets in vmlinux's structs, in bytes, frozen in `.rodata` before the programs are verified: the verifier sees
    /// constants, so it accepts them in typed loads and drops code of the branches not taken.
    Offsets {
        /// `vm_area_struct.vm_start`
        vma_start,
        /// `vm_area_struct.vm_end`
        vma_end,
        /// `vm_area_struct.vm_flags`
        vma_flags,
        /// `vm_area_struct.vm_pgoff`
        vma_pgoff,
        /// `vm_area_struct.vm_file`
        vma_file,
        /// `file.f_inode`
        file_inode,
        /// `file.f_mapping`
        file_mapping,
        /// `file.f_path` (a `struct path`: vfsmount, then dentry)
        file_path,
        /// `inode.i_mode` (16 bits)
        inode_mode,
        /// `inode.i_flags`
        inode_flags,
        /// `inode.i_ino`
        inode_ino,
        /// `inode.i_generation`
        inode_generation,
        /// `inode.i_sb`
        inode_sb,
        /// `super_block.s_dev`
        sb_dev,
        /// `super_block.s_magic`
        sb_magic,
        /// `super_block.s_type`
        sb_type,
        /// `file_system_type.name`
        fstype_name,
        /// `dentry.d_parent`
        dentry_parent,
        /// `dentry.d_name.hash_len` (length in the upper 32 bits)
        dentry_hash_len,
        /// `dentry.d_name.name`
        dentry_name,
        /// `mount.mnt`
        mount_mnt,
        /// `mount.mnt_parent`
        mount_parent,
        /// `mount.mnt_mountpoint`
        mount_mountpoint,
        /// `vfsmount.mnt_root`
        vfsmount_root,
        /// `page.mapping`
        page_mapping,
        /// `page.compound_head`, or `compound_info` from 7.1 on; the same word, two encodings
        page_head,
        /// `sizeof(struct page)`
        page_size,
        /// `task_struct.group_leader`
        task_leader,
        /// `task_struct.comm`
        task_comm,
        /// `task_struct.start_boottime`
        task_start,
        /// `pt_regs.di`: first argument of a system call
        regs_arg0,
        /// `pt_regs.si`
        regs_arg1,
        /// `pt_regs.dx`
        regs_arg2,
        /// `pt_regs.r10`
        regs_arg3,
        /// 1: `io_sqe_buffer_register` returns an `io_rsrc_node *` (6.13 and later); 0: an int, the buffer being in `*pimu`
        io_uring_returns_node,
        /// How many arguments `io_sqe_buffer_register` has
        io_register_args,
        /// `io_rsrc_node.buf`
        io_node_buf,
        /// `io_ring_ctx.user_bufs` (before 6.13)
        io_ctx_user_bufs,
        /// `io_ring_ctx.buf_table.nodes`, before 6.13 `io_ring_ctx.user_bufs`
        io_ctx_buffers,
        /// `io_ring_ctx.buf_table.nr`, before 6.13 `io_ring_ctx.nr_user_bufs`
        io_ctx_buffer_count,
        /// `io_mapped_ubuf.refs`; 0 where a buffer has one owner only (before 6.12)
        io_buf_refs,
        /// `io_mapped_ubuf.folio_shift`; 0 where buffers are not coalesced (before 6.12)
        io_buf_folio_shift,
        /// `io_mapped_ubuf.bvec`
        io_buf_bvec,
        /// `xdp_umem.pgs`
        xdp_pages,
        /// `xdp_umem.users`
        xdp_users,
        /// `xdp_umem.id`
        xdp_id,
        /// `file.private_data`
        file_private,
        /// `task_struct.tgid`
        task_tgid,
        /// `task_struct.cred`
        task_cred,
        /// `cred.uid`
        cred_uid,
        /// `cred.euid`
        cred_euid,
        /// `task_struct.io_uring`
        task_io_uring,
        /// `io_ring_ctx.file_table.data.nodes`, before 6.13 `io_ring_ctx.file_table.files`
        io_ctx_files,
        /// `io_ring_ctx.file_table.data.nr`, before 6.13 `io_ring_ctx.nr_user_files`
        io_ctx_file_count,
        /// `io_rsrc_node.file_ptr`; 0 where the table has the files themselves (before 6.13)
        io_node_file,
        /// `inode.i_flctx`
        inode_leases,
        /// `file_lock_context.flc_lease`
        context_leases,
        /// `file_lease.c.flc_list`, before 6.9 `file_lock.fl_list`
        lease_list,
        /// `file_lease.c.flc_file`, before 6.9 `file_lock.fl_file`
        lease_file,
        /// `file_lease.c.flc_flags`, before 6.9 `file_lock.fl_flags`
        lease_flags,
        /// `file_lease.c.flc_type`, before 6.9 `file_lock.fl_type` (8 bits)
        lease_type,
        /// `file_lease.c.flc_pid`, before 6.9 `file_lock.fl_pid`
        lease_pid,
        /// `file_lease.fl_break_time`, before 6.9 `file_lock.fl_break_time`
        lease_break_time,
        /// `file_lease.fl_downgrade_time`, before 6.9 `file_lock.fl_downgrade_time`
        lease_downgrade_time,
        /// `pt_regs.orig_ax`: the number of the system call
        regs_call,
        /// `pt_regs.cs`: tells a 32-bit system call
        regs_cs,
        /// `task_struct.flags`
        task_flags,
        /// `task_struct.files`
        task_files,
        /// `files_struct.fdt`
        files_table,
        /// `fdtable.max_fds`
        table_size,
        /// `fdtable.fd`
        table_files,
        /// `file.f_op`
        file_operations,
        /// `io_uring_task.registered_rings`
        io_task_rings,
        /// `socket.sk`
        socket_sk,
        /// `sock_common.skc_family`
        sock_family,
        /// `sock.sk_receive_queue`
        sock_receive_queue,
        /// `sk_buff.cb`
        skb_cb,
        /// `unix_skb_parms.fp`
        unix_parms_fp,
        /// `scm_fp_list.count`
        fp_list_count,
        /// `scm_fp_list.fp`
        fp_list_files,
        /// `xdp_sock.umem`
        xdp_sock_umem,
        /// `xdp_sock.pool`
        xdp_sock_pool,
        /// `xsk_buff_pool.umem`
        xdp_pool_umem,
        /// `page._refcount`
        page_references,
        /// `folio._pincount`: behind the first page, for large folios only
        folio_pins,
        /// `folio.index`
        folio_index,
        /// `address_space.host`
        mapping_host,
        /// Bit of `page.flags` that the first page of a large folio has (`PG_head`)
        page_large,
        /// Value of `FOLL_LONGTERM`; 0: pins that no subsystem claims are not looked for
        long_term,
        /// How many arguments `pin_user_pages` has
        pin_pages_args,
        /// `task_struct.mm`
        task_mm,
        /// `mm_struct.pinned_vm`
        mm_pinned,
        /// `mm_struct.locked_vm`
        mm_locked,
        /// `cred.user`
        cred_user,
        /// `user_struct.locked_vm`
        user_locked,
        /// `task_struct.signal`
        task_signal,
        /// `signal_struct.rlim`
        limits,
        /// `pt_regs.ax`: -ENOSYS while a system call is under way
        regs_result,
        /// `io_mapped_ubuf.nr_bvecs`
        io_buf_bvecs,
        /// 1: every fentry/fexit program has a second instance behind it (kernels that preempt inside BPF programs)
        twins,
        /// 1: trampolines call [`crate::KERNEL_CALLS`], so as not to be preempted
        undisturbed,
        /// 1: each pin that is made or released is told of in the ring buffer and in the log
        history,
        /// log2 of the base page size
        page_shift,
        /// `inode.i_rdev`
        inode_rdev,
        /// 1: what rings keep in user memory is found by `io_pin_pages` (before 6.13)
        io_ring_memory,
        /// 1: `io_create_region` takes the ring (before 6.19 or so), not the user
        io_region_takes_ring,
        /// `io_ring_ctx.ring_region`, before 6.13 `io_ring_ctx.ring_pages`
        io_ctx_queues,
        /// `io_ring_ctx.n_ring_pages` (before 6.13)
        io_ctx_queues_number,
        /// `io_ring_ctx.sq_region`, before 6.13 `io_ring_ctx.sqe_pages`
        io_ctx_entries,
        /// `dma_buf.file`
        dma_buf_file,
        /// `dma_buf.priv`: of a udmabuf, its `struct udmabuf`
        dma_buf_private,
        /// `udmabuf.pages` (6.13 and later), before that `udmabuf.folios`: a page or a folio for each page
        udmabuf_pages,
        /// `udmabuf.nr_pinned`; 0 where folios are pinned and not counted (before 6.13)
        udmabuf_pinned,
        /// `udmabuf.unpin_list`: where they are not counted, a list of them
        udmabuf_folios,
    }
}

offsets! {
    /// Offsets in modules' structs. They are kept in a map, not in `.rodata`: the modules may be loaded, or be
    /// replaced by others, long after the programs were verified.
    ModuleOffsets {
        /// `ib_device.name`
        ib_device_name,
        /// `ib_device.index`
        ib_device_index,
        /// `ib_umem.sgt_append.sgt.sgl`
        ib_umem_sgl,
        /// `rdma_restrack_entry.type`
        restrack_type,
        /// `rdma_restrack_entry.id`
        restrack_id,
        /// `ib_mr.res`
        ib_mr_res,
        /// `ib_mr.lkey`
        ib_mr_lkey,
        /// `ib_mr.rkey`
        ib_mr_rkey,
        /// `ib_mr.uobject`
        ib_mr_uobject,
        /// `ib_uobject.ufile`
        ib_uobject_ufile,
        /// Value of `RDMA_RESTRACK_CQ`
        restrack_cq,
        /// Value of `RDMA_RESTRACK_QP`
        restrack_qp,
        /// Value of `RDMA_RESTRACK_MR`
        restrack_mr,
        /// Value of `RDMA_RESTRACK_SRQ`
        restrack_srq,
        /// `vfio_dma.iova`
        vfio_dma_iova,
        /// `vfio_dma.vaddr`
        vfio_dma_vaddr,
        /// `vfio_dma.prot`
        vfio_dma_prot,
        /// `vfio_dma.mm`
        vfio_dma_memory,
        /// `vfio_group.container`
        vfio_group_container,
        /// `vfio_group.container_next`; 0: a group's file and a device's are not known as anchors
        vfio_group_next,
        /// `vfio_device.group`
        vfio_device_group,
        /// 1: VFIO's mappings are traced
        vfio_watched,
        /// 1: a device's file has a `vfio_device_file`, not the device itself (6.4 and later)
        vfio_has_files,
        /// `vfio_device_file.device`
        vfio_file_device,
        /// `frame_vector.is_pfns`
        frame_is_pfns,
        /// `frame_vector.ptrs`
        frame_pages,
        /// 1: `vb2_create_framevec` is told whether the device writes (since 6.2 or so)
        frame_told_write,
    }
}
