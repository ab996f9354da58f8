//! What `lspins` does with good and bad arguments.

use crate::schema;
use crate::support::*;

#[test]
fn errors_are_one_sentence_that_says_what_to_do() {
    let cases: [(&[&str], &str); 16] = [
        (&["-o", "PID,SZIE"], "no column \"SZIE\"; did you mean SIZE? `lspins -H` lists them"),
        (&["-o", "nothing_like_it"], "no column \"nothing_like_it\"; `lspins -H` lists them"),
        (&["-u", "xyz-nobody"], "no user \"xyz-nobody\""),
        (&["-p", "12,abc"], "\"abc\" is not a process id; write numbers, as in -p 812,990"),
        (&["--type", "rmda"], "no type \"rmda\"; did you mean rdma?"),
        (&["--no-daemon", "/nonexistent/x"], "/nonexistent/x: no such file"),
        (&["--coverage", "nnoe"], "no coverage \"nnoe\"; there are n/a, write, read,"),
        (&["--require-lease", "often"], "invalid value 'often'"),
        (&["--leases", "--by", "file"], "the argument '--leases' cannot be used with"),
        (&["--leases", "-p", "1"], "the argument '--leases' cannot be used with"),
        (&["--events", "--unleased"], "the argument '--events' cannot be used with"),
        (&["--follow"], "the following required arguments were not provided"),
        (&["--events", "--no-daemon"], "the argument '--events' cannot be used with"),
        (&["--min-size", "1Q"], "invalid value '1Q'"),
        (&["--nonsense"], "unexpected argument '--nonsense'"),
        (&["-j", "-J"], "the argument '--json-lines' cannot be used with"),
    ];
    for (args, expected) in cases {
        let output = run(args);
        let said = stderr(&output);
        assert_eq!((code(&output), stdout(&output)), (2, String::new()), "{args:?}: {said}");
        assert!(said.contains(&format!("lspins: {expected}")), "{args:?}: {said}");
    }
}

#[test]
fn help_and_columns() {
    let help = run(&["--help"]);
    assert_eq!(code(&help), 0);
    assert!(stdout(&help).contains("--min-size"));
    let columns = run(&["-H"]);
    assert_eq!(code(&columns), 0);
    assert!(stdout(&columns).lines().any(|l| l.starts_with("NAME ")));
    assert_eq!(code(&run(&["--version"])), 0);
}

#[test]
fn without_a_daemon_one_line_says_so() {
    if std::path::Path::new(pinwatch::wire::SOCKET).exists() {
        return;
    }
    // Nobody has a name like this.
    let output = run(&["-c", "no such command"]);
    let said = stderr(&output);
    assert_eq!(code(&output), 1);
    assert!(said.starts_with("lspins: pinwatch is not running (no /run/pinwatch/pinwatch.sock)"), "{said}");
    assert!(said.contains("pinwatch run"));
    assert_eq!(code(&run(&["--strict", "--no-daemon", "-c", "no such command"])), 3);
}

#[test]
fn a_directory_is_no_file() {
    let output = run(&["--no-daemon", "/etc"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("--dir /etc"));
}

#[test]
fn real_documents_keep_the_contract() {
    let map = Map::anonymous(8192);
    let ring = Ring::new();
    ring.register(&[map.buffer()]);
    schema::check(&own_pins());
    let lines = run(&["--no-daemon", "-j"]);
    stdout(&lines).lines().for_each(|l| schema::check_line(&serde_json::from_str(l).unwrap()));
    let empty = run(&["--no-daemon", "-J", "-c", "no such command"]);
    assert_eq!(code(&empty), 1);
    schema::check(&serde_json::from_slice(&empty.stdout).unwrap());
    drop(ring);
}

#[test]
fn other_users_see_their_own() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    use std::os::unix::process::CommandExt;
    let map = Map::anonymous(8192);
    let ring = Ring::new();
    ring.register(&[map.buffer()]);
    // The built program lies where others may not look; its descriptor is enough.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    let copy = dir.path().join("lspins");
    std::fs::copy(env!("CARGO_BIN_EXE_lspins"), &copy).unwrap();
    let output = std::process::Command::new(&copy)
        .args(["--no-daemon", "-J", "--strict"])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(at(&document, map.address).is_empty());
    assert!(gaps(&document).contains(&"processes_denied"), "{document}");
    assert_eq!(code(&output), 3);
    drop(ring);
}
