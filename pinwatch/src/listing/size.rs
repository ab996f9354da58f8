//! Sizes, times and counts as people write them.

use std::str::FromStr;

use super::argument::ArgumentError;

const UNITS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];

/// A size for a column: `64.0M`; powers of 1024; below 1024 exact, as `16B`.
pub fn short(bytes: u64) -> String {
    match scaled(bytes) {
        None => format!("{bytes}B"),
        Some((tenths, unit)) => format!("{}.{}{unit}", tenths / 10, tenths % 10),
    }
}

/// A size for a sentence: `74.0 GiB`.
pub fn long(bytes: u64) -> String {
    match scaled(bytes) {
        None => format!("{bytes} bytes"),
        Some((tenths, unit)) => format!("{}.{} {unit}iB", tenths / 10, tenths % 10),
    }
}

/// A number with what it counts: "1 pin", "2 pins".
pub(super) fn counted(number: u64, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// Tenths of the largest unit that fits, rounded; `None` below the first unit.
fn scaled(bytes: u64) -> Option<(u128, char)> {
    if bytes < 1024 {
        return None;
    }
    let mut scale: u128 = 1024;
    for (at, unit) in UNITS.into_iter().enumerate() {
        let tenths = (u128::from(bytes) * 10 + scale / 2) / scale;
        // 1023.96K rounds to 1024.0K, which is 1.0M.
        if tenths < 10240 || at + 1 == UNITS.len() {
            return Some((tenths, unit));
        }
        scale *= 1024;
    }
    None
}

/// A time span for a column, in its largest unit: `12s`, `3m`, `2h`, `3d`.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// A size as given to an option: `4096`, `64K`, `1.5G`, `2GiB`; powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let wrong = || ArgumentError::NoSize(text.to_owned());
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let scale: u64 = match unit.trim_start().to_ascii_uppercase().as_str() {
            "" | "B" => 1,
            unit => {
                let letter = unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(unit);
                let at = UNITS
                    .iter()
                    .position(|u| letter.len() == 1 && letter.starts_with(*u))
                    .ok_or_else(wrong)?;
                1 << (10 * (at + 1))
            }
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let fraction = match fraction {
            "" if number.contains('.') => return Err(wrong()),
            "" => 0.0,
            digits => format!("0.{digits}").parse::<f64>().map_err(|_| wrong())?,
        };
        let bytes = whole.checked_mul(scale).and_then(|b| b.checked_add((fraction * scale as f64) as u64));
        bytes.map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_people() {
        let all = [0, 1023, 1024, 1_048_524, 64 << 20, 64 << 30, u64::MAX].map(short);
        assert_eq!(all, ["0B", "1023B", "1.0K", "1023.9K", "64.0M", "64.0G", "16.0E"]);
        assert_eq!(short(1_048_575), "1.0M");
        assert_eq!((long(74 << 30).as_str(), long(16).as_str()), ("74.0 GiB", "16 bytes"));
        assert_eq!([59, 60, 7199, 86400, u64::MAX].map(age), ["59s", "1m", "1h", "1d", "213503982334601d"]);
    }

    #[test]
    fn from_people() {
        let ok = |t: &str| t.parse::<Size>().unwrap().0;
        assert_eq!(
            [ok("0"), ok("4096"), ok("64k"), ok("1.5G"), ok("2GiB"), ok("3MB")],
            [0, 4096, 65536, 3 << 29, 2 << 30, 3 << 20]
        );
        for bad in ["", "G", "-1", "1.", "1.x", "1Q", "1KK", "99999999999E", "1e9", "1..2", "0x10", "１"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}
