//! The reader on BTF of known content, and on BTF that is broken in every way.

use std::{fs, path::Path, sync::Arc};

use super::writer::{NewField, Writer};
use super::*;

fn field(name: &str, type_id: u32, bit_offset: u32) -> NewField {
    NewField { name: name.to_owned(), type_id, bit_offset }
}

/// A struct with typedefs, anonymous members, an array, a bit field and a nested struct; functions; enums.
fn sample() -> Vec<u8> {
    let mut w = Writer::new(1, 0);
    let int = w.int(4);
    let long = w.int(8);
    let pointer = w.pointer(0);
    let array = w.array(long, 3);
    let inner = w.structure("inner", false, 16, &[field("a", long, 0), field("b", pointer, 64)]);
    let constant = w.add("", 10, false, 0, inner, &[]);
    let typedef = w.add("inner_t", 8, false, 0, constant, &[]);
    let tagged = w.add("tag", 18, false, 0, typedef, &[]);
    let deep = w.structure("", true, 16, &[field("left", int, 0), field("right", long, 64)]);
    let anonymous = w.structure("", false, 24, &[field("", deep, 64)]);
    let fields = [
        field("first", int, 0),
        field("nested", tagged, 64),
        field("", anonymous, 192),
        field("list", array, 384),
        field("to", pointer, 576),
    ];
    let outer = w.structure("outer", false, 80, &fields);
    let packed = [0, int, 3 << 24 | 5, 0, int, 32];
    w.add("flags", 4, true, 2, 8, &packed);
    let to_outer = w.pointer(outer);
    let to_that = w.pointer(to_outer);
    let forward = w.forward("elsewhere");
    let elsewhere = w.pointer(forward);
    w.function("take", 0, &[("slot", to_that), ("count", int), ("by_value", outer), ("far", elsewhere)]);
    w.enumeration(4, &[("MINUS", -2), ("PLUS", 3)]);
    // The name at 1 is "int".
    w.add("", 19, false, 1, 8, &[1, 1, 2]);
    w.add("", 16, false, 0, 4, &[]);
    w.add("v", 14, false, 0, int, &[0]);
    w.add("d", 15, false, 1, 4, &[int, 0, 4]);
    w.add("t", 17, false, 0, outer, &[u32::MAX]);
    w.add("", 9, false, 0, int, &[]);
    w.add("", 11, false, 0, pointer, &[]);
    w.finish()
}

#[test]
fn members() {
    let btf = Btf::parse(sample()).unwrap();
    let member = |path| btf.member(path).map(|member| (member.bit_offset, member.bits));
    assert_eq!(member("outer.first"), Some((0, 32)));
    assert_eq!(member("outer.nested"), Some((64, 128)));
    assert_eq!(member("outer.nested.b"), Some((128, 64)));
    assert_eq!(member("outer.left"), Some((256, 32)));
    assert_eq!(member("outer.right"), Some((320, 64)));
    assert_eq!(member("outer.list"), Some((384, 192)));
    for missing in
        ["outer", "outer.", "outer.none", "outer.first.x", "outer.to.a", "none.first", "", ".", "inner_t.a"]
    {
        assert_eq!(member(missing), None, "{missing}");
    }
    assert_eq!(btf.struct_size("outer"), Some(80));
    assert_eq!(btf.struct_size("take"), None);
    let bits = Member { bit_offset: 5, bits: 3 };
    assert_eq!((bits.bytes(), btf.member("outer.nested.b").unwrap().bytes()), (None, Some(16)));
}

#[test]
fn bit_fields() {
    let mut w = Writer::new(1, 0);
    let int = w.int(4);
    // The name at 1 is "int".
    w.add("flags", 4, true, 1, 8, &[1, int, 3 << 24 | 5]);
    let btf = Btf::parse(w.finish()).unwrap();
    assert_eq!(btf.member("flags.int"), Some(Member { bit_offset: 5, bits: 3 }));
}

#[test]
fn functions_and_enums() {
    let btf = Btf::parse(sample()).unwrap();
    let take = btf.function("take").unwrap();
    let params: Vec<_> =
        take.params.iter().map(|param| (param.name.as_str(), param.shape.as_str())).collect();
    assert_eq!(
        params,
        [("slot", "outer **"), ("count", "int"), ("by_value", "outer"), ("far", "elsewhere *")]
    );
    assert_eq!(take.returns, "void");
    assert!(matches!(btf.type_by_id(take.id), Some(Type::Function(_))));
    assert_eq!(btf.function("outer"), None);
    assert_eq!(btf.enum_value("MINUS"), Some(-2));
    assert_eq!(btf.enum_value("PLUS"), Some(3));
    assert_eq!(btf.enum_value("int"), Some(2 << 32 | 1));
    assert_eq!(btf.enum_value("NONE"), None);
}

#[test]
fn split() {
    let base = Arc::new(Btf::parse(sample()).unwrap());
    let mut w = Writer::new(base.end_id(), base.end_string());
    let outer = base.structs("outer")[0];
    let to_outer = w.pointer(outer);
    w.structure("module", false, 96, &[field("o", outer, 64), field("p", to_outer, 704)]);
    let id = w.function("module_function", to_outer, &[]);
    w.enumeration(4, &[("OF_MODULE", 9)]);
    let btf = Btf::parse_split(w.finish(), &base).unwrap();
    assert_eq!(btf.member("module.o.nested.b"), Some(Member { bit_offset: 192, bits: 64 }));
    assert_eq!(btf.member("outer.nested.b"), base.member("outer.nested.b"));
    let function = btf.function("module_function").unwrap();
    assert_eq!((function.id, function.returns.as_str()), (id, "outer *"));
    assert_eq!(btf.function("take"), None);
    assert_eq!((btf.enum_value("OF_MODULE"), btf.enum_value("PLUS")), (Some(9), Some(3)));
}

#[test]
fn duplicates_have_to_agree() {
    let mut w = Writer::new(1, 0);
    let int = w.int(4);
    w.structure("twice", false, 8, &[field("same", int, 32), field("other", int, 0)]);
    w.structure("twice", false, 8, &[field("same", int, 32), field("one", int, 0)]);
    w.structure("twice", false, 8, &[field("other", int, 32)]);
    let btf = Btf::parse(w.finish()).unwrap();
    assert!(btf.member("twice.same").is_some() && btf.member("twice.one").is_some());
    assert_eq!(btf.member("twice.other"), None);
    assert_eq!(btf.struct_size("twice"), Some(8));
}

/// Asks everything of whatever could be parsed.
fn ask(btf: &Btf) {
    for path in
        ["outer.nested.b", "outer.right", "outer.list", "flags.x", "module.o", "file.f_path", "loop.x"]
    {
        let _ = (btf.member(path), btf.struct_size(path), btf.function(path), btf.enum_value(path));
    }
    let _ = (btf.struct_size("outer"), btf.function("take"), btf.function("f"), btf.enum_value("PLUS"));
    for id in 0..64 {
        let _ = (btf.type_by_id(id), btf.resolved(id));
    }
}

#[test]
fn cut_short_anywhere() {
    let sample = sample();
    for length in 0..sample.len() {
        let error = Btf::parse(&sample[..length]).unwrap_err();
        assert!(matches!(error, BtfError::Damaged { .. }), "{length}: {error}");
    }
    // The same with lengths in the header that fit.
    let types = u32::from_ne_bytes(sample[12..16].try_into().unwrap());
    for length in 0..types {
        let mut cut = sample.clone();
        cut[12..16].copy_from_slice(&length.to_ne_bytes());
        if let Ok(btf) = Btf::parse(cut) {
            ask(&btf);
        }
    }
}

#[test]
fn any_byte_changed() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btf/6.12/vmlinux.btf");
    for good in [sample(), fs::read(fixture).unwrap()] {
        for at in 0..good.len() {
            for value in [0, 1, 0x13, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                if let Ok(btf) = Btf::parse(bad) {
                    ask(&btf);
                }
            }
        }
    }
}

#[test]
fn loops_and_heights_end() {
    let mut w = Writer::new(1, 0);
    let itself = w.add("", 8, false, 0, 1, &[]);
    w.add("", 2, false, 0, 2, &[]);
    // A struct that contains itself 20 times without a name: 20^32 ways.
    let fields: Vec<_> = (0..20).map(|_| field("", 3, 1 << 30)).collect();
    w.structure("loop", false, 8, &fields);
    w.function("f", itself, &[("p", 2)]);
    w.array(7, u32::MAX);
    w.structure("huge", false, u32::MAX, &[field("x", 7, u32::MAX), field("loop", 3, u32::MAX)]);
    let btf = Btf::parse(w.finish()).unwrap();
    ask(&btf);
    assert_eq!(btf.member("loop.x"), None);
    assert_eq!(btf.function("f").unwrap().returns, "");
    assert_eq!(btf.member("huge.loop.loop"), None);
}

#[test]
fn errors_name_the_cause() {
    let message = |bytes: Vec<u8>| Btf::parse(bytes).unwrap_err().to_string();
    assert!(message(Vec::new()).contains("the header"));
    assert!(message(b"\x7fELF and more bytes than a header".to_vec()).contains("this is not BTF"));
    let mut later = sample();
    later[2] = 2;
    assert!(message(later).contains("version 2"));
    let mut w = Writer::new(1, 0);
    w.int(4);
    w.add("", 20, false, 0, 0, &[]);
    assert!(message(w.finish()).contains("type 2 of the BTF has the unknown kind 20"));
}
