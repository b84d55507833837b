//! Who is who: processes by identity, with ancestry and what each one holds. Pure: time comes with the record.

mod files;
mod names;
mod pipes;
mod table;

pub use files::Files;
pub use names::Names;
pub use pipes::{By, Carried, Pipes};
pub use table::{Holding, HoldingPlace, Passed, Proc, ProcessTable, Unreported};
