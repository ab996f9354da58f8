//! Functions of the kernel that programs call besides its helpers ("kfuncs"). In the object a number stands for each, which
//! user space replaces by the function's type id in this kernel's BTF: aya does not do that.

/// No helper has such a number.
const FIRST: i32 = 0x7077_0000;

/// `void bpf_preempt_disable(void)`
pub const PREEMPT_DISABLE: i32 = FIRST;
/// `void bpf_preempt_enable(void)`
pub const PREEMPT_ENABLE: i32 = FIRST + 1;
/// `void bpf_local_irq_save(unsigned long *flags)`
pub const IRQ_SAVE: i32 = FIRST + 2;
/// `void bpf_local_irq_restore(unsigned long *flags)`
pub const IRQ_RESTORE: i32 = FIRST + 3;

/// Their names, and what stands for them.
pub const KFUNCS: [(&str, i32); 4] = [
    ("bpf_preempt_disable", PREEMPT_DISABLE),
    ("bpf_preempt_enable", PREEMPT_ENABLE),
    ("bpf_local_irq_save", IRQ_SAVE),
    ("bpf_local_irq_restore", IRQ_RESTORE),
];
