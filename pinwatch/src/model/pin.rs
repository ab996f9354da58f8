//! A pin: one kernel object that holds pages for the long term.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Coverage, HoldingIndex, Parts, ProcessIndex};

/// The part of the kernel that made a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subsystem {
    /// InfiniBand/RDMA: memory regions, queue buffers.
    Rdma,
    /// io_uring registered buffers.
    IoUring,
    /// AF_XDP umems.
    Xdp,
    /// DMA buffers made of memfds.
    Udmabuf,
    /// DMA mappings of VFIO.
    Vfio,
    /// User memory that V4L2 devices use as buffers.
    V4l2,
    /// Whatever no subsystem claims.
    Unclaimed,
}

impl Subsystem {
    /// All that this version knows, in the order in which they are listed.
    pub const ALL: [Self; 7] =
        [Self::Rdma, Self::IoUring, Self::Xdp, Self::Udmabuf, Self::Vfio, Self::V4l2, Self::Unclaimed];

    /// The word used in columns, JSON and options.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rdma => "rdma",
            Self::IoUring => "io_uring",
            Self::Xdp => "xdp",
            Self::Udmabuf => "udmabuf",
            Self::Vfio => "vfio",
            Self::V4l2 => "v4l2",
            Self::Unclaimed => "unclaimed",
        }
    }

    /// The letter that starts the ids of its pins.
    pub fn letter(self) -> char {
        match self {
            Self::Rdma => 'r',
            Self::IoUring => 'u',
            Self::Xdp => 'x',
            Self::Udmabuf => 'd',
            Self::Vfio => 'v',
            Self::V4l2 => 'm',
            Self::Unclaimed => 'n',
        }
    }
}

/// A pin's id: unique for as long as the daemon's kernel state lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PinId {
    /// Which subsystem.
    pub subsystem: Subsystem,
    /// Sequence number, counted from 1; of no meaning between two runs of `lspins` without a daemon.
    pub sequence: u64,
}

impl fmt::Display for PinId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:x}", self.subsystem.letter(), self.sequence)
    }
}

/// Whether the device may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// Reading and writing.
    ReadWrite,
    /// Reading only.
    ReadOnly,
    /// The source cannot tell.
    Unknown,
}

impl Mode {
    /// The word used in columns and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::ReadWrite => "rw",
            Self::ReadOnly => "ro",
            Self::Unknown => "?",
        }
    }
}

/// How a pin is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Origin {
    /// Seen being made.
    Trace,
    /// Found by reading the kernel.
    Walk,
    /// procfs and netlink only.
    Proc,
}

impl Origin {
    /// The word used in columns and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Walk => "walk",
            Self::Proc => "proc",
        }
    }
}

/// The kernel object, in its subsystem's own terms.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Object {
    /// An RDMA memory region.
    RdmaMr {
        /// Device name, such as `mlx5_0`.
        device: String,
        /// The number that `rdma resource show mr` prints as `mrn`.
        mrn: u32,
        /// Local key; `None` where the source may not see keys.
        lkey: Option<u32>,
        /// Remote key; `None` where the source may not see keys.
        rkey: Option<u32>,
    },
    /// Another RDMA buffer: of a completion queue, queue pair, shared receive queue, or of the driver's own.
    RdmaBuffer {
        /// Device name.
        device: String,
        /// `cq`, `qp`, `srq` or `buffer`.
        what: RdmaBufferKind,
    },
    /// A registered io_uring buffer.
    IoUring {
        /// The ring's file descriptor in the process that registered the buffer, if known.
        ring_fd: Option<u32>,
        /// The buffer's index in the ring's table, if known.
        slot: Option<u32>,
    },
    /// What a ring keeps in memory of its user other than buffers: its queues, a ring of provided buffers, a region.
    IoUringMemory {
        /// The ring's file descriptor in the process that gave it the memory, if known.
        ring_fd: Option<u32>,
    },
    /// An AF_XDP umem.
    Xdp {
        /// The umem's number in its network namespace's diagnostics (`ss --xdp -e`).
        umem: u32,
    },
    /// A DMA buffer made of memfds.
    Udmabuf {
        /// The DMA buffer's inode number, as in `/sys/kernel/debug/dma_buf/bufinfo` and `ls -i`.
        ino: u32,
    },
    /// A DMA mapping of a VFIO container.
    Vfio {
        /// The first address that the device uses for it.
        iova: u64,
    },
    /// User memory that a V4L2 device uses as a buffer.
    V4l2 {
        /// Device name, such as `video0`.
        device: String,
    },
    /// What no subsystem claims: all that is known is the code that asked for it.
    Unclaimed {
        /// The module that the code is in; `None` for the kernel proper.
        module: Option<String>,
        /// The function.
        function: Option<String>,
        /// The kernel's stack then, innermost first, from that function on.
        stack: Vec<String>,
        /// The module is no longer loaded.
        unloaded: bool,
    },
}

/// What an RDMA buffer that is no memory region serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RdmaBufferKind {
    /// A completion queue.
    Cq,
    /// A queue pair.
    Qp,
    /// A shared receive queue.
    Srq,
    /// Not told: a doorbell page, a driver's own buffer.
    Other,
}

impl Object {
    /// The subsystem that this object belongs to.
    pub fn subsystem(&self) -> Subsystem {
        match self {
            Self::RdmaMr { .. } | Self::RdmaBuffer { .. } => Subsystem::Rdma,
            Self::IoUring { .. } | Self::IoUringMemory { .. } => Subsystem::IoUring,
            Self::Xdp { .. } => Subsystem::Xdp,
            Self::Udmabuf { .. } => Subsystem::Udmabuf,
            Self::Vfio { .. } => Subsystem::Vfio,
            Self::V4l2 { .. } => Subsystem::V4l2,
            Self::Unclaimed { .. } => Subsystem::Unclaimed,
        }
    }

    /// The TYPE column: finer than the subsystem where one subsystem has several kinds of pins.
    pub fn type_word(&self) -> &'static str {
        match self {
            Self::RdmaMr { .. } => "rdma-mr",
            Self::RdmaBuffer { what, .. } => match what {
                RdmaBufferKind::Cq => "rdma-cq",
                RdmaBufferKind::Qp => "rdma-qp",
                RdmaBufferKind::Srq => "rdma-srq",
                RdmaBufferKind::Other => "rdma-buf",
            },
            Self::IoUringMemory { .. } => "io_uring-mem",
            Self::IoUring { .. }
            | Self::Xdp { .. }
            | Self::Udmabuf { .. }
            | Self::Vfio { .. }
            | Self::V4l2 { .. }
            | Self::Unclaimed { .. } => self.subsystem().word(),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// A number, or `?`.
        struct Known(Option<u32>);
        impl fmt::Display for Known {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    Some(number) => fmt::Display::fmt(&number, f),
                    None => f.write_str("?"),
                }
            }
        }
        match self {
            Self::RdmaMr { device, mrn, .. } => write!(f, "{device} mr {mrn}"),
            Self::RdmaBuffer { device, what } => match what {
                RdmaBufferKind::Cq => write!(f, "{device} cq buffer"),
                RdmaBufferKind::Qp => write!(f, "{device} qp buffer"),
                RdmaBufferKind::Srq => write!(f, "{device} srq buffer"),
                RdmaBufferKind::Other => write!(f, "{device} buffer"),
            },
            Self::IoUring { ring_fd, slot } => write!(f, "ring {} buf {}", Known(*ring_fd), Known(*slot)),
            Self::IoUringMemory { ring_fd } => write!(f, "ring {} memory", Known(*ring_fd)),
            Self::Xdp { umem } => write!(f, "umem {umem}"),
            Self::Udmabuf { ino } => write!(f, "dmabuf {ino}"),
            Self::Vfio { iova } => write!(f, "iova {iova:#x}"),
            Self::V4l2 { device } => write!(f, "{device} buf"),
            Self::Unclaimed { module, function, unloaded, .. } => {
                match (module, function) {
                    (Some(module), _) => write!(f, "({module})")?,
                    (None, Some(function)) => write!(f, "({function})")?,
                    (None, None) => f.write_str("(?)")?,
                }
                if *unloaded { f.write_str(" unloaded") } else { Ok(()) }
            }
        }
    }
}

/// What keeps the object alive in a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Via {
    /// A file descriptor.
    Fd(u32),
    /// A mapping of the anchor at this address.
    Mapping(u64),
    /// A ring registered with the thread's own io_uring context (`IORING_REGISTER_RING_FDS`), at this place.
    Registered(u32),
    /// Registered as a file with a ring (`IORING_REGISTER_FILES`): the ring's descriptor, if the process has one.
    RingFile(Option<u32>),
}

/// A process that keeps the anchor alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub process: ProcessIndex,
    /// Through what.
    pub via: Vec<Via>,
}

/// How a pin is kept. Pins with the same anchor share one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Processes that keep it, by pid.
    pub holders: Vec<Holder>,
    /// Descriptors of the anchor in messages that nobody has received yet; `None` if nobody has looked.
    pub in_flight: Option<u32>,
    /// Who could receive them: the descriptor is the socket's. These processes do not hold the pin.
    pub receivers: Vec<Holder>,
}

/// What keeps a pin, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeldState {
    /// A process has a descriptor of the anchor.
    Held,
    /// No descriptor is left: only mappings, or what is registered with a thread or a ring.
    Closed,
    /// Only descriptors in messages that nobody has received.
    InFlight,
    /// Nothing in user space: the kernel alone, or it is being torn down.
    Unheld,
    /// Nobody has looked.
    Unknown,
}

impl HeldState {
    /// The word used in columns and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Closed => "closed",
            Self::InFlight => "in-flight",
            Self::Unheld => "unheld",
            Self::Unknown => "unknown",
        }
    }
}

impl Holding {
    /// What keeps it.
    pub fn state(&self) -> HeldState {
        let is_open = |via: &Via| matches!(via, Via::Fd(_));
        match &self.holders[..] {
            [] if self.in_flight.is_none_or(|n| n == 0) => HeldState::Unheld,
            [] => HeldState::InFlight,
            // A way that this version does not know is no reason to say that there is no descriptor.
            holders if holders.iter().any(|h| h.via.is_empty() || h.via.iter().any(is_open)) => {
                HeldState::Held
            }
            _ => HeldState::Closed,
        }
    }

    /// Nobody keeps it, as far as was looked.
    pub fn nobody() -> Self {
        Self { in_flight: Some(0), ..Self::default() }
    }
}

/// One pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Its id.
    pub id: PinId,
    /// The kernel object.
    pub object: Object,
    /// Whether the device may write.
    pub mode: Mode,
    /// Bytes asked for.
    pub bytes: u64,
    /// Pages pinned, in units of the system's base page.
    pub pages: u64,
    /// User address of the first byte when the pin was made, if known.
    pub address: Option<u64>,
    /// By file, largest first; never empty.
    pub parts: Parts,
    /// Whether `parts` is exact. False when memory was remapped meanwhile or a bound was hit; `doubt` then says which.
    pub exact: bool,
    /// Why `parts` is not exact.
    pub doubt: Option<String>,
    /// Pages that no longer belong to the file; `None` if nobody has looked.
    pub orphan_pages: Option<u64>,
    /// Who made it; `None` if no source knows.
    pub creator: Option<ProcessIndex>,
    /// Who keeps it; `None` if nobody has looked.
    pub holding: Option<HoldingIndex>,
    /// The verdict on its leases.
    pub coverage: Coverage,
    /// When it was made, in nanoseconds since the Unix epoch; `None` if no source knows.
    pub created: Option<i64>,
    /// How it is known.
    pub origin: Origin,
}

impl Pin {
    /// The subsystem that made the pin.
    pub fn subsystem(&self) -> Subsystem {
        self.id.subsystem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsystems_are_told_apart() {
        for (at, one) in Subsystem::ALL.iter().enumerate() {
            for other in &Subsystem::ALL[at + 1..] {
                assert!(one.word() != other.word() && one.letter() != other.letter(), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn objects_are_named_as_their_own_tools_name_them() {
        let video = Object::V4l2 { device: "video0".to_owned() };
        for (object, kind, name) in [
            (Object::IoUringMemory { ring_fd: Some(5) }, "io_uring-mem", "ring 5 memory"),
            (Object::IoUringMemory { ring_fd: None }, "io_uring-mem", "ring ? memory"),
            (Object::Udmabuf { ino: 17 }, "udmabuf", "dmabuf 17"),
            (Object::Vfio { iova: 1 << 32 }, "vfio", "iova 0x100000000"),
            (video, "v4l2", "video0 buf"),
        ] {
            assert_eq!((object.type_word(), object.to_string().as_str()), (kind, name));
            assert!(kind.starts_with(object.subsystem().word()));
        }
    }
}
