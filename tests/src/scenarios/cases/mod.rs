//! All scenarios, in the order in which they run.

mod churn;
mod counts;
mod files;
mod holders;
mod identity;
mod lease_events;
mod lease_nfsd;
mod leases;
mod metrics;
mod objects;
mod procfs;
mod programs;
mod prometheus;
mod refused;
mod threads;
mod truth_table;
mod unclaimed;
mod users;
mod walk;

use crate::Scenario;

macro_rules! all {
    ($($name:literal => $run:path),+ $(,)?) => {
        /// All of them.
        pub const ALL: &[Scenario] = &[$(Scenario { name: $name, run: $run }),+];
    };
}

all! {
    "truth-table" => truth_table::truth_table,
    "truth-table-dax" => truth_table::truth_table_dax,
    "t1-unlinked" => files::unlinked,
    "t2-rdma-numbers" => objects::rdma_numbers,
    "t4-umem" => objects::umem,
    "rdma-queues" => objects::rdma_queues,
    "clone" => objects::clone,
    "sparse-update" => objects::sparse_update,
    "exit-paths" => objects::exit_paths,
    "extents-layouts" => files::layouts,
    "paths-mount-namespace" => files::mount_namespace,
    "paths-bind-mount" => files::bind_mount,
    "paths-deep" => files::deep,
    "paths-newline" => files::newline,
    "paths-not-utf8" => files::not_utf8,
    "renamed" => files::renamed,
    "unmounted" => files::unmounted,
    "holders-fork" => holders::fork,
    "holders-passed" => holders::passed,
    "holders-in-flight" => holders::in_flight,
    "holders-exec" => holders::exec,
    "holders-shared-ring" => holders::shared_ring,
    "holders-shared-umem" => holders::shared_umem,
    "holders-mapped" => holders::mapped,
    "holders-chain" => threads::chain,
    "holders-dup" => threads::dup,
    "holders-threads" => threads::threads,
    "holders-walk" => walk::holders_walk,
    "lease-violation" => leases::violation,
    "lease-passed-on" => leases::passed_on,
    "lease-copies" => leases::copies,
    "lease-breaks" => leases::breaks,
    "lease-overlay" => leases::overlay,
    "lease-nothing" => leases::nothing_to_lease,
    "lease-events" => lease_events::events,
    "lease-waits" => lease_events::waits,
    "lease-history" => lease_events::history,
    "lease-deleg" => lease_events::delegations,
    "lease-namespaces" => lease_events::namespaces,
    "lease-nfsd" => lease_nfsd::nfsd,
    "unclaimed" => unclaimed::functions,
    "unclaimed-unloaded" => unclaimed::unloaded,
    "unclaimed-without" => unclaimed::without,
    "kernel-count" => counts::quiet,
    "direct-io" => counts::direct_io,
    "refused" => refused::refused,
    "explain" => identity::explain,
    "container" => identity::container,
    "killed" => identity::killed,
    "remap-race" => churn::remap_race,
    "churn" => churn::churn,
    "random-walk" => churn::random_walk,
    "map-full" => programs::map_full,
    "other-user" => users::other_user,
    "second-daemon" => programs::second_daemon,
    "stale-socket" => programs::stale_socket,
    "not-a-pinwatch" => programs::not_a_pinwatch,
    "no-capability" => programs::no_capability,
    "capabilities" => programs::capabilities,
    "no-bpffs" => programs::no_bpffs,
    "no-btf" => programs::no_btf,
    "check" => programs::check,
    "metrics" => metrics::metrics_are_totals,
    "metrics-names" => metrics::names,
    "web" => prometheus::web::pages_and_bounds,
    "web-tls" => prometheus::tls::tls,
    "alerts" => prometheus::alerts::alerts,
    "proc-holders" => procfs::kcmp,
    "proc-leases" => procfs::leases,
    "proc-hiding" => procfs::hiding,
    "hostile-names" => procfs::names,
    "no-daemon" => programs::no_daemon,
    "modules-reload" => programs::modules_reload,
    // The last: what it does holds until the guest ends.
    "lockdown" => programs::lockdown,
}
