//! How much of what a process sends is captured. Beyond its budget a payload costs a few look-ups and is counted.

use crate::{
    connection::Connection,
    maps::{BUDGETS, field},
    record::{Counters, add},
};
use keytrail_abi::{
    Budget, Kind, PAYLOAD_MAX, PROC_KEYS,
    budget::{BUDGET_RECORD, BUDGET_SHIFT, passed},
    globals::field as f,
    state::counter,
};

/// What a payload is charged to.
#[derive(Clone, Copy)]
pub struct Charge {
    pub tgid: u32,
    pub state: u32,
    /// The kind of its record.
    pub kind: u16,
    pub bytes: u64,
    /// `bpf_ktime_get_boot_ns` of about now.
    pub now: u64,
}

/// The budget of a process; made if there is none.
#[inline(always)]
fn budget(tgid: u32) -> Option<*mut Budget> {
    if let Some(budget) = BUDGETS.get_ptr_mut(&tgid) {
        return Some(budget);
    }
    let _ = BUDGETS.insert(&tgid, &Budget::default(), 0);
    BUDGETS.get_ptr_mut(&tgid)
}

/// The limit a charge is subject to.
#[inline(always)]
fn limit(charge: &Charge, accepted: bool) -> (usize, u64) {
    let (which, limit) = if !accepted {
        (passed::PROCESS, f::LIMIT_PROCESS)
    } else if charge.state == PROC_KEYS {
        (passed::KEYS, f::LIMIT_KEYS)
    } else {
        (passed::ANSWERS, f::LIMIT_ANSWERS)
    };
    // Two constants by their values: the verifier must not see a choice of indices.
    let bytes = match limit {
        f::LIMIT_PROCESS => field(f::LIMIT_PROCESS),
        f::LIMIT_KEYS => field(f::LIMIT_KEYS),
        _ => field(f::LIMIT_ANSWERS),
    };
    (which, bytes as u64)
}

/// May the payload be captured? If not it is counted here. `connection` is null where it is not known.
#[inline(always)]
pub fn granted(charge: Charge, connection: *mut Connection) -> bool {
    // SAFETY: a live map value.
    let accepted = !connection.is_null() && unsafe { (*connection).accepted } == 1;
    granted_as(charge, connection, accepted)
}

/// The same where another than the connection tells whether this side accepted it.
#[inline(always)]
pub fn granted_as(charge: Charge, connection: *mut Connection, accepted: bool) -> bool {
    let Some(budget) = budget(charge.tgid) else {
        return true;
    };
    let window = charge.now >> BUDGET_SHIFT;
    // SAFETY: live map values. Two threads at once may each begin the window: one charge is forgotten.
    unsafe {
        let known = !connection.is_null();
        if (*budget).window != window {
            (*budget).window = window;
            (*budget).sent = 0;
            (*budget).answered = 0;
            (*budget).written = 0;
        }
        let spent = if accepted {
            &raw mut (*budget).answered
        } else {
            &raw mut (*budget).sent
        };
        let (which, most) = limit(&charge, accepted);
        if *spent >= most {
            pass_over(charge, which, budget, connection);
            return false;
        }
        let mut cost = charge.bytes;
        if cost > PAYLOAD_MAX as u64 {
            cost = PAYLOAD_MAX as u64;
        }
        cost += BUDGET_RECORD;
        if known && !accepted {
            if (*connection).window != window {
                (*connection).window = window;
                (*connection).spent = 0;
            }
            if (*connection).spent >= field(f::LIMIT_CONNECTION) as u64 {
                pass_over(charge, passed::CONNECTION, budget, connection);
                return false;
            }
            (*connection).spent += cost;
        }
        *spent += cost;
    }
    true
}

/// May a write to a file, a pipe or a terminal be captured? `Some` is how often such writes of the process were passed
/// over before; if not it is counted here.
#[inline(always)]
pub fn granted_write(charge: Charge) -> Option<u64> {
    let Some(budget) = budget(charge.tgid) else {
        return Some(0);
    };
    let window = charge.now >> BUDGET_SHIFT;
    // SAFETY: a live map value. Two threads at once may each begin the window: one charge is forgotten.
    unsafe {
        if (*budget).window != window {
            (*budget).window = window;
            (*budget).sent = 0;
            (*budget).answered = 0;
            (*budget).written = 0;
        }
        // A server that holds nothing but keys writes logs.
        let most = if charge.state == PROC_KEYS {
            field(f::LIMIT_KEYS)
        } else {
            field(f::LIMIT_WRITES)
        };
        if (*budget).written >= most as u64 {
            add(&raw mut (*budget).holes, 1);
            pass_over(charge, passed::WRITES, budget, core::ptr::null_mut());
            return None;
        }
        (*budget).written += charge.bytes + BUDGET_RECORD;
        Some((*budget).holes)
    }
}

/// Counts a payload that is not captured.
///
/// # Safety
/// Both must be live map values; `connection` may be null.
#[inline(always)]
unsafe fn pass_over(
    charge: Charge,
    which: usize,
    budget: *mut Budget,
    connection: *mut Connection,
) {
    // SAFETY: the caller's promise; `which` is one of passed's constants, below COUNT.
    unsafe {
        add((&raw mut (*budget).passed).cast::<u64>().add(which), 1);
        add(
            (&raw mut (*budget).bytes).cast::<u64>().add(which),
            charge.bytes,
        );
        if !connection.is_null() {
            (*connection).limit = which as u32;
            if charge.kind == Kind::TLS_WRITE {
                (*connection).session_hole = 1;
            } else {
                (*connection).hole = 1;
            }
        }
    }
    count(charge.kind, which);
}

/// Counts a payload for the whole host.
#[inline(always)]
pub fn count(kind: u16, which: usize) {
    let Some(counters) = Counters::get() else {
        return;
    };
    if which >= passed::COUNT {
        return;
    }
    match kind {
        Kind::TLS_WRITE => counters.add(counter::PASSED_TLS + which),
        Kind::UNIX_SEND => counters.add(counter::PASSED_UNIX + which),
        Kind::UDP_SEND => counters.add(counter::PASSED_UDP + which),
        Kind::FD_WRITE => counters.add(counter::PASSED_WRITES),
        _ => counters.add(counter::PASSED_SENDS + which),
    }
}

/// What a process answers is inspected anew: it has just met a credential.
#[inline(always)]
pub fn renew(tgid: u32) {
    if let Some(budget) = BUDGETS.get_ptr_mut(&tgid) {
        // SAFETY: a live map value, an aligned store.
        unsafe { (*budget).answered = 0 };
    }
}
