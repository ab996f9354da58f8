//! One room for each subsystem: its hooks, which anchor a file of its own is, and whether a pin of its own is gone. The rooms and
//! the order of the questions follow from the table in `pinwatch-common/src/subsystems.rs`.

use pinwatch_common::{
    PinRecord,
    subsystems::{Kind, Subsystem},
};

macro_rules! rooms {
    ($($room:ident: $Subsystem:ident),+) => {
        $( pub mod $room; )+

        /// The anchor that a file leads to that is none itself, by its `private_data` and its inode's mode; 0 if it is none.
        #[inline(always)]
        pub fn anchor_of(private: u64, mode: u16) -> u64 {
            $(
                let anchor = $room::anchor_of(private, mode);
                if anchor != 0 {
                    return anchor;
                }
            )+
            0
        }

        /// Whether the object of a pin says that it is released.
        #[inline(always)]
        pub fn is_gone(kind: Kind, object: u64, pin: &PinRecord) -> bool {
            match kind.subsystem() {
                $( Subsystem::$Subsystem => $room::is_gone(object, pin), )+
            }
        }
    };
}
pinwatch_common::for_each_subsystem!(rooms);
