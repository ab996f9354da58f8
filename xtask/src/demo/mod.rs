//! `cargo xtask demo`: one pinned file in a guest, and what each tool says of it. What is shown, and what has to be true
//! of it, is in `guest.sh`.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::cache::progress;
use crate::kernels;
use crate::setup;
use crate::vm::{Guest, Outcome};

const SCRIPT: &str = include_str!("guest.sh");
const LIMIT: Duration = Duration::from_secs(180);

/// Which guest to show it in.
#[derive(Debug, Args)]
pub struct Options {
    /// Kernel to boot, see `vm list` [default: the newest]
    #[arg(long, short, value_name = "K")]
    kernel: Option<String>,
    /// Take the release binaries that are there, without a build
    #[arg(long)]
    no_build: bool,
}

/// Sets up, boots and shows.
///
/// # Errors
/// When the guest cannot be prepared or started.
pub fn show(options: &Options) -> Result<Outcome> {
    let kernel = options.kernel.as_deref().unwrap_or_else(|| kernels::newest().key);
    kernels::find(kernel)?;
    setup::everything()?;
    progress(&format!("booting Linux {kernel} with a soft-RoCE device (the first time, it is downloaded)"));
    let guest = Guest { build: !options.no_build, timeout: LIMIT, ..Guest::new(kernel) };
    let mut show = |bytes: &[u8]| {
        let mut out = std::io::stdout().lock();
        // Nobody reads any more: the guest ends on its own soon.
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    };
    guest.run(&script(colours()), &mut show)
}

/// The time limit in seconds.
pub fn limit() -> u64 {
    LIMIT.as_secs()
}

fn script(colours: bool) -> Vec<OsString> {
    let style = if colours { "colour" } else { "plain" };
    ["bash", "-c", SCRIPT, "demo", style].map(OsString::from).to_vec()
}

fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_is_an_argument_of_the_script() {
        assert_eq!(script(true)[4], "colour");
        assert_eq!(script(false)[3..], ["demo", "plain"]);
    }
}
