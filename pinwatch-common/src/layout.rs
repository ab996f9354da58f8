//! What programs are told of the kernel that they run in: offsets, sizes and enumerators, whether they are known, and what user
//! space has decided. User space fills it in from BTF (`pinwatch/src/kernel/plan.rs`); none is ever compiled in.
//!
//! Both structures, and the list of what to look for, follow from the table in `subsystems.rs`.

/// A member of a kernel structure, and where its offset goes.
#[derive(Clone, Copy, Debug)]
pub struct Member<L: 'static> {
    /// `struct.member`; of several the first that exists.
    pub paths: &'static [&'static str],
    /// The width in bytes that programs read; 0: not read as a number.
    pub bytes: u32,
    /// The group that needs it; `None`: it stands alone.
    pub group: Option<LayoutGroup>,
    /// The field for the offset.
    pub field: fn(&mut L) -> &mut u64,
    /// The field that says whether there is one: its group's, or its own.
    pub has: fn(&mut L) -> &mut u64,
}

/// An enumerator or a structure's size, and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Value<L: 'static> {
    /// Name of the enumerator or of the structure.
    pub name: &'static str,
    /// The group that needs it.
    pub group: LayoutGroup,
    /// The field for the value.
    pub field: fn(&mut L) -> &mut u64,
}

/// What programs take for granted, being so in every kernel so far: an offset of a member, or a structure's size.
#[derive(Clone, Copy, Debug)]
pub struct Assumed {
    /// `struct.member`, or the structure.
    pub name: &'static str,
    /// Offset or size in bytes.
    pub bytes: u64,
    /// The group that is off where it is otherwise.
    pub group: LayoutGroup,
}

macro_rules! define {
    (
        subsystems $_subsystems:tt
        kinds $_kinds:tt
        hooks $_hooks:tt
        carries $_carries:tt
        kernel { $($kernel:tt)+ }
        module { $($module:tt)+ }
    ) => {
        define! {
            @layout
            /// What is known of vmlinux, frozen in `.rodata` before the programs are verified: the verifier sees constants, so it
            /// accepts them in typed loads and drops the code of branches not taken.
            KernelLayout
            /// What of it is known: 1 or 0.
            KernelHas
            $($kernel)+
        }
        define! {
            @layout
            /// What is known of structures that may be modules'. It is in a map, not in `.rodata`: the modules may be loaded, or
            /// be replaced by others, long after the programs were verified.
            ModuleLayout
            /// What of it is known: 1 or 0.
            ModuleHas
            $($module)+
        }
        define! { @groups $($kernel)+ $($module)+ }
    };
    (
        @layout $(#[$layout_doc:meta])* $Layout:ident $(#[$has_doc:meta])* $Has:ident
        $( {
            $( groups { $(
                $(#[$group_doc:meta])*
                $group:ident: $Group:ident {
                    members { $( $(#[$member_doc:meta])* $member:ident: [$($path:literal),+] $bytes:literal, )+ }
                    $( values { $( $(#[$value_doc:meta])* $value:ident: $enumerator:literal, )+ } )?
                    $( sizes { $( $size:ident: $struct:literal, )+ } )?
                    $( assumed { $( $assumed:literal = $at:literal, )+ } )?
                    $( assumed_sizes { $( $assumed_struct:literal = $assumed_size:literal, )+ } )?
                }
            )+ } )?
            $( optional { $( $(#[$optional_doc:meta])* $optional:ident: [$($optional_path:literal),+] $optional_bytes:literal, )+ } )?
            $( choices { $( $(#[$choice_doc:meta])* $choice:ident, )+ } )?
        } )+
    ) => {
        $(#[$layout_doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $Layout {
            /// What is known.
            pub has: $Has,
            $(
                $( $(
                    $(
                        #[doc = concat!("Offset of", $(" `", $path, "`"),+, ".")]
                        $(#[$member_doc])*
                        pub $member: u64,
                    )+
                    $( $(
                        #[doc = concat!("Value of `", $enumerator, "`.")]
                        $(#[$value_doc])*
                        pub $value: u64,
                    )+ )?
                    $( $(
                        #[doc = concat!("Size of `struct ", $struct, "`.")]
                        pub $size: u64,
                    )+ )?
                )+ )?
                $( $(
                    #[doc = concat!("Offset of", $(" `", $optional_path, "`"),+, ".")]
                    $(#[$optional_doc])*
                    pub $optional: u64,
                )+ )?
                $( $( $(#[$choice_doc])* pub $choice: u64, )+ )?
            )+
        }

        $(#[$has_doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $Has {
            $(
                $( $( $(#[$group_doc])* pub $group: u64, )+ )?
                $( $(
                    #[doc = concat!("There is", $(" `", $optional_path, "`"),+, ".")]
                    pub $optional: u64,
                )+ )?
            )+
        }

        impl $Layout {
            /// All zero, nothing being known: what the BPF object holds until user space fills it in.
            pub const ZERO: Self = Self {
                has: $Has { $( $( $( $group: 0, )+ )? $( $( $optional: 0, )+ )? )+ },
                $(
                    $( $( $( $member: 0, )+ $( $( $value: 0, )+ )? $( $( $size: 0, )+ )? )+ )?
                    $( $( $optional: 0, )+ )?
                    $( $( $choice: 0, )+ )?
                )+
            };

            /// The members to look for.
            pub const MEMBERS: &'static [Member<Self>] = &[ $(
                $( $( $( Member {
                    paths: &[$($path),+],
                    bytes: $bytes,
                    group: Some(LayoutGroup::$Group),
                    field: |layout| &mut layout.$member,
                    has: |layout| &mut layout.has.$group,
                }, )+ )+ )?
                $( $( Member {
                    paths: &[$($optional_path),+],
                    bytes: $optional_bytes,
                    group: None,
                    field: |layout| &mut layout.$optional,
                    has: |layout| &mut layout.has.$optional,
                }, )+ )?
            )+ ];

            /// The enumerators to look for.
            pub const VALUES: &'static [Value<Self>] = &[ $( $( $( $( $( Value {
                name: $enumerator,
                group: LayoutGroup::$Group,
                field: |layout| &mut layout.$value,
            }, )+ )? )+ )? )+ ];

            /// The structures whose sizes to look for.
            pub const SIZES: &'static [Value<Self>] = &[ $( $( $( $( $( Value {
                name: $struct,
                group: LayoutGroup::$Group,
                field: |layout| &mut layout.$size,
            }, )+ )? )+ )? )+ ];

            /// The offsets to compare.
            pub const ASSUMED: &'static [Assumed] = &[ $( $( $( $( $( Assumed {
                name: $assumed,
                bytes: $at,
                group: LayoutGroup::$Group,
            }, )+ )? )+ )? )+ ];

            /// The sizes to compare.
            pub const ASSUMED_SIZES: &'static [Assumed] = &[ $( $( $( $( $( Assumed {
                name: $assumed_struct,
                bytes: $assumed_size,
                group: LayoutGroup::$Group,
            }, )+ )? )+ )? )+ ];
        }
    };
    (@groups $( {
        $( groups { $( $(#[$group_doc:meta])* $group:ident: $Group:ident $_body:tt )+ } )?
        $( optional $_optional:tt )?
        $( choices $_choices:tt )?
    } )+) => {
        /// What is known together or not at all.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum LayoutGroup { $( $( $( $(#[$group_doc])* $Group, )+ )? )+ }
    };
}
crate::subsystem_lists!(define);

const _: () = {
    assert!(size_of::<KernelLayout>().is_multiple_of(8) && align_of::<KernelLayout>() == 8);
    assert!(size_of::<ModuleLayout>().is_multiple_of(8) && align_of::<ModuleLayout>() == 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Each rule has a field of its own: writing one changes one word, and those of `has`.
    fn fields<L: Copy + PartialEq>(zero: L, members: &[Member<L>], values: &[Value<L>]) -> usize {
        let mut all = zero;
        let fields = members.iter().map(|member| member.field).chain(values.iter().map(|value| value.field));
        let mut count = 0;
        for field in fields {
            let word = field(&mut all);
            assert_eq!(*word, 0);
            *word = 1;
            count += 1;
        }
        count
    }

    #[test]
    fn each_member_has_a_field_of_its_own() {
        assert!(fields(KernelLayout::ZERO, KernelLayout::MEMBERS, KernelLayout::VALUES) > 80);
        assert!(fields(ModuleLayout::ZERO, ModuleLayout::MEMBERS, ModuleLayout::VALUES) > 20);
    }

    #[test]
    fn a_group_has_one_flag_and_what_is_optional_its_own() {
        let mut layout = KernelLayout::ZERO;
        for member in KernelLayout::MEMBERS.iter().filter(|member| member.group == Some(LayoutGroup::Extents))
        {
            *(member.has)(&mut layout) = 1;
        }
        let mut expected = KernelLayout::ZERO;
        expected.has.extents = 1;
        assert_eq!(layout, expected);
        let refs =
            KernelLayout::MEMBERS.iter().find(|member| member.paths == ["io_mapped_ubuf.refs"]).unwrap();
        *(refs.has)(&mut layout) = 1;
        expected.has.io_buf_refs = 1;
        assert_eq!((layout, refs.group), (expected, None));
    }
}
