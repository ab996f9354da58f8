//! `--refused`: the latest pins that the kernel refused.

use std::io::Write;

use jiff::tz::TimeZone;
use pinwatch::listing::{refused, render::RenderOptions, select::Selection};
use pinwatch::wire::{self, Reply, Request};

use super::{Args, Failure, Outcome, PATIENCE, print};

/// Prints those that are selected.
pub fn run(args: &Args, selection: &Selection) -> Result<Outcome, Failure> {
    let (path, _) = wire::socket_path(args.socket.clone());
    let reply = wire::ask(&path, &Request::Refused {}, PATIENCE).map_err(|error| Failure::OnlyDaemon {
        socket: path,
        what: "refused pins",
        error,
    })?;
    let all = match reply {
        Reply::Refused(all) => all,
        other => return Err(Failure::of_reply(other)),
    };
    let wanted = refused::selected(&all, selection);
    let options = RenderOptions { width: None, may_drop: false, colour: false, header: !args.no_header };
    print(|out| {
        if args.json || args.json_lines {
            return wanted.iter().try_for_each(|refusal| refused::json(out, refusal));
        }
        out.write_all(refused::text(&wanted, options, args.bytes, &TimeZone::system()).as_bytes())
    })?;
    Ok(if wanted.is_empty() { Outcome::Nothing } else { Outcome::Listed })
}
