//! The metrics by name: pinned bytes by user, by cgroup and by file. They are off by default, and there are never more groups
//! than asked for: the rest is folded into one.

use rustc_hash::FxHashMap as HashMap;

use super::catalogue;
use super::families::Families;
use crate::listing::escape;
use crate::model::{Name, Pin, Process, Table};

/// What all others are called.
const OTHER: &str = "other";

/// So many groups of each kind are told apart; 0 is none at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Users, by what they have pinned.
    pub users: usize,
    /// Slices and pods.
    pub cgroups: usize,
    /// Files.
    pub files: usize,
}

/// A group: its labels' values, and its bytes.
type Group<const N: usize> = ([String; N], u64);

/// One kind of group.
#[derive(Clone, Debug)]
struct Kind<const N: usize> {
    rows: Vec<Group<N>>,
    folded: usize,
}

impl<const N: usize> Kind<N> {
    /// The largest of the groups, and the others as one. Labels that turn out the same, be it by a hostile name, are one
    /// group.
    fn of(groups: impl IntoIterator<Item = Group<N>>, limit: usize) -> Self {
        let mut by_label: HashMap<[String; N], u64> = HashMap::default();
        for (labels, bytes) in groups {
            let sum = by_label.entry(labels).or_default();
            *sum = sum.saturating_add(bytes);
        }
        let mut rows: Vec<Group<N>> = by_label.into_iter().collect();
        rows.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let rest = rows.split_off(rows.len().min(limit));
        if !rest.is_empty() {
            let bytes = rest.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
            let other = std::array::from_fn(|_| OTHER.to_owned());
            match rows.iter_mut().find(|(labels, _)| *labels == other) {
                Some((_, sum)) => *sum = sum.saturating_add(bytes),
                None => rows.push((other, bytes)),
            }
        }
        Self { rows, folded: rest.len() }
    }

    fn rows(&self) -> impl Iterator<Item = ([String; N], f64)> {
        self.rows.iter().map(|(labels, bytes)| (labels.clone(), *bytes as f64))
    }
}

/// All kinds that are asked for.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    users: Option<Kind<2>>,
    cgroups: Option<Kind<2>>,
    files: Option<Kind<3>>,
}

impl Groups {
    /// Groups a table's pins by who made them, and by file.
    pub fn of(table: &Table, limits: Limits) -> Self {
        let creator = |at: u32| table.processes.get(at as usize);
        let by_creator = || by(table, |pin, add| add(pin.creator.map_or(u32::MAX, |at| at.0), pin.bytes));
        let by_file = || {
            by(table, |pin, add| {
                for part in &pin.parts {
                    if let Some(file) = part.file {
                        add(file.0, part.bytes);
                    }
                }
            })
        };
        Self {
            users: kind(limits.users, by_creator, |at| user(creator(at))),
            cgroups: kind(limits.cgroups, by_creator, |at| cgroup(creator(at))),
            files: kind(limits.files, by_file, |at| file(table, at)),
        }
    }

    /// The metrics of it.
    pub fn emit(&self, families: &mut Families) {
        let mut folded = Vec::new();
        if let Some(users) = &self.users {
            families.values(catalogue::USER_PINNED_BYTES, users.rows());
            folded.push((["user"], users.folded as f64));
        }
        if let Some(cgroups) = &self.cgroups {
            families.values(catalogue::CGROUP_PINNED_BYTES, cgroups.rows());
            folded.push((["cgroup"], cgroups.folded as f64));
        }
        if let Some(files) = &self.files {
            families.values(catalogue::FILE_PINNED_BYTES, files.rows());
            folded.push((["file"], files.folded as f64));
        }
        families.values(catalogue::FOLDED_GROUPS, folded);
    }
}

/// The groups of one kind, if they are asked for: `groups` gives bytes by number, `labels` what a number stands for.
fn kind<const N: usize>(
    limit: usize,
    groups: impl Fn() -> HashMap<u32, u64>,
    labels: impl Fn(u32) -> [String; N],
) -> Option<Kind<N>> {
    (limit > 0).then(|| Kind::of(groups().into_iter().map(|(at, bytes)| (labels(at), bytes)), limit))
}

/// Bytes by a number that `groups` gives for each pin.
fn by(table: &Table, groups: impl Fn(&Pin, &mut dyn FnMut(u32, u64))) -> HashMap<u32, u64> {
    let mut sums: HashMap<u32, u64> = HashMap::default();
    let mut add = |at, bytes| {
        let sum = sums.entry(at).or_default();
        *sum = sum.saturating_add(bytes);
    };
    table.pins.iter().for_each(|pin| groups(pin, &mut add));
    sums
}

fn user(process: Option<&Process>) -> [String; 2] {
    let uid = process.and_then(|process| process.uid);
    let name = process.and_then(|process| process.user.as_deref()).map(|name| escape::name(name.as_bytes()));
    [name.unwrap_or_default(), uid.map(|uid| uid.to_string()).unwrap_or_default()]
}

/// The outermost slice, and the pod if it is one's.
fn cgroup(process: Option<&Process>) -> [String; 2] {
    let path = process.and_then(|process| process.cgroup.as_ref()).map(Name::as_bytes).unwrap_or_default();
    let slice = path.split(|byte| *byte == b'/').find(|part| part.ends_with(b".slice")).unwrap_or_default();
    let pod = process.and_then(|process| process.workload().pod).unwrap_or_default();
    [escape::name(slice), pod]
}

fn file(table: &Table, at: u32) -> [String; 3] {
    let Some(file) = table.files.get(at as usize) else { return Default::default() };
    [escape::name(file.path.as_bytes()), file.id.dev.to_string(), file.id.ino.to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::sample;
    use crate::model::ProcessIndex;

    fn group(label: &str, bytes: u64) -> Group<1> {
        ([label.to_owned()], bytes)
    }

    #[test]
    fn the_largest_stay_and_the_rest_is_one() {
        let kind = Kind::of([group("a", 1), group("b", 5), group("c", 3), group("a", 3)], 2);
        assert_eq!(kind.rows, [group("b", 5), group("a", 4), group(OTHER, 3)]);
        assert_eq!(kind.folded, 1);
        assert_eq!(Kind::of([group("a", 1)], 2).rows, [group("a", 1)]);
        assert!(Kind::<1>::of([], 2).rows.is_empty());
    }

    #[test]
    fn who_is_called_like_the_rest_is_counted_with_it() {
        let kind = Kind::of([group(OTHER, 9), group("b", 5), group("c", 3)], 2);
        assert_eq!(kind.rows, [group(OTHER, 12), group("b", 5)]);
    }

    #[test]
    fn hostile_names_make_no_more_groups_than_allowed() {
        let mut table = sample::table();
        let mut pin = table.pins[1].clone();
        table.pins.clear();
        for n in 0..50_u32 {
            let mut process = table.processes[0].clone();
            process.user = Some(format!("evil\"}} {n}\n# TYPE x counter"));
            process.uid = Some(n);
            process.cgroup = Some(Name::from(format!("/{n}\"\n\\.slice/x.service")));
            table.processes.push(process);
            pin.creator = Some(ProcessIndex((table.processes.len() - 1) as u32));
            table.pins.push(pin.clone());
        }
        let mut families = Families::default();
        Groups::of(&table, Limits { users: 3, cgroups: 3, files: 3 }).emit(&mut families);
        let text = families.text().unwrap();
        let of = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(of("pinwatch_user_pinned_bytes{"), 4, "{text}");
        assert_eq!(of("pinwatch_cgroup_pinned_bytes{"), 4, "{text}");
        assert!(text.contains("pinwatch_folded_groups{by=\"user\"} 47"), "{text}");
        let is_metric = |line: &str| line.starts_with("# ") || line.starts_with("pinwatch_");
        assert!(text.lines().all(is_metric) && of("# TYPE x") == 0, "{text}");
    }
}
