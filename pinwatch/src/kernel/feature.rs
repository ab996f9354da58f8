//! A part of tracing as the plan decided on it: how much of it there is, how it is done, and why something is missing.

use serde::{Serialize, Serializer};

use super::feature_name::{FeatureName, State};
use super::missing::Missing;

/// One part, how much of it there is, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// Which part.
    pub name: FeatureName,
    /// What is lost without it, as a clause.
    #[serde(skip)]
    pub loss: &'static str,
    /// How much of it.
    pub state: State,
    /// How it is done if it is on, otherwise what is missing and what is lost by that. No newline.
    pub text: String,
    /// What is missing; empty if nothing is. In JSON, the codes.
    #[serde(serialize_with = "codes")]
    pub reasons: Vec<Missing>,
}

impl Feature {
    /// A feature that is there, and how.
    pub fn on(name: FeatureName, loss: &'static str, how: String) -> Self {
        Self { name, loss, state: State::On, text: how, reasons: Vec::new() }
    }

    /// A feature of which something may be missing, each with what follows from it as a clause.
    pub fn lacking(
        name: FeatureName,
        loss: &'static str,
        how: String,
        lacks: Vec<(Missing, &'static str)>,
    ) -> Self {
        let mut feature = Self::on(name, loss, how);
        for (why, so) in lacks {
            feature.state = State::Degraded;
            feature.text += &format!("; {why}, so {so}");
            feature.reasons.push(why);
        }
        feature
    }

    /// A feature that is not there. What is lost is told if it should be there.
    pub fn missing(name: FeatureName, loss: &'static str, why: Missing) -> Self {
        let state = why.state();
        let text = if state == State::Off { format!("{why}; {loss}") } else { why.to_string() };
        Self { name, loss, state, text, reasons: vec![why] }
    }
}

fn codes<S: Serializer>(reasons: &[Missing], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(reasons.iter().map(Missing::code))
}
