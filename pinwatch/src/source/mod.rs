//! The ways to know about pins: each makes a [`crate::model::Table`], and says in it what it cannot know.

pub mod aside;
pub mod proc;
pub mod trace;
mod weigh;
