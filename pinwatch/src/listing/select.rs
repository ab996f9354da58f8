//! Which pins to list. Pure: names, users and paths were looked up before.

use super::argument::ArgumentError;
use super::{Row, involved};
use crate::model::object;
use crate::model::{CoverageState, Device, File, LeasePolicy, Pin, Subsystem, Table};

/// A file, directory or mount that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operand {
    /// As the user wrote it.
    pub written: Vec<u8>,
    /// Device and inode numbers that are this file, as `stat` has them and as the kernel's maps do.
    pub ids: Vec<(Device, u64)>,
    /// Its absolute paths, with and without symbolic links.
    pub paths: Vec<Vec<u8>>,
    /// The device of the file system that is mounted there.
    pub device: Option<Device>,
    /// Whether it is there now.
    pub exists: bool,
}

impl Operand {
    /// Whether this is the file. A deleted file has nothing to do with the one that has its name now.
    pub fn is(&self, file: &File) -> bool {
        let by_path = file.deleted != Some(true) || !self.exists;
        self.ids.contains(&(file.id.dev, file.id.ino))
            || (by_path && self.paths.iter().any(|p| p == file.path.as_bytes()))
    }

    /// Whether the file is, or was, under this directory.
    pub fn is_above(&self, file: &File) -> bool {
        let path = file.path.as_bytes();
        // Names that the kernel makes up begin with a slash too, but lie nowhere.
        let real = file.path_complete && !path.starts_with(b"/memfd:") && !path.starts_with(b"/SYSV");
        real && self.paths.iter().any(|above| {
            let above = above.strip_suffix(b"/").unwrap_or(above);
            path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"))
        })
    }

    /// Whether the file is on this mount. What was unmounted is known by its path only: the pins outlive the mount.
    pub fn is_mount_of(&self, file: &File) -> bool {
        match self.device {
            Some(device) => file.id.dev == device,
            None => self.is_above(file),
        }
    }
}

/// All selections; within a list one must fit, and all that are not empty must.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Files.
    pub files: Vec<Operand>,
    /// Directories, with all that is under them.
    pub directories: Vec<Operand>,
    /// Mounts.
    pub mounts: Vec<Operand>,
    /// Processes that made or hold a pin.
    pub pids: Vec<u32>,
    /// Users of such processes.
    pub uids: Vec<u32>,
    /// How the command names of such processes begin.
    pub commands: Vec<Vec<u8>>,
    /// Types or subsystems.
    pub types: Vec<&'static str>,
    /// Only files whose name is gone.
    pub deleted: bool,
    /// Only pins of at least so many bytes.
    pub min_size: u64,
    /// Only pins that, as far as known, no process holds.
    pub unheld: bool,
    /// Verdicts on leases; empty for all.
    pub coverage: Vec<CoverageState>,
    /// Only pins that are to have a lease by this policy, and have none.
    pub unleased: Option<LeasePolicy>,
}

impl Selection {
    /// The rows of the selected pins that show what was asked for, largest first.
    pub fn rows<'a>(&self, table: &'a Table) -> Vec<Row<'a>> {
        let mut rows = Vec::with_capacity(table.pins.len());
        let any_file = self.any_file();
        for pin in table.pins.iter().filter(|pin| self.pin(table, pin)) {
            let of_pin = pin.parts.iter().map(|part| Row { table, pin, part });
            rows.extend(of_pin.filter(|row| any_file || self.part(row.file())));
        }
        rows.sort_unstable_by_key(|r| (std::cmp::Reverse(r.part.bytes), r.pin.id));
        rows
    }

    /// The selected pins, in the order of their rows.
    pub fn pins<'a>(rows: &[Row<'a>]) -> Vec<&'a Pin> {
        // Mostly each pin is on one file, and has one row.
        if rows.iter().all(|row| row.pin.parts.len() == 1) {
            return rows.iter().map(|row| row.pin).collect();
        }
        let mut seen = std::collections::HashSet::with_capacity(rows.len());
        rows.iter().filter(|r| seen.insert(r.pin.id)).map(|r| r.pin).collect()
    }

    /// The files asked for by name that neither exist nor are pinned.
    pub fn missing<'a>(&'a self, table: &Table) -> Vec<&'a Operand> {
        let pinned = |p: &Operand| table.files.iter().any(|f| p.is(f));
        self.files.iter().filter(|p| !p.exists && !pinned(p)).collect()
    }

    fn pin(&self, table: &Table, pin: &Pin) -> bool {
        let any = |fits: &dyn Fn(&crate::model::Process) -> bool| involved(table, pin).any(fits);
        let word = |t: &&str| *t == pin.subsystem().word() || *t == pin.object.described().type_word();
        (self.pids.is_empty() || any(&|p| self.pids.contains(&p.pid)))
            && (self.uids.is_empty() || any(&|p| p.uid.is_some_and(|u| self.uids.contains(&u))))
            && (self.commands.is_empty()
                || any(&|p| self.commands.iter().any(|c| p.comm.as_bytes().starts_with(c))))
            && (self.types.is_empty() || self.types.iter().any(word))
            && pin.bytes >= self.min_size
            && (self.coverage.is_empty() || self.coverage.contains(&pin.coverage.state))
            && self.unleased.is_none_or(|policy| table.is_unleased(pin, policy))
            && (!self.unheld || table.is_unheld(pin))
    }

    /// Whether it does not matter on which file a pin is.
    fn any_file(&self) -> bool {
        self.files.is_empty() && self.directories.is_empty() && self.mounts.is_empty() && !self.deleted
    }

    /// Whether this is one of the files that were asked for.
    pub fn has_file(&self, file: Option<&File>) -> bool {
        self.any_file() || self.part(file)
    }

    fn part(&self, file: Option<&File>) -> bool {
        let among = |operands: &[Operand], fits: &dyn Fn(&Operand, &File) -> bool| {
            operands.is_empty() || file.is_some_and(|f| operands.iter().any(|p| fits(p, f)))
        };
        among(&self.files, &|p, f| p.is(f))
            && among(&self.directories, &|p, f| p.is_above(f))
            && among(&self.mounts, &|p, f| p.is_mount_of(f))
            && (!self.deleted || file.is_some_and(|f| f.deleted == Some(true)))
    }
}

/// Checks a type.
///
/// # Errors
/// [`ArgumentError::NoType`]
pub fn type_word(written: &str) -> Result<&'static str, ArgumentError> {
    let mut words: Vec<&'static str> = Subsystem::ALL.iter().map(|s| s.word()).collect();
    for word in Subsystem::ALL.into_iter().flat_map(object::types_of) {
        if !words.contains(word) {
            words.push(word);
        }
    }
    let fits = |w: &&&str| w.eq_ignore_ascii_case(written);
    if let Some(word) = words.iter().find(fits) {
        return Ok(word);
    }
    let nearest = super::columns::nearest(&written.to_lowercase(), &words);
    Err(ArgumentError::NoType { name: written.to_owned(), nearest, all: words })
}

/// Reads a state of coverage.
///
/// # Errors
/// [`ArgumentError::NoCoverage`]
pub fn coverage_word(written: &str) -> Result<CoverageState, ArgumentError> {
    let found = CoverageState::ALL.into_iter().find(|state| state.word().eq_ignore_ascii_case(written));
    found.ok_or_else(|| ArgumentError::NoCoverage(written.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::sample;

    fn operand(path: &str) -> Operand {
        Operand { written: path.into(), paths: vec![path.into()], ..Operand::default() }
    }

    fn ids(selection: &Selection) -> Vec<String> {
        let table = sample::table();
        selection.rows(&table).iter().map(|r| format!("{}:{}", r.pin.id, r.part.bytes)).collect()
    }

    #[test]
    fn everything_largest_first() {
        let all = ids(&Selection::default());
        assert_eq!(all, ["r1:67108864", "u2:16777216", "x3:4194304", "u2:8192"]);
    }

    #[test]
    fn files_by_identity_and_by_name() {
        let dev = Device { major: 253, minor: 1 };
        let other = Operand { ids: vec![(dev, 131)], exists: true, ..operand("/elsewhere") };
        assert_eq!(ids(&Selection { files: vec![other], ..Selection::default() }), ["r1:67108864"]);
        let named = Operand { exists: true, ..operand("/srv/pool.dat") };
        assert_eq!(
            ids(&Selection { files: vec![named, operand("/x")], ..Selection::default() }),
            ["r1:67108864"]
        );
    }

    #[test]
    fn a_deleted_file_is_not_the_one_that_has_its_name_now() {
        let mut q = operand("");
        q.paths = vec![b"/srv/q\n\x1b[31m\xff".to_vec()];
        assert_eq!(ids(&Selection { files: vec![q.clone()], ..Selection::default() }), ["u2:16777216"]);
        q.exists = true;
        assert!(ids(&Selection { files: vec![q], ..Selection::default() }).is_empty());
    }

    #[test]
    fn directories_and_mounts() {
        let directories = |d: &str| ids(&Selection { directories: vec![operand(d)], ..Selection::default() });
        assert_eq!(directories("/srv/deep/"), ["u2:8192"]);
        assert_eq!(directories("/srv/dee"), [""; 0]);
        assert_eq!(directories("/").len(), 3);
        let mount = |device| Selection {
            mounts: vec![Operand { device, ..operand("/srv/deep") }],
            ..Selection::default()
        };
        assert_eq!(ids(&mount(None)), ["u2:8192"]);
        assert_eq!(ids(&mount(Some(Device { major: 253, minor: 1 }))).len(), 3);
        assert!(ids(&mount(Some(Device { major: 9, minor: 1 }))).is_empty());
    }

    #[test]
    fn processes_types_and_sizes() {
        let pid = |pids: &[u32]| ids(&Selection { pids: pids.to_vec(), ..Selection::default() });
        assert_eq!(pid(&[1044]), ["u2:16777216", "u2:8192"]);
        assert_eq!(pid(&[1, 1201]), ["x3:4194304"]);
        let commands = vec![b"help".to_vec(), b"ib".to_vec()];
        assert_eq!(ids(&Selection { commands, uids: vec![2], ..Selection::default() }), ["r1:67108864"]);
        let types = vec!["rdma", "xdp"];
        assert_eq!(ids(&Selection { types, min_size: 5 << 20, ..Selection::default() }), ["r1:67108864"]);
        assert_eq!(ids(&Selection { unheld: true, ..Selection::default() }), ["x3:4194304"]);
        assert_eq!(ids(&Selection { deleted: true, ..Selection::default() }), ["u2:16777216"]);
    }

    #[test]
    fn missing_files_are_told() {
        let files =
            vec![operand("/none"), operand("/srv/pool.dat"), Operand { exists: true, ..operand("/x") }];
        let selection = Selection { files, ..Selection::default() };
        let table = sample::table();
        let missing: Vec<&[u8]> = selection.missing(&table).iter().map(|p| p.written.as_slice()).collect();
        assert_eq!(missing, [b"/none"]);
    }

    #[test]
    fn types_are_checked() {
        assert_eq!(type_word("RDMA-MR"), Ok("rdma-mr"));
        assert!(type_word("iouring").unwrap_err().to_string().ends_with("did you mean io_uring?"));
        assert!(type_word("nonsense\n").unwrap_err().to_string().contains("there are rdma"));
    }
}
