//! A root shell in the guest on this terminal.

use std::io::IsTerminal as _;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use super::machine::Outcome;
use super::rundir::RunDir;
use super::{Guest, Prepared, qemu};

/// # Errors
/// When standard input or output is no terminal.
pub fn check_terminal() -> Result<()> {
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        return Ok(());
    }
    bail!("`vm shell` needs a terminal; `vm run` runs a command without one")
}

/// Boots `guest` and stays until its shell ends. QEMU puts the terminal into raw mode, so that every key reaches the
/// guest; here it is only put back, also after a QEMU that could not.
pub fn run(guest: &Guest, prepared: &Prepared) -> Result<Outcome> {
    let run = RunDir::create(prepared)?;
    let (rows, columns) = window();
    run.write("interactive", format!("{rows} {columns}\n").as_bytes())?;
    if guest.share.is_some() {
        run.write("with-share", b"")?;
    }
    let before = Terminal::now();
    eprintln!("xtask: booting {}; `exit` ends the machine", guest.kernel);
    let arguments = qemu::arguments(guest, prepared, &run, &qemu::Terminal::Interactive);
    let status = prepared
        .qemu
        .command()
        .args(arguments)
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit())
        .status()
        .context("cannot start QEMU");
    if let Some(terminal) = before {
        terminal.restore();
    }
    status?;
    // The status of the last thing typed is no result of the machine.
    Ok(Outcome::Exited(0))
}

fn window() -> (u16, u16) {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills the winsize it is given, which lives through the call.
    let known = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCGWINSZ, &mut size) } == 0;
    if known && size.ws_row > 0 { (size.ws_row, size.ws_col) } else { (24, 80) }
}

/// The settings of the terminal on standard input.
struct Terminal(libc::termios);

impl Terminal {
    fn now() -> Option<Self> {
        let mut settings = std::mem::MaybeUninit::<libc::termios>::zeroed();
        // SAFETY: tcgetattr fills the structure it is given, which lives through the call.
        let known = unsafe { libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) } == 0;
        // SAFETY: zeroed is a valid value of this plain structure, and tcgetattr has filled it where it is used.
        known.then(|| Self(unsafe { settings.assume_init() }))
    }

    fn restore(&self) {
        // SAFETY: tcsetattr only reads the structure, which lives through the call.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSADRAIN, &self.0) };
    }
}
