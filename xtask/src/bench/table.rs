//! What was measured, beside the budgets of docs/architecture.md. Pure: the guest's lines in, a table and a verdict out.

use std::collections::HashMap;
use std::fmt::Write as _;

/// How much hooks may add to one piece of work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// So many instructions.
    Instructions(i64),
    /// So many percent of the bare work.
    Percent(f64),
    /// Shown only.
    None,
}

impl Budget {
    fn allows(self, bare: i64, added: i64) -> bool {
        match self {
            Self::Instructions(most) => added <= most,
            Self::Percent(most) => added as f64 <= bare as f64 * most / 100.0,
            Self::None => true,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Instructions(most) => format!("<= {most}"),
            Self::Percent(most) => format!("<= {most} %"),
            Self::None => "-".to_owned(),
        }
    }
}

/// A work, and its budget by mode.
pub type Work = (&'static str, &'static [(&'static str, Budget)]);

/// What is hooked by trampolines, without and with --unclaimed on, and by kprobes; and bpftrace, for comparison.
const fn modes(auto: Budget, generic: Budget, kprobe: Budget) -> [(&'static str, Budget); 4] {
    [("auto", auto), ("generic", generic), ("kprobe", kprobe), ("bpftrace", Budget::None)]
}

/// The works of `bench leases` are measured in these modes.
const fn plain(budget: Budget) -> [(&'static str, Budget); 2] {
    [("auto", budget), ("kprobe", budget)]
}

/// The works of `bench hooks`. Where nothing may be added, half a percent is what timer ticks make of it.
pub const HOOKS: &[Work] = &[
    ("dio-4K", &modes(Budget::Percent(0.5), Budget::Percent(4.0), Budget::Percent(0.5))),
    ("io_uring-4K", &modes(Budget::Instructions(2000), Budget::None, Budget::Instructions(2000))),
    ("io_uring-1M", &modes(Budget::None, Budget::None, Budget::None)),
    ("io_uring-256M", &modes(Budget::Percent(0.1), Budget::Percent(0.1), Budget::Percent(0.1))),
    ("rdma-mr-4K", &modes(Budget::Instructions(2500), Budget::None, Budget::Instructions(5000))),
    ("rdma-mr-256M", &modes(Budget::Percent(0.1), Budget::Percent(0.1), Budget::Percent(0.1))),
];

/// The works of `bench leases`.
pub const LEASES: &[Work] = &[
    ("open-close", &plain(Budget::Percent(0.5))),
    ("truncate", &plain(Budget::Percent(0.5))),
    // What slabs and hashes make of new inodes varies by as much.
    ("create-unlink", &plain(Budget::Percent(1.0))),
    ("lease-drop", &plain(Budget::None)),
    ("open-leased", &plain(Budget::None)),
];

/// `lspins` may take this part of what lsof takes.
const LIST_PART: f64 = 0.1;

/// The table of `bench hooks` and `bench leases`, and whether all was measured and is within its budget.
pub fn added(output: &str, works: &[Work]) -> (String, bool) {
    let mut figures: HashMap<(&str, &str), i64> = HashMap::new();
    for line in output.lines() {
        if let ["measured", work, mode, number] = line.split_whitespace().collect::<Vec<_>>()[..]
            && let Ok(number) = number.parse()
        {
            figures.insert((work, mode), number);
        }
    }
    let mut good = true;
    let mut text = format!(
        "{:<14} {:<8} {:>11} {:>8} {:>8}  {:<10} {}\n",
        "ONE ROUND OF", "ATTACH", "BARE", "ADDED", "%", "BUDGET", "VERDICT"
    );
    for (work, budgets) in works {
        for (mode, budget) in *budgets {
            let found = figures.get(&(*work, "none")).zip(figures.get(&(*work, *mode)));
            let Some((&bare, &hooked)) = found.filter(|(bare, _)| **bare > 0) else {
                good = false;
                let _ = writeln!(text, "{work:<14} {mode:<8} not measured");
                continue;
            };
            let added = hooked - bare;
            let within = budget.allows(bare, added);
            good &= within;
            let percent = added as f64 * 100.0 / bare as f64;
            let verdict = match (budget, within) {
                (Budget::None, _) => "",
                (_, true) => "within",
                (_, false) => "OVER",
            };
            let _ = writeln!(
                text,
                "{work:<14} {mode:<8} {bare:>11} {added:>8} {percent:>8.3}  {:<10} {verdict}",
                budget.text()
            );
        }
    }
    (text, good)
}

/// 200 processes may make a listing take this many times what ten make of it.
const HOLDERS_PART: f64 = 2.0;
/// The pins of `bench holders`.
const HOLDERS_PINS: u32 = 1000;

/// The table of `bench holders`, and whether the processes and descriptors that keep nothing cost little enough.
pub fn holders(output: &str) -> (String, bool) {
    let mut text = format!("{:<48} {:>10}  {}\n", "1,000 PINS AND BESIDE THEM", "lspins -j", "RATIO");
    let measured = |what| elapsed(output, what).filter(|(rows, _)| *rows == HOLDERS_PINS);
    let Some((_, ten)) = measured("ten") else { return ("not measured\n".to_owned(), false) };
    let mut good = true;
    for (what, title, limited) in [
        ("alone", "nothing", false),
        ("ten", "10 processes with 100 descriptors", false),
        ("two-hundred", "200 processes with 100 descriptors", true),
        ("idle-20000", "1 process with 20,000 descriptors", true),
    ] {
        let Some((_, micros)) = measured(what) else {
            good = false;
            let _ = writeln!(text, "{title:<48} not measured");
            continue;
        };
        let ratio = micros / ten;
        let within = !limited || ratio < HOLDERS_PART;
        good &= within;
        let verdict = match (limited, within) {
            (false, _) => String::new(),
            (true, true) => format!(" < {HOLDERS_PART}: within"),
            (true, false) => format!(" not < {HOLDERS_PART}: OVER"),
        };
        let _ = writeln!(text, "{title:<48} {:>7.1} ms  {ratio:.2}{verdict}", micros / 1000.0);
    }
    (text, good)
}

/// A scrape may cost this part of one of node_exporter.
const SCRAPE_PART: f64 = 0.25;
/// It does not grow with the number of pins: what differs is noise.
const SCRAPE_GROWTH: f64 = 1.25;
/// The daemon may use this part of one CPU while it is scraped, passes over all pins included.
const SCRAPING_PART: f64 = 0.05;
/// More series a scrape does not have.
const SERIES: u32 = 500;

/// The table of `bench scrape`, and whether it is within its budgets.
pub fn scrape(output: &str) -> (String, bool) {
    let measured = |wanted: &str| {
        output.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["scraped", what, series, nanoseconds] if what == wanted => {
                Some((series.parse::<u32>().ok()?, nanoseconds.parse::<f64>().ok()?))
            }
            _ => None,
        })
    };
    let (Some((_, few)), Some((series, many)), Some((_, theirs))) =
        (measured("few"), measured("many"), measured("node_exporter"))
    else {
        return ("not measured\n".to_owned(), false);
    };
    let scraping = output.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["scraping", nanoseconds, seconds] => {
            Some(nanoseconds.parse::<f64>().ok()? / 1e9 / seconds.parse::<f64>().ok()?)
        }
        _ => None,
    });
    let Some(scraping) = scraping else { return ("not measured\n".to_owned(), false) };
    let mut text = String::new();
    let mut good = true;
    let word = |within: bool| if within { "within" } else { "OVER" };
    for (what, nanoseconds) in [("few pins", few), ("many pins", many), ("node_exporter", theirs)] {
        let _ = writeln!(text, "{what:<14} {:>8.2} ms of CPU for one scrape", nanoseconds / 1e6);
    }
    for (what, ratio, most) in [
        ("many pins / node_exporter", many / theirs, SCRAPE_PART),
        ("many pins / few pins", many / few, SCRAPE_GROWTH),
    ] {
        good &= ratio <= most;
        let _ = writeln!(text, "{what:<26} {ratio:.3}, budget <= {most}: {}", word(ratio <= most));
    }
    good &= scraping <= SCRAPING_PART;
    let _ = writeln!(
        text,
        "scraped every 15 s, passes included: {:.2} % of one CPU, budget <= {} %: {}",
        scraping * 100.0,
        SCRAPING_PART * 100.0,
        word(scraping <= SCRAPING_PART)
    );
    good &= series < SERIES;
    let _ = writeln!(text, "{series} series, budget < {SERIES}: {}", word(series < SERIES));
    (text, good)
}

/// Rows and microseconds of a line `elapsed WHAT ROWS MICROSECONDS`.
fn elapsed(output: &str, wanted: &str) -> Option<(u32, f64)> {
    output.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["elapsed", what, rows, micros] if what == wanted => Some((rows.parse().ok()?, micros.parse().ok()?)),
        _ => None,
    })
}

/// The comparison of `bench list` over `count` pins, and whether it is within its budget.
pub fn list(output: &str, count: u32) -> (String, bool) {
    let Some(((pins, ours), (descriptors, theirs))) = elapsed(output, "lspins").zip(elapsed(output, "lsof"))
    else {
        return ("not measured\n".to_owned(), false);
    };
    let mut text = format!("lspins -j  {pins:>7} lines  {:>10.1} ms\n", ours / 1000.0);
    let _ = writeln!(text, "lsof -p    {descriptors:>7} lines  {:>10.1} ms", theirs / 1000.0);
    if pins < count || descriptors < count {
        let _ = writeln!(text, "not comparable: both should have listed {count}");
        return (text, false);
    }
    let ratio = ours / theirs;
    let within = ratio <= LIST_PART;
    let verdict = if within { "within" } else { "OVER" };
    let _ = writeln!(text, "ratio {ratio:.3}, budget <= {LIST_PART}: {verdict}");
    (text, within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_compared() {
        let mut output = String::new();
        for (work, _) in HOOKS {
            let _ = writeln!(output, "measured {work} none 1000000\nmeasured {work} auto 1000900");
            let _ = writeln!(output, "noise\nmeasured {work} kprobe 1003000");
            let _ = writeln!(output, "measured {work} generic 1001000\nmeasured {work} bpftrace 1009000");
        }
        let (text, good) = added(&output, HOOKS);
        assert!(!good);
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or("").to_owned();
        assert!(line("io_uring-4K    auto ").ends_with("<= 2000    within"), "{text}");
        assert!(line("io_uring-4K    kprobe").ends_with("OVER"), "{text}");
        assert!(line("rdma-mr-4K     kprobe").ends_with("<= 5000    within"), "{text}");
        assert!(line("rdma-mr-256M   auto").ends_with("<= 0.1 %   within"), "{text}");
        assert!(line("rdma-mr-256M   kprobe").ends_with("OVER"), "{text}");
    }

    #[test]
    fn what_is_not_measured_is_not_good() {
        let (text, good) = added("cannot measure io_uring-4K auto: refused\n", HOOKS);
        assert!(!good && text.contains("io_uring-4K    auto     not measured"));
        assert!(!list("elapsed lspins 5 100\n", 5).1);
    }

    #[test]
    fn what_keeps_nothing_is_compared_with_ten_processes() {
        let with = |many| {
            format!(
                "elapsed alone 1000 9\nelapsed ten 1000 10\nelapsed two-hundred 1000 {many}\nelapsed idle-20000 1000 12\n"
            )
        };
        assert!(holders(&with(19)).1);
        let (text, good) = holders(&with(20));
        assert!(!good && text.contains("2.00 not < 2: OVER"), "{text}");
        assert!(!holders(&with(19).replace("alone 1000", "alone 999")).1);
        assert!(!holders("").1);
    }

    #[test]
    fn scrapes_are_compared_with_node_exporter_and_with_few_pins() {
        let of = |few: u32, many: u32, series: u32| {
            format!(
                "scraped few 150 {few}\nscraped many {series} {many}\nscraping 3000000000 60\nscraped node_exporter 700 1000\n"
            )
        };
        assert!(scrape(&of(240, 250, 499)).1);
        assert!(!scrape(&of(240, 251, 499)).1, "more than a quarter");
        assert!(!scrape(&of(100, 126, 499)).1, "it grows");
        assert!(!scrape(&of(240, 250, 500)).1, "too many series");
        assert!(!scrape("scraped few 150 1\n").1);
        let passes = |line: &str| of(240, 250, 499).replace("scraping 3000000000 60", line);
        assert!(!scrape(&passes("scraping 3000000001 60")).1, "too much between scrapes");
        assert!(!scrape(&passes("")).1);
    }

    #[test]
    fn listing_is_compared_only_over_as_many() {
        assert!(list("elapsed lspins 5 100\nelapsed lsof 9 1000\n", 5).1);
        assert!(!list("elapsed lspins 5 101\nelapsed lsof 9 1000\n", 5).1);
        assert!(!list("elapsed lspins 4 100\nelapsed lsof 9 1000\n", 5).1);
    }
}
