//! The `keytrail` binary: everything is in the library.

use keytrail::memory::OrSayWhy;
use std::process::ExitCode;
use zeroizing_alloc::ZeroAlloc;

/// Every freed heap block is wiped, so that no copy of a secret (a grown buffer, a library's own) survives its owner.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<OrSayWhy> = ZeroAlloc(OrSayWhy);

fn main() -> ExitCode {
    keytrail::cli::main()
}
