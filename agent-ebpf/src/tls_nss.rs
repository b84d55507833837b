//! Plaintext on its way into NSS. It is taken by `PR_Write` and `PR_Send` of NSPR, which write anything to anywhere: only
//! calls with layers over a TCP socket count, as NSS puts one there.

use crate::{record::interesting, tls::on_write};
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::uprobe,
    programs::ProbeContext,
};

/// Layers over a socket that are followed; Firefox has three.
const LAYERS_MAX: usize = 8;

// PRInt32 PR_Write(PRFileDesc *fd, const void *buf, PRInt32 amount)
// PRInt32 PR_Send(PRFileDesc *fd, const void *buf, PRInt32 amount, PRIntn flags, PRIntervalTime timeout)
#[uprobe]
pub fn tls_write_nss(ctx: ProbeContext) -> u32 {
    if interesting((bpf_get_current_pid_tgid() >> 32) as u32).is_none() {
        return 0;
    }
    let size = ctx.arg::<i32>(2).unwrap_or(0);
    if size > 0 && is_layered(ctx.arg(0).unwrap_or(0)) {
        on_write(&ctx, size as u64)
    } else {
        0
    }
}

/// Is this a layer with a TCP socket below?
#[inline(always)]
fn is_layered(descriptor: u64) -> bool {
    // prio.h: struct PRFileDesc { const PRIOMethods *methods; PRFilePrivate *secret; PRFileDesc *lower, ...};
    // struct PRIOMethods { PRDescType file_type; ... };
    const LOWER: u64 = 16;
    const SOCKET_TCP: u32 = 2;
    const LAYERED: u32 = 4;
    let mut descriptor = descriptor;
    for layer in 0..LAYERS_MAX {
        let Some(methods) = user::<u64>(descriptor) else {
            return false;
        };
        match user::<u32>(methods) {
            Some(SOCKET_TCP) => return layer != 0,
            Some(LAYERED) => {}
            _ => return false,
        }
        match user::<u64>(descriptor + LOWER) {
            Some(lower) if lower != 0 => descriptor = lower,
            _ => return false,
        }
    }
    false
}

#[inline(always)]
fn user<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}
