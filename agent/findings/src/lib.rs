//! Events in, findings out. Pure: no clock, no file, no order that depends on a hash map.

mod about;
mod act;
mod baseline;
mod builtin;
mod carry;
mod clients;
pub mod facts;
mod finding;
mod harvest;
mod headers;
mod key_places;
mod network;
mod pattern;
mod recent;
mod rule;
mod scope;
mod session;
mod site;
mod stage;
mod sweep;
mod text;
mod tool;

pub use baseline::{Baseline, Known, News};
pub use facts::Facts;
pub use finding::Finding;
pub use rule::{Case, Rule, RuleError, Severity, Subject};
pub use stage::{Repeat, Stage, StageInput};
