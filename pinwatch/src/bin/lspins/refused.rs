//! `--refused`: the latest pins that the kernel refused.

use std::io::Write;

use jiff::tz::TimeZone;
use pinwatch::listing::{refused, render::Look, select::Selection};
use pinwatch::wire::{self, Reply, Request};

use super::{Args, Outcome, PATIENCE, cannot_ask, print, unexpected};

/// Prints those that are selected.
pub fn run(args: &Args, selection: &Selection) -> Result<Outcome, String> {
    let (path, _) = wire::socket_path(args.socket.clone());
    let reply = wire::ask(&path, &Request::Refused {}, PATIENCE)
        .map_err(|error| cannot_ask(&path, "what is refused", &error))?;
    let Reply::Refused(all) = &reply else { return Err(unexpected(&reply)) };
    let wanted = refused::selected(all, selection);
    let look = Look { width: None, may_drop: false, colour: false, header: !args.no_header };
    print(|out| {
        if args.json || args.json_lines {
            return wanted.iter().try_for_each(|refusal| refused::json(out, refusal));
        }
        out.write_all(refused::text(&wanted, look, args.bytes, &TimeZone::system()).as_bytes())
    })?;
    Ok(if wanted.is_empty() { Outcome::Nothing } else { Outcome::Listed })
}
