//! The little the sensor asks /proc about single processes.

use std::fs;

/// What is known of a process that a record is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Start of the thread group leader in clock ticks (1/100 s) since boot.
    pub start_ticks: u64,
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub comm: [u8; 16],
}

/// Whether there is such a process, be it a dead one that nobody has waited for.
pub fn exists(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok()
}

/// Reads a process's identity; `None` when it is gone.
pub fn identity(pid: u32) -> Option<Identity> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let (comm, rest) = split_stat(&stat)?;
    let mut identity = Identity {
        // Field 22 of the line; `rest` begins with field 3.
        start_ticks: rest.split(' ').nth(19)?.parse().ok()?,
        ..Identity::default()
    };
    let len = comm.len().min(15);
    identity.comm[..len].copy_from_slice(&comm[..len]);
    if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
        let ids = |name: &str, n: usize| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().nth(n)?.parse().ok()
        };
        identity.uid = ids("Uid:", 0).unwrap_or_default();
        identity.euid = ids("Uid:", 1).unwrap_or_default();
        identity.gid = ids("Gid:", 0).unwrap_or_default();
    }
    Some(identity)
}

/// Splits a stat line behind the name, which may hold spaces and parentheses itself.
pub fn split_stat(stat: &[u8]) -> Option<(&[u8], &str)> {
    let open = memchr::memchr(b'(', stat)?;
    let close = memchr::memrchr(b')', stat)?;
    let comm = stat.get(open + 1..close)?;
    let rest = std::str::from_utf8(stat.get(close + 2..)?).ok()?;
    Some((comm, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_rest_of_the_line() {
        let (comm, rest) = split_stat(b"12 (a) b (c)) S 1 12 12\n").unwrap();
        assert_eq!(comm, b"a) b (c)");
        assert!(rest.starts_with("S 1 "));
        assert_eq!(split_stat(b"12 (unterminated"), None);
        assert_eq!(split_stat(b"12 )("), None);
        assert_eq!(split_stat(b"12 (a)"), None);
    }

    #[test]
    fn the_own_process_is_found() {
        let me = identity(std::process::id()).unwrap();
        assert!(me.start_ticks > 0);
        assert_eq!(identity(u32::MAX), None);
    }
}
