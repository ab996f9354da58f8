//! Calls of the kernel's own functions in the BPF object.
//!
//! Such a call names the function by its type id in the running kernel's BTF. aya binds maps and functions of the object, but
//! not these, so that they are put into the object before aya gets it.

use pinwatch_common::KFUNCS;

/// A BPF object whose calls are those of this kernel; in words, which its parser wants it aligned to.
pub struct KfuncObject {
    words: Vec<u64>,
    length: usize,
}

/// What a call instruction calls (include/uapi/linux/bpf.h).
#[derive(Clone, Copy)]
enum Callee {
    Helper = 0,
    /// `BPF_PSEUDO_KFUNC_CALL`
    Function = 2,
}

/// The instruction that calls helper or function `number`, as a little-endian word.
const fn call(callee: Callee, number: u32) -> u64 {
    const CALL: u64 = 0x85;
    (number as u64) << 32 | (callee as u64) << 12 | CALL
}

impl KfuncObject {
    /// Puts type ids in the place of the numbers that stand for functions, in the order of [`KFUNCS`]. Without any the
    /// object is left as it is: its programs know that they cannot call them.
    pub fn put_into(object: &[u8], ids: Option<&[u32; KFUNCS.len()]>) -> Self {
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        };
        // Code is aligned to words in the object, as instructions are that long.
        let mut words: Vec<u64> = object.chunks(8).map(word).collect();
        for ((_, stand_in), id) in KFUNCS.iter().zip(ids.into_iter().flatten()) {
            let (old, new) = (call(Callee::Helper, stand_in.cast_unsigned()), call(Callee::Function, *id));
            words.iter_mut().filter(|word| **word == old).for_each(|word| *word = new);
        }
        words.iter_mut().for_each(|word| *word = word.to_le());
        Self { words, length: object.len() }
    }

    /// The object.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the words have at least so many bytes, and any of them is one.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_for_a_function_is_replaced() {
        let stand_in = |at: usize| KFUNCS[at].1.to_le_bytes();
        let mut object = Vec::new();
        object.extend([0x85, 0, 0, 0]);
        object.extend(stand_in(2));
        // A constant that only looks like one, a helper, and the rest of a word.
        object.extend([0xb7, 0, 0, 0]);
        object.extend(stand_in(2));
        object.extend([0x85, 0, 0, 0, 35, 0, 0, 0]);
        object.extend([1, 2, 3]);
        let same = KfuncObject::put_into(&object, None);
        assert_eq!(same.bytes(), object);
        let patched = KfuncObject::put_into(&object, Some(&[11, 12, 0x0102_0304, 14]));
        object[..8].copy_from_slice(&[0x85, 0x20, 0, 0, 4, 3, 2, 1]);
        assert_eq!(patched.bytes(), object);
    }

    #[test]
    fn the_object_has_all_of_them() {
        let object = KfuncObject::put_into(super::super::bpf::OBJECT, Some(&[1, 2, 3, 4]));
        for id in 1..=4 {
            assert!(object.words.contains(&call(Callee::Function, id)), "{}", KFUNCS[id as usize - 1].0);
        }
    }
}
