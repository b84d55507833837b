//! Who is who: processes by identity, with ancestry and what each one holds. Pure: time comes with the record.

mod table;

pub use table::{Holding, HoldingPlace, Proc, ProcessTable, Untold};
