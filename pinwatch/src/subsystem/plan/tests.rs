//! Plans for the kernels of `tests/fixtures/btf`, and for kernels that lack something.

use std::{fs, path::Path};

use pinwatch_common::subsystems::{HookId, HookPoint, Subsystem};
use pinwatch_common::{KernelLayout, ModuleLayout};

use super::*;
use crate::kernel::btf::Btf;
use crate::kernel::facts::BtfState;
use crate::kernel::feature_name::{Detail, Part};
use crate::kernel::plan::hook::{CAP_BPF, CAP_PERFMON};
use crate::kernel::plan::{AttachMode, Method, Verdict};
use crate::subsystem::plan as decide;

pub(super) const KERNELS: [&str; 5] = ["6.1", "6.12", "6.18", "7.2", "7.3"];

fn btf(kernel: &str, name: &str) -> Btf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btf").join(kernel);
    Btf::parse(fs::read(folder.join(name).with_extension("btf")).unwrap()).unwrap()
}

pub(super) fn facts(kernel: &str) -> Facts {
    let names = ["ib_core", "ib_uverbs", "vfio", "vfio_iommu_type1", "videobuf2_memops"];
    let modules = names.map(|name| (name, Some(btf(kernel, name))));
    Facts::from_btf(kernel, &btf(kernel, "vmlinux"), modules.into(), &wanted())
}

fn without_modules(kernel: &str) -> Facts {
    Facts::from_btf(kernel, &btf(kernel, "vmlinux"), Vec::new(), &wanted())
}

/// A part of tracing that a subsystem has.
fn part(word: &str) -> &'static Part {
    crate::subsystem::ALL.iter().flat_map(|room| room.needs().parts).find(|part| part.word == word).unwrap()
}

fn rdma_names() -> FeatureName {
    FeatureName::Part(part("rdma names"))
}

fn reasons(plan: &Plan, name: impl Into<FeatureName>) -> Vec<Missing> {
    plan.feature(name.into()).unwrap().reasons.clone()
}

/// Whatever it costs.
pub(super) fn all() -> Choices {
    Choices { unclaimed: Some(true), ..AttachMode::Auto.into() }
}

fn state(plan: &Plan, name: impl Into<FeatureName>) -> State {
    plan.feature(name.into()).unwrap().state
}

fn text(plan: &Plan, name: impl Into<FeatureName>) -> String {
    plan.feature(name.into()).unwrap().text.clone()
}

/// (name, symbol, module, when) of all hooks.
fn hooks(plan: &Plan) -> Vec<(&str, &str, &str, HookPoint)> {
    let hooks = plan.hooks.iter();
    hooks
        .map(|hook| (hook.name(), hook.symbol, hook.module.as_deref().unwrap_or(""), hook.id.point()))
        .collect()
}

#[test]
fn every_known_kernel_has_everything() {
    for kernel in KERNELS {
        let plan = decide(&facts(kernel), all());
        for feature in &plan.features {
            let absent = kernel == "6.1" && feature.name == FeatureName::Subsystem(Subsystem::Udmabuf);
            let expected = if absent { State::Absent } else { State::On };
            assert_eq!(feature.state, expected, "{kernel}: {} {}", feature.name, feature.text);
        }
        assert_eq!(plan.verdict(), Verdict::AllOn);
        let names: Vec<_> = plan.features.iter().map(|feature| feature.name.as_str()).collect();
        let of_subsystems = ["rdma", "rdma names", "io_uring", "xdp", "udmabuf", "vfio", "v4l2", "unclaimed"];
        let details = Detail::ALL.map(Detail::word);
        assert_eq!(names, [&of_subsystems[..], &details].concat());
        assert!(feature_names().eq(plan.features.iter().map(|feature| feature.name)));
        for hook in &plan.hooks {
            let expected = match (hook.name(), &hook.module) {
                // It has seven arguments there: more than there are registers for.
                ("pin_remote", _) if kernel == "6.1" => Method::Kprobe,
                (_, Some(_)) if hook.name().starts_with("rdma") => Method::ModuleTrampoline,
                // A trampoline would keep the module.
                (_, Some(_)) => Method::Kprobe,
                _ => Method::Trampoline,
            };
            assert_eq!(hook.method, expected);
            assert!(hook.btf_id.is_some() && hook.fallback == (expected != Method::Kprobe));
        }
    }
}

#[test]
fn hooks_follow_the_kernel() {
    use HookPoint::{Entry, Exit};
    let xdp = [
        ("xdp_create", "xdp_umem_create", "", Exit),
        ("xdp_release", "unpin_user_pages_dirty_lock", "", Entry),
    ];
    let leases = [("lease_set", "generic_setlease", "", Exit), ("lease_change", "lease_modify", "", Entry)];
    let track = ("rdma_track", "rdma_restrack_add", "ib_core", Exit);
    let register = ("io_register", "io_sqe_buffer_register", "", Exit);
    for kernel in KERNELS {
        let mut expected = match kernel {
            "7.2" | "7.3" => vec![
                ("rdma_get", "__ib_umem_get_va", "ib_core", Exit),
                ("rdma_release", "ib_umem_release", "ib_core", Entry),
            ],
            _ => vec![
                ("rdma_get", "ib_umem_get", "ib_uverbs", Exit),
                ("rdma_release", "ib_umem_release", "ib_uverbs", Entry),
            ],
        };
        expected.extend([track, register]);
        expected.extend(match kernel {
            "6.1" => vec![("io_unmap", "io_buffer_unmap", "", Entry)],
            "6.12" => {
                vec![
                    ("io_unmap", "io_buffer_unmap", "", Entry),
                    ("io_unmap_done", "io_buffer_unmap", "", Exit),
                ]
            }
            _ => vec![("io_release", "io_release_ubuf", "", Entry)],
        });
        if kernel != "6.1" {
            expected.push(("io_clone", "io_register_clone_buffers", "", Exit));
        }
        expected.extend(match kernel {
            "6.1" | "6.12" => {
                vec![("io_pin", "io_pin_pages", "", Exit), ("io_provide", "io_register_pbuf_ring", "", Exit)]
            }
            _ => vec![
                ("io_region", "io_create_region", "", Exit),
                ("io_region_free", "io_free_region", "", Entry),
            ],
        });
        if kernel == "6.12" {
            expected.push(("io_queues", "__io_uaddr_map", "", Exit));
        }
        expected.extend(xdp);
        if kernel != "6.1" {
            expected.extend([
                ("udmabuf_export", "dma_buf_export", "", Exit),
                ("udmabuf_create", "udmabuf_create", "", Exit),
                ("udmabuf_release", "release_udmabuf", "", Entry),
            ]);
        }
        expected.extend([
            ("vfio_pin", "vfio_pin_pages_remote", "vfio_iommu_type1", Exit),
            ("vfio_unpin", "vfio_unmap_unpin", "vfio_iommu_type1", Entry),
            ("v4l2_create", "vb2_create_framevec", "videobuf2_memops", Exit),
            ("v4l2_destroy", "vb2_destroy_framevec", "videobuf2_memops", Entry),
        ]);
        expected.extend([
            ("pin_pages", "pin_user_pages", "", Exit),
            ("pin_fast", "pin_user_pages_fast", "", Exit),
            ("pin_remote", "pin_user_pages_remote", "", Exit),
            ("pin_unlocked", "pin_user_pages_unlocked", "", Exit),
        ]);
        if kernel != "6.1" {
            expected.push(("pin_folios", "memfd_pin_folios", "", Exit));
        }
        expected.extend(leases);
        assert_eq!(hooks(&decide(&facts(kernel), all())), expected, "{kernel}");
    }
}

#[test]
fn a_missing_member_turns_off_its_feature_only() {
    for (member, off) in [
        (
            "vm_area_struct.vm_end",
            vec![
                FeatureName::Detail(Detail::Extents),
                FeatureName::Detail(Detail::Paths),
                FeatureName::Detail(Detail::PageCheck),
            ],
        ),
        ("dentry.d_name.name", vec![FeatureName::Detail(Detail::Paths)]),
        (
            "page.mapping",
            vec![FeatureName::Subsystem(Subsystem::Unclaimed), FeatureName::Detail(Detail::PageCheck)],
        ),
        ("folio._pincount", vec![FeatureName::Subsystem(Subsystem::Unclaimed)]),
        ("task_struct.comm", vec![FeatureName::Detail(Detail::Owners)]),
        ("pt_regs.r10", vec![FeatureName::Detail(Detail::Anchors)]),
        ("io_mapped_ubuf.bvec", vec![FeatureName::Subsystem(Subsystem::IoUring)]),
        ("io_rsrc_node.buf", vec![FeatureName::Subsystem(Subsystem::IoUring)]),
        ("xdp_umem.pgs", vec![FeatureName::Subsystem(Subsystem::Xdp)]),
        (
            "file.private_data",
            vec![FeatureName::Subsystem(Subsystem::Udmabuf), FeatureName::Detail(Detail::Holders)],
        ),
        ("dma_buf.priv", vec![FeatureName::Subsystem(Subsystem::Udmabuf)]),
        ("vfio_dma.prot", vec![FeatureName::Subsystem(Subsystem::Vfio)]),
        ("frame_vector.ptrs", vec![FeatureName::Subsystem(Subsystem::V4l2)]),
        ("ib_mr.rkey", vec![rdma_names()]),
    ] {
        let mut facts = facts("7.3");
        facts.members.insert(member, None);
        let plan = decide(&facts, all());
        let features = plan.features.iter().filter(|feature| feature.state == State::Off);
        assert_eq!(features.map(|feature| feature.name).collect::<Vec<_>>(), off, "{member}");
        let first = plan.feature(off[0]).unwrap();
        let is_it = matches!(&first.reasons[..], [Missing::NoMember { paths }] if paths.contains(&member));
        assert!(is_it, "{member}: {:?}", first.reasons);
        assert_eq!(first.text, format!("{}; {}", first.reasons[0], first.loss));
        assert_eq!(plan.verdict(), Verdict::Degraded);
        assert!(plan.hooks.iter().all(|hook| !off.contains(&hook.feature)));
    }
}

#[test]
fn what_is_off_can_be_told_by_its_offset() {
    let without = |member| {
        let mut facts = facts("7.3");
        facts.members.insert(member, None);
        decide(&facts, all())
    };
    assert_eq!(without("vm_area_struct.vm_flags").layout.vma_end, 0);
    assert_eq!(without("mount.mnt").layout.dentry_name, 0);
    assert_eq!(without("file.f_mapping").layout.page_size, 0);
    assert_eq!(without("task_struct.group_leader").layout.task_comm, 0);
    assert_eq!(without("pt_regs.r10").layout.regs_arg0, 0);
    let names = without("ib_mr.res").module_layout.unwrap();
    assert_eq!((names.restrack_id, names.restrack_mr), (0, 0));
    let plan = without("ib_device.index");
    assert_eq!(plan.module_layout.unwrap().ib_device_name, 0);
    assert_eq!(state(&plan, Subsystem::Rdma), State::Degraded);
}

#[test]
fn other_shapes_are_not_hooked() {
    // A member of another width.
    let mut other = facts("6.12");
    let member = other.members.get_mut("xdp_umem.id").unwrap().as_mut().unwrap();
    member.bits = 64;
    let plan = decide(&other, all());
    assert_eq!(
        text(&plan, Subsystem::Xdp),
        "xdp_umem.id has 64 bits in this kernel, where 32 are known; umems are not traced"
    );
    // 6.13 and 6.14 call io_buffer_unmap with a node.
    let mut other = facts("6.12");
    let function = other.functions.get_mut("io_buffer_unmap").unwrap().btf.as_mut().unwrap();
    function.params[1].shape = "io_rsrc_node *".to_owned();
    let plan = decide(&other, all());
    assert_eq!(state(&plan, Subsystem::IoUring), State::Off);
    assert_eq!(
        reasons(&plan, Subsystem::IoUring),
        [Missing::TakesOther {
            symbol: "io_buffer_unmap",
            known: "io_ring_ctx *, io_mapped_ubuf **".to_owned(),
            here: "io_ring_ctx *, io_rsrc_node *".to_owned(),
        }]
    );
    // A path whose members moved.
    let mut other = facts("6.12");
    other.members.insert("path.dentry", other.members["path.mnt"]);
    let plan = decide(&other, all());
    assert_eq!((state(&plan, Detail::Paths), plan.layout.file_path), (State::Off, 0));
}

#[test]
fn layouts_that_are_taken_for_granted() {
    let mut facts = facts("7.3");
    facts.sizes.insert("scatterlist", Some(24));
    let plan = decide(&facts, all());
    assert_eq!((state(&plan, Detail::PageCheck), plan.layout.page_size), (State::Off, 0));
    assert_eq!(reasons(&plan, Detail::PageCheck), [Missing::OtherSize { name: "scatterlist", known: 32 }]);
    facts.members.insert("xdp_umem_reg.len", None);
    assert_eq!(state(&decide(&facts, all()), Subsystem::Xdp), State::Off);
}

#[test]
fn modules_are_waited_for() {
    for kernel in KERNELS {
        let plan = decide(&without_modules(kernel), all());
        assert_eq!(state(&plan, Subsystem::Rdma), State::Waiting);
        assert_eq!(state(&plan, rdma_names()), State::Waiting);
        assert_eq!(text(&plan, Subsystem::Rdma), "module ib_uverbs is not loaded; it is hooked when it is");
        assert_eq!((plan.verdict(), plan.module_layout), (Verdict::AllOn, None));
        // What is frozen in .rodata must not change when the modules come.
        assert_eq!(plan.layout, decide(&facts(kernel), all()).layout);
    }
    // 7.x has RDMA buffers in ib_core, 6.x in ib_uverbs.
    for (kernel, expected) in [("6.1", State::Waiting), ("7.3", State::On)] {
        let modules = vec![("ib_core", Some(btf(kernel, "ib_core")))];
        let facts = Facts::from_btf(kernel, &btf(kernel, "vmlinux"), modules, &wanted());
        assert_eq!(state(&decide(&facts, all()), Subsystem::Rdma), expected);
    }
}

#[test]
fn modules_without_btf_get_kprobes() {
    let modules = vec![("ib_core", None), ("ib_uverbs", None)];
    let mut facts = Facts::from_btf("6.1", &btf("6.1", "vmlinux"), modules, &wanted());
    let plan = decide(&facts, all());
    assert_eq!(state(&plan, Subsystem::Rdma), State::Off);
    let module = "ib_core".to_owned();
    assert_eq!(reasons(&plan, Subsystem::Rdma), [Missing::NotFound { symbol: "ib_umem_get", module }]);

    for fact in facts.functions.values_mut() {
        fact.symbol = Some(fact.btf.is_some());
    }
    for (symbol, module) in [("ib_umem_get", "ib_uverbs"), ("ib_umem_release", "ib_uverbs")] {
        let fact = facts.functions.get_mut(symbol).unwrap();
        (fact.symbol, fact.module) = (Some(true), Some(module.to_owned()));
    }
    let plan = decide(&facts, all());
    let rdma: Vec<_> =
        plan.hooks.iter().filter(|hook| hook.feature == FeatureName::Subsystem(Subsystem::Rdma)).collect();
    assert_eq!(rdma.len(), 2);
    assert!(rdma.iter().all(|hook| hook.method == Method::Kprobe && hook.btf_id.is_none() && !hook.fallback));
    assert_eq!(state(&plan, Subsystem::Rdma), State::Degraded);
    assert_eq!(state(&plan, rdma_names()), State::Off);
    assert_eq!(plan.module_layout, Some(ModuleLayout::ZERO));
    assert_eq!(state(&plan, Subsystem::IoUring), State::On);
}

#[test]
fn kprobes_for_all_if_asked_for() {
    for kernel in KERNELS {
        let mut facts = facts(kernel);
        let probes = Choices { unclaimed: Some(true), ..AttachMode::Kprobe.into() };
        let plan = decide(&facts, probes);
        assert!(plan.hooks.iter().all(|hook| hook.method == Method::Kprobe && !hook.fallback));
        assert_eq!((plan.verdict(), plan.layout.backups), (Verdict::AllOn, 0));
        facts.kprobes = Some(false);
        assert_eq!(decide(&facts, AttachMode::Kprobe).verdict(), Verdict::Unusable);
        let plan = decide(&facts, all());
        // On 6.1 one of its hooks takes a kprobe.
        let unclaimed = if kernel == "6.1" { State::Off } else { State::On };
        assert_eq!(state(&plan, Subsystem::Unclaimed), unclaimed, "{kernel}");
    }
}

#[test]
fn unclaimed_pins_are_looked_for_where_direct_io_does_not_pay() {
    for kernel in KERNELS {
        let facts = facts(kernel);
        for mode in [AttachMode::Kprobe, AttachMode::Auto] {
            let plan = decide(&facts, mode);
            let expected = if kernel == "6.1" { State::On } else { State::Disabled };
            assert_eq!(state(&plan, Subsystem::Unclaimed), expected, "{kernel}");
            assert_eq!(plan.layout.long_term == 0, expected == State::Disabled);
            assert_eq!(plan.verdict(), Verdict::AllOn);
        }
        let off = Choices { unclaimed: Some(false), ..AttachMode::Auto.into() };
        let plan = decide(&facts, off);
        assert_eq!((state(&plan, Subsystem::Unclaimed), plan.layout.long_term), (State::Disabled, 0));
        assert_eq!(reasons(&plan, Subsystem::Unclaimed), [Missing::NotWanted]);
    }
}

#[test]
fn what_is_switched_off_is_not_hooked() {
    let hooked: Vec<Subsystem> =
        (Subsystem::ALL.into_iter()).filter(|of| *of != Subsystem::Unclaimed).collect();
    let without = Choices { without: hooked.clone(), ..AttachMode::Auto.into() };
    let plan = decide(&facts("7.3"), without.clone());
    for subsystem in hooked {
        assert_eq!(reasons(&plan, subsystem), [Missing::SwitchedOff(subsystem)]);
        assert_eq!(state(&plan, subsystem), State::Off);
    }
    assert_eq!(reasons(&plan, rdma_names()), [Missing::Needs(Subsystem::Rdma.into())]);
    let others = [Subsystem::Unclaimed.into(), Detail::LeaseEvents.into()];
    assert!(plan.hooks.iter().all(|hook| others.contains(&hook.feature)));
    // Programs are told nothing of what is not hooked.
    assert_eq!((plan.module_layout, plan.layout.io_register_args), (None, 0));
    // What is not there need not be switched off.
    assert_eq!(state(&decide(&facts("6.1"), without), Subsystem::Udmabuf), State::Absent);
}

#[test]
fn backups_where_programs_can_be_preempted() {
    for (preemptible, backups) in [(None, 1), (Some(true), 1), (Some(false), 0)] {
        let facts = Facts { preemptible, ..without_modules("6.12") };
        assert_eq!(decide(&facts, AttachMode::Auto).layout.backups, backups);
    }
}

#[test]
fn preemption_is_put_off_where_the_kernel_has_what_that_takes() {
    let decide = |facts: &Facts, mode| {
        let plan = plan(facts, mode);
        assert_eq!(plan.kfuncs.is_some(), plan.layout.unpreempted != 0);
        plan.kfuncs.is_some()
    };
    for (kernel, has) in [("6.1", false), ("6.12", false), ("6.18", true), ("7.2", true), ("7.3", true)] {
        let mut facts = Facts { preemptible: Some(true), ..without_modules(kernel) };
        assert_eq!(decide(&facts, AttachMode::Auto), has, "{kernel}");
        assert!(!decide(&facts, AttachMode::Kprobe));
        assert!(!decide(&Facts { preemptible: Some(false), ..facts.clone() }, AttachMode::Auto));
        // It takes something else.
        let save = facts.functions.get_mut("bpf_local_irq_save").and_then(|fact| fact.btf.as_mut());
        if let Some(save) = save {
            save.params.clear();
            assert!(!decide(&facts, AttachMode::Auto));
        }
    }
}

#[test]
fn capabilities_and_trampolines() {
    let bpf_and_perfmon = 1 << CAP_BPF | 1 << CAP_PERFMON;
    let plan = decide(&Facts { capabilities: Some(bpf_and_perfmon), ..facts("6.1") }, AttachMode::Auto);
    assert_eq!(plan.verdict(), Verdict::AllOn);
    for hook in &plan.hooks {
        let needs_one = hook.module.is_some() || hook.name() == "pin_remote";
        assert_eq!(hook.method == Method::Kprobe, needs_one);
    }
    let refused = Facts { bpf_tracing: Some(libc::EINVAL), ..facts("6.1") };
    let plan = decide(&refused, AttachMode::Auto);
    assert!(plan.hooks.iter().all(|hook| hook.method == Method::Kprobe));
    assert_eq!((plan.verdict(), plan.layout.backups), (Verdict::AllOn, 0));
}

#[test]
fn some_hosts_allow_nothing() {
    let fine = || facts("7.3");
    let damaged = || "it is damaged".to_owned();
    for (facts, reason) in [
        (
            Facts { arch: "aarch64".to_owned(), ..fine() },
            Missing::OtherArchitecture { arch: "aarch64".to_owned() },
        ),
        (Facts { btf: BtfState::Absent, ..fine() }, Missing::NoBtf),
        (Facts { btf: BtfState::Unusable(damaged()), ..fine() }, Missing::UnusableBtf { error: damaged() }),
        (Facts { capabilities: Some(1 << CAP_BPF), ..fine() }, Missing::NoCapabilities),
        (Facts { lockdown: Some("confidentiality".to_owned()), ..fine() }, Missing::Lockdown),
        (Facts { bpf_tracing: Some(libc::EPERM), ..fine() }, Missing::Forbidden),
        (Facts { bpf_tracing: Some(libc::ENOSYS), ..fine() }, Missing::NoBpf),
    ] {
        let plan = decide(&facts, AttachMode::Auto);
        assert_eq!(plan.verdict(), Verdict::Unusable);
        assert!(plan.hooks.is_empty() && plan.layout == KernelLayout::ZERO);
        assert_eq!(plan.features.len(), decide(&fine(), AttachMode::Auto).features.len());
        for feature in &plan.features {
            assert_eq!((feature.state, &feature.reasons[..]), (State::Off, std::slice::from_ref(&reason)));
            assert_eq!(feature.text, reason.to_string());
        }
    }
}

#[test]
fn what_a_kernel_was_built_without_is_not_missed() {
    let mut facts = facts("7.3");
    for symbol in ["io_sqe_buffer_register", "io_release_ubuf", "xdp_umem_create", "xsk_bind"] {
        facts.functions.insert(symbol, Default::default());
    }
    facts.sizes.insert("io_mapped_ubuf", None);
    let plan = decide(&facts, AttachMode::Auto);
    assert_eq!(state(&plan, Subsystem::IoUring), State::Absent);
    assert_eq!(state(&plan, Subsystem::Xdp), State::Absent);
    assert_eq!(plan.verdict(), Verdict::AllOn);
}

#[test]
fn program_names() {
    let plan = decide(&facts("6.1"), AttachMode::Auto);
    let get = plan.hooks.iter().find(|hook| hook.name() == "rdma_get").unwrap();
    assert_eq!(get.programs(get.method, true), ["rdma_get_backup", "rdma_get"]);
    assert_eq!(get.programs(get.method, false), ["rdma_get"]);
    assert_eq!(get.programs(Method::Kprobe, true), ["rdma_get_kretprobe", "rdma_get_kprobe"]);
    assert_eq!(text(&plan, Subsystem::Rdma), "ib_umem_get (fexit), ib_umem_release (fentry) in ib_uverbs");
}

/// A hook that no kernel gets is a line of the table that its room has forgotten.
#[test]
fn every_hook_of_the_table_is_planned_somewhere() {
    let plans = KERNELS.map(|kernel| decide(&facts(kernel), all()));
    for hook in HookId::ALL {
        let planned = plans.iter().flat_map(|plan| &plan.hooks).find(|planned| planned.id == hook);
        let planned = planned.unwrap_or_else(|| panic!("{} is hooked nowhere", hook.name()));
        let owner = match planned.feature {
            FeatureName::Subsystem(subsystem) => Some(subsystem),
            FeatureName::Part(part) => Some(part.subsystem),
            FeatureName::Detail(_) => None,
        };
        assert_eq!(owner, hook.subsystem(), "{}", hook.name());
    }
}

#[test]
fn whatever_is_looked_for_belongs_to_somebody() {
    let wanted = wanted();
    let mut symbols: Vec<_> = wanted.functions.iter().map(|function| function.symbol).collect();
    symbols.sort_unstable();
    symbols.dedup();
    assert!(symbols.len() > 30 && wanted.modules.contains(&"ib_uverbs"));
    let plans = KERNELS.map(|kernel| decide(&facts(kernel), all()));
    for hook in plans.iter().flat_map(|plan| &plan.hooks) {
        assert!(symbols.contains(&hook.symbol), "{}", hook.symbol);
    }
}
