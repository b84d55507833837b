//! Programs that are many programs: what they do, the name says that they are called by. On Alpine `cat`, `sh` and `wget` are
//! all /bin/busybox; on Ubuntu since 25.10 most of the small ones are one file of uutils.

/// File names of the executables; a version or a variant may follow (`busybox.static`, `busybox-extras`).
const NAMES: &[&str] = &["busybox", "toybox", "coreutils"];

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether an executable is one of these.
#[must_use]
pub fn is_multicall(executable: &str) -> bool {
    let called = file_name(executable);
    NAMES.iter().any(|name| {
        let rest = called.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
    })
}

/// Which of its programs such an executable is, and its arguments from behind its name on. `None` for every other executable,
/// and where it was called by its own name and no program.
#[must_use]
pub fn applet<'a>(executable: &str, argv: &'a [String]) -> Option<(&'a str, &'a [String])> {
    if !is_multicall(executable) {
        return None;
    }
    let mut rest = argv;
    // `busybox wget`, and `busybox busybox wget`, which is the same.
    while let [called, arguments @ ..] = rest {
        // A shell that somebody logs in by is called `-sh`.
        let called = file_name(called.strip_prefix('-').unwrap_or(called));
        if !is_multicall(called) {
            return (!called.is_empty()).then_some((called, arguments));
        }
        if arguments.first().is_some_and(|a| a.starts_with('-')) {
            return None;
        }
        rest = arguments;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_the_program_that_it_was_called_as() {
        for (executable, argv, name, arguments) in [
            ("/bin/busybox", "cat /x", Some("cat"), 1),
            ("/bin/busybox", "/usr/bin/wget -q u", Some("wget"), 2),
            ("/bin/busybox", "busybox nc h 1", Some("nc"), 2),
            (
                "/bin/busybox.static",
                "busybox.static sh -c id",
                Some("sh"),
                2,
            ),
            ("/bin/busybox-extras", "telnet h", Some("telnet"), 1),
            ("/bin/busybox", "-sh", Some("sh"), 0),
            ("/bin/busybox", "busybox --list", None, 0),
            ("/bin/busybox", "busybox", None, 0),
            ("/usr/bin/toybox", "sed s/a/b/", Some("sed"), 1),
            (
                "/usr/lib/cargo/bin/coreutils",
                "base64 -w0",
                Some("base64"),
                1,
            ),
            ("/usr/bin/cat", "cat /x", None, 0),
            ("/usr/bin/busyboxes", "cat /x", None, 0),
        ] {
            let argv: Vec<String> = argv.split(' ').map(str::to_owned).collect();
            let found = applet(executable, &argv);
            assert_eq!(found.map(|(name, _)| name), name, "{argv:?}");
            assert_eq!(
                found.map_or(0, |(_, rest)| rest.len()),
                arguments,
                "{argv:?}"
            );
        }
        assert_eq!(applet("/bin/busybox", &[]), None);
    }
}
