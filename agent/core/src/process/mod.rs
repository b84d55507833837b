//! Who is who: processes by identity, with ancestry and what each one holds. Pure: time comes with the record.

mod names;
mod pipes;
mod table;

pub use names::Names;
pub use pipes::{Carried, Pipes};
pub use table::{Holding, HoldingPlace, Passed, Proc, ProcessTable, Untold};
