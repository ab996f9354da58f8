//! The kernel object of a pin, in its subsystem's own terms: one file a subsystem, behind one trait.
//!
//! What an object is, what it is called, which fields it has in JSON and how it is released is written in its file and
//! nowhere else: lists, columns, JSON and `--explain` only ask [`Described`]. No I/O, and nothing about the terminal: text
//! in here is as the kernel and its users wrote it, and is escaped by whoever prints it.

mod described;

use std::fmt;

use serde::{Deserialize, Serialize};

use pinwatch_common::subsystems::Subsystem;

pub use described::{Described, Field, Piece, Release};

/// Declares the files, the enum and its dispatch, which follow from the table of subsystems: an entry without its file does not
/// compile.
macro_rules! objects {
    ($($module:ident: $variant:ident),+) => {
        $(pub mod $module;)+

        /// The kernel object, in its subsystem's own terms.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Object {
            $(
                #[doc = concat!("See [`", stringify!($module), "::Object`].")]
                $variant($module::Object),
            )+
        }

        impl Object {
            /// The subsystem that this object belongs to.
            pub fn subsystem(&self) -> Subsystem {
                match self {
                    $(Self::$variant(_) => Subsystem::$variant),+
                }
            }

            /// Empties what only root may see; see [`Described::redact`].
            pub fn redact(&mut self, is_own: bool) {
                match self {
                    $(Self::$variant(object) => object.redact(is_own)),+
                }
            }

            /// What its subsystem says of it.
            pub fn described(&self) -> &dyn Described {
                match self {
                    $(Self::$variant(object) => object),+
                }
            }
        }

        $(impl From<$module::Object> for Object {
            fn from(object: $module::Object) -> Self {
                Self::$variant(object)
            }
        })+

        /// The words of the TYPE column that objects of a subsystem have.
        pub fn types_of(subsystem: Subsystem) -> &'static [&'static str] {
            match subsystem {
                $(Subsystem::$variant => $module::TYPES),+
            }
        }
    };
}

pinwatch_common::for_each_subsystem!(objects);

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut outcome = Ok(());
        self.described().name(&mut |piece| {
            outcome = outcome.and_then(|()| match piece {
                Piece::Word(text) => f.write_str(text),
                Piece::Text(text) => f.write_str(text),
                Piece::Number(Some(number)) => write!(f, "{number}"),
                Piece::Number(None) => f.write_str("?"),
                Piece::Hex(number) => write!(f, "{number:#x}"),
            });
        });
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One object of each kind, with its type and name.
    fn all() -> Vec<(Object, &'static str, &'static str)> {
        let device = || "rxe0".to_owned();
        let buffer = |kind| rdma::Object::Buffer { device: device(), kind }.into();
        let unclaimed = |module: Option<&str>, function: Option<&str>, unloaded| {
            let (module, function) = (module.map(str::to_owned), function.map(str::to_owned));
            unclaimed::Object { module, function, stack: Vec::new(), unloaded }.into()
        };
        vec![
            (
                rdma::Object::Region { device: device(), mrn: 7, lkey: Some(1), rkey: Some(2) }.into(),
                "rdma-mr",
                "rxe0 mr 7",
            ),
            (buffer(rdma::BufferKind::Cq), "rdma-cq", "rxe0 cq buffer"),
            (buffer(rdma::BufferKind::Qp), "rdma-qp", "rxe0 qp buffer"),
            (buffer(rdma::BufferKind::Srq), "rdma-srq", "rxe0 srq buffer"),
            (buffer(rdma::BufferKind::Other), "rdma-buf", "rxe0 buffer"),
            (io_uring::Object::Buffer { ring_fd: Some(5), slot: Some(0) }.into(), "io_uring", "ring 5 buf 0"),
            (io_uring::Object::Buffer { ring_fd: None, slot: None }.into(), "io_uring", "ring ? buf ?"),
            (io_uring::Object::Memory { ring_fd: Some(5) }.into(), "io_uring-mem", "ring 5 memory"),
            (io_uring::Object::Memory { ring_fd: None }.into(), "io_uring-mem", "ring ? memory"),
            (xdp::Object { umem: 3 }.into(), "xdp", "umem 3"),
            (udmabuf::Object { ino: 17 }.into(), "udmabuf", "dmabuf 17"),
            (vfio::Object { iova: 1 << 32 }.into(), "vfio", "iova 0x100000000"),
            (v4l2::Object { device: "video0".to_owned() }.into(), "v4l2", "video0 buf"),
            (unclaimed(Some("ivpu"), Some("f"), false), "unclaimed", "(ivpu)"),
            (unclaimed(Some("ivpu"), None, true), "unclaimed", "(ivpu) unloaded"),
            (unclaimed(None, Some("f"), false), "unclaimed", "(f)"),
            (unclaimed(None, None, false), "unclaimed", "(?)"),
        ]
    }

    #[test]
    fn objects_are_named_as_their_own_tools_name_them() {
        for (object, kind, name) in all() {
            assert_eq!((object.described().type_word(), object.to_string().as_str()), (kind, name));
        }
    }

    #[test]
    fn types_are_those_that_are_declared_and_begin_with_the_subsystem() {
        for subsystem in Subsystem::ALL {
            let objects = all();
            let mut found: Vec<&str> = (objects.iter())
                .filter(|(object, ..)| object.subsystem() == subsystem)
                .map(|(object, ..)| object.described().type_word())
                .collect();
            found.dedup();
            assert_eq!(found, types_of(subsystem));
            assert!(found.iter().all(|word| word.starts_with(subsystem.word())), "{found:?}");
        }
    }
}
