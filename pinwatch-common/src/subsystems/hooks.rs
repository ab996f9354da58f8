//! The hooks: their numbers, their roles, and the numbered things that each of them has of its own (scratch memory, counters,
//! what a thread carries). All of these are computed from how many hooks there are.

use super::Subsystem;
use crate::counter;

/// Whether a hook sees the beginning of a function or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    /// Before the first instruction: the arguments. fentry, kprobe.
    Entry,
    /// After the last one: arguments and result. fexit, or a kprobe that keeps the arguments and a kretprobe.
    Exit,
}

/// What a hook is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It records pins.
    Begin,
    /// It releases them.
    End,
    /// It tells more of them, or of something else.
    Other,
}

/// A hook as a type, so that what it may do is checked by the compiler.
pub trait Hook {
    /// Which.
    const ID: HookId;
}

/// A hook on the entry of a function.
pub trait EntryHook: Hook {}

/// A hook on the return of a function.
pub trait ExitHook: Hook {}

/// A hook that records pins. Its programs have scratch memory; to ask for that of another hook does not compile:
///
/// ```
/// use pinwatch_common::subsystems::{BeginHook, hook};
/// const SLOT: u32 = hook::rdma_get::SCRATCH_SLOT;
/// ```
///
/// ```compile_fail,E0277
/// use pinwatch_common::subsystems::{BeginHook, hook};
/// const SLOT: u32 = <hook::rdma_release as BeginHook>::SCRATCH_SLOT;
/// ```
pub trait BeginHook: Hook {
    /// The slot in scratch memory of its program; the one behind it is the backup program's.
    const SCRATCH_SLOT: u32 = Self::ID.scratch_slot();
}

macro_rules! define {
    (
        subsystems $_subsystems:tt
        kinds $_kinds:tt
        hooks { $( [$($Owner:ident)?] { $( $(#[$doc:meta])* $hook:ident: $at:ident $role:ident, )+ } )+ }
        carries { $( { $( $(#[$carried_doc:meta])* $Carried:ident, )* } )+ }
        kernel $_kernel:tt
        module $_module:tt
    ) => {
        /// A hook, by its number. It is called as its BPF program is.
        #[expect(non_camel_case_types, reason = "one name all through pinwatch, which can be searched for")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum HookId { $( $( $(#[$doc])* $hook, )+ )+ }

        impl HookId {
            /// All, by number.
            pub const ALL: [Self; [$($(Self::$hook),+),+].len()] = [$($(Self::$hook),+),+];

            /// Its name, and that of its program.
            pub const fn name(self) -> &'static str {
                match self { $( $( Self::$hook => stringify!($hook), )+ )+ }
            }

            /// Where it sits.
            pub const fn point(self) -> HookPoint {
                match self { $( $( Self::$hook => define!(@point $at), )+ )+ }
            }

            /// What it is for.
            pub const fn role(self) -> Role {
                match self { $( $( Self::$hook => define!(@role $role), )+ )+ }
            }

            /// Whose it is; `None`: no subsystem's.
            pub const fn subsystem(self) -> Option<Subsystem> {
                match self { $( $( Self::$hook )|+ => define!(@owner $($Owner)?), )+ }
            }
        }

        /// The hooks as types.
        pub mod hook {
            use super::{BeginHook, EntryHook, ExitHook, Hook, HookId};

            $( $(
                $(#[$doc])*
                #[expect(non_camel_case_types, reason = "as in HookId")]
                #[derive(Clone, Copy, Debug)]
                pub struct $hook;

                impl Hook for $hook {
                    const ID: HookId = HookId::$hook;
                }
                define!(@impl_point $at $hook);
                define!(@impl_role $role $hook);
            )+ )+
        }

        /// What a thread carries from one program to a later one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Carried { $( $( $(#[$carried_doc])* $Carried, )* )+ }

        impl Carried {
            /// How many there are.
            pub const COUNT: u32 = [$($(Self::$Carried,)*)+].len() as u32;
        }
    };
    (@point entry) => { HookPoint::Entry };
    (@point exit) => { HookPoint::Exit };
    (@role begin) => { Role::Begin };
    (@role end) => { Role::End };
    (@role other) => { Role::Other };
    (@owner $Owner:ident) => { Some(Subsystem::$Owner) };
    (@owner) => { None };
    (@impl_point entry $hook:ident) => { impl EntryHook for $hook {} };
    (@impl_point exit $hook:ident) => { impl ExitHook for $hook {} };
    (@impl_role begin $hook:ident) => { impl BeginHook for $hook {} };
    (@impl_role end $hook:ident) => {};
    (@impl_role other $hook:ident) => {};
}
crate::subsystem_lists!(define);

impl HookId {
    /// How many there are.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// The counter of the calls that its program missed and its backup saw.
    pub const fn recovered(self) -> u32 {
        counter::RECOVERED + self as u32
    }

    /// See [`BeginHook::SCRATCH_SLOT`].
    const fn scratch_slot(self) -> u32 {
        assert!(matches!(self.role(), Role::Begin), "only hooks that record pins have scratch memory");
        2 * begins_before(self as usize)
    }
}

/// How many hooks that record pins have a smaller number.
const fn begins_before(number: usize) -> u32 {
    let (mut at, mut begins) = (0, 0);
    while at < number {
        begins += matches!(HookId::ALL[at].role(), Role::Begin) as u32;
        at += 1;
    }
    begins
}

/// The slot in scratch memory of what user space runs by itself.
pub const USER_SCRATCH_SLOT: u32 = 2 * begins_before(HookId::ALL.len());
/// How many slots of scratch memory there are: two for each hook that records pins, and that one.
pub const SCRATCH_SLOTS: u32 = USER_SCRATCH_SLOT + 1;

/// What something is carried for from one program of a thread to a later one, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

impl Slot {
    /// How many there are.
    pub const COUNT: u32 = 2 * HookId::COUNT + Carried::COUNT;

    /// The arguments of a call, between kprobe and kretprobe.
    pub const fn arguments(hook: HookId) -> Self {
        Self(hook as u32)
    }

    /// The first program of a hook has run, so that its backup has nothing to do.
    pub const fn mark(hook: HookId) -> Self {
        Self(HookId::COUNT + hook as u32)
    }

    /// What the table has under `carries`.
    pub const fn carried(what: Carried) -> Self {
        Self(2 * HookId::COUNT + what as u32)
    }

    /// Its number, below [`Self::COUNT`].
    pub const fn number(self) -> u32 {
        self.0
    }
}

// A purpose goes into the eight bits of a key that thread ids leave free.
const _: () = assert!(Slot::COUNT <= 1 << 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_has_one_number_everywhere() {
        for (number, hook) in HookId::ALL.into_iter().enumerate() {
            assert_eq!(hook as usize, number);
            assert_eq!(hook.recovered(), counter::RECOVERED + number as u32);
            assert!(hook.recovered() < counter::COUNT);
        }
        assert_eq!(<hook::io_unmap as Hook>::ID, HookId::io_unmap);
        assert_eq!(HookId::io_unmap.name(), "io_unmap");
    }

    #[test]
    fn every_subsystem_begins_and_ends_pins() {
        for subsystem in Subsystem::ALL {
            let has = |role| {
                HookId::ALL.iter().any(|hook| hook.subsystem() == Some(subsystem) && hook.role() == role)
            };
            assert!(has(Role::Begin), "{subsystem}");
            // Nobody sees the end of what nobody claims.
            assert!(has(Role::End) || subsystem == Subsystem::Unclaimed, "{subsystem}");
        }
        assert_eq!(HookId::lease_set.subsystem(), None);
    }

    #[test]
    fn no_two_programs_share_scratch_memory() {
        let begins: [u32; 3] =
            [hook::rdma_get::SCRATCH_SLOT, hook::io_register::SCRATCH_SLOT, hook::io_provide::SCRATCH_SLOT];
        assert_eq!(begins, [0, 2, 4]);
        let slots =
            HookId::ALL.iter().filter(|hook| hook.role() == Role::Begin).map(|hook| hook.scratch_slot());
        let mut last = None;
        for slot in slots {
            assert!(last.is_none_or(|last| slot == last + 2));
            last = Some(slot);
        }
        assert_eq!(last, Some(USER_SCRATCH_SLOT - 2));
        assert_eq!(hook::pin_folios::SCRATCH_SLOT + 2, USER_SCRATCH_SLOT);
    }

    #[test]
    fn purposes_do_not_meet() {
        let last = HookId::ALL[HookId::ALL.len() - 1];
        assert_eq!(Slot::arguments(last).number() + 1, Slot::mark(HookId::ALL[0]).number());
        assert_eq!(Slot::mark(last).number() + 1, Slot::carried(Carried::UnnamedUmem).number());
        assert_eq!(Slot::carried(Carried::UnclaimedPin).number() + 1, Slot::COUNT);
    }
}
