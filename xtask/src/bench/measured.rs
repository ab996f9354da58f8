//! What the measuring scripts print, as figures. Pure: lines in, numbers out. What is not there is not in the result.

/// One figure that was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// What was measured, as the file of figures has it.
    pub name: String,
    /// The attach mode, or `unclaimed` for `auto` with unclaimed pins watched for; `-` where there is only one.
    pub mode: String,
    /// The figure.
    pub value: f64,
    /// What the same work takes without pinwatch, where a budget is a part of that.
    pub bare: Option<f64>,
}

impl Measured {
    fn new(name: &str, mode: &str, value: f64) -> Self {
        Self { name: name.to_owned(), mode: mode.to_owned(), value, bare: None }
    }
}

/// Instructions that each mode adds to each work: lines `measured WORK MODE INSTRUCTIONS`, mode `none` being the bare work.
pub fn added(output: &str) -> Vec<Measured> {
    let lines: Vec<(&str, &str, f64)> = output
        .lines()
        .filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["measured", work, mode, number] => Some((work, mode, number.parse().ok()?)),
            _ => None,
        })
        .collect();
    let bare = |work: &str| lines.iter().find(|line| line.0 == work && line.1 == "none" && line.2 > 0.0);
    let hooked = lines.iter().filter(|line| line.1 != "none");
    hooked
        .filter_map(|(work, mode, total)| {
            let bare = bare(work)?.2;
            Some(Measured { bare: Some(bare), ..Measured::new(work, mode, total - bare) })
        })
        .collect()
}

/// Rows and microseconds of a line `elapsed WHAT ROWS MICROSECONDS`.
fn elapsed(output: &str, wanted: &str) -> Option<(u32, f64)> {
    output.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["elapsed", what, rows, micros] if what == wanted => Some((rows.parse().ok()?, micros.parse().ok()?)),
        _ => None,
    })
}

/// `lspins -j` over `count` pins against `lsof` over as many descriptors; nothing if either has listed fewer.
pub fn list(output: &str, count: u32) -> Vec<Measured> {
    let both = elapsed(output, "lspins").zip(elapsed(output, "lsof"));
    match both {
        Some(((pins, ours), (descriptors, theirs)))
            if pins >= count && descriptors >= count && theirs > 0.0 =>
        {
            vec![Measured::new("lspins-us", "-", ours), Measured::new("lspins/lsof", "-", ours / theirs)]
        }
        _ => Vec::new(),
    }
}

/// The pins of `bench holders`.
const HOLDERS_PINS: u32 = 1000;

/// A listing beside many processes or descriptors that keep nothing, against one beside ten processes.
pub fn holders(output: &str) -> Vec<Measured> {
    let micros = |wanted: &str| {
        elapsed(output, wanted).filter(|(rows, _)| *rows == HOLDERS_PINS).map(|(_, micros)| micros)
    };
    let Some(ten) = micros("ten").filter(|ten| *ten > 0.0) else { return Vec::new() };
    let ratio = |what: &str, name| Some(Measured::new(name, "-", micros(what)? / ten));
    [
        Some(Measured::new("ten-us", "-", ten)),
        ratio("alone", "alone/ten"),
        ratio("two-hundred", "two-hundred/ten"),
        ratio("idle-20000", "idle-20000/ten"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A scrape's CPU time with few and with many pins and that of node_exporter, the series, and the daemon's memory: lines
/// `scraped WHAT SERIES NANOSECONDS` and `memory WHAT KIB`. `scraping NANOSECONDS SECONDS` is the part of a CPU that the daemon
/// takes while it is scraped every 15 s, its passes over all pins included.
pub fn scrape(output: &str) -> Vec<Measured> {
    let scraped = |wanted: &str| {
        output.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["scraped", what, series, nanoseconds] if what == wanted => {
                Some((series.parse::<f64>().ok()?, nanoseconds.parse::<f64>().ok()?))
            }
            _ => None,
        })
    };
    let memory = |wanted: &str| {
        output.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["memory", what, kib] if what == wanted => kib.parse::<f64>().ok(),
            _ => None,
        })
    };
    let scraping = output.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["scraping", nanoseconds, seconds] => {
            let (spent, seconds) = (nanoseconds.parse::<f64>().ok()? / 1e9, seconds.parse::<f64>().ok()?);
            (seconds > 0.0).then(|| spent / seconds)
        }
        _ => None,
    });
    let (few, many, theirs) = (scraped("few"), scraped("many"), scraped("node_exporter"));
    let ratio = |name, one: Option<(f64, f64)>, other: Option<(f64, f64)>| {
        let (one, other) = (one?.1, other?.1);
        (other > 0.0).then(|| Measured::new(name, "-", one / other))
    };
    [
        many.map(|many| Measured::new("many-ns", "-", many.1)),
        ratio("many/node_exporter", many, theirs),
        ratio("many/few", many, few),
        scraping.map(|part| Measured::new("scraping-part", "-", part)),
        many.map(|many| Measured::new("series", "-", many.0)),
        memory("start").map(|kib| Measured::new("memory-start-KiB", "-", kib)),
        memory("many").map(|kib| Measured::new("memory-many-KiB", "-", kib)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(all: &[Measured]) -> Vec<(&str, &str, f64)> {
        all.iter().map(|one| (one.name.as_str(), one.mode.as_str(), one.value)).collect()
    }

    #[test]
    fn what_is_added_is_the_difference_to_the_bare_work() {
        let output = "noise\nmeasured dio-4K none 3600\nmeasured dio-4K auto 3596\nmeasured dio-4K kprobe 3700\n\
                      cannot measure io_uring-4K none: refused\nmeasured io_uring-4K auto 9000\n";
        let all = added(output);
        assert_eq!(values(&all), [("dio-4K", "auto", -4.0), ("dio-4K", "kprobe", 100.0)]);
        assert_eq!(all[0].bare, Some(3600.0));
    }

    #[test]
    fn listings_are_compared_only_over_as_many() {
        let all = list("elapsed lspins 5 100\nelapsed lsof 9 1000\n", 5);
        assert_eq!(values(&all), [("lspins-us", "-", 100.0), ("lspins/lsof", "-", 0.1)]);
        assert!(list("elapsed lspins 4 100\nelapsed lsof 9 1000\n", 5).is_empty());
        assert!(list("elapsed lspins 5 100\n", 5).is_empty());
    }

    #[test]
    fn what_keeps_nothing_is_compared_with_ten_processes() {
        let output = "elapsed alone 1000 9\nelapsed ten 1000 10\nelapsed two-hundred 1000 19\nelapsed idle-20000 999 12\n";
        let expected = [("ten-us", "-", 10.0), ("alone/ten", "-", 0.9), ("two-hundred/ten", "-", 1.9)];
        assert_eq!(values(&holders(output)), expected);
        assert!(holders("").is_empty());
    }

    #[test]
    fn scrapes_are_compared_with_node_exporter_and_with_few_pins() {
        let output = "scraped few 150 200\nscraped many 160 250\nscraped node_exporter 700 1000\n\
                      scraping 3000000000 60\nmemory start 100\n";
        let expected = [
            ("many-ns", "-", 250.0),
            ("many/node_exporter", "-", 0.25),
            ("many/few", "-", 1.25),
            ("scraping-part", "-", 0.05),
            ("series", "-", 160.0),
            ("memory-start-KiB", "-", 100.0),
        ];
        assert_eq!(values(&scrape(output)), expected);
        assert_eq!(values(&scrape("scraped few 150 1\n")), []);
    }
}
