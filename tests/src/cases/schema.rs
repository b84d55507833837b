//! The schema by `buf`, as those who build clients of it would check it.

use super::tls_programs::installed;
use crate::{
    command::{Done, act},
    machine::Scratch,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn proto() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto")
}

fn buf(dir: &Path, words: &[&str]) -> Done {
    act(installed("python/bin/buf"))
        .args(words)
        .current_dir(dir)
        .run()
}

/// `proto/v1.binpb` is what clients rely on: an image of the schema, made by `buf build --exclude-source-info` and replaced when
/// the schema has grown.
fn breaking(dir: &Path) -> Done {
    let image = proto().join("v1.binpb").canonicalize().unwrap();
    buf(dir, &["breaking", "--against", image.to_str().unwrap()])
}

/// A copy of the schema in which `from` is `to`.
fn changed(scratch: &Scratch, from: &str, to: &str) -> PathBuf {
    let dir = scratch.path().join("proto");
    let there = dir.join("keytrail/v1");
    fs::create_dir_all(&there).unwrap();
    fs::copy(proto().join("buf.yaml"), dir.join("buf.yaml")).unwrap();
    for entry in fs::read_dir(proto().join("keytrail/v1")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(
            there.join(path.file_name().unwrap()),
            text.replace(from, to),
        )
        .unwrap();
    }
    dir
}

/// It has the standard style, and a value that is called otherwise is refused.
pub fn the_standard_style() {
    buf(&proto(), &["lint"]).ok();
    let scratch = Scratch::new();
    let dir = changed(&scratch, "SIGNAL_ANSWER = 22", "ANSWER = 22");
    let refused = buf(&dir, &["lint"]);
    assert_ne!(refused.code(), 0);
    assert!(
        refused.stdout_text().contains("SIGNAL_"),
        "{}",
        refused.stdout_text()
    );
}

/// What clients rely on is there, and a value that goes, or has another number, is refused.
pub fn nothing_breaks_clients() {
    breaking(&proto()).ok();
    for (which, to) in [("gone", ""), ("renumbered", "SIGNAL_ANSWER = 99;")] {
        let scratch = Scratch::new();
        let dir = changed(&scratch, "SIGNAL_ANSWER = 22;", to);
        let refused = breaking(&dir);
        assert_ne!(refused.code(), 0, "{which}");
        assert!(
            refused.stdout_text().contains("22"),
            "{which}: {}",
            refused.stdout_text()
        );
    }
}
