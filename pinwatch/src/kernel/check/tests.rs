//! What `pinwatch check` says about the kernels of `tests/fixtures/btf`.

use std::{fs, path::Path};

use super::*;
use crate::kernel::{
    btf::Btf,
    plan::{AttachMode, Choices},
};
use crate::subsystem;

fn facts(kernel: &str, modules: &[&'static str]) -> Facts {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btf").join(kernel);
    let btf = |name: &str| Btf::parse(fs::read(folder.join(name).with_extension("btf")).unwrap()).unwrap();
    let modules = modules.iter().map(|name| (*name, Some(btf(name)))).collect();
    let facts = Facts::from_btf("6.1.0-56-amd64", &btf("vmlinux"), modules, &subsystem::wanted());
    Facts { lockdown: Some("none".to_owned()), ..facts }
}

fn check(facts: &Facts, attached: &[Attached<'_>]) -> Check {
    Check::new(
        facts,
        &subsystem::plan(facts, Choices { unclaimed: Some(true), ..AttachMode::Auto.into() }),
        attached,
    )
}

#[test]
fn all_on() {
    let check = check(&facts("6.1", &["ib_core", "ib_uverbs"]), &[]);
    assert_eq!(check.exit_code(), 0);
    assert_eq!(
        check.text(80),
        "\
kernel 6.1.0-56-amd64, BTF yes, modules' BTF yes, lockdown none
rdma       ok    ib_umem_get (fexit), ib_umem_release (fentry) in ib_uverbs
rdma names ok    rdma_restrack_add (fexit) in ib_core
io_uring   ok    io_sqe_buffer_register (fexit), io_buffer_unmap (fentry),
                 io_pin_pages (fexit), io_register_pbuf_ring (fexit)
xdp        ok    xdp_umem_create (fexit), unpin_user_pages_dirty_lock (fentry)
udmabuf    off   udmabuf takes no pins for the long term here (before 6.11)
vfio       wait  module vfio_iommu_type1 is not loaded; it is hooked when it is
v4l2       wait  module videobuf2_memops is not loaded; it is hooked when it is
unclaimed  ok    pin_user_pages (fexit), pin_user_pages_fast (fexit),
                 pin_user_pages_remote (kretprobe), pin_user_pages_unlocked
                 (fexit)
extents    ok    which ranges of which files, from the VMAs when the pin is made
paths      ok    names as of the time when the pin is made
page check ok    the first page of each extent is looked at
owners     ok    command name and start time of the creator
holders    ok    descriptors, mappings and messages of all processes, when asked
anchors    ok    file descriptor from the system call's registers
refused    ok    what was asked for, by whom, and what the reason is
leases     ok    those on files that processes have open or mapped, when asked
events     ok    generic_setlease (fexit), lease_modify (fentry), tracepoints
                 break_lease_*, time_out_leases
"
    );
}

#[test]
fn waiting_is_fine() {
    let check = check(&facts("7.3", &[]), &[]);
    assert_eq!(check.exit_code(), 0);
    let text = check.text(80);
    assert!(
        text.contains("\nrdma       wait  module ib_uverbs is not loaded; it is hooked when it is\n"),
        "{text}"
    );
    assert!(text.starts_with("kernel 6.1.0-56-amd64, BTF yes, no modules to hook, lockdown none\n"));
}

#[test]
fn a_failed_hook_turns_its_feature_off() {
    let failed = Err("invalid argument\n0: (b7) r0 = 0".to_owned());
    let attached = [("rdma_get", failed), ("rdma_track", Ok(Method::ModuleTrampoline))];
    let check = check(&facts("6.1", &["ib_core", "ib_uverbs"]), &attached);
    assert_eq!(check.exit_code(), 1);
    let text = check.text(80);
    let expected = "
rdma       off   cannot attach to the return of ib_umem_get: invalid argument 0:
                 (b7) r0 = 0; RDMA pins are not traced
rdma names off   it needs rdma, which is off; memory regions have no numbers and
                 keys
io_uring   ok ";
    assert!(text.contains(expected), "{text}");
    assert!(text.lines().all(|line| line.len() <= 80));
}

#[test]
fn what_was_attached_another_way_says_so() {
    let attached = [("xdp_create", Ok(Method::Kprobe)), ("xdp_release", Ok(Method::Trampoline))];
    let check = check(&facts("6.12", &["ib_core", "ib_uverbs"]), &attached);
    assert_eq!(check.exit_code(), 0);
    let text = check.text(200);
    assert!(
        text.contains("ok    xdp_umem_create (kretprobe), unpin_user_pages_dirty_lock (fentry)\n"),
        "{text}"
    );
}

#[test]
fn a_common_reason_is_said_once() {
    let facts = Facts { btf: BtfState::Absent, ..facts("6.1", &[]) };
    let check = check(&facts, &[]);
    assert_eq!(check.exit_code(), 2);
    assert_eq!(
        check.text(80),
        "\
kernel 6.1.0-56-amd64, BTF no, no modules to hook, lockdown none
all        off   this kernel has no BTF (/sys/kernel/btf/vmlinux), so no offset
                 is known; take one with CONFIG_DEBUG_INFO_BTF
No pin can be traced here. lspins shows what procfs and netlink know.
"
    );
}

#[test]
fn json_for_scripts() {
    let attached = [("io_register", Ok(Method::Trampoline)), ("io_unmap", Err("no".to_owned()))];
    let check = check(&facts("6.1", &["ib_core", "ib_uverbs"]), &attached);
    let json: serde_json::Value = serde_json::from_str(&check.json().unwrap()).unwrap();
    assert_eq!(json["verdict"], "degraded");
    assert_eq!(json["kernel"]["modules"][1]["name"], "ib_uverbs");
    assert_eq!(json["features"].as_array().unwrap().len(), 17);
    assert_eq!(json["features"][2]["name"], "io_uring");
    assert_eq!(json["features"][2]["state"], "off");
    let hook = |name: &str| {
        json["hooks"].as_array().unwrap().iter().find(|hook| hook["name"] == name).unwrap().clone()
    };
    assert_eq!(hook("io_register")["attached"], true);
    assert_eq!(hook("io_unmap")["error"], "no");
    assert_eq!(hook("rdma_get")["attached"], serde_json::Value::Null);
    assert_eq!(hook("rdma_get")["method"], "fexit");
}

#[test]
fn empty_facts_are_no_panic() {
    let mut facts = facts("6.1", &[]);
    facts.functions.clear();
    facts.members.clear();
    facts.sizes.clear();
    facts.enums.clear();
    facts.release.clear();
    let check = check(&facts, &[]);
    assert_eq!(check.exit_code(), 1);
    assert!(!check.text(0).is_empty());
}
