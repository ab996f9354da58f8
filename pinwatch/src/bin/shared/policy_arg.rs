//! `--require-lease`, the same in both programs: the model knows nothing of argument parsing.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use pinwatch::model::LeasePolicy;

/// A policy on the command line.
#[derive(Clone, Copy, Debug)]
pub struct PolicyArg(pub LeasePolicy);

const ALL: [PolicyArg; 4] = [
    PolicyArg(LeasePolicy::Persistent),
    PolicyArg(LeasePolicy::All),
    PolicyArg(LeasePolicy::Dax),
    PolicyArg(LeasePolicy::Never),
];

impl ValueEnum for PolicyArg {
    fn value_variants<'a>() -> &'a [Self] {
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (word, help) = match self.0 {
            LeasePolicy::Persistent => ("persistent", "Those on files that survive a reboot"),
            LeasePolicy::All => ("all", "Those on any file that can have one"),
            LeasePolicy::Dax => ("dax", "Those on files that are mapped without page cache"),
            LeasePolicy::Never => ("never", "None"),
        };
        Some(PossibleValue::new(word).help(help))
    }
}
