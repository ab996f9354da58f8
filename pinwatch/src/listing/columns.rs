//! The columns of the table, as data: the renderer, `-o`, `-H` and the order of dropping all read this one list.

use super::argument::ArgumentError;
use super::{Row, escape, label, path, size};
use crate::model::{Backing, CoverageState, HiddenVia, LeasePolicy, Namespaces, Via, Workload};

/// What cells need to know besides the row.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Now, in nanoseconds since the Unix epoch.
    pub now: i64,
    /// Sizes in bytes instead of human units.
    pub bytes: bool,
    /// Which pins need a lease.
    pub policy: LeasePolicy,
}

/// A column.
#[derive(Debug)]
pub struct Column {
    /// Its header, and its name in `-o`.
    pub name: &'static str,
    /// What it shows.
    pub help: &'static str,
    /// The JSON field of the same content; empty if there is none.
    pub json: &'static str,
    /// Whether it is a number, set to the right.
    pub right: bool,
    /// Place in the default table.
    pub default: bool,
    /// When to leave it out on a narrow terminal: 1 first; 0 never.
    pub drop: u8,
    /// The cell, escaped.
    pub cell: fn(&Row, &Context) -> String,
}

/// Other names for columns that people try first.
const ALIASES: [(&str, &str); 3] = [("SIZE", "PINNED"), ("PATH", "NAME"), ("HOLD", "HOLDERS")];

/// A column of the default table, or (`drop` is not 0) one that a narrow terminal leaves out.
const fn shown(c: Column, drop: u8) -> Column {
    Column { default: true, drop, ..c }
}

/// A column set to the right.
const fn number(c: Column) -> Column {
    Column { right: true, ..c }
}

const fn column(
    name: &'static str,
    json: &'static str,
    cell: fn(&Row, &Context) -> String,
    help: &'static str,
) -> Column {
    Column { name, help, json, right: false, default: false, drop: 0, cell }
}

/// All columns; those of the default table first, in its order.
pub static COLUMNS: [Column; 33] = [
    shown(
        column(
            "COMMAND",
            "creator.comm",
            command,
            "the process that made the pin or, if that is not known, its first holder",
        ),
        0,
    ),
    shown(number(column("PID", "creator.pid", |r, _| pid(r), "its process id")), 0),
    shown(column("USER", "creator.user", user, "its user"), 0),
    shown(column("TYPE", "type", |r, _| r.pin.object.described().type_word().to_owned(), "kind of pin"), 0),
    shown(
        column(
            "OBJECT",
            "object",
            |r, _| escape::name(r.pin.object.to_string().as_bytes()),
            "the kernel object",
        ),
        0,
    ),
    shown(column("MODE", "mode", |r, _| r.pin.mode.word().to_owned(), "rw, ro: what the device may do"), 4),
    shown(
        number(column("PINNED", "bytes", |r, c| bytes(r.part.bytes, c), "size of the pin in this file")),
        0,
    ),
    shown(
        column(
            "LEASE",
            "coverage",
            lease,
            "does a lease cover the pin; none!: it needs one and has none, ?: not known",
        ),
        0,
    ),
    shown(
        number(column(
            "HOLDERS",
            "holders",
            holders,
            "how many processes hold the pin, + descriptors in messages that nobody has received",
        )),
        3,
    ),
    shown(number(column("AGE", "age_seconds", age, "time since the pin was made")), 5),
    shown(
        column(
            "DEVICE",
            "file.dev",
            |r, _| of_file(r, |f| f.id.dev.to_string()),
            "device of the file system",
        ),
        1,
    ),
    shown(
        number(column("INODE", "file.ino", |r, _| of_file(r, |f| f.id.ino.to_string()), "inode number")),
        2,
    ),
    shown(column("NAME", "file.path", |r, _| name(r), "path when it was pinned, or what the memory is"), 0),
    column("ID", "id", |r, _| r.pin.id.to_string(), "the pin's id"),
    column("SUBSYSTEM", "subsystem", |r, _| r.pin.subsystem().word().to_owned(), "part of the kernel"),
    column("BACKING", "backing", |r, _| r.part.backing.word().to_owned(), "what the pages belong to"),
    number(column("PAGES", "pages", |r, _| r.pin.pages.to_string(), "pages of the whole pin")),
    column(
        "ADDRESS",
        "address",
        |r, _| r.pin.address.map_or_else(unknown, |a| format!("0x{a:x}")),
        "user address",
    ),
    column("EXTENTS", "extents", |r, _| extents(r), "offset+length of each run in the file, in bytes"),
    number(column("ORPHAN", "orphan_pages", orphan, "pages that are no longer part of the file")),
    column(
        "FSTYPE",
        "file.fstype",
        |r, _| of_file(r, |f| escape::name(f.fstype.as_bytes())),
        "type of the file system",
    ),
    number(column("GENERATION", "file.generation", generation, "generation of the inode")),
    number(column("UID", "creator.uid", uid, "user id")),
    column("CGROUP", "creator.cgroup", cgroup, "control group"),
    column("UNIT", "creator.unit", |r, _| workload(r, |w| w.unit), "systemd unit, by the control group"),
    column(
        "CONTAINER",
        "creator.container",
        |r, _| workload(r, |w| w.container),
        "container, by the control group",
    ),
    column("POD", "creator.pod", |r, _| workload(r, |w| w.pod), "Kubernetes pod, by the control group"),
    column(
        "PIDNS",
        "creator.pid_namespace",
        |r, _| namespace(r, |n| n.pid),
        "pid namespace, if not pinwatch's own",
    ),
    column(
        "MNTNS",
        "creator.mount_namespace",
        |r, _| namespace(r, |n| n.mount),
        "mount namespace, if not pinwatch's own",
    ),
    column(
        "STATE",
        "state",
        |r, _| r.table.held_state(r.pin).word().to_owned(),
        "held by a descriptor, closed but mapped or registered, in-flight, unheld: by no process",
    ),
    column(
        "HELDBY",
        "holders",
        |r, _| held_by(r),
        "each holder, with the descriptors through which it holds the pin",
    ),
    column("CREATED", "created", |r, _| created(r), "when the pin was made"),
    column("ORIGIN", "origin", origin, "how the pin is known; ~: its files may not be exact, see --explain"),
];

fn unknown() -> String {
    "?".to_owned()
}

fn dash() -> String {
    "-".to_owned()
}

fn bytes(bytes: u64, context: &Context) -> String {
    if context.bytes { bytes.to_string() } else { size::short(bytes) }
}

fn command(row: &Row, _: &Context) -> String {
    row.process().map_or_else(unknown, |p| {
        let comm = escape::name(p.comm.as_bytes());
        if p.alive { comm } else { format!("{comm} (gone)") }
    })
}

fn pid(row: &Row) -> String {
    row.process().map_or_else(dash, |p| p.pid.to_string())
}

fn user(row: &Row, context: &Context) -> String {
    let name = row.process().and_then(|p| p.user.as_ref());
    name.map_or_else(|| uid(row, context), |u| escape::name(u.as_bytes()))
}

fn uid(row: &Row, _: &Context) -> String {
    row.process().and_then(|p| p.uid).map_or_else(dash, |u| u.to_string())
}

fn cgroup(row: &Row, _: &Context) -> String {
    row.process().and_then(|p| p.cgroup.as_ref()).map_or_else(dash, |c| escape::name(c.as_bytes()))
}

fn workload(row: &Row, field: impl Fn(Workload) -> Option<String>) -> String {
    row.process().and_then(|p| field(p.workload())).map_or_else(dash, |f| escape::name(f.as_bytes()))
}

fn namespace(row: &Row, which: impl Fn(Namespaces) -> Option<u64>) -> String {
    row.process().and_then(|p| which(p.namespaces)).map_or_else(dash, |n| n.to_string())
}

fn lease(row: &Row, context: &Context) -> String {
    let coverage = &row.pin.coverage;
    let word = coverage.state.word();
    match coverage.state {
        CoverageState::Unknown => unknown(),
        CoverageState::None if row.table.is_unleased(row.pin, context.policy) => format!("{word}!"),
        CoverageState::Partial => format!("{word} {}/{}", coverage.covered, coverage.holders),
        CoverageState::Other => {
            coverage.lease_pids.first().map_or_else(|| word.to_owned(), |pid| format!("{word} {pid}"))
        }
        CoverageState::Breaking => {
            coverage.seconds_left.map_or_else(|| word.to_owned(), |left| format!("{word} {left}s"))
        }
        CoverageState::None
        | CoverageState::NotApplicable
        | CoverageState::Write
        | CoverageState::Read
        | CoverageState::Delegation
        | CoverageState::Layout => word.to_owned(),
    }
}

fn holders(row: &Row, _: &Context) -> String {
    let Some(holding) = row.table.holding(row.pin) else { return unknown() };
    // A descriptor in flight holds the pin, but no process can close it.
    let waiting = holding.in_flight.filter(|n| *n > 0).map(|n| format!("+{n}")).unwrap_or_default();
    format!("{}{waiting}", holding.holders.len())
}

fn held_by(row: &Row) -> String {
    let Some(holding) = row.table.holding(row.pin) else { return unknown() };
    let holders = holding.holders.iter().filter_map(|h| Some((row.table.process(h.process)?, &h.via)));
    let one = |(process, via): (&crate::model::Process, &Vec<Via>)| {
        let via: Vec<String> = via
            .iter()
            .map(|v| match v {
                Via::Fd(fd) => fd.to_string(),
                Via::Mapping(_) => "map".to_owned(),
                Via::Registered(_) => "registered".to_owned(),
                Via::RingFile(Some(fd)) => format!("ring {fd}"),
                Via::RingFile(None) => "ring".to_owned(),
                Via::Hidden(HiddenVia::Fd) => "fd".to_owned(),
                Via::Hidden(HiddenVia::Mapping) => "map".to_owned(),
                Via::Hidden(HiddenVia::Registered) => "registered".to_owned(),
                Via::Hidden(HiddenVia::RingFile) => "ring".to_owned(),
            })
            .collect();
        format!("{}:{}", label(process), via.join(","))
    };
    let all: Vec<String> = holders.map(one).collect();
    if all.is_empty() { dash() } else { all.join(" ") }
}

/// Seconds since a pin was made; none before its time, should clocks have been set.
pub fn age_seconds(created: Option<i64>, now: i64) -> Option<u64> {
    created.map(|at| u64::try_from(now.saturating_sub(at) / 1_000_000_000).unwrap_or(0))
}

fn age(row: &Row, context: &Context) -> String {
    age_seconds(row.pin.created, context.now).map_or_else(unknown, size::age)
}

fn created(row: &Row) -> String {
    let at = row.pin.created.and_then(|ns| jiff::Timestamp::from_nanosecond(i128::from(ns)).ok());
    at.map_or_else(unknown, |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn of_file(row: &Row, cell: impl Fn(&crate::model::File) -> String) -> String {
    row.file().map_or_else(dash, cell)
}

fn generation(row: &Row, _: &Context) -> String {
    of_file(row, |f| f.id.generation.map_or_else(unknown, |g| g.to_string()))
}

fn orphan(row: &Row, _: &Context) -> String {
    row.pin.orphan_pages.map_or_else(unknown, |n| n.to_string())
}

fn origin(row: &Row, _: &Context) -> String {
    format!("{}{}", row.pin.origin.word(), if row.pin.exact() { "" } else { "~" })
}

fn extents(row: &Row) -> String {
    let all: Vec<String> = row.part.extents.iter().map(|e| format!("{}+{}", e.offset, e.length)).collect();
    if all.is_empty() { dash() } else { all.join(",") }
}

fn name(row: &Row) -> String {
    let Some(file) = row.file() else {
        return match row.part.backing {
            Backing::Unknown => "[not known]".to_owned(),
            backing => format!("[{}]", backing.word()),
        };
    };
    let deleted = if file.deleted == Some(true) { " (deleted)" } else { "" };
    format!("{}{deleted}", path(file))
}

/// The columns that `-o` asks for: a list of names, or with a `+` in front those besides the default ones. Case does
/// not matter.
///
/// # Errors
/// [`ArgumentError::NoColumn`], [`ArgumentError::NoColumns`]
pub fn choose(option: Option<&str>) -> Result<Vec<&'static Column>, ArgumentError> {
    let default = || COLUMNS.iter().filter(|c| c.default);
    let Some(option) = option else { return Ok(default().collect()) };
    let (mut chosen, list) = match option.strip_prefix('+') {
        Some(list) => (default().collect::<Vec<_>>(), list),
        None => (Vec::new(), option),
    };
    for name in list.split([',', ' ']).filter(|n| !n.is_empty()) {
        let alias = ALIASES.iter().find(|(a, _)| a.eq_ignore_ascii_case(name)).map_or(name, |(_, c)| *c);
        let column =
            COLUMNS.iter().find(|c| c.name.eq_ignore_ascii_case(alias)).ok_or_else(|| no_column(name))?;
        if !chosen.iter().any(|c| c.name == column.name) {
            chosen.push(column);
        }
    }
    if chosen.is_empty() {
        return Err(ArgumentError::NoColumns);
    }
    Ok(chosen)
}

fn no_column(name: &str) -> ArgumentError {
    let names: Vec<&str> = COLUMNS.iter().map(|c| c.name).chain(ALIASES.iter().map(|(a, _)| *a)).collect();
    ArgumentError::NoColumn { name: name.to_owned(), nearest: nearest(&name.to_uppercase(), &names) }
}

/// The word that differs least from what was written, if it does not differ much.
pub fn nearest<'a>(written: &str, words: &[&'a str]) -> Option<&'a str> {
    // The distance costs the product of both lengths, and what is written may be very long: past this it fits no word.
    const LONGEST: usize = 40;
    if written.chars().count() > LONGEST {
        return None;
    }
    let best = words.iter().map(|w| (strsim::osa_distance(written, w), *w)).min()?;
    (best.0 <= 1 + written.chars().count() / 4).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::sample;

    const CONTEXT: Context =
        Context { now: sample::CREATED + 180_000_000_000, bytes: false, policy: LeasePolicy::Persistent };

    fn cells(pin: usize, part: usize, columns: &str) -> Vec<String> {
        let table = sample::table();
        let row = Row { table: &table, pin: &table.pins[pin], part: &table.pins[pin].parts[part] };
        choose(Some(columns)).unwrap().iter().map(|c| (c.cell)(&row, &CONTEXT)).collect()
    }

    #[test]
    fn cells_of_rows() {
        let all = "command,pid,type,object,pinned,lease,holders,age,device,inode,name";
        let cell = cells(1, 0, all);
        assert_eq!(
            cell,
            [
                "ib_server",
                "812",
                "rdma-mr",
                "rxe0 mr 7",
                "64.0M",
                "?",
                "1",
                "3m",
                "253:1",
                "131",
                "/srv/pool.dat"
            ]
        );
        let gone = cells(0, 0, all);
        assert_eq!(
            gone,
            ["old (gone)", "1201", "xdp", "umem 3", "4.0M", "n/a", "0", "?", "-", "-", "[anon]"]
        );
        assert_eq!(cells(2, 0, "name"), ["/srv/q\\n\\x1b[31m\\xff (deleted)"]);
        assert_eq!(cells(2, 1, "extents,heldby"), ["0+8192", "worker[990]:5 helper[1044]:7,map"]);
        assert_eq!(cells(2, 0, "state,pidns,mntns"), ["held", "4026532190", "-"]);
        assert_eq!(cells(0, 0, "state,pidns"), ["unheld", "-"]);
        assert_eq!(cells(1, 0, "created,origin"), ["2026-11-20T23:55:04Z", "trace"]);
    }

    #[test]
    fn columns_can_be_chosen() {
        assert_eq!(choose(None).unwrap().len(), 13);
        assert_eq!(choose(Some("+id,NAME,Id")).unwrap().len(), 14);
        let error = choose(Some("PID,SZIE")).unwrap_err().to_string();
        assert_eq!(error, "no column \"SZIE\"; did you mean SIZE? `lspins -H` lists them");
        assert_eq!(choose(Some("size")).unwrap()[0].name, "PINNED");
        assert!(choose(Some("PNINED")).unwrap_err().to_string().contains("did you mean PINNED? "));
        assert!(choose(Some(&"PINNED".repeat(50_000))).is_err());
        assert_eq!(nearest("pinnde", &["size", "pinned", "pid"]), Some("pinned"));
        assert_eq!(nearest("Größe", &["Größen"]), Some("Größen"));
        assert_eq!((nearest("elephant", &["pid", "uid"]), nearest("pid", &[])), (None, None));
        assert!(choose(Some("\x1b,")).is_err_and(|e| !e.to_string().contains('\x1b')));
        assert!(choose(Some(",")).is_err() && choose(Some("")).is_err());
    }

    #[test]
    fn names_are_unique_and_ages_never_negative() {
        let mut names: Vec<&str> = COLUMNS.iter().map(|c| c.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COLUMNS.len());
        assert_eq!(age_seconds(Some(i64::MAX), i64::MIN), Some(0));
        assert_eq!(age_seconds(Some(i64::MIN), i64::MAX), Some(9_223_372_036));
    }
}
