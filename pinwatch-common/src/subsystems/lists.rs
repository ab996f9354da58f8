//! From the table to lists: the macros by which both sides get what they need of it. Nothing particular to a subsystem is here.

/// Hands the table's sections to a macro, section by section rather than subsystem by subsystem: a macro that makes
/// something of one section takes the others as they are (`$_:tt`). What is shared comes last, without a subsystem.
#[doc(hidden)]
#[macro_export]
macro_rules! subsystem_lists {
    ($callback:ident) => { $crate::subsystem_table! { [$crate::subsystem_lists] $callback } };
    (@ $callback:ident {
        $(
            $(#[$doc:meta])*
            subsystem $snake:ident: $Variant:ident $letter:literal {
                kinds $kinds:tt
                hooks $hooks:tt
                carries $carries:tt
                kernel $kernel:tt
                module $module:tt
            }
        )+
        shared {
            hooks $shared_hooks:tt
            carries $shared_carries:tt
            kernel $shared_kernel:tt
            module $shared_module:tt
        }
    }) => {
        $callback! {
            subsystems { $( $(#[$doc])* $snake: $Variant $letter, )+ }
            kinds { $( [$Variant] $kinds )+ }
            hooks { $( [$Variant] $hooks )+ [] $shared_hooks }
            carries { $( $carries )+ $shared_carries }
            kernel { $( $kernel )+ $shared_kernel }
            module { $( $module )+ $shared_module }
        }
    };
}

/// Calls a macro with `snake: Variant` for each subsystem, in the order of the table, separated by commas.
///
/// ```
/// macro_rules! words { ($($snake:ident: $Variant:ident),+) => { [$(stringify!($snake)),+] } }
/// assert_eq!(pinwatch_common::for_each_subsystem!(words)[0], "rdma");
/// ```
#[macro_export]
macro_rules! for_each_subsystem {
    ($callback:ident) => { $crate::subsystem_table! { [$crate::for_each_subsystem] $callback } };
    (@ $callback:ident {
        $( $(#[$_doc:meta])* subsystem $snake:ident: $Variant:ident $_letter:literal $_sections:tt )+
        shared $_shared:tt
    }) => {
        $callback! { $($snake: $Variant),+ }
    };
}

/// Calls a macro with the name of each hook, in the order of the numbers, separated by commas: of the subsystems first.
#[macro_export]
macro_rules! for_each_hook {
    ($callback:ident) => { $crate::subsystem_table! { [$crate::for_each_hook] $callback } };
    (@ $callback:ident {
        $(
            $(#[$_doc:meta])*
            subsystem $_snake:ident: $_Variant:ident $_letter:literal {
                kinds $_kinds:tt
                hooks { $( $(#[$_hook_doc:meta])* $hook:ident: $_at:ident $_role:ident, )* }
                $($_rest:tt)*
            }
        )+
        shared {
            hooks { $( $(#[$_shared_hook_doc:meta])* $shared_hook:ident: $_shared_at:ident $_shared_role:ident, )* }
            $($_shared_rest:tt)*
        }
    }) => {
        $callback! { $( $($hook,)* )+ $($shared_hook,)* }
    };
}
