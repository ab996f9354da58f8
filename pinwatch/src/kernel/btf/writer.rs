//! Writes BTF, one type at a time. Used by the example that cuts fixtures, and by the tests of the reader.

use std::collections::HashMap;

/// A member of a struct to be written.
pub struct NewField {
    pub name: String,
    pub type_id: u32,
    pub bit_offset: u32,
}

/// BTF under construction.
pub struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    known: HashMap<String, u32>,
    next: u32,
    first_string: u32,
}

impl Writer {
    /// `first_id` and `first_string`: 1 and 0, or where the base ends.
    pub fn new(first_id: u32, first_string: u32) -> Self {
        // The string at 0 is the empty one.
        Self { types: Vec::new(), strings: vec![0], known: HashMap::new(), next: first_id, first_string }
    }

    /// Any type: kind, flag, the number after it, and what follows.
    pub fn add(
        &mut self,
        name: &str,
        kind: u32,
        flag: bool,
        count: u32,
        size_or_type: u32,
        extra: &[u32],
    ) -> u32 {
        let name = self.string(name);
        let info = kind << 24 | u32::from(flag) << 31 | count;
        for word in [name, info, size_or_type].iter().chain(extra) {
            self.types.extend(word.to_ne_bytes());
        }
        self.next += 1;
        self.next - 1
    }

    pub fn int(&mut self, size: u32) -> u32 {
        self.add("int", 1, false, 0, size, &[size * 8])
    }

    pub fn pointer(&mut self, to: u32) -> u32 {
        self.add("", 2, false, 0, to, &[])
    }

    pub fn array(&mut self, element: u32, count: u32) -> u32 {
        let index = self.int(4);
        self.add("", 3, false, 0, 0, &[element, index, count])
    }

    pub fn forward(&mut self, name: &str) -> u32 {
        self.add(name, 7, false, 0, 0, &[])
    }

    pub fn structure(&mut self, name: &str, union: bool, size: u32, fields: &[NewField]) -> u32 {
        let mut extra = Vec::new();
        for field in fields {
            extra.extend([self.string(&field.name), field.type_id, field.bit_offset]);
        }
        self.add(name, if union { 5 } else { 4 }, false, fields.len() as u32, size, &extra)
    }

    pub fn enumeration(&mut self, size: u32, values: &[(&str, i64)]) -> u32 {
        let mut extra = Vec::new();
        for (name, value) in values {
            extra.extend([self.string(name), *value as u32]);
        }
        self.add("", 6, values.iter().any(|value| value.1 < 0), values.len() as u32, size, &extra)
    }

    pub fn function(&mut self, name: &str, returns: u32, params: &[(&str, u32)]) -> u32 {
        let mut extra = Vec::new();
        for (name, id) in params {
            extra.extend([self.string(name), *id]);
        }
        let prototype = self.add("", 13, false, params.len() as u32, returns, &extra);
        self.add(name, 12, false, 1, prototype, &[])
    }

    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(0xeb9f_u16.to_ne_bytes());
        out.extend([1, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            out.extend(u32::to_ne_bytes(word));
        }
        out.extend(self.types);
        out.extend(self.strings);
        out
    }

    fn string(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        if let Some(offset) = self.known.get(name) {
            return *offset;
        }
        let offset = self.first_string + self.strings.len() as u32;
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        self.known.insert(name.to_owned(), offset);
        offset
    }
}
