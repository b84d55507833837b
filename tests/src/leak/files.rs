//! Files and directories.

use super::{PIECE, Pieces, Scanner};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// What was searched and found.
#[derive(Debug, Default)]
pub struct FileReport {
    pub files: usize,
    pub bytes: u64,
    pub found: BTreeSet<String>,
}

impl Scanner {
    /// Searches files and directories with all below them; names too. `leave` names what is not searched: where
    /// the test itself has planted.
    pub fn files(&self, places: &[PathBuf], leave: &[PathBuf]) -> FileReport {
        let mut report = FileReport::default();
        for place in places {
            self.walk(place, leave, &mut report);
        }
        report
    }

    fn walk(&self, path: &Path, leave: &[PathBuf], report: &mut FileReport) {
        if leave.iter().any(|l| l == path) {
            return;
        }
        let name = path.display().to_string();
        self.find(name.as_bytes(), &mut report.found, "a file name");
        let kind = match fs::symlink_metadata(path) {
            Ok(facts) => facts.file_type(),
            // A journal of a database is there for as long as a change to it takes.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => panic!("{name}: {error}"),
        };
        if kind.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                self.walk(&entry.unwrap().path(), leave, report);
            }
        } else if kind.is_file() {
            report.files += 1;
            let mut file = match fs::File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) => panic!("{name}: {error}"),
            };
            let mut pieces = Pieces::new(self);
            let mut buffer = vec![0; PIECE];
            loop {
                let count = file.read(&mut buffer).unwrap();
                if count == 0 {
                    break;
                }
                report.bytes += count as u64;
                pieces.feed(&buffer[..count], &mut report.found, &name);
            }
        }
    }
}
