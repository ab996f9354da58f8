//! The order of Debian version numbers (Debian Policy 5.6.12). Pure.

use std::cmp::Ordering;

/// Compares two Debian versions: epoch, upstream version, revision.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left_epoch, left) = split_epoch(left);
    let (right_epoch, right) = split_epoch(right);
    let (left_upstream, left_revision) = split_revision(left);
    let (right_upstream, right_revision) = split_revision(right);
    left_epoch
        .cmp(&right_epoch)
        .then_with(|| compare_part(left_upstream, right_upstream))
        .then_with(|| compare_part(left_revision, right_revision))
}

/// The upstream part of a version: `6.18.15` of `6.18.15-1~bpo13+1`.
pub fn upstream(version: &str) -> &str {
    split_revision(split_epoch(version).1).0
}

fn split_epoch(version: &str) -> (u32, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    }
}

fn split_revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, "0"))
}

fn compare_part(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let left_end = left.find(|c: char| c.is_ascii_digit()).unwrap_or(left.len());
        let right_end = right.find(|c: char| c.is_ascii_digit()).unwrap_or(right.len());
        let texts = compare_text(&left[..left_end], &right[..right_end]);
        (left, right) = (&left[left_end..], &right[right_end..]);
        let left_end = left.find(|c: char| !c.is_ascii_digit()).unwrap_or(left.len());
        let right_end = right.find(|c: char| !c.is_ascii_digit()).unwrap_or(right.len());
        let number = |digits: &str| digits.parse::<u64>().unwrap_or(0);
        let order = texts.then_with(|| number(&left[..left_end]).cmp(&number(&right[..right_end])));
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (&left[left_end..], &right[right_end..]);
    }
    Ordering::Equal
}

/// `~` sorts before the end, the end before letters, letters before everything else.
fn compare_text(left: &str, right: &str) -> Ordering {
    let rank = |c: Option<char>| match c {
        Some('~') => (0, '~'),
        None => (1, ' '),
        Some(c) if c.is_ascii_alphabetic() => (2, c),
        Some(c) => (3, c),
    };
    let (mut left, mut right) = (left.chars(), right.chars());
    loop {
        let (one, other) = (left.next(), right.next());
        let order = rank(one).cmp(&rank(other));
        if order != Ordering::Equal || one.is_none() {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_as_dpkg_does() {
        let ascending = [
            ("7.3~rc7-1~exp1", "7.3.4-1~bpo13+1"),
            ("7.2.9-1~bpo13+1", "7.2.12-1~bpo13+1"),
            ("6.1.176-1", "6.1.192-2"),
            ("7.0.12-1~bpo13+1", "7.0.12-2~bpo13+1"),
            ("1.0-1~bpo1", "1.0-1"),
            ("1.0", "1:0.1"),
            ("1.0a", "1.0+b"),
        ];
        for (lower, higher) in ascending {
            assert_eq!(compare(lower, higher), Ordering::Less, "{lower} {higher}");
            assert_eq!(compare(higher, lower), Ordering::Greater, "{higher} {lower}");
        }
        assert_eq!(compare("1.0-1", "1.0-1"), Ordering::Equal);
    }

    #[test]
    fn upstream_loses_epoch_and_revision() {
        assert_eq!(upstream("6.18.15-1~bpo13+1"), "6.18.15");
        assert_eq!(upstream("1:10.0.2+ds-2"), "10.0.2+ds");
    }
}
