//! Signals that are meant for the command and sent to us: whoever started us knows no other pid.
//!
//! What a terminal sends goes to the whole process group, so the command has it already; what somebody sends to our
//! pid reaches nobody else, and is passed on. A signal to the whole group by kill(2) cannot be told from one to our pid:
//! the command gets that twice. The two senders who surely reached it themselves are left out.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

/// The process that gets our signals; 0 for none.
static FORWARD_TO: AtomicI32 = AtomicI32::new(0);

/// Signals passed on, besides SIGTSTP, SIGCONT and the real-time ones: all that would end, stop or wake the command and that the
/// kernel does not raise for what this process itself does.
const PASSED_ON: [c_int; 12] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGWINCH,
];

/// What the kernel sends for a terminal.
const FROM_TERMINAL: [c_int; 6] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTSTP,
    libc::SIGWINCH,
    libc::SIGCONT,
];

/// From here on nobody gets our signals: the pid may be somebody else's.
pub(super) fn stop_forwarding() {
    FORWARD_TO.store(0, Ordering::SeqCst);
}

/// Passes on what is sent to this process. Called after the fork, so that the command keeps the dispositions we were
/// started with.
pub(super) fn forward_to(pid: c_int) {
    FORWARD_TO.store(pid, Ordering::SeqCst);
    // SAFETY: the handlers only make async-signal-safe calls; the structs are whole.
    unsafe {
        // Whoever started us ignoring SIGCHLD would have the kernel throw the command's exit status away.
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
    for signal in PASSED_ON
        .into_iter()
        .chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
    {
        handle(signal, pass_on);
    }
    handle(libc::SIGTSTP, stop);
    handle(libc::SIGCONT, go_on);
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

fn handle(signal: c_int, handler: Handler) {
    // SAFETY: the handlers only make async-signal-safe calls; the structs are whole.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        // What was ignored when we were started (nohup) stays ignored, here and in the command.
        if libc::sigaction(signal, ptr::null(), &mut old) == 0 && old.sa_sigaction == libc::SIG_IGN
        {
            return;
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(signal, &action, ptr::null_mut());
    }
}

extern "C" fn pass_on(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let pid = FORWARD_TO.load(Ordering::SeqCst);
    // SAFETY: the kernel gives a handler with SA_SIGINFO a whole siginfo_t; getpgid and the calls that send are
    // async-signal-safe; errno is put back as the interrupted code left it.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        if pid > 0 && !has_it(pid, signal, &*info) {
            send(pid, signal, &*info);
        }
        *errno = saved;
    }
}

/// The end of a stop. `stop` may not have come to put itself back yet: the next SIGTSTP would stop us alone.
extern "C" fn go_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    handle(libc::SIGTSTP, stop);
    pass_on(signal, info, context);
}

/// Ctrl-Z and `kill -TSTP`: the command stops, and so do we, as a shell's job of two processes does.
extern "C" fn stop(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    pass_on(signal, info, context);
    // SAFETY: async-signal-safe calls on whole structs of this frame; errno is put back.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        // By the signal's own default and not SIGSTOP: the kernel knows better when nobody is there to wake us (an
        // orphaned process group).
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        libc::sigemptyset(&mut default.sa_mask);
        let mut ours: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, &default, &mut ours);
        let (mut only, mut before): (libc::sigset_t, libc::sigset_t) =
            (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&mut only);
        libc::sigaddset(&mut only, signal);
        libc::raise(signal);
        // It stops here.
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &only, &mut before);
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        libc::sigaction(signal, &ours, ptr::null_mut());
        *errno = saved;
    }
}

/// Whether the command got the signal already.
///
/// # Safety
/// In a signal handler, of what it was given.
unsafe fn has_it(pid: c_int, signal: c_int, info: &libc::siginfo_t) -> bool {
    // SAFETY: getpgid is async-signal-safe; si_pid is set for the codes it is asked for.
    unsafe {
        let group = libc::getpgid(pid);
        if info.si_code > 0 {
            // The kernel's. From the terminal: to all of its foreground group. From a timer that ran when we were
            // started (`alarm` and exec): ours alone, as it would be the command's.
            return FROM_TERMINAL.contains(&signal) && group == libc::getpgid(0);
        }
        // The command's own doing (`kill 0` in a script), or that of a process in a group of the command's making.
        let sender = info.si_pid();
        sender == pid || (group != libc::getpgid(0) && libc::getpgid(sender) == group)
    }
}

/// # Safety
/// In a signal handler, of what it was given.
unsafe fn send(pid: c_int, signal: c_int, info: &libc::siginfo_t) {
    // SAFETY: both calls are async-signal-safe; si_value is set for SI_QUEUE.
    unsafe {
        if info.si_code == libc::SI_QUEUE {
            libc::sigqueue(pid, signal, info.si_value());
        } else {
            libc::kill(pid, signal);
        }
    }
}
