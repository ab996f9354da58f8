//! Whether two descriptors, of any two processes, are the same open file.

use std::cmp::Ordering;

use crate::kernel::sys;

/// A descriptor of a process.
pub trait Descriptor {
    /// The process.
    fn pid(&self) -> u32;
    /// Its number there.
    fn fd(&self) -> u32;
    /// Descriptors of the same open file have the same; others may, too.
    fn ino(&self) -> Option<u64>;
}

/// Compares by the kernel's own (meaningless, but fixed) order of open files; `None` where the kernel refuses
/// (seccomp, other users' processes) or one of them is gone.
pub fn compare<D: Descriptor>(a: &D, b: &D) -> Option<Ordering> {
    if (a.pid(), a.fd()) == (b.pid(), b.fd()) {
        return Some(Ordering::Equal);
    }
    sys::compare_open_files((a.pid(), a.fd()), (b.pid(), b.fd()))
}

/// Descriptors of one open file.
pub type Group<D> = Vec<D>;

/// Puts descriptors of the same open file together. `shared_ino` is the inode number that ordinary anonymous files
/// have in common: a ring with another number has an inode of its own, which alone tells rings apart (kernels before
/// 5.12 give all rings the common one). Also gives how many descriptors could not be compared and so are each a
/// group of their own.
pub fn group<D: Descriptor>(
    mut fds: Vec<D>,
    shared_ino: Option<u64>,
    same: impl Fn(&D, &D) -> Option<Ordering>,
) -> (Vec<Group<D>>, usize) {
    fds.sort_by_key(|r| (r.ino(), r.pid(), r.fd()));
    let mut groups: Vec<Group<D>> = Vec::new();
    let mut refused = 0;
    let mut fds = fds.into_iter().peekable();
    while let Some(first) = fds.next() {
        let ino = first.ino();
        let mut bucket = vec![first];
        while let Some(next) = fds.next_if(|r| r.ino() == ino) {
            bucket.push(next);
        }
        let own_inode = ino.is_some() && shared_ino.is_some() && ino != shared_ino;
        // Sorted by the kernel's order, so that many rings need few comparisons.
        let mut sorted: Vec<Group<D>> = Vec::new();
        for fd in bucket {
            let mut unknown = false;
            let place = sorted.binary_search_by(|g| {
                same(&g[0], &fd).unwrap_or_else(|| {
                    unknown = true;
                    Ordering::Equal
                })
            });
            match place {
                Ok(at) if !unknown || own_inode => sorted[at].push(fd),
                Ok(_) => {
                    refused += 1;
                    groups.push(vec![fd]);
                }
                Err(at) => sorted.insert(at, vec![fd]),
            }
        }
        groups.append(&mut sorted);
    }
    groups.sort_by_key(|g| g.iter().map(|r| (r.pid(), r.fd())).min());
    (groups, refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::proc::fdinfo::RingInfo;
    use crate::source::proc::uring::RingFd;

    /// The open file is the descriptor's number modulo 10.
    fn fds(ino: Option<u64>, fds: &[(u32, u32)]) -> Vec<RingFd> {
        let info = RingInfo { ino, ..RingInfo::default() };
        fds.iter().map(|&(pid, fd)| RingFd { pid, fd, info: info.clone() }).collect()
    }

    fn by_number(a: &RingFd, b: &RingFd) -> Option<Ordering> {
        Some((a.fd % 10).cmp(&(b.fd % 10)))
    }

    fn shape(groups: &[Group<RingFd>]) -> Vec<Vec<(u32, u32)>> {
        groups.iter().map(|g| g.iter().map(|r| (r.pid, r.fd)).collect()).collect()
    }

    #[test]
    fn one_open_file_is_one_group() {
        let all = fds(None, &[(1, 3), (1, 14), (2, 4), (2, 13), (3, 5), (1, 24)]);
        let (groups, refused) = group(all, None, by_number);
        assert_eq!(shape(&groups), [vec![(1, 3), (2, 13)], vec![(1, 14), (1, 24), (2, 4)], vec![(3, 5)]]);
        assert_eq!(refused, 0);
    }

    #[test]
    fn without_kcmp_an_inode_of_its_own_decides() {
        let mut all = fds(Some(7), &[(1, 3), (2, 9)]);
        all.extend(fds(Some(8), &[(1, 4)]));
        let (groups, refused) = group(all, Some(1), |_, _| None);
        assert_eq!((shape(&groups), refused), (vec![vec![(1, 3), (2, 9)], vec![(1, 4)]], 0));
        let (groups, refused) = group(fds(Some(1), &[(1, 3), (2, 9)]), Some(1), |_, _| None);
        assert_eq!((shape(&groups), refused), (vec![vec![(1, 3)], vec![(2, 9)]], 1));
    }

    #[test]
    fn an_inode_number_used_twice_is_two_rings() {
        let (groups, _) = group(fds(Some(7), &[(1, 3), (2, 4)]), Some(1), by_number);
        assert_eq!(groups.len(), 2);
    }
}
