//! An inventory may take its time; what the host is there for may not wait for it.

/// `IOPRIO_WHO_PROCESS` and `IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT`, from linux/ioprio.h.
const WHO_PROCESS: libc::c_int = 1;
const IDLE: libc::c_int = 3 << 13;
/// Niceness of the workers.
const NICE: i32 = 10;

/// Puts the calling thread last in line for the disk and behind others for the CPU. Where the kernel refuses, the walk
/// goes on as it is.
pub fn lower_this_thread() {
    // SAFETY: ioprio_set takes three integers and touches no memory of ours; 0 names the calling thread.
    unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, IDLE) };
    // On Linux a nice value belongs to a thread, whatever POSIX says.
    let _ = rustix::process::setpriority_process(None, NICE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_is_lowered() {
        let before = rustix::process::getpriority_process(None).unwrap();
        let (nice, io) = std::thread::spawn(|| {
            lower_this_thread();
            // SAFETY: ioprio_get takes two integers and touches no memory of ours.
            let io = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) };
            (rustix::process::getpriority_process(None).unwrap(), io)
        })
        .join()
        .unwrap();
        assert_eq!(io, i64::from(IDLE));
        assert!(nice >= NICE.max(before));
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }
}
