//! Which subsystems and which kinds of kernel object there are.

use core::fmt;

/// A kind's number that no version known here gives: a record of a newer version, or not a record at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownKind(
    /// The number.
    pub u32,
);

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kind {} of kernel object is not known", self.0)
    }
}

impl core::error::Error for UnknownKind {}

macro_rules! define {
    (
        subsystems { $( $(#[$doc:meta])* $snake:ident: $Variant:ident $letter:literal, )+ }
        kinds { $( [$Owner:ident] { $( $(#[$kind_doc:meta])* $Kind:ident = $number:literal, )+ } )+ }
        hooks $_hooks:tt
        carries $_carries:tt
        kernel $_kernel:tt
        module $_module:tt
    ) => {
        /// The part of the kernel that makes a pin.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
        #[repr(u32)]
        pub enum Subsystem { $( $(#[$doc])* $Variant, )+ }

        impl Subsystem {
            /// All that this version knows, in the order in which they are listed.
            pub const ALL: [Self; [$(Self::$Variant),+].len()] = [$(Self::$Variant),+];

            /// The word used in columns, JSON, options and metrics.
            pub const fn word(self) -> &'static str {
                match self { $( Self::$Variant => stringify!($snake), )+ }
            }

            /// The letter that starts the ids of its pins.
            pub const fn letter(self) -> char {
                match self { $( Self::$Variant => $letter, )+ }
            }
        }

        /// What kind of kernel object a record stands for: values of [`crate::PinRecord::kind`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Kind { $( $( $(#[$kind_doc])* $Kind = $number, )+ )+ }

        impl Kind {
            /// All that this version knows.
            pub const ALL: [Self; [$($(Self::$Kind),+),+].len()] = [$($(Self::$Kind),+),+];

            /// What makes such objects.
            #[inline(always)]
            pub const fn subsystem(self) -> Subsystem {
                match self { $( $( Self::$Kind )|+ => Subsystem::$Owner, )+ }
            }
        }

        impl TryFrom<u32> for Kind {
            type Error = UnknownKind;

            #[inline(always)]
            fn try_from(number: u32) -> Result<Self, UnknownKind> {
                match number {
                    $( $( $number => Ok(Self::$Kind), )+ )+
                    _ => Err(UnknownKind(number)),
                }
            }
        }
    };
}
crate::subsystem_lists!(define);

impl fmt::Display for Subsystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

// What the types cannot say. That no two kinds have one number, and no two subsystems one word, the compiler says.
const _: () = {
    let mut at = 0;
    while at < Subsystem::ALL.len() {
        let one = Subsystem::ALL[at];
        assert!(one as usize == at, "totals are found by a subsystem's place");
        assert!(one.letter().is_ascii_lowercase(), "an id begins with a small letter");
        let mut other = at + 1;
        while other < Subsystem::ALL.len() {
            assert!(one.letter() != Subsystem::ALL[other].letter(), "two subsystems with one letter");
            other += 1;
        }
        at += 1;
    }
    let mut at = 0;
    while at < Kind::ALL.len() {
        assert!(Kind::ALL[at] as u32 != 0, "0 is a record that was never written");
        at += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_of_one_kind_and_of_no_other() {
        for kind in Kind::ALL {
            assert_eq!(Kind::try_from(kind as u32), Ok(kind));
        }
        for number in [0, 99, u32::MAX] {
            assert_eq!(Kind::try_from(number), Err(UnknownKind(number)));
        }
    }

    /// Programs and daemons of different versions meet in pinned maps.
    #[test]
    fn numbers_stay_what_they_were() {
        let numbers: [(Kind, u32); 12] = [
            (Kind::RdmaBuffer, 1),
            (Kind::RdmaMr, 2),
            (Kind::RdmaCq, 3),
            (Kind::RdmaQp, 4),
            (Kind::RdmaSrq, 5),
            (Kind::IoUring, 6),
            (Kind::Xdp, 7),
            (Kind::Unclaimed, 8),
            (Kind::Udmabuf, 9),
            (Kind::Vfio, 10),
            (Kind::V4l2, 11),
            (Kind::IoUringMemory, 12),
        ];
        for (kind, number) in numbers {
            assert_eq!(kind as u32, number);
        }
    }

    #[test]
    fn every_subsystem_has_kinds() {
        for subsystem in Subsystem::ALL {
            assert!(Kind::ALL.iter().any(|kind| kind.subsystem() == subsystem), "{subsystem}");
        }
        assert_eq!(Kind::IoUringMemory.subsystem(), Subsystem::IoUring);
    }

    #[test]
    fn words_and_letters_are_what_scripts_know() {
        let mut words = Subsystem::ALL.map(|subsystem| (subsystem.letter(), subsystem.word()));
        words.sort_unstable();
        assert_eq!(
            words,
            [
                ('d', "udmabuf"),
                ('m', "v4l2"),
                ('n', "unclaimed"),
                ('r', "rdma"),
                ('u', "io_uring"),
                ('v', "vfio"),
                ('x', "xdp"),
            ]
        );
    }
}
