//! An inventory and a comparison, for people and for programs.

mod columns;
mod json;
mod table;

pub use json::{diff_document, write_document};
pub use table::{changes, inventory};
