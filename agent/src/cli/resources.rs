//! Whether this process may have what it cannot do without, asked before anything is tried: libraries panic over it.

use rustix::process::{Resource, getrlimit};

/// Open files without which no command gets through, and without which nothing can be seen: some fifty maps and programs
/// of the kernel side are a file each.
const FILES: u64 = 16;
const FILES_TO_SEE: u64 = 128;

/// One sentence that says what there is too little of; `None` when there is enough.
pub(super) fn missing(sees: bool) -> Option<String> {
    lacking(getrlimit(Resource::Nofile).current, sees)
}

fn lacking(files: Option<u64>, sees: bool) -> Option<String> {
    let least = if sees { FILES_TO_SEE } else { FILES };
    let files = files.filter(|files| *files < least)?;
    Some(format!(
        "this process may have {files} open files and needs {least} at least: raise `ulimit -n` (LimitNOFILE= of a unit)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_too_few_are_refused() {
        for (files, sees, refused) in [
            (Some(8), false, true),
            (Some(16), false, false),
            (Some(127), true, true),
            (Some(128), true, false),
            (None, true, false),
        ] {
            assert_eq!(lacking(files, sees).is_some(), refused, "{files:?}");
        }
    }
}
