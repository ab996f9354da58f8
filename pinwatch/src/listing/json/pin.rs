//! One pin as JSON, written piece by piece: a general serializer takes four times as long over so many small fields, and
//! there may be a hundred thousand pins.

use super::Shared;
use crate::listing::columns::age_seconds;
use crate::listing::gaps;
use crate::model::object::{Field, Piece};
use crate::model::{self, Coverage, Object, Pin};

/// `,"NAME":`
macro_rules! key {
    ($out:expr, $name:literal) => {
        $out.extend_from_slice(concat!(",\"", $name, "\":").as_bytes())
    };
}

/// A field with a word from a closed set, which needs no escapes.
macro_rules! word {
    ($out:expr, $name:literal, $word:expr) => {{
        $out.extend_from_slice(concat!(",\"", $name, "\":\"").as_bytes());
        $out.extend_from_slice($word.as_bytes());
        $out.push(b'"');
    }};
}

/// A field with a number, or null.
macro_rules! number {
    ($out:expr, $name:literal, $number:expr) => {{
        key!($out, $name);
        match Option::<u64>::from($number) {
            Some(number) => decimal($out, number),
            None => $out.extend_from_slice(b"null"),
        }
    }};
}

/// A field with JSON that is written already, or null.
macro_rules! ready {
    ($out:expr, $name:literal, $json:expr) => {{
        key!($out, $name);
        match $json {
            Some(json) => $out.extend_from_slice(json.as_bytes()),
            None => $out.extend_from_slice(b"null"),
        }
    }};
}

/// Appends a pin.
pub fn write(out: &mut Vec<u8>, shared: &Shared, pin: &Pin, now: i64) {
    let largest = pin.parts.first();
    out.extend_from_slice(b"{\"id\":\"");
    out.push(pin.subsystem().letter() as u8);
    hexadecimal(out, pin.id.sequence);
    out.push(b'"');
    word!(out, "subsystem", pin.subsystem().word());
    word!(out, "type", pin.object.described().type_word());
    object(out, &pin.object);
    word!(out, "mode", pin.mode.word());
    number!(out, "bytes", pin.bytes);
    number!(out, "pages", pin.pages);
    number!(out, "address", pin.address);
    word!(out, "backing", largest.map_or("unknown", |part| part.backing.word()));
    ready!(out, "file", largest.and_then(|part| shared.file(part)));
    extents(out, largest.map_or(&[], |part| &part.extents));
    number!(out, "orphan_pages", pin.orphan_pages);
    ready!(out, "creator", pin.creator.and_then(|process| shared.creator(process)));
    out.extend_from_slice(shared.holding(pin).as_bytes());
    shared.coverage(out, &pin.coverage);
    key!(out, "created");
    let start = out.len();
    out.push(b'"');
    if pin.created.is_some_and(|at| shared.time(out, at)) {
        out.push(b'"');
    } else {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
    number!(out, "age_seconds", age_seconds(pin.created, now));
    word!(out, "origin", pin.origin.word());
    if pin.parts.len() > 1 {
        key!(out, "parts");
        list(out, &pin.parts, |out, part| {
            out.extend_from_slice(b"{\"backing\":\"");
            out.extend_from_slice(part.backing.word().as_bytes());
            out.push(b'"');
            ready!(out, "file", shared.file(part));
            extents(out, &part.extents);
            number!(out, "bytes", part.bytes);
            out.push(b'}');
        });
    }
    ready!(out, "exact", Some(if pin.exact() { "true" } else { "false" }));
    key!(out, "doubt");
    match gaps::doubts(pin.doubts, &pin.object) {
        Some(doubts) => string(out, &doubts),
        None => out.extend_from_slice(b"null"),
    }
    key!(out, "doubts");
    out.push(b'[');
    for (at, doubt) in pin.doubts.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(doubt.word().as_bytes());
        out.push(b'"');
    }
    out.push(b']');
    out.push(b'}');
}

/// Appends the verdict on a pin's leases.
pub fn coverage(out: &mut Vec<u8>, coverage: &Coverage) {
    word!(out, "coverage\":{\"state", coverage.state.word());
    number!(out, "covered", u64::from(coverage.covered));
    number!(out, "holders", u64::from(coverage.holders));
    key!(out, "lease_pids");
    list(out, &coverage.lease_pids, |out, pid| decimal(out, u64::from(*pid)));
    number!(out, "seconds_left", coverage.seconds_left);
    out.push(b'}');
}

/// The object's name, and what only objects of its subsystem have, as one more field named after it.
fn object(out: &mut Vec<u8>, object: &Object) {
    key!(out, "object");
    out.push(b'"');
    object.described().name(&mut |piece| match piece {
        Piece::Word(text) => out.extend_from_slice(text.as_bytes()),
        Piece::Text(text) => inside_string(out, text),
        Piece::Number(Some(number)) => decimal(out, number),
        Piece::Number(None) => out.push(b'?'),
        Piece::Hex(number) => {
            out.extend_from_slice(b"0x");
            hexadecimal(out, number);
        }
    });
    out.extend_from_slice(b"\",\"");
    out.extend_from_slice(object.subsystem().word().as_bytes());
    out.extend_from_slice(b"\":");
    let mut before = b'{';
    object.described().fields(&mut |name, field| {
        out.extend_from_slice(&[before, b'"']);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        before = b',';
        match field {
            Field::Number(Some(number)) => decimal(out, number),
            Field::Text(Some(text)) => string(out, text),
            Field::Flag(Some(true)) => out.extend_from_slice(b"true"),
            Field::Flag(Some(false)) => out.extend_from_slice(b"false"),
            Field::Texts(texts) => list(out, texts, |out, text| string(out, text)),
            Field::Number(None) | Field::Text(None) | Field::Flag(None) => out.extend_from_slice(b"null"),
        }
    });
    out.push(b'}');
}

/// Text of others, within a string that is being written.
fn inside_string(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    string(out, text);
    out.remove(start);
    out.pop();
}

fn extents(out: &mut Vec<u8>, extents: &[model::Extent]) {
    key!(out, "extents");
    list(out, extents, |out, extent| {
        out.extend_from_slice(b"{\"offset\":");
        decimal(out, extent.offset);
        number!(out, "length", extent.length);
        out.push(b'}');
    });
}

fn list<T>(out: &mut Vec<u8>, items: &[T], one: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        one(out, item);
    }
    out.push(b']');
}

/// Text that may have anything in it.
fn string(out: &mut Vec<u8>, text: &str) {
    // Neither writing into memory nor serializing text can fail.
    let _ = serde_json::to_writer(out, text);
}

fn decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn hexadecimal(out: &mut Vec<u8>, number: u64) {
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(number >> (digit * 4) & 15) as usize]);
    }
}
