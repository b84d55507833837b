//! Watched files: where they are, which version of them holds which credentials.

mod discover;
mod globs;
mod read;
mod roots;
mod table;

pub use discover::{Discovered, Discovery};
pub use read::kernel_device;
pub use roots::Files;
pub use table::FileTable;
