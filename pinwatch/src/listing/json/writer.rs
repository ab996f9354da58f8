//! A small writer of JSON, straight into memory: it places commas, quotes and brackets, and its methods say what a value is.
//! What is written, and in which order, is decided in `pin`.
//!
//! Why not serde_json for pins: see `pin`. Text that may have anything in it is escaped by serde_json here too.

/// A field's name, with the comma before it and the colon after it: one piece of memory, copied at once. Only [`key!`] makes
/// one, out of a plain name.
#[derive(Clone, Copy)]
pub struct Key(pub &'static str);

/// The key of a field with this name, which is pinwatch's own and needs no escapes.
macro_rules! key {
    ($name:literal) => {
        $crate::listing::json::writer::Key(concat!(",\"", $name, "\":"))
    };
}
pub(in crate::listing) use key;

/// JSON that is written already: a value, or fields with commas between them.
#[derive(Debug, Default)]
pub struct Ready(Vec<u8>);

impl Ready {
    /// A value that the function writes.
    pub fn written(value: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut out = Vec::new();
        value(&mut out);
        Self(out)
    }

    /// Fields that the function writes, to be put into an object later.
    pub fn fields(fields: impl FnOnce(&mut Object)) -> Self {
        Self::written(|out| fields(&mut Object { out, begun: false }))
    }

    /// A value that serde writes.
    ///
    /// # Errors
    /// What its `Serialize` says.
    pub fn of_serde(value: &impl serde::Serialize) -> serde_json::Result<Self> {
        serde_json::to_vec(value).map(Self)
    }

    /// Its text.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Appends an object, whose fields the function writes.
#[inline]
pub fn object(out: &mut Vec<u8>, fields: impl FnOnce(&mut Object)) {
    out.push(b'{');
    fields(&mut Object { out, begun: false });
    out.push(b'}');
}

/// Appends an array of what the function writes for each item.
#[inline]
pub fn list<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, mut one: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        one(out, item);
    }
    out.push(b']');
}

/// Appends a string, of which the function writes the pieces.
#[inline]
pub fn string(out: &mut Vec<u8>, pieces: impl FnOnce(&mut Text)) {
    out.push(b'"');
    pieces(&mut Text { out });
    out.push(b'"');
}

/// Appends text that may have anything in it.
pub fn text(out: &mut Vec<u8>, text: &str) {
    // Neither writing into memory nor serializing text can fail.
    let _ = serde_json::to_writer(out, text);
}

/// Appends a number, or null.
#[inline]
pub fn number_or_null(out: &mut Vec<u8>, value: Option<u64>) {
    match value {
        Some(value) => number(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends text that may have anything in it, or null.
pub fn text_or_null(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => text(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends true, false or null.
#[inline]
pub fn flag(out: &mut Vec<u8>, value: Option<bool>) {
    let word = match value {
        Some(true) => "true",
        Some(false) => "false",
        None => "null",
    };
    out.extend_from_slice(word.as_bytes());
}

/// Appends a number.
#[inline]
pub fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// An object that is being written.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    begun: bool,
}

impl Object<'_> {
    /// A field, whose value the function writes.
    #[inline]
    pub fn field(&mut self, key: Key, value: impl FnOnce(&mut Vec<u8>)) {
        self.out.extend_from_slice(&key.0.as_bytes()[usize::from(!self.begun)..]);
        self.begun = true;
        value(self.out);
    }

    /// A field with a name that is known only when it is written, and needs no escapes either.
    pub fn named(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        value(self.out);
    }

    /// A field with an array in it.
    #[inline]
    pub fn list<T>(
        &mut self,
        key: Key,
        items: impl IntoIterator<Item = T>,
        one: impl FnMut(&mut Vec<u8>, T),
    ) {
        self.field(key, |out| list(out, items, one));
    }

    /// A field with a word from a closed set, which needs no escapes.
    #[inline]
    pub fn word(&mut self, key: Key, word: &str) {
        self.field(key, |out| string(out, |text| text.word(word)));
    }

    /// A field with text that may have anything in it, or null.
    pub fn text(&mut self, key: Key, value: Option<&str>) {
        self.field(key, |out| text_or_null(out, value));
    }

    /// A field with a number, or null.
    #[inline]
    pub fn number(&mut self, key: Key, value: impl Into<Option<u64>>) {
        self.field(key, |out| number_or_null(out, value.into()));
    }

    /// A field with true, false or null.
    #[inline]
    pub fn flag(&mut self, key: Key, value: impl Into<Option<bool>>) {
        self.field(key, |out| flag(out, value.into()));
    }

    /// A field without a value.
    pub fn null(&mut self, key: Key) {
        self.field(key, |out| out.extend_from_slice(b"null"));
    }

    /// A field with JSON that is written already, or null.
    #[inline]
    pub fn ready(&mut self, key: Key, json: Option<&Ready>) {
        self.field(key, |out| out.extend_from_slice(json.map_or(b"null", Ready::bytes)));
    }

    /// Fields that are written already.
    #[inline]
    pub fn ready_fields(&mut self, fields: &Ready) {
        self.comma();
        self.out.extend_from_slice(fields.bytes());
    }

    #[inline]
    fn comma(&mut self) {
        if self.begun {
            self.out.push(b',');
        }
        self.begun = true;
    }
}

/// A string that is being written, piece by piece.
pub struct Text<'a> {
    out: &'a mut Vec<u8>,
}

impl Text<'_> {
    /// Words of pinwatch's own, which need no escapes.
    #[inline]
    pub fn word(&mut self, word: &str) {
        self.out.extend_from_slice(word.as_bytes());
    }

    /// Text that may have anything in it.
    pub fn text(&mut self, piece: &str) {
        let start = self.out.len();
        text(self.out, piece);
        // Without its quotes: it is within a string already.
        self.out.remove(start);
        self.out.pop();
    }

    /// A number.
    #[inline]
    pub fn decimal(&mut self, value: u64) {
        number(self.out, value);
    }

    /// A number in hexadecimal, without `0x`.
    pub fn hexadecimal(&mut self, number: u64) {
        let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            self.out.push(b"0123456789abcdef"[(number >> (digit * 4) & 15) as usize]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_json() {
        let mut out = Vec::new();
        object(&mut out, |o| {
            o.word(key!("word"), "rw");
            o.number(key!("number"), u64::MAX);
            o.number(key!("none"), None);
            o.text(key!("text"), Some("\"\\\n\u{1}é\u{2028}"));
            o.text(key!("no_text"), None);
            o.flag(key!("yes"), true);
            o.flag(key!("unknown"), None);
            o.ready(key!("ready"), Some(&Ready::of_serde(&[1]).unwrap()));
            o.ready(key!("not_ready"), None);
            o.null(key!("nothing"));
            o.ready_fields(&Ready::fields(|o| {
                o.number(key!("a"), 1);
                o.number(key!("b"), 2);
            }));
            o.list(key!("list"), [1, 2], number);
            o.list(key!("empty"), [], number);
            o.field(key!("object"), |out| object(out, |_| {}));
            o.named("dynamic", |out| flag(out, Some(false)));
            o.field(key!("inner"), |out| object(out, |o| o.number(key!("x"), 0)));
            o.field(key!("name"), |out| {
                string(out, |text| {
                    text.word("r");
                    text.hexadecimal(0x1f3a);
                    text.text("\"q\"");
                    text.hexadecimal(0);
                    text.decimal(10);
                });
            });
        });
        let expected = serde_json::json!({
            "word": "rw", "number": u64::MAX, "none": null, "text": "\"\\\n\u{1}é\u{2028}", "no_text": null, "yes": true,
            "unknown": null, "ready": [1], "not_ready": null, "nothing": null, "a": 1, "b": 2, "list": [1, 2], "empty": [], "object": {},
            "dynamic": false, "inner": {"x": 0}, "name": "r1f3a\"q\"010"
        });
        assert_eq!(String::from_utf8(out).unwrap(), expected.to_string());
    }
}
