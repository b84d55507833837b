//! An inventory and a comparison, for people and for programs.

pub mod cbom;
mod columns;
mod json;
pub mod sarif;
mod table;

pub use json::{diff_document, write_document};
pub use table::{changes, inventory};
