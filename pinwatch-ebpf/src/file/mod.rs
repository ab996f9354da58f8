//! From pages and address ranges to files: which file, where in it, and what it is called. Nothing here knows who pins them.

pub mod extents;
pub mod page;
pub mod page_extents;
pub mod path;
pub mod vma_extents;
