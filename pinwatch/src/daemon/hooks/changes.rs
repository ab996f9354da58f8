//! What to attach and detach when modules or devices come and go: functions of the old plan, the new plan, the modules before
//! and after, and what is attached. Pure.

use pinwatch_common::subsystems::Role;

use super::modules::Module;
use crate::kernel::plan::{Hook, Method};

/// What has become of the hooks on functions of modules.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Their function is gone.
    pub removed: Vec<Hook>,
    /// They are attached to what is no longer there, or to another function than is planned now. The new ones are attached
    /// before these go, so that nothing is missed in between.
    pub replaced: Vec<Hook>,
}

/// Compares two plans. A hook stays if it is on the same function of a module that is still the one it was: a probe on a
/// module that was removed is dead without an error, though the module may be back.
pub fn changes(old: &[Hook], new: &[Hook], before: &[Module], after: &[Module]) -> Changes {
    let mut changes = Changes::default();
    for was in old.iter().filter(|hook| hook.module.is_some()) {
        match new.iter().find(|hook| hook.id == was.id) {
            Some(now) if now == was && address(before, was) == address(after, now) => {}
            Some(_) => changes.replaced.push(was.clone()),
            None => changes.removed.push(was.clone()),
        }
    }
    changes
}

/// Where the module of a hook is; `None` if it is not loaded.
fn address(modules: &[Module], hook: &Hook) -> Option<Option<u64>> {
    let name = hook.module.as_deref()?;
    modules.iter().find(|module| module.name == name).map(|module| module.address)
}

/// The hooks on functions of modules that are not attached, or in vain (`replaced`), in the order to attach them.
pub fn missing(planned: &[Hook], attached: impl Fn(&Hook) -> Option<Method>, replaced: &[Hook]) -> Vec<Hook> {
    let in_vain = |hook: &Hook| replaced.iter().any(|was| was.id == hook.id);
    let of_modules = planned.iter().filter(|hook| hook.module.is_some());
    in_order(of_modules.filter(|hook| attached(hook).is_none() || in_vain(hook)))
}

/// The hooks on functions of modules that are attached by another method than they should be. Trampolines hold a reference of
/// the module, so that it cannot be removed: they are there only while there are devices, which keep the module as well.
pub fn to_convert(
    planned: &[Hook],
    attached: impl Fn(&Hook) -> Option<Method>,
    has_devices: bool,
) -> Vec<Hook> {
    let wanted = |hook: &Hook| if has_devices { hook.method } else { Method::Kprobe };
    let of_modules = planned.iter().filter(|hook| hook.module.is_some());
    in_order(of_modules.filter(|hook| attached(hook).is_some_and(|method| method != wanted(hook))))
}

/// Ends before beginnings: no pin is recorded whose end could be missed.
pub fn in_order<'h>(hooks: impl Iterator<Item = &'h Hook>) -> Vec<Hook> {
    let mut hooks: Vec<Hook> = hooks.cloned().collect();
    hooks.sort_by_key(begins);
    hooks
}

/// Whether a hook sees pins being made.
pub fn begins(hook: &Hook) -> bool {
    hook.id.role() == Role::Begin
}

#[cfg(test)]
mod tests {
    use pinwatch_common::subsystems::{HookId, Subsystem};

    use super::*;

    /// The hook that sees something of RDMA made, or of the same module released.
    fn hook(role: Role) -> Hook {
        let is_it = |id: &HookId| id.name().starts_with("rdma_") && id.role() == role;
        let id = HookId::ALL.into_iter().find(is_it).unwrap();
        Hook {
            id,
            feature: Subsystem::Rdma.into(),
            symbol: "ib_umem_get",
            module: Some("ib_uverbs".to_owned()),
            btf_id: Some(7),
            method: Method::ModuleTrampoline,
            fallback: true,
        }
    }

    fn at(address: u64) -> Vec<Module> {
        vec![Module { name: "ib_uverbs".to_owned(), address: Some(address) }]
    }

    #[test]
    fn a_hook_on_a_module_that_stayed_stays() {
        let hooks = [hook(Role::Begin), hook(Role::End)];
        assert_eq!(changes(&hooks, &hooks, &at(1), &at(1)), Changes::default());
        // Another module came or went.
        let more = [at(1), vec![Module { name: "vfio".to_owned(), address: Some(9) }]].concat();
        assert_eq!(changes(&hooks, &hooks, &at(1), &more), Changes::default());
    }

    #[test]
    fn a_module_that_comes_has_hooks_to_attach_and_none_to_take_off() {
        let hooks = [hook(Role::Begin), hook(Role::End)];
        assert_eq!(changes(&[], &hooks, &[], &at(1)), Changes::default());
        let roles: Vec<Role> = missing(&hooks, |_| None, &[]).iter().map(|hook| hook.id.role()).collect();
        assert_eq!(roles, [Role::End, Role::Begin], "the end first");
    }

    #[test]
    fn a_module_that_goes_takes_its_hooks_with_it() {
        let hooks = [hook(Role::Begin)];
        let gone = changes(&hooks, &[], &at(1), &[]);
        assert_eq!((gone.removed.as_slice(), gone.replaced.as_slice()), (&hooks[..], &[][..]));
        assert_eq!(missing(&[], |_| None, &gone.replaced), []);
    }

    #[test]
    fn a_module_that_comes_back_elsewhere_is_hooked_anew_though_its_hooks_pass_for_attached() {
        let hooks = [hook(Role::Begin), hook(Role::End)];
        let back = changes(&hooks, &hooks, &at(1), &at(2));
        assert_eq!((back.removed.len(), back.replaced.len()), (0, 2));
        let attached = |_: &Hook| Some(Method::ModuleTrampoline);
        assert_eq!(missing(&hooks, attached, &[]), []);
        assert_eq!(missing(&hooks, attached, &back.replaced).len(), 2);
    }

    #[test]
    fn a_hook_that_the_plan_has_otherwise_now_is_replaced() {
        let was = hook(Role::Begin);
        let now = Hook { symbol: "ib_umem_get_va", ..was.clone() };
        let other = changes(std::slice::from_ref(&was), &[now], &at(1), &at(1));
        assert_eq!(other.replaced, [was]);
    }

    #[test]
    fn what_is_not_of_a_module_is_left_alone() {
        let of_kernel = Hook { module: None, ..hook(Role::Begin) };
        let old = [of_kernel.clone()];
        assert_eq!(changes(&old, &[], &at(1), &[]), Changes::default());
        assert_eq!(missing(&old, |_| None, &old), []);
        assert_eq!(to_convert(&old, |_| Some(Method::Kprobe), true), []);
    }

    #[test]
    fn trampolines_on_modules_are_there_only_while_devices_are() {
        let hooks = [hook(Role::Begin)];
        let by = |method: Method| move |_: &Hook| Some(method);
        assert_eq!(to_convert(&hooks, by(Method::Kprobe), true).len(), 1);
        assert_eq!(to_convert(&hooks, by(Method::Kprobe), false).len(), 0);
        assert_eq!(to_convert(&hooks, by(Method::ModuleTrampoline), true).len(), 0);
        assert_eq!(to_convert(&hooks, by(Method::ModuleTrampoline), false).len(), 1);
        assert_eq!(to_convert(&hooks, |_| None, true).len(), 0, "what is not attached is not converted");
    }
}
