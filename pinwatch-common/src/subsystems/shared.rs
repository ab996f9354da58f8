//! The rest of the table in `subsystems.rs`: hooks and members of kernel structures that belong to no subsystem.

/// Puts what is shared behind the subsystems, and hands all of it on.
#[doc(hidden)]
#[macro_export]
macro_rules! shared_table {
    ([$($callback:tt)+] $argument:ident { $($subsystems:tt)+ }) => { $($callback)+! { @ $argument {
        $($subsystems)+

shared {
    hooks {
        /// `generic_setlease`
        lease_set: exit other,
        /// `lease_modify`
        lease_change: entry other,
    }
    carries {}
    kernel {
        groups {
            /// Which ranges of which files.
            extents: Extents {
                members {
                    vma_start: ["vm_area_struct.vm_start"] 8,
                    vma_end: ["vm_area_struct.vm_end"] 8,
                    vma_flags: ["vm_area_struct.vm_flags"] 8,
                    vma_pgoff: ["vm_area_struct.vm_pgoff"] 8,
                    vma_file: ["vm_area_struct.vm_file"] 8,
                    file_inode: ["file.f_inode"] 8,
                    inode_ino: ["inode.i_ino"] 8,
                    inode_generation: ["inode.i_generation"] 4,
                    inode_sb: ["inode.i_sb"] 8,
                    sb_dev: ["super_block.s_dev"] 4,
                }
            }
            /// The files' names.
            paths: Paths {
                members {
                    /// A `struct path`.
                    file_path: ["file.f_path"] 16,
                    inode_mode: ["inode.i_mode"] 2,
                    sb_magic: ["super_block.s_magic"] 8,
                    sb_type: ["super_block.s_type"] 8,
                    fstype_name: ["file_system_type.name"] 8,
                    dentry_parent: ["dentry.d_parent"] 8,
                    /// The length is in the upper 32 bits.
                    dentry_hash_len: ["dentry.d_name.hash_len"] 8,
                    dentry_name: ["dentry.d_name.name"] 8,
                    mount_mnt: ["mount.mnt"] 0,
                    mount_parent: ["mount.mnt_parent"] 8,
                    mount_mountpoint: ["mount.mnt_mountpoint"] 8,
                    vfsmount_root: ["vfsmount.mnt_root"] 8,
                }
                assumed {
                    "path.mnt" = 0,
                    "path.dentry" = 8,
                }
            }
            /// Looking at an extent's first page.
            page_check: PageCheck {
                members {
                    file_mapping: ["file.f_mapping"] 8,
                    page_mapping: ["page.mapping"] 8,
                    /// The same word, two encodings.
                    page_head: ["page.compound_head", "page.compound_info"] 8,
                }
                sizes {
                    page_size: "page",
                }
                assumed {
                    "bio_vec.bv_page" = 0,
                    "bio_vec.bv_offset" = 12,
                    "scatterlist.page_link" = 0,
                    "scatterlist.length" = 12,
                }
                assumed_sizes {
                    "bio_vec" = 16,
                    "scatterlist" = 32,
                }
            }
            /// The creator's command name and start time.
            owners: Owners {
                members {
                    task_leader: ["task_struct.group_leader"] 8,
                    task_comm: ["task_struct.comm"] 16,
                    task_start: ["task_struct.start_boottime"] 8,
                    task_cred: ["task_struct.cred"] 8,
                    cred_uid: ["cred.uid"] 4,
                }
            }
            /// The file descriptor that the creator used: the arguments of its system call.
            anchors: Anchors {
                members {
                    regs_arg0: ["pt_regs.di"] 8,
                    regs_arg1: ["pt_regs.si"] 8,
                    regs_arg2: ["pt_regs.dx"] 8,
                    regs_arg3: ["pt_regs.r10"] 8,
                }
            }
            /// Who keeps an anchor.
            holders: Holders {
                members {
                    file_private: ["file.private_data"] 8,
                    task_tgid: ["task_struct.tgid"] 4,
                    cred_euid: ["cred.euid"] 4,
                    socket_sk: ["socket.sk"] 8,
                    sock_family: ["sock_common.skc_family"] 2,
                    sock_receive_queue: ["sock.sk_receive_queue"] 0,
                    skb_cb: ["sk_buff.cb"] 48,
                    unix_parms_fp: ["unix_skb_parms.fp"] 8,
                    fp_list_count: ["scm_fp_list.count"] 2,
                    fp_list_files: ["scm_fp_list.fp"] 0,
                    task_files: ["task_struct.files"] 8,
                    files_table: ["files_struct.fdt"] 8,
                    table_size: ["fdtable.max_fds"] 4,
                    table_files: ["fdtable.fd"] 8,
                    file_operations: ["file.f_op"] 8,
                }
                assumed {
                    "sk_buff.next" = 0,
                    "sk_buff_head.next" = 0,
                }
            }
            /// Leases on files.
            leases: Leases {
                members {
                    inode_leases: ["inode.i_flctx"] 8,
                    context_leases: ["file_lock_context.flc_lease"] 0,
                    lease_list: ["file_lease.c.flc_list", "file_lock.fl_list"] 0,
                    lease_file: ["file_lease.c.flc_file", "file_lock.fl_file"] 8,
                    lease_flags: ["file_lease.c.flc_flags", "file_lock.fl_flags"] 4,
                    lease_type: ["file_lease.c.flc_type", "file_lock.fl_type"] 1,
                    lease_pid: ["file_lease.c.flc_pid", "file_lock.fl_pid"] 4,
                    lease_break_time: ["file_lease.fl_break_time", "file_lock.fl_break_time"] 8,
                    lease_downgrade_time: ["file_lease.fl_downgrade_time", "file_lock.fl_downgrade_time"] 8,
                }
                assumed {
                    "list_head.next" = 0,
                }
            }
            /// By which system call a lease is broken.
            breakers: Breakers {
                members {
                    /// The number of the system call.
                    regs_call: ["pt_regs.orig_ax"] 8,
                    /// Tells a 32-bit system call.
                    regs_cs: ["pt_regs.cs"] 0,
                    task_flags: ["task_struct.flags"] 4,
                }
            }
            /// Whether a page is pinned.
            page_state: PageState {
                members {
                    page_references: ["page._refcount"] 4,
                    /// Behind the first page, for large folios only.
                    folio_pins: ["folio._pincount"] 4,
                    folio_index: ["folio.index"] 8,
                    mapping_host: ["address_space.host"] 8,
                    task_mm: ["task_struct.mm"] 8,
                    /// -ENOSYS while a system call is under way.
                    regs_result: ["pt_regs.ax"] 8,
                }
                values {
                    /// Bit of `page.flags` that the first page of a large folio has.
                    page_large: "PG_head",
                }
            }
            /// What counts against RLIMIT_MEMLOCK.
            limits: Limits {
                members {
                    mm_pinned: ["mm_struct.pinned_vm"] 8,
                    mm_locked: ["mm_struct.locked_vm"] 8,
                    cred_user: ["cred.user"] 8,
                    user_locked: ["user_struct.locked_vm"] 8,
                    task_signal: ["task_struct.signal"] 8,
                    signal_limits: ["signal_struct.rlim"] 0,
                }
            }
        }
        optional {
            inode_flags: ["inode.i_flags"] 4,
        }
        choices {
            /// 1: every fentry/fexit program has a backup behind it (kernels that preempt inside BPF programs).
            backups,
            /// 1: trampolines call [`crate::KFUNCS`], so as not to be preempted.
            unpreempted,
            /// 1: each pin that is made or released goes into the ring buffer and into the log.
            history,
            /// log2 of the base page size.
            page_shift,
        }
    }
    module {}
}

    } } };
}
