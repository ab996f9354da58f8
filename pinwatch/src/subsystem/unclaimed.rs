//! Whatever pins pages for the long term and is none of the other subsystems: the functions that give out pins are hooked.

use pinwatch_common::subsystems::{HookId, Kind, Subsystem, UnknownKind};
use pinwatch_common::{FOLL_WRITE, LayoutGroup, PinRecord};

use super::{Hooks, Needs, mode_by};
use crate::kernel::feature_name::FeatureName;
use crate::kernel::missing::Missing;
use crate::kernel::plan::Planner;
use crate::kernel::wanted::{KernelFn, MEMFD_PIN_FOLIOS, kernel_functions};
use crate::model::{self, Counter, Mode};
use crate::source::naming::Naming;

kernel_functions! {
    /// Gives out pages of a process for longer or shorter. Before 6.5 it has one parameter more.
    PIN_USER_PAGES = "pin_user_pages"("int", "int", "int", "page **") -> "int";
    /// The same without a lock held.
    PIN_USER_PAGES_FAST = "pin_user_pages_fast"("int", "int", "int", "page **") -> "int";
    /// The same for another process.
    PIN_USER_PAGES_REMOTE = "pin_user_pages_remote"("mm_struct *", "int", "int", "int", "page **") -> "int";
    /// The same, with its parameters in another order.
    PIN_USER_PAGES_UNLOCKED = "pin_user_pages_unlocked"("int", "int", "page **", "int") -> "int";
    /// Never hooked: where it is (6.3 and later), or soon after, direct I/O pins pages by the same functions.
    IOV_ITER_EXTRACT_PAGES = "iov_iter_extract_pages"() -> "int";
}

/// The flag that asks for pages for the long term: an enumerator since 6.2 or so (b5054174ac7c), a number in a header before.
const FOLL_LONGTERM: &str = "FOLL_LONGTERM";
/// Its value where it is no enumerator (include/linux/mm.h of 6.1).
const OLD_FOLL_LONGTERM: u64 = 0x10000;

static NEEDS: Needs = Needs {
    modules: &[],
    functions: FUNCTIONS,
    structs: &[],
    enumerators: &[FOLL_LONGTERM],
    parts: &[],
    loss: "pins of drivers that pinwatch does not know are not traced",
};

pub struct Room;

impl super::Room for Room {
    fn id(&self) -> Subsystem {
        Subsystem::Unclaimed
    }

    fn needs(&self) -> &'static Needs {
        &NEEDS
    }

    fn hooks(&self, planner: &mut Planner<'_>) -> Result<Hooks, Missing> {
        if planner.choices.unclaimed == Some(false) {
            return Err(Missing::NotWanted);
        }
        planner.needs(LayoutGroup::PageCheck)?;
        planner.needs(LayoutGroup::PageState)?;
        let mut wanted: Vec<(HookId, &KernelFn)> = vec![
            (HookId::pin_pages, &PIN_USER_PAGES),
            (HookId::pin_fast, &PIN_USER_PAGES_FAST),
            (HookId::pin_remote, &PIN_USER_PAGES_REMOTE),
            (HookId::pin_unlocked, &PIN_USER_PAGES_UNLOCKED),
        ];
        if planner.exists(&MEMFD_PIN_FOLIOS) {
            wanted.push((HookId::pin_folios, &MEMFD_PIN_FOLIOS));
        }
        let hooks = planner.hooks(FeatureName::Subsystem(Subsystem::Unclaimed), wanted)?;
        // One program takes 6 % of what a direct read of 4 KiB takes (6.12), two of them 9 % (6.18, 7.3), a kprobe and its
        // return more: `cargo xtask bench hooks`. That is over the budget of 4 %.
        if planner.choices.unclaimed.is_none() && planner.exists(&IOV_ITER_EXTRACT_PAGES) {
            return Err(Missing::TooCostly);
        }
        planner.layout.long_term = match planner.facts.enums.get(FOLL_LONGTERM).copied().flatten() {
            Some(value) => u64::try_from(value).map_err(|_| Missing::NoEnumerator { name: FOLL_LONGTERM })?,
            // Before 6.2 or so it is no enumerator.
            None => OLD_FOLL_LONGTERM,
        };
        // 0 where BTF does not tell.
        planner.layout.pin_pages_args =
            planner.signature(&PIN_USER_PAGES).map_or(0, |function| function.params.len() as u64);
        Ok(hooks.into())
    }

    fn object(&self, _: Kind, record: &PinRecord, naming: &Naming<'_>) -> Result<model::Object, UnknownKind> {
        Ok(naming.caller(record.sequence).into())
    }

    fn mode(&self, record: &PinRecord) -> Mode {
        mode_by(record, FOLL_WRITE)
    }

    fn has_address(&self, record: &PinRecord) -> bool {
        // Pages of a file that were pinned without a mapping have the device here.
        record.device == 0
    }

    fn memlock(&self) -> &'static [Counter] {
        &[Counter::Pinned, Counter::Locked, Counter::User]
    }
}
