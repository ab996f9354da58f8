//! All scenarios, in the order in which they run.

mod churn;
mod counts;
mod devices;
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
mod unseen;
mod users;
mod walk;

use crate::{Scenario, Where};

macro_rules! all {
    ($($name:literal => in $place:ident: $run:path),+ $(,)?) => {
        /// All of them.
        pub const ALL: &[Scenario] = &[$(Scenario { name: $name, place: Where::$place, run: $run }),+];
    };
}

all! {
    "truth-table" => in Everywhere: truth_table::truth_table,
    "truth-table-dax" => in Everywhere: truth_table::truth_table_dax,
    "t1-unlinked" => in Everywhere: files::unlinked,
    "t2-rdma-numbers" => in Everywhere: objects::rdma_numbers,
    "t4-umem" => in Everywhere: objects::umem,
    "rdma-queues" => in Everywhere: objects::rdma_queues,
    "clone" => in Everywhere: objects::clone,
    "sparse-update" => in Everywhere: objects::sparse_update,
    "exit-paths" => in Everywhere: objects::exit_paths,
    "extents-layouts" => in Everywhere: files::layouts,
    "paths-mount-namespace" => in Everywhere: files::mount_namespace,
    "paths-bind-mount" => in Everywhere: files::bind_mount,
    "paths-deep" => in Everywhere: files::deep,
    "paths-newline" => in Everywhere: files::newline,
    "paths-not-utf8" => in Everywhere: files::not_utf8,
    "renamed" => in Everywhere: files::renamed,
    "unmounted" => in Everywhere: files::unmounted,
    "no-answer" => in EachKernel: files::no_answer,
    "holders-fork" => in Everywhere: holders::fork,
    "holders-passed" => in Everywhere: holders::passed,
    "holders-in-flight" => in Everywhere: holders::in_flight,
    "holders-exec" => in Everywhere: holders::exec,
    "holders-shared-ring" => in Everywhere: holders::shared_ring,
    "holders-shared-umem" => in Everywhere: holders::shared_umem,
    "holders-mapped" => in Everywhere: holders::mapped,
    "holders-chain" => in EachKernel: threads::chain,
    "holders-dup" => in Everywhere: threads::dup,
    "holders-threads" => in Everywhere: threads::threads,
    "holders-walk" => in EachKernel: walk::holders_walk,
    "lease-violation" => in Everywhere: leases::violation,
    "lease-passed-on" => in Everywhere: leases::passed_on,
    "lease-copies" => in Everywhere: leases::copies,
    "lease-breaks" => in Everywhere: leases::breaks,
    "lease-overlay" => in Everywhere: leases::overlay,
    "lease-nothing" => in Everywhere: leases::nothing_to_lease,
    "lease-events" => in Everywhere: lease_events::events,
    "lease-waits" => in Everywhere: lease_events::waits,
    "lease-history" => in Everywhere: lease_events::history,
    "lease-deleg" => in Everywhere: lease_events::delegations,
    "lease-namespaces" => in Everywhere: lease_events::namespaces,
    "lease-nfsd" => in EachKernel: lease_nfsd::nfsd,
    "ring-memory" => in Everywhere: devices::ring_memory,
    "udmabuf" => in Everywhere: devices::udmabuf,
    "vfio" => in Everywhere: devices::vfio,
    "v4l2" => in Everywhere: devices::v4l2,
    "unclaimed" => in WithModule: unclaimed::functions,
    "unclaimed-unloaded" => in WithModule: unclaimed::unloaded,
    "unclaimed-without" => in Everywhere: unclaimed::without,
    "kernel-count" => in WithModule: counts::quiet,
    "direct-io" => in WithModule: counts::direct_io,
    "busy-cpu" => in EachKernel: counts::busy_cpu,
    "refused" => in Everywhere: refused::refused,
    "refused-movable" => in EachKernel: refused::movable,
    "explain" => in Everywhere: identity::explain,
    "container" => in Everywhere: identity::container,
    "killed" => in Everywhere: identity::killed,
    "remap-race" => in Everywhere: churn::remap_race,
    "mappings-locked" => in Everywhere: churn::mappings_locked,
    "churn" => in Everywhere: churn::churn,
    "crowd" => in Everywhere: unseen::crowd,
    "unseen-release" => in Everywhere: unseen::unseen_release,
    "random-walk" => in Everywhere: churn::random_walk,
    "map-full" => in EachKernel: programs::map_full,
    "other-user" => in Everywhere: users::other_user,
    "second-daemon" => in Once: programs::second_daemon,
    "stale-socket" => in Once: programs::stale_socket,
    "not-a-pinwatch" => in Once: programs::not_a_pinwatch,
    "no-capability" => in Everywhere: programs::no_capability,
    "capabilities" => in EachKernel: programs::capabilities,
    "no-bpffs" => in EachKernel: programs::no_bpffs,
    "no-btf" => in Once: programs::no_btf,
    "check" => in EachKernel: programs::check,
    "metrics" => in Everywhere: metrics::metrics_are_totals,
    "metrics-names" => in Once: metrics::names,
    "web" => in Once: prometheus::web::pages_and_bounds,
    "web-tls" => in Once: prometheus::tls::tls,
    "alerts" => in Once: prometheus::alerts::alerts,
    "proc-holders" => in EachKernel: procfs::kcmp,
    "proc-leases" => in EachKernel: procfs::leases,
    "proc-hiding" => in EachKernel: procfs::hiding,
    "hostile-names" => in EachKernel: procfs::names,
    "no-daemon" => in Everywhere: programs::no_daemon,
    "modules-reload" => in Everywhere: programs::modules_reload,
    "vfio-devdax" => in EachKernel: devices::vfio_devdax,
    // The last: what it does holds until the guest ends.
    "lockdown" => in Everywhere: programs::lockdown,
}
