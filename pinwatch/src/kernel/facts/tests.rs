//! Looking at directories that stand for a host.

use std::path::PathBuf;

use super::*;
use crate::subsystem::wanted;

/// An empty host.
fn host() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn put(host: &tempfile::TempDir, path: &str, text: impl AsRef<[u8]>) {
    let path = host.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn fixture(name: &str) -> Vec<u8> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/btf/6.12", name].iter().collect();
    fs::read(folder).unwrap()
}

#[test]
fn nothing_can_be_read() {
    let facts = Facts::read(host().path(), Depth::Thorough, &wanted());
    assert_eq!(facts.btf, BtfState::Absent);
    assert!(facts.modules.is_empty() && facts.release.is_empty());
    assert_eq!((facts.lockdown, facts.preemptible, facts.capabilities), (None, None, None));
    assert_eq!((facts.kprobes, facts.bpf_tracing), (None, None));
    assert!(facts.members.values().all(Option::is_none));
    assert!(facts.functions.values().all(|fact| *fact == FunctionFact::default()));
}

#[test]
fn an_ordinary_host() {
    let host = host();
    put(&host, "proc/sys/kernel/osrelease", "6.12.107+deb13-amd64\n");
    put(&host, "proc/self/status", "Name:\tx\nCapInh:\t0000000000000000\nCapEff:\t000001ffffffffff\n");
    put(
        &host,
        "proc/modules",
        "rdma_rxe 1 0 - Live 0x0\nib_core 5 1 ib_uverbs, Live 0x0\nib_uverbs 2 0 - Loading 0x0\n",
    );
    put(
        &host,
        "proc/kallsyms",
        "0000000000000000 T xsk_bind\n0000000000000000 t ib_umem_get\t[ib_core]\n\u{ff}\nx\n",
    );
    put(&host, "sys/kernel/btf/vmlinux", fixture("vmlinux.btf"));
    put(&host, "sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    put(&host, "sys/kernel/debug/sched/preempt", "none voluntary (full) lazy \n");
    put(&host, "sys/kernel/tracing/available_filter_functions", "xsk_bind\nib_umem_release [ib_core]\n");
    put(&host, "sys/bus/event_source/devices/kprobe/type", "8\n");
    let facts = Facts::read(host.path(), Depth::Thorough, &wanted());
    assert_eq!(facts.release, "6.12.107+deb13-amd64");
    assert_eq!(facts.btf, BtfState::Read);
    assert_eq!(facts.modules, [ModuleFact { name: "ib_core".to_owned(), btf: BtfState::Absent }]);
    assert_eq!(facts.lockdown.as_deref(), Some("integrity"));
    assert_eq!(
        (facts.preemptible, facts.kprobes, facts.capabilities),
        (Some(true), Some(true), Some(0x1ff_ffff_ffff))
    );
    assert_eq!(facts.members["file.f_path"].unwrap().bytes(), Some(64));
    assert_eq!(facts.sizes["page"], Some(64));

    let bind = &facts.functions["xsk_bind"];
    assert!(bind.btf.is_some() && bind.module.is_none());
    assert_eq!((bind.symbol, bind.traceable), (Some(true), Some(true)));
    let get = &facts.functions["ib_umem_get"];
    assert_eq!(
        (get.module.as_deref(), get.symbol, get.traceable),
        (Some("ib_core"), Some(true), Some(false))
    );
    assert_eq!(facts.functions["io_buffer_unmap"].symbol, Some(false));
}

#[test]
fn symbols_are_read_only_where_they_tell_something() {
    let host = host();
    put(&host, "proc/kallsyms", "0 T xsk_bind\n");
    put(&host, "sys/kernel/tracing/available_filter_functions", "xsk_bind\n");
    put(&host, "sys/kernel/btf/vmlinux", fixture("vmlinux.btf"));
    let facts = Facts::read(host.path(), Depth::Quick, &wanted());
    assert_eq!((facts.functions["xsk_bind"].symbol, facts.functions["xsk_bind"].traceable), (None, None));
    put(&host, "proc/modules", "ib_core 5 1 ib_uverbs, Live 0x0\n");
    let facts = Facts::read(host.path(), Depth::Quick, &wanted());
    assert_eq!(
        (facts.functions["xsk_bind"].symbol, facts.functions["xsk_bind"].traceable),
        (Some(true), None)
    );
}

#[test]
fn damaged_btf_is_told() {
    let host = host();
    put(&host, "sys/kernel/btf/vmlinux", "not BTF at all, but some text");
    let BtfState::Unusable(why) = Facts::read(host.path(), Depth::Quick, &wanted()).btf else {
        panic!("not told")
    };
    assert!(why.starts_with("this is not BTF"), "{why}");
    put(&host, "sys/kernel/btf/vmlinux", fixture("vmlinux.btf"));
    put(&host, "sys/kernel/btf/ib_core", [0x9f, 0xeb, 1]);
    put(&host, "proc/modules", "ib_core 5 1 ib_uverbs, Live 0x0\n");
    let facts = Facts::read(host.path(), Depth::Quick, &wanted());
    assert!(matches!(facts.modules[0].btf, BtfState::Unusable(_)));
    assert_eq!(facts.btf, BtfState::Read);
}

#[test]
fn preemption() {
    let host = host();
    for (version, expected) in [
        ("#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2", None),
        ("#1 SMP PREEMPT_RT Debian", Some(true)),
        ("#1 SMP PREEMPT Debian", Some(true)),
        ("#1 SMP Debian 6.1.192-2", Some(false)),
    ] {
        put(&host, "proc/sys/kernel/version", version);
        assert_eq!(Facts::read(host.path(), Depth::Quick, &wanted()).preemptible, expected, "{version}");
    }
    for (mode, expected) in [
        ("none (voluntary) full", Some(false)),
        ("(none) voluntary full", Some(false)),
        ("full (lazy)", Some(true)),
        ("full (new)", None),
    ] {
        put(&host, "sys/kernel/debug/sched/preempt", mode);
        assert_eq!(Facts::read(host.path(), Depth::Quick, &wanted()).preemptible, expected, "{mode}");
    }
}

#[test]
fn kprobes_may_be_missing() {
    let host = host();
    put(&host, "sys/bus/event_source/devices/cpu/type", "4\n");
    assert_eq!(Facts::read(host.path(), Depth::Quick, &wanted()).kprobes, Some(false));
}
