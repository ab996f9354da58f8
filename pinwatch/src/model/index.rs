//! How rows of a table refer to each other: by their place in it.

use serde::{Deserialize, Serialize};

/// Place of a file in [`super::Table::files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileIndex(pub u32);

/// Place of a process in [`super::Table::processes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessIndex(pub u32);

/// Place of a holding in [`super::Table::holdings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HoldingIndex(pub u32);
