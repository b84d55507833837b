//! Takes probes off functions. The kernel waits for a grace period per probe (about 0.1 s on 6.18), one after another
//! when one thread closes them and all together when many do.

use aya::programs::uprobe::UProbeLink;
use std::thread;

/// Threads that close at a time; each mostly waits.
const AT_ONCE: usize = 64;

/// Closes links, and returns when all are closed.
pub(super) fn now(links: Vec<UProbeLink>) {
    let share = links.len().div_ceil(AT_ONCE).max(1);
    let mut links = links.into_iter();
    thread::scope(|scope| {
        loop {
            let some: Vec<_> = links.by_ref().take(share).collect();
            if some.is_empty() {
                break;
            }
            // Without a thread (the closure is dropped with what it holds) they are closed here, one by one.
            let _ = thread::Builder::new()
                .name("release".into())
                .spawn_scoped(scope, move || drop(some));
        }
    });
}

/// Closes links while the caller goes on.
pub(super) fn behind(links: Vec<UProbeLink>) {
    if links.is_empty() {
        return;
    }
    // Without a thread they are closed here, as the closure is dropped.
    let _ = thread::Builder::new()
        .name("release".into())
        .spawn(move || now(links));
}
