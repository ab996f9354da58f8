//! `lspins`: arguments, where the table comes from, what is printed where, and the exit status.

mod args;
mod events;
mod failure;
mod operand;
#[path = "../shared/policy_arg.rs"]
mod policy_arg;
mod refused;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Parser;
use pinwatch::listing::columns::{self, COLUMNS, Column, Context};
use pinwatch::listing::render::{self, RenderOptions};
use pinwatch::listing::select::{self, Selection};
use pinwatch::listing::sort::Sort;
use pinwatch::listing::summary::{self, By};
use pinwatch::listing::{self, escape, explain, json, leases};
use pinwatch::model::{GapCode, LeasePolicy, PinId, Table};
use pinwatch::source;
use pinwatch::subsystem;
use pinwatch::wire::{self, Reply, Request};

use args::Args;
use failure::Failure;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the exit status says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Listed,
    Nothing,
    Error,
    Incomplete,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Listed => 0,
            Outcome::Nothing => 1,
            Outcome::Error => 2,
            Outcome::Incomplete => 3,
        })
    }
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) if e.use_stderr() => {
            let text = e.render().to_string();
            complain(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
            return Outcome::Error.into();
        }
        // --help and --version; a reader that is gone has read enough.
        Err(e) => {
            let _ = e.print();
            return ExitCode::SUCCESS;
        }
    };
    let outcome = run(&args).unwrap_or_else(|failure| {
        complain(&failure.to_string());
        Outcome::Error
    });
    outcome.into()
}

/// Prints a line on stderr; if that fails there is nobody left to tell.
fn complain(sentence: &str) {
    let _ = writeln!(io::stderr(), "lspins: {sentence}");
}

fn run(args: &Args) -> Result<Outcome, Failure> {
    if args.list_columns {
        let lines = COLUMNS.iter().map(|c| format!("{:<11} {}\n", c.name, c.help));
        return print(|out| out.write_all(lines.collect::<String>().as_bytes())).map(|_| Outcome::Listed);
    }
    let columns = columns::choose(args.columns.as_deref())?;
    let sort = args.sort.as_deref().map(Sort::parse).transpose()?;
    let explain = args.explain.as_deref().map(explain::id).transpose()?;
    let mut selection = selection(args)?;
    for path in args.files.iter().filter(|p| operand::is_directory(p)) {
        let path = operand::shown(path);
        complain(&format!(
            "{path} is a directory, and pins are on files; `--dir {path}` lists those under it"
        ));
    }
    if args.events {
        return events::run(args, &selection);
    }
    if args.refused {
        return refused::run(args, &selection);
    }
    let mut warned = false;
    loop {
        let table = table(args, &mut warned)?;
        selection.unleased = args.unleased.then(|| policy(args, &table));
        let (outcome, reader_left) = match explain {
            Some(id) => explained(id, &table)?,
            None if args.leases => leased(args, &selection, &table, warned)?,
            None => show(args, &selection, &columns, sort.as_ref(), &table, warned)?,
        };
        match args.repeat {
            Some(seconds) if !reader_left => std::thread::sleep(Duration::from_secs(seconds)),
            _ => {
                // The process ends here: giving back the pieces of a large table one by one would only take time.
                std::mem::forget(table);
                return Ok(outcome);
            }
        }
        if !(args.json || args.json_lines) && print(|out| out.write_all(b"=======\n"))? {
            return Ok(outcome);
        }
    }
}

fn selection(args: &Args) -> Result<Selection, Failure> {
    use std::os::unix::ffi::OsStrExt;
    Ok(Selection {
        files: args.files.iter().map(|p| operand::file(p)).collect::<Result<_, _>>()?,
        directories: args.dir.iter().map(|p| operand::directory(p)).collect(),
        mounts: args.mount.iter().map(|p| operand::mount(p)).collect(),
        pids: args.pids.iter().map(|p| operand::pid(p)).collect::<Result<_, _>>()?,
        uids: args.users.iter().map(|u| operand::user(u)).collect::<Result<_, _>>()?,
        commands: args.commands.iter().map(|c| c.as_bytes().to_vec()).collect(),
        types: args.types.iter().map(|t| select::type_word(t)).collect::<Result<_, _>>()?,
        deleted: args.deleted,
        min_size: args.min_size.map_or(0, |s| s.0),
        unheld: args.unheld,
        coverage: args.coverage.iter().map(|c| select::coverage_word(c)).collect::<Result<_, _>>()?,
        unleased: None,
    })
}

/// Which pins need a lease: by the option, or else by the daemon's.
fn policy(args: &Args, table: &Table) -> LeasePolicy {
    args.require_lease.map(|arg| arg.0).or(table.policy).unwrap_or_default()
}

/// The table, from the daemon or without it. `warned`: whether the user was told that there is no daemon, which `--repeat`
/// does not repeat.
fn table(args: &Args, warned: &mut bool) -> Result<Table, Failure> {
    let (path, chosen) = wire::socket_path(args.socket.clone());
    if !args.no_daemon {
        match wire::ask(&path, &Request::List {}, PATIENCE) {
            Ok(Reply::Table(table)) => return Ok(table),
            Ok(reply) => return Err(Failure::of_reply(reply)),
            Err(error) => {
                let warning = failure::going_on_without(error, &path, chosen)?;
                if !std::mem::replace(warned, true) {
                    complain(&warning);
                }
            }
        }
    }
    source::proc::table(subsystem::procfs()).map_err(Failure::Procfs)
}

/// Prints the pins, totals or ids. `warned`: whether the user was told what procfs and netlink do not show. Also gives
/// whether the reader went away, which is no error.
fn show(
    args: &Args,
    selection: &Selection,
    columns: &[&'static Column],
    sort: Option<&Sort>,
    table: &Table,
    warned: bool,
) -> Result<(Outcome, bool), Failure> {
    let mut rows = selection.rows(table);
    let context = Context { now: now(), bytes: args.bytes, policy: policy(args, table) };
    if let Some(sort) = sort {
        sort.apply(&mut rows, &context);
    }
    let by = args.by.map(|arg| arg.0).or(args.summary.then_some(By::Subsystem));
    let terminal = io::stdout().is_terminal();
    let options = RenderOptions {
        width: terminal.then(terminal_width).flatten(),
        may_drop: args.columns.is_none(),
        colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        header: !args.no_header,
    };
    // Under a table the line with the totals has what the kernel counts.
    let has_footer = terminal && !rows.is_empty();
    let in_footer = has_footer.then_some(GapCode::Unattributed);
    let reported: Vec<GapCode> = reported(warned).iter().copied().chain(in_footer).collect();
    let caveats = render::caveats(table, &reported);
    let text_form = !(args.json || args.json_lines || args.terse);
    let reader_left = print(|out| {
        if let (Some(by), true) = (by, args.json || args.json_lines) {
            return summary::json(out, table, &summary::totals(&rows, by), by, args.json);
        }
        if args.json {
            return json::document(out, table, &Selection::pins(&rows), context.now, terminal);
        }
        if args.json_lines {
            return json::lines(out, table, &Selection::pins(&rows), context.now);
        }
        if args.terse {
            let pids = listing::pids(table, &Selection::pins(&rows));
            return pids.iter().try_for_each(|pid| writeln!(out, "{pid}"));
        }
        let text = match by {
            Some(by) => summary::text(&summary::totals(&rows, by), by, options, &context),
            None => render::table(&rows, columns, options, &context),
        };
        out.write_all(text.as_bytes())?;
        if args.summary {
            out.write_all(summary::kernel(table).as_bytes())?;
        }
        // Under a table on the terminal; a pipe gets rows and nothing else.
        if has_footer {
            let page = rustix::param::page_size() as u64;
            return render::footer(table, &rows, page, context.policy, &caveats)
                .iter()
                .try_for_each(|line| writeln!(out, "{line}"));
        }
        Ok(())
    })?;
    if text_form && (!terminal || (rows.is_empty() && args.verbose)) {
        caveats.iter().for_each(|line| complain(line));
    }
    if rows.is_empty() && args.verbose {
        complain(&nothing(args, table));
    }
    let missing = selection.missing(table);
    for operand in &missing {
        let path = escape::name(&operand.written);
        complain(&format!("{path}: no such file, and no pin on a deleted file of that name; check the path"));
    }
    let outcome = match &rows[..] {
        _ if !missing.is_empty() => Outcome::Error,
        _ if args.strict && !table.complete() => Outcome::Incomplete,
        [] => Outcome::Nothing,
        _ => Outcome::Listed,
    };
    Ok((outcome, reader_left))
}

/// Gaps that the user has read about already: they are in the line that says that there is no daemon.
fn reported(warned: bool) -> &'static [GapCode] {
    if warned { &[GapCode::ProcfsSubsystems, GapCode::ProcfsMappedFiles] } else { &[] }
}

/// Lists the leases.
fn leased(
    args: &Args,
    selection: &Selection,
    table: &Table,
    warned: bool,
) -> Result<(Outcome, bool), Failure> {
    let Some(leases) = leases::Leases::of(table, selection) else {
        return Err(Failure::LeasesHidden);
    };
    let options = RenderOptions { width: None, may_drop: false, colour: false, header: !args.no_header };
    let context = Context { now: now(), bytes: args.bytes, policy: policy(args, table) };
    let reader_left = print(|out| {
        if args.json || args.json_lines {
            return leases.json(out, args.json);
        }
        if leases.is_empty() { Ok(()) } else { out.write_all(leases.text(options, &context).as_bytes()) }
    })?;
    if !(args.json || args.json_lines) {
        render::caveats(table, reported(warned)).iter().for_each(|line| complain(line));
    }
    let outcome = match leases.is_empty() {
        _ if args.strict && !table.complete() => Outcome::Incomplete,
        true => Outcome::Nothing,
        false => Outcome::Listed,
    };
    Ok((outcome, reader_left))
}

/// Explains one pin. If there is no such pin that is said on stderr, and nothing is listed.
fn explained(id: PinId, table: &Table) -> Result<(Outcome, bool), Failure> {
    let Some(pin) = explain::find(table, id) else {
        complain(&explain::missing(table, id));
        return Ok((Outcome::Nothing, false));
    };
    let screen = explain::screen(table, pin, now());
    let reader_left = print(|out| out.write_all(screen.as_bytes()))?;
    render::caveats(table, &[]).iter().for_each(|line| complain(line));
    Ok((Outcome::Listed, reader_left))
}

/// What was searched when nothing was found, and how far the answer can be relied on.
fn nothing(args: &Args, table: &Table) -> String {
    let operands = args.files.iter().chain(&args.dir).chain(&args.mount).map(|path| operand::shown(path));
    let operands: Vec<String> = operands.collect();
    let on = if operands.is_empty() { String::new() } else { format!(" on {}", operands.join(", ")) };
    let since = table.watching_since.and_then(|ns| jiff::Timestamp::from_nanosecond(i128::from(ns)).ok());
    let since = since.map_or_else(
        || "without the daemon".to_owned(),
        |at| {
            format!("watching since {}", at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M"))
        },
    );
    let complete = match (table.complete(), table.complete_since()) {
        (true, _) => "complete",
        (false, Some(_)) => "older pins are not known",
        (false, None) => "pins may be missing",
    };
    format!("no long-term pins{on} match ({since}; {complete})")
}

/// Writes to stdout through a buffer; true if the reader went away, which is no error.
fn print(write: impl FnOnce(&mut BufWriter<io::StdoutLock>) -> io::Result<()>) -> Result<bool, Failure> {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let result = write(&mut out).and_then(|()| out.flush());
    // Dropping the writer must not try the rest of the buffer again.
    let _ = out.into_parts();
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        result => Ok(result.is_err()),
    }
}

/// Now, in nanoseconds since the Unix epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Columns of the terminal; the variable `COLUMNS` takes precedence.
fn terminal_width() -> Option<usize> {
    let by_user = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let by_terminal = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|w| usize::from(w.ws_col));
    by_user.or_else(by_terminal).filter(|w| *w > 0)
}
