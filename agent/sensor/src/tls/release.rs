//! Takes probes off functions. The kernel waits for a grace period per probe (about 0.1 s on 6.18), one after another
//! however many threads close them: so nobody waits for it here.

use aya::programs::uprobe::UProbeLink;
use std::thread;

/// Closes links while the caller goes on.
pub(super) fn behind(links: Vec<UProbeLink>) {
    if links.is_empty() {
        return;
    }
    // Without a thread they are closed here, as the closure is dropped.
    let _ = thread::Builder::new()
        .name("release".into())
        .spawn(move || drop(links));
}
