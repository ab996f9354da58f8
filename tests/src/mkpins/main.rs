//! `mkpins` makes real long-term pins of any kind on any backing, says as JSON what it made, and obeys commands on
//! stdin. It is the truth that the end-to-end scenarios compare pinwatch against, so it shares no code with it.

mod actor;
mod anchor;
mod backing;
mod churn;
mod commands;
mod hold;
mod layout;
mod loops;
mod many;
mod mapping;
mod module;
mod passing;
mod pins;
mod race;
mod report;
mod session;
mod sys;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::json;

use crate::anchor::Kind;
use crate::pins::{PinOptions, Pins};
use crate::report::{Made, failure, say};
use crate::session::Session;
use crate::sys::Refused;

/// The pin itself, or what it stands on, was refused by the kernel.
const EXIT_REFUSED: i32 = 3;

/// Make a real long-term pin, say what was made, then obey commands on stdin.
#[derive(Parser)]
#[command(after_long_help = format!("{}\n\n{}", layout::GRAMMAR, commands::COMMANDS))]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// RDMA memory regions
    #[command(name = "rdma-mr", after_long_help = layout::GRAMMAR)]
    RdmaMr(PinOptions),
    /// io_uring fixed buffers
    #[command(name = "io_uring", alias = "io-uring", after_long_help = layout::GRAMMAR)]
    IoUring(PinOptions),
    /// Memory of its user that a ring keeps, other than buffers
    #[command(name = "io_uring-mem", after_long_help = layout::GRAMMAR)]
    IoUringMemory(PinOptions),
    /// AF_XDP umems
    #[command(name = "xdp", after_long_help = layout::GRAMMAR)]
    Xdp(PinOptions),
    /// DMA buffers made of memfds
    #[command(name = "udmabuf", after_long_help = layout::GRAMMAR)]
    Udmabuf(PinOptions),
    /// DMA mappings of VFIO; `vfio-up` first
    #[command(name = "vfio", after_long_help = layout::GRAMMAR)]
    Vfio(PinOptions),
    /// User memory as buffers of a video device; `modprobe vivid` first
    #[command(name = "v4l2", after_long_help = layout::GRAMMAR)]
    V4l2(PinOptions),
    /// Pins of a driver that pinwatch does not know: of `module load`
    #[command(name = "unclaimed", after_long_help = layout::GRAMMAR)]
    Unclaimed(PinOptions),
    /// The module of that driver
    Module {
        #[command(subcommand)]
        command: module::ModuleCommand,
    },
    /// No pin: a process that obeys commands, to receive what others pass on
    None,
    /// No pin of its own: a process that does what is ordered over a socket, one system call at a time
    #[command(after_long_help = actor::ORDERS)]
    Actor(actor::ActorOptions),
    /// Processes that make and undo pins without pause, some of them killed
    Churn(churn::ChurnOptions),
    /// A great number of io_uring buffers
    Many(many::ManyOptions),
    /// A great number of open descriptors
    Fds(many::FdsOptions),
    /// Makes and undoes one pin while another thread maps and unmaps
    RemapRace(race::RaceOptions),
    /// A loop of making and undoing one pin, timed on request
    Insns(loops::InsnsOptions),
    /// A loop of O_DIRECT reads, timed on request
    Dio(loops::DioOptions),
    /// Open, cut, remove or lease a file in a loop, to be timed
    Files(loops::FilesOptions),
}

fn main() {
    let cli = Cli::parse();
    sys::lift_memlock();
    let (kind, ended) = match cli.what {
        What::RdmaMr(options) => (Kind::RdmaMr.name(), pin(Kind::RdmaMr, &options)),
        What::IoUring(options) => (Kind::IoUring.name(), pin(Kind::IoUring, &options)),
        What::IoUringMemory(options) => (Kind::IoUringMemory.name(), pin(Kind::IoUringMemory, &options)),
        What::Xdp(options) => (Kind::Xdp.name(), pin(Kind::Xdp, &options)),
        What::Udmabuf(options) => (Kind::Udmabuf.name(), pin(Kind::Udmabuf, &options)),
        What::Vfio(options) => (Kind::Vfio.name(), pin(Kind::Vfio, &options)),
        What::V4l2(options) => (Kind::V4l2.name(), pin(Kind::V4l2, &options)),
        What::Unclaimed(options) => (Kind::Driver.name(), pin(Kind::Driver, &options)),
        What::Module { command } => ("module", module::run(&command)),
        What::None => ("none", holder()),
        What::Actor(options) => ("actor", actor::run(&options)),
        What::Churn(options) => (options.kind.name(), churn::run(&options)),
        What::Many(options) => (Kind::IoUring.name(), many::buffers(&options)),
        What::Fds(options) => ("fds", many::descriptors(&options)),
        What::RemapRace(options) => (options.kind.name(), race::run(&options)),
        What::Insns(options) => (options.kind.name(), loops::insns(&options)),
        What::Dio(options) => ("dio", loops::dio(&options)),
        What::Files(options) => ("files", loops::files(&options)),
    };
    let code = ended.unwrap_or_else(|error| {
        eprintln!("mkpins: {error:#}");
        say(&json!({"kind": kind, "error": failure(&error)}));
        1
    });
    std::process::exit(code);
}

/// One request of pins, then the commands. Only the pin itself being refused is exit 3: a mapping that cannot be
/// made, say, is a set-up that went wrong and no fact about pins.
fn pin(kind: Kind, options: &PinOptions) -> Result<i32> {
    let pins = Pins::prepare(kind, options)?;
    let (pins, made) = if options.service_thread { register_in_thread(pins)? } else { register(pins) };
    match made {
        Ok(made) => say(&made),
        Err(error) if error.is::<Refused>() => {
            say(&json!({"kind": kind.name(), "pid": std::process::id(), "error": failure(&error)}));
            if !options.stay {
                return Ok(EXIT_REFUSED);
            }
        }
        Err(error) => return Err(error),
    }
    Ok(Session::new(Some(pins)).obey())
}

fn register(mut pins: Pins) -> (Pins, Result<Made>) {
    let made = pins.register();
    (pins, made)
}

/// As real libraries do it: the pin's creator is a thread that is not the process's first, and that stays.
fn register_in_thread(pins: Pins) -> Result<(Pins, Result<Made>)> {
    let (give, take) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = give.send(register(pins));
        loop {
            std::thread::park();
        }
    });
    Ok(take.recv()?)
}

fn holder() -> Result<i32> {
    say(&json!({"kind": "none", "pid": std::process::id(), "tid": sys::thread_id()}));
    Ok(Session::new(None).obey())
}
