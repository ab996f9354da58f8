//! `--events`: what happened, and with `--follow` what happens next.

use jiff::tz::TimeZone;
use pinwatch::listing::{events, select::Selection};
use pinwatch::model::Event;
use pinwatch::wire::{self, Reply, Request, WireError};

use super::{Args, Failure, Outcome, PATIENCE, print};

/// Prints the events on the files that are selected.
pub fn run(args: &Args, selection: &Selection) -> Result<Outcome, Failure> {
    let (path, _) = wire::socket_path(args.socket.clone());
    let failed = |error: WireError| Failure::OnlyDaemon { socket: path.clone(), what: "events", error };
    let request = Request::Events { follow: args.follow };
    let (reply, following) = match args.follow {
        false => (wire::ask(&path, &request, PATIENCE).map_err(failed)?, None),
        true => {
            let (reply, following) = wire::follow(&path, &request, PATIENCE).map_err(failed)?;
            (reply, Some(following))
        }
    };
    let (mut listed, mut reader_left) = show(args, selection, reply)?;
    if let Some(mut following) = following {
        while !reader_left {
            let Some(reply) = following.reply().map_err(failed)? else {
                return Err(Failure::Ended);
            };
            let more = show(args, selection, reply)?;
            (listed, reader_left) = (listed || more.0, more.1);
        }
    }
    Ok(if listed { Outcome::Listed } else { Outcome::Nothing })
}

/// Whether there was anything to print, and whether the reader went away.
fn show(args: &Args, selection: &Selection, reply: Reply) -> Result<(bool, bool), Failure> {
    let all = match reply {
        Reply::Events(all) => all,
        other => return Err(Failure::of_reply(other)),
    };
    let zone = TimeZone::system();
    let wanted: Vec<&Event> = events::selected(&all, selection).collect();
    let reader_left = print(|out| {
        wanted.iter().try_for_each(|event| match args.json || args.json_lines {
            true => events::json(out, event),
            false => {
                use std::io::Write;
                writeln!(out, "{}", events::line(event, &zone))
            }
        })
    })?;
    Ok((!wanted.is_empty(), reader_left))
}
