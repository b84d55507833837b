//! What lies on the host (or below a directory): the inventory, and the times of the files that hold something.

use super::signals::Signals;
use super::work::{End, Work};
use super::{CaptureArgs, say};
use crate::output::inventory::write_document;
use keytrail_inventory::model::{FileLocation, Location};
use keytrail_inventory::run::{self, Document, Options, RunError};
use keytrail_inventory::walk::Report;
use keytrail_secret::{Classifier, Fingerprinter};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub const INVENTORY: &str = "inventory.json";
pub const BODYFILE: &str = "bodyfile.txt";
/// Longest walk.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// How often it is looked whether it is to end, and how often the user hears of it.
const POLL: Duration = Duration::from_millis(100);
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
const THREADS: usize = 2;
/// Age from which a credential is too old, as `keytrail inventory` has it when nobody says.
const MAX_AGE: i64 = 90 * 86_400;

pub fn take(args: &CaptureArgs, rules: &Path, signals: &Signals, work: &Work, end: &mut End) {
    say(&"looking for what lies here");
    if let Err(e) = walk(args, rules, signals, work, end) {
        end.partial(format!("there is no inventory: {e}"));
    }
}

/// Why it is not known what lies there.
#[derive(Debug, thiserror::Error)]
enum WalkError {
    #[error(transparent)]
    Run(#[from] RunError),
    /// The fingerprint key, or the directory for one.
    #[error("{}: {}", .0.display(), .1)]
    Key(PathBuf, io::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn walk(
    args: &CaptureArgs,
    rules: &Path,
    signals: &Signals,
    work: &Work,
    end: &mut End,
) -> Result<(), WalkError> {
    let fingerprinter = fingerprinter(args, work)?;
    end.key = fingerprinter.key_name();
    let (classifier, bad) = if rules.is_dir() {
        Classifier::with_rules_dir(rules)
    } else {
        (Classifier::builtin(), Vec::new())
    };
    for rule in bad {
        end.error(format!("rule refused: {rule}"));
    }
    let root = args.root.as_ref().unwrap_or(&args.walk);
    let options = Options {
        root: root.clone(),
        processes: args.root.is_none(),
        containers: root == Path::new("/") && rustix::process::geteuid().is_root(),
        all_filesystems: false,
        threads: THREADS,
        max_age: MAX_AGE,
        state_dir: Some(work.dir().to_owned()),
    };
    let report = Report::default();
    let document = bounded(&report, signals, end, || {
        run::take(&options, &classifier, &fingerprinter, &report)
    })?;
    end.footprint.files_read = report.classified.load(Ordering::Relaxed);
    if !rustix::process::geteuid().is_root() {
        end.error("access times of files of other users are as after this capture: only root can leave them alone");
    }
    let shown: Vec<_> = document.entries.iter().collect();
    let mut file = work.create(INVENTORY)?;
    write_document(&mut file, &document, &report, &shown)?;
    file.flush()?;
    let mut file = work.create(BODYFILE)?;
    bodyfile(&mut file, &document)?;
    file.flush()?;
    Ok(())
}

/// The key the events were made with, or the one that was given.
fn fingerprinter(args: &CaptureArgs, work: &Work) -> Result<Fingerprinter, WalkError> {
    if let Some(file) = &args.key {
        return Fingerprinter::load(file).map_err(|e| WalkError::Key(file.clone(), e));
    }
    let dir: PathBuf = work.path("state");
    fs::create_dir_all(&dir).map_err(|e| WalkError::Key(dir.clone(), e))?;
    Ok(Fingerprinter::load_or_create(&dir.join("fingerprint.key"))?)
}

/// Ends the walk when its time is up or another signal comes.
fn bounded<T>(report: &Report, signals: &Signals, end: &mut End, work: impl FnOnce() -> T) -> T {
    let (done, wait) = mpsc::channel::<()>();
    let before = signals.count();
    std::thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let (begun, mut reported) = (Instant::now(), Instant::now());
            let mut why = None;
            while wait.recv_timeout(POLL) == Err(mpsc::RecvTimeoutError::Timeout) {
                if signals.count() > before {
                    why = Some("a signal ended the inventory before it was whole");
                } else if begun.elapsed() > LONGEST {
                    why = Some("the inventory took too long and is not whole");
                }
                if why.is_some() {
                    report.stop.store(true, Ordering::Relaxed);
                }
                if reported.elapsed() >= REPORT_INTERVAL {
                    reported = Instant::now();
                    say(&format_args!(
                        "{} files",
                        report.files.load(Ordering::Relaxed)
                    ));
                }
            }
            why
        });
        let result = work();
        drop(done);
        if let Ok(Some(why)) = watch.join() {
            end.partial(why);
        }
        result
    })
}

/// The body file of The Sleuth Kit 3 (<https://wiki.sleuthkit.org/index.php?title=Body_file>): one line a file that holds
/// a credential. No MD5: of a file that is nothing but a secret it would be a hash of that secret which anybody can try.
fn bodyfile(out: &mut impl Write, document: &Document) -> io::Result<()> {
    let mut lines = BTreeSet::new();
    for place in document.entries.iter().flat_map(|e| &e.places) {
        if let Location::File(file) = place {
            lines.insert(line(file));
        }
    }
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// `MD5|name|inode|mode_as_string|UID|GID|size|atime|mtime|ctime|crtime`.
fn line(file: &FileLocation) -> String {
    // What would be the next field, or the next line.
    let name = file.path.replace('|', "\\x7c");
    let name = match file.container.as_str() {
        "" => name,
        container => format!("{name} (container {container})"),
    };
    let times = file.times.as_deref().copied().unwrap_or_default();
    format!(
        "0|{name}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
        file.inode,
        mode(file.mode),
        file.uid,
        file.gid,
        file.size,
        times.accessed,
        file.modified,
        times.changed,
        times.born,
    )
}

/// `r/rrw-r--r--`: a regular file by its name and by its inode.
fn mode(bits: u32) -> String {
    let mut out = "r/r".to_owned();
    for (n, letter) in "rwxrwxrwx".chars().enumerate() {
        let set = bits & (0o400 >> n) != 0;
        // Set-user-id, set-group-id and sticky stand where execution does.
        let special = match n {
            2 if bits & 0o4000 != 0 => Some('s'),
            5 if bits & 0o2000 != 0 => Some('s'),
            8 if bits & 0o1000 != 0 => Some('t'),
            _ => None,
        };
        out.push(match (special, set) {
            (Some(special), true) => special,
            (Some(special), false) => special.to_ascii_uppercase(),
            (None, true) => letter,
            (None, false) => '-',
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_inventory::model::Times;

    #[test]
    fn lines_have_eleven_fields_whatever_the_name_is() {
        let file = FileLocation {
            path: "/home/a|b/.netrc".to_owned(),
            inode: 12,
            mode: 0o600,
            uid: 1000,
            gid: 100,
            size: 42,
            modified: 20,
            times: Some(Box::new(Times {
                accessed: 10,
                changed: 30,
                born: 5,
            })),
            ..FileLocation::default()
        };
        let text = line(&file);
        assert_eq!(
            text,
            "0|/home/a\\x7cb/.netrc|12|r/rrw-------|1000|100|42|10|20|30|5"
        );
        assert_eq!(text.split('|').count(), 11);
    }

    #[test]
    fn modes_as_ls_shows_them() {
        assert_eq!(mode(0o644), "r/rrw-r--r--");
        assert_eq!(mode(0o4755), "r/rrwsr-xr-x");
        assert_eq!(mode(0o2640), "r/rrw-r-S---");
        assert_eq!(mode(0o1777), "r/rrwxrwxrwt");
    }
}
