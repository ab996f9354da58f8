//! The kernel objects that keep pins alive, one file for each subsystem, behind one trait.

pub mod driver;
mod rdma;
mod ring_memory;
mod udmabuf;
pub mod uring;
mod v4l2;
mod verbs;
mod vfio;
pub mod xdp;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::report::Object;
use crate::sys::Refused;

/// A range of our memory to pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// First byte.
    pub address: u64,
    /// Bytes.
    pub length: u64,
}

/// The kinds of pins that mkpins makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// RDMA memory regions.
    #[value(name = "rdma-mr")]
    RdmaMr,
    /// io_uring fixed buffers.
    #[value(name = "io_uring", alias = "io-uring")]
    IoUring,
    /// Memory of its user that a ring keeps, other than buffers.
    #[value(name = "io_uring-mem")]
    IoUringMemory,
    /// AF_XDP umems.
    #[value(name = "xdp")]
    Xdp,
    /// DMA buffers made of memfds.
    #[value(name = "udmabuf")]
    Udmabuf,
    /// DMA mappings of VFIO.
    #[value(name = "vfio")]
    Vfio,
    /// User memory as buffers of a video device.
    #[value(name = "v4l2")]
    V4l2,
    /// Pins of a driver that pinwatch does not know.
    #[value(name = "unclaimed")]
    Driver,
}

impl Kind {
    /// The name in the JSON lines, the same as lspins' TYPE.
    pub fn name(self) -> &'static str {
        match self {
            Self::RdmaMr => "rdma-mr",
            Self::IoUring => "io_uring",
            Self::IoUringMemory => "io_uring-mem",
            Self::Xdp => "xdp",
            Self::Udmabuf => "udmabuf",
            Self::Vfio => "vfio",
            Self::V4l2 => "v4l2",
            Self::Driver => "unclaimed",
        }
    }
}

/// What a kind can be told beyond the memory. Options of other kinds have no effect.
#[derive(Debug, Clone, Args)]
pub struct AnchorOptions {
    /// rdma-mr: the RDMA device, by name
    #[arg(long, default_value = "rxe0")]
    pub device: String,
    /// rdma-mr: also make a completion queue and a queue pair, whose own buffers are pinned too and are no MR
    #[arg(long)]
    pub with_qp: bool,
    /// rdma-mr: the address that remote peers use, when it is to differ from the memory's own
    #[arg(long, value_parser = crate::sys::parse_size)]
    pub iova: Option<u64>,
    /// rdma-mr: on-demand paging: an MR that pins nothing
    #[arg(long)]
    pub odp: bool,
    /// io_uring: an empty buffer table first, then the buffers put into its slots
    #[arg(long)]
    pub sparse: bool,
    /// io_uring: slots of the sparse table
    #[arg(long, default_value_t = 8)]
    pub slots: u32,
    /// io_uring: first slot used of the sparse table
    #[arg(long, default_value_t = 0)]
    pub slot: u32,
    /// io_uring: clone the buffers into a second ring
    #[arg(long)]
    pub clone: bool,
    /// io_uring: map the submission queue, which keeps the ring when its descriptor is closed
    #[arg(long)]
    pub map_ring: bool,
    /// io_uring-mem: what the memory is for
    #[arg(long, value_enum, default_value = "provided")]
    pub memory: ring_memory::Use,
    /// xdp: a second socket shares the umem (binds to lo unless --netdev says otherwise)
    #[arg(long)]
    pub shared: bool,
    /// xdp: bind to queue 0 of this network device
    #[arg(long)]
    pub netdev: Option<String>,
    /// vfio: also open the device, whose descriptor keeps the mappings, too
    #[arg(long)]
    pub with_device: bool,
    /// v4l2: the video device; with --read-only one that puts out
    #[arg(long, default_value = "/dev/video0")]
    pub video: std::path::PathBuf,
    /// unclaimed: the kernel's function that the driver pins by
    #[arg(long, value_enum, default_value = "fast")]
    pub by: driver::How,
    /// unclaimed: where the driver lets go of its pins
    #[arg(long, value_enum, default_value = "process")]
    pub release_in: driver::Where,
    /// unclaimed: pages that the driver pins at once
    #[arg(long, default_value_t = 512)]
    pub batch: u64,
    #[arg(skip)]
    pub read_only: bool,
}

impl Default for AnchorOptions {
    fn default() -> Self {
        Self {
            device: "rxe0".into(),
            with_qp: false,
            iova: None,
            odp: false,
            sparse: false,
            slots: 8,
            slot: 0,
            clone: false,
            map_ring: false,
            memory: ring_memory::Use::Provided,
            shared: false,
            netdev: None,
            with_device: false,
            video: "/dev/video0".into(),
            by: driver::How::Fast,
            release_in: driver::Where::Process,
            batch: 512,
            read_only: false,
        }
    }
}

/// Something that holds pins for as long as its descriptor is open. Dropping one closes what it has open.
pub trait Anchor: Send {
    /// The descriptor that keeps the pins, while it is open.
    fn fd(&self) -> Option<i32>;

    /// The second descriptor that keeps the same pins, if there is one.
    fn second_fd(&self) -> Option<i32> {
        None
    }

    /// Every descriptor that keeps one of the pins.
    fn fds(&self) -> Vec<i32> {
        self.fd().into_iter().chain(self.second_fd()).collect()
    }

    /// Makes one pin for each buffer: all or none. Whatever was made before must have been released.
    fn register(&mut self, buffers: &[Buffer]) -> Result<Vec<Object>, Refused>;

    /// Undoes every pin the polite way, by asking the kernel. Where there is no such call, closes.
    fn release(&mut self) -> Result<(), Refused>;

    /// Closes the descriptor with the pins still on it.
    fn close(&mut self) -> Result<(), Refused>;

    /// Closes the second descriptor.
    fn close_second(&mut self) -> Result<(), Refused> {
        Err(Refused { call: "close-ring2", errno: libc::EOPNOTSUPP })
    }

    /// Puts a buffer into a slot in place of what is there; `None` empties the slot.
    fn update(&mut self, _slot: u32, _buffer: Option<Buffer>) -> Result<(), Refused> {
        Err(Refused { call: "update", errno: libc::EOPNOTSUPP })
    }
}

/// Opens an anchor with nothing pinned on it yet.
pub fn open(kind: Kind, options: &AnchorOptions) -> Result<Box<dyn Anchor>> {
    Ok(match kind {
        Kind::RdmaMr => Box::new(rdma::Regions::open(options)?),
        Kind::IoUring => Box::new(uring::Ring::open(options)?),
        Kind::IoUringMemory => Box::new(ring_memory::Memory::new(options)),
        Kind::Xdp => Box::new(xdp::Umems::new(options)),
        Kind::Udmabuf => Box::new(udmabuf::Buffers::default()),
        Kind::Vfio => Box::new(vfio::Container::open(options)?),
        Kind::V4l2 => Box::new(v4l2::Device::open(options)?),
        Kind::Driver => Box::new(driver::Driver::new(options)),
    })
}
