//! Processes as JSON: who made a pin, and who holds it.

use super::lossless;
use super::writer::{Object, Ready, key, list, number_or_null, object};
use crate::model::{HiddenVia, Holder, Holding, Name, Process, Table, Via, Workload};

/// A process that made a pin.
pub fn creator(process: &Process) -> Ready {
    Ready::written(|out| {
        object(out, |o| {
            identity(o, process);
            o.flag(key!("alive"), process.alive);
            o.text(key!("cgroup"), process.cgroup.as_ref().map(Name::text).as_deref());
            let Workload { unit, container, pod } = process.workload();
            o.text(key!("unit"), unit.as_deref());
            o.text(key!("container"), container.as_deref());
            o.text(key!("pod"), pod.as_deref());
            namespaces(o, process);
        });
    })
}

/// How a pin is kept, as four fields; `None` if nobody has looked.
pub fn held(table: &Table, holding: Option<&Holding>) -> Ready {
    Ready::fields(|o| match holding {
        Some(holding) => {
            o.word(key!("state"), holding.state().word());
            kept(o, table, holding);
        }
        None => {
            o.word(key!("state"), "unknown");
            o.null(key!("holders"));
            o.null(key!("in_flight"));
            o.list(key!("receivers"), [], number_or_null);
        }
    })
}

/// Who holds something, as three fields.
pub fn holding_fields(table: &Table, holding: &Holding) -> Ready {
    Ready::fields(|o| kept(o, table, holding))
}

fn kept(o: &mut Object, table: &Table, holding: &Holding) {
    let holders = |out: &mut Vec<u8>, holders: &[Holder]| {
        let known = holders.iter().filter_map(|holder| Some((table.process(holder.process)?, holder)));
        list(out, known, |out, (process, holder)| self::holder(out, process, &holder.via));
    };
    o.field(key!("holders"), |out| holders(out, &holding.holders));
    o.number(key!("in_flight"), holding.in_flight.map(u64::from));
    o.field(key!("receivers"), |out| holders(out, &holding.receivers));
}

/// Of what the process is only what it has: there may be very many.
fn holder(out: &mut Vec<u8>, process: &Process, via: &[Via]) {
    object(out, |o| {
        identity(o, process);
        let Workload { unit, container, pod } = process.workload();
        for (key, text) in [(key!("unit"), unit), (key!("container"), container), (key!("pod"), pod)] {
            if text.is_some() {
                o.text(key, text.as_deref());
            }
        }
        namespaces(o, process);
        o.list(key!("via"), via, |out, via| object(out, |o| way(o, via)));
    });
}

fn way(o: &mut Object, via: &Via) {
    match via {
        Via::Fd(fd) => o.number(key!("fd"), u64::from(*fd)),
        Via::Mapping(address) => o.number(key!("mapping"), *address),
        Via::Registered(place) => o.number(key!("registered"), u64::from(*place)),
        Via::RingFile(fd) => o.number(key!("ring_file"), fd.map(u64::from)),
        Via::Hidden(HiddenVia::Fd) => o.null(key!("fd")),
        Via::Hidden(HiddenVia::Mapping) => o.null(key!("mapping")),
        Via::Hidden(HiddenVia::Registered) => o.null(key!("registered")),
        Via::Hidden(HiddenVia::RingFile) => o.null(key!("ring_file")),
    }
}

/// Which process it is, and whose.
fn identity(o: &mut Object, process: &Process) {
    o.number(key!("pid"), u64::from(process.pid));
    o.number(key!("start"), process.start);
    o.text(key!("comm"), Some(&process.comm.text()));
    if let Some(bytes) = lossless(&process.comm) {
        o.word(key!("comm_hex"), &bytes);
    }
    o.number(key!("uid"), process.uid.map(u64::from));
    o.text(key!("user"), process.user.as_deref());
}

/// Only those that are not pinwatch's own.
fn namespaces(o: &mut Object, process: &Process) {
    let namespaces = process.namespaces;
    for (key, number) in
        [(key!("pid_namespace"), namespaces.pid), (key!("mount_namespace"), namespaces.mount)]
    {
        if number.is_some() {
            o.number(key, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::sample;

    fn text(ready: &Ready) -> String {
        String::from_utf8(ready.bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_creator_to_the_letter() {
        let mut process = sample::table().processes[0].clone();
        assert_eq!(
            text(&creator(&process)),
            r#"{"pid":812,"start":81234,"comm":"ib_server","uid":2,"user":"user2","alive":true,"cgroup":"/system.slice/x.service","unit":"x.service","container":null,"pod":null}"#
        );
        process = Process {
            comm: Name::from(&b"a\xff"[..]),
            cgroup: None,
            start: None,
            user: None,
            uid: None,
            ..process
        };
        process.namespaces.mount = Some(7);
        assert_eq!(
            text(&creator(&process)),
            "{\"pid\":812,\"start\":null,\"comm\":\"a\u{fffd}\",\"comm_hex\":\"61ff\",\"uid\":null,\"user\":null,\"alive\":true,\
             \"cgroup\":null,\"unit\":null,\"container\":null,\"pod\":null,\"mount_namespace\":7}"
        );
    }

    #[test]
    fn holders_to_the_letter() {
        let table = sample::table();
        let one = |pid: u32, name: &str, more: &str, via: &str| {
            format!(
                r#"{{"pid":{pid},"start":81234,"comm":"{name}","uid":{0},"user":"user{0}","unit":"x.service"{more},"via":[{via}]}}"#,
                pid % 10
            )
        };
        let worker = one(990, "worker", r#","pid_namespace":4026532190"#, r#"{"fd":5}"#);
        let helper = one(1044, "helper", "", r#"{"fd":7},{"mapping":4096}"#);
        let kept = format!(r#""holders":[{worker},{helper}],"in_flight":0,"receivers":[]"#);
        assert_eq!(text(&holding_fields(&table, &table.holdings[1])), kept);
        assert_eq!(text(&held(&table, Some(&table.holdings[1]))), format!(r#""state":"held",{kept}"#));
        assert_eq!(
            text(&held(&table, None)),
            r#""state":"unknown","holders":null,"in_flight":null,"receivers":[]"#
        );
    }

    #[test]
    fn ways_to_the_letter() {
        let via = [
            Via::Registered(3),
            Via::RingFile(None),
            Via::RingFile(Some(4)),
            Via::Hidden(HiddenVia::Fd),
            Via::Hidden(HiddenVia::Mapping),
            Via::Hidden(HiddenVia::Registered),
            Via::Hidden(HiddenVia::RingFile),
        ];
        let mut out = Vec::new();
        list(&mut out, &via, |out, via| object(out, |o| way(o, via)));
        let expected = r#"[{"registered":3},{"ring_file":null},{"ring_file":4},{"fd":null},{"mapping":null},{"registered":null},{"ring_file":null}]"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
