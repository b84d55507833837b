//! Rules as data: the schema, the files compiled in, and the user's own.

pub mod builtin;
pub mod load;
pub mod schema;
pub mod template;

pub use load::parse;
pub use schema::{Example, Rule, RuleSpec};
