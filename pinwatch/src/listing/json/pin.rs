//! One pin as JSON. Which fields there are, and in which order, is written here; how JSON is spelled is `writer`'s.
//!
//! serde could derive it. Measured with 20,000 pins of 1,019 bytes of JSON each (release build, instructions counted by
//! callgrind, what pins have in common written once in both): this takes 3,800 instructions a pin, serde's views with
//! serde_json 10,700, and macros that spelled each field out 3,500. At `lspins -j` of so many pins, which has a budget, it
//! is worth the few lines of `writer`.

use super::Shared;
use super::writer::{self, key, list, number, object, text};
use crate::listing::columns::age_seconds;
use crate::listing::gaps;
use crate::model::object::{Field, Piece};
use crate::model::{self, Coverage, Object, Pin};

/// Appends a pin.
pub fn write(out: &mut Vec<u8>, shared: &Shared, pin: &Pin, now: i64) {
    let largest = pin.parts.first();
    object(out, |o| {
        o.field(key!("id"), |out| {
            writer::string(out, |text| {
                text.word(pin.subsystem().letter().encode_utf8(&mut [0; 4]));
                text.hexadecimal(pin.id.sequence);
            });
        });
        o.word(key!("subsystem"), pin.subsystem().word());
        o.word(key!("type"), pin.object.described().type_word());
        o.field(key!("object"), |out| name(out, &pin.object));
        o.named(pin.object.subsystem().word(), |out| own_fields(out, &pin.object));
        o.word(key!("mode"), pin.mode.word());
        o.number(key!("bytes"), pin.bytes);
        o.number(key!("pages"), pin.pages);
        o.number(key!("address"), pin.address);
        o.word(key!("backing"), largest.map_or("unknown", |part| part.backing.word()));
        o.ready(key!("file"), largest.and_then(|part| shared.file(part)));
        extents(o, largest.map_or(&[], |part| &part.extents));
        o.number(key!("orphan_pages"), pin.orphan_pages);
        o.ready(key!("creator"), pin.creator.and_then(|process| shared.creator(process)));
        o.ready_fields(shared.holding(pin));
        o.field(key!("coverage"), |out| shared.coverage(out, &pin.coverage));
        o.field(key!("created"), |out| shared.time(out, pin.created));
        o.number(key!("age_seconds"), age_seconds(pin.created, now));
        o.word(key!("origin"), pin.origin.word());
        if pin.parts.len() > 1 {
            o.list(key!("parts"), &pin.parts, |out, part| {
                object(out, |o| {
                    o.word(key!("backing"), part.backing.word());
                    o.ready(key!("file"), shared.file(part));
                    extents(o, &part.extents);
                    o.number(key!("bytes"), part.bytes);
                });
            });
        }
        o.flag(key!("exact"), pin.exact());
        o.text(key!("doubt"), gaps::doubts(pin).as_deref());
        o.list(key!("doubts"), pin.doubts.iter(), |out, doubt| {
            writer::string(out, |text| text.word(doubt.word()))
        });
    });
}

/// Appends the verdict on a pin's leases.
pub fn coverage(out: &mut Vec<u8>, coverage: &Coverage) {
    object(out, |o| {
        o.word(key!("state"), coverage.state.word());
        o.number(key!("covered"), u64::from(coverage.covered));
        o.number(key!("holders"), u64::from(coverage.holders));
        o.list(key!("lease_pids"), &coverage.lease_pids, |out, pid| number(out, u64::from(*pid)));
        o.number(key!("seconds_left"), coverage.seconds_left);
    });
}

/// The object's name, as its own tools know it.
fn name(out: &mut Vec<u8>, object: &Object) {
    writer::string(out, |text| {
        object.described().name(&mut |piece| match piece {
            Piece::Word(word) => text.word(word),
            Piece::Text(others) => text.text(others),
            Piece::Number(Some(number)) => text.decimal(number),
            Piece::Number(None) => text.word("?"),
            Piece::Hex(number) => {
                text.word("0x");
                text.hexadecimal(number);
            }
        });
    });
}

/// What only objects of its subsystem have.
fn own_fields(out: &mut Vec<u8>, own: &Object) {
    object(out, |o| {
        own.described().fields(&mut |name, field| {
            o.named(name, |out| match field {
                Field::Number(value) => writer::number_or_null(out, value),
                Field::Text(value) => writer::text_or_null(out, value),
                Field::Flag(value) => writer::flag(out, value),
                Field::Texts(texts) => list(out, texts, |out, one| text(out, one)),
            });
        });
    });
}

fn extents(o: &mut writer::Object, extents: &[model::Extent]) {
    o.list(key!("extents"), extents, |out, extent| {
        object(out, |o| {
            o.number(key!("offset"), extent.offset);
            o.number(key!("length"), extent.length);
        });
    });
}
