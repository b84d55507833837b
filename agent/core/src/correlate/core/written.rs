//! What was written to a file, a pipe or a terminal. Only what was seen in the bytes is reported: that a holder writes is no
//! news.

use super::send::{Outbound, Stream};
use super::{Core, attack};
use crate::correlate::tls::Link;
use crate::process::HoldingPlace;
use keytrail_model::event::Destination;
use keytrail_model::{
    Bound, Channel, DestinationMethod, FileFacts, Pid, PipeId, WriteSeen, WriteTarget,
};

/// Process and its program, credential, device and inode of what was written to.
pub(super) type Act = (Pid, u32, String, u64, u64);

impl Core {
    pub(super) fn on_write(&mut self, seen: &WriteSeen) {
        self.table.touch(&seen.at);
        let pid = seen.at.pid;
        let stream = Stream::Written(seen.target, seen.device, seen.inode);
        self.resolve_words(pid, stream, seen.payload.continues);
        if seen.payload.truncated && self.holds(pid) {
            self.dropped.add(Bound::Written, 1);
        }
        self.put_into_file(seen);
        self.put_into_opened(seen);
        if !seen.payload.hits.is_empty() {
            self.put_into(seen);
            self.sent(Outbound {
                at: seen.at.clone(),
                payload: seen.payload.clone(),
                link: Link {
                    ends: None,
                    method: DestinationMethod::Descriptor,
                },
                stream,
                direction: None,
                path: seen.path.clone(),
                hook: seen.hook.clone(),
            });
        }
    }

    /// Whoever reads from a nameless pipe gets what was seen to be written to it. A shell's own commands report their pipes when they
    /// end only, which may be after that.
    fn put_into(&mut self, seen: &WriteSeen) {
        if seen.target != WriteTarget::Pipe || !seen.path.is_empty() {
            return;
        }
        let pipe = PipeId {
            device: seen.device,
            inode: seen.inode,
        };
        self.pipes.add_writer(pipe, seen.at.pid);
        for hit in seen.payload.hits.iter().filter(|hit| hit.secret) {
            let fingerprint = &hit.credential.fingerprint;
            self.pass_on(seen.at.pid, Some(fingerprint), seen.at.boot_ns);
        }
    }

    /// Tells what a write carried: each credential once of a program and what it writes to.
    pub(super) fn claim_written(&mut self, outbound: &Outbound, (device, inode): (u64, u64)) {
        let pid = outbound.at.pid;
        let exec = self.table.get(pid).map_or(0, |p| p.exec);
        let channel = outbound.stream.channel();
        let path = match channel {
            Channel::Pipe if outbound.path.is_empty() => format!("pipe:[{inode}]"),
            _ => outbound.path.clone(),
        };
        let stdout_of = if channel == Channel::Pipe {
            self.stdout_of(pid, PipeId { device, inode })
        } else {
            String::new()
        };
        let hits = &outbound.payload.hits;
        let first = self.out.len();
        for hit in hits {
            let fingerprint = &hit.credential.fingerprint;
            let more = |other: &keytrail_model::Hit| {
                other.secret && other.credential.fingerprint == *fingerprint
            };
            if !hit.secret && hits.iter().any(more) {
                continue;
            }
            if channel == Channel::File && self.saves(pid, fingerprint, (device, inode), &path) {
                continue;
            }
            let act = (pid, exec, fingerprint.clone(), device, inode);
            if !self.written.first(act) {
                self.table
                    .count_unreported(pid, |unreported| unreported.sends += 1);
                continue;
            }
            let mut e = self.sent_event(outbound, hit, &[]);
            e.destination = Some(Destination {
                path: path.clone(),
                stdout_of: stdout_of.clone(),
                ..Destination::default()
            });
            // What looks like a request in a file was not asked of anybody.
            e.request = None;
            // Unsecured Credentials, in Files.
            e.attack = attack(&[if channel == Channel::File {
                "T1552.001"
            } else {
                "T1552"
            }]);
            if channel == Channel::File {
                self.report_written(e, (device, inode), pid);
            } else {
                self.emit(e);
            }
        }
        self.group(first);
    }

    /// The outermost process, from the writer up, that has the pipe as its standard output: a pipeline's own pipe is its
    /// writer's at most, that of a log was there before.
    fn stdout_of(&self, pid: Pid, pipe: PipeId) -> String {
        let line = self.table.line(pid);
        let has = |pid: &&Pid| {
            self.table
                .get(**pid)
                .is_some_and(|p| p.stdout == Some(pipe))
        };
        let outermost = line.iter().rfind(has);
        outermost.map_or_else(String::new, |pid| self.table.key(*pid))
    }

    /// Does the process write the credential back to where it has it from, as programs save their configuration?
    fn saves(&self, pid: Pid, fingerprint: &str, file: (u64, u64), path: &str) -> bool {
        self.table.get(pid).is_some_and(|proc| {
            proc.holdings
                .iter()
                .filter(|holding| holding.credential.fingerprint == fingerprint)
                .any(|holding| match &holding.place {
                    HoldingPlace::File(facts) => {
                        is_itself(file, path, facts) || replaces(path, facts)
                    }
                    _ => false,
                })
        })
    }
}

/// Is it the file that was read? By its name as well: the number of a file that is gone is given to the next one.
fn is_itself(file: (u64, u64), path: &str, facts: &FileFacts) -> bool {
    let name = |path: &str| path.rsplit('/').next().map(str::to_owned);
    (facts.device, facts.inode) == file && name(path) == name(&facts.path)
}

/// Is `path` the file itself, or one beside it that is going to be renamed to it: named after it (`config.lock`,
/// `.npmrc.4711`, `.npmrc.swp`), or as `sed -i` names its own?
fn replaces(path: &str, facts: &FileFacts) -> bool {
    let (Some((dir, name)), Some((its_dir, its_name))) =
        (path.rsplit_once('/'), facts.path.rsplit_once('/'))
    else {
        return false;
    };
    let stem = its_name.trim_start_matches('.');
    dir == its_dir
        && !stem.is_empty()
        && (name.contains(stem) || name.starts_with("sed") && name.len() == 9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::core::once::{MAX_REPORTED, Once};

    #[test]
    fn what_is_renamed_to_a_file_replaces_it() {
        let facts = FileFacts {
            path: "/root/.npmrc".to_owned(),
            ..FileFacts::default()
        };
        for path in [
            "/root/.npmrc",
            "/root/.npmrc.lock",
            "/root/npmrc.4711",
            "/root/sedAb12cD",
        ] {
            assert!(replaces(path, &facts), "{path}");
        }
        for path in ["/root/out.log", "/tmp/.npmrc", "/root/sedan", "", "x"] {
            assert!(!replaces(path, &facts), "{path}");
        }
    }

    #[test]
    fn acts_are_remembered_within_bounds() {
        let mut reported: Once<Act> = Once::default();
        let act = |inode| (Pid { tgid: 1, start: 1 }, 1, "kt1:a".to_owned(), 1, inode);
        assert!(reported.first(act(0)) && !reported.first(act(0)));
        for inode in 1..=MAX_REPORTED as u64 {
            assert!(reported.first(act(inode)));
        }
        assert_eq!(reported.len(), MAX_REPORTED);
        assert!(reported.first(act(0)), "forgotten, and reported again");
    }
}
