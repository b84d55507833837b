//! Which script an interpreter runs: the program, where the executable says little.

use std::path::{Component, Path, PathBuf};

/// Options of one interpreter that take the next argument as their value.
struct Interpreter {
    /// Beginning of the name of the executable; a version may follow.
    name: &'static str,
    /// Options whose value is a separate argument.
    valued: &'static [&'static str],
    /// Options after which the next argument is a module to run.
    module: &'static [&'static str],
    /// Options that bring the code itself.
    inline: &'static [&'static str],
}

const INTERPRETERS: &[Interpreter] = &[
    Interpreter {
        name: "python",
        valued: &["-W", "-X", "--check-hash-based-pycs"],
        module: &["-m"],
        inline: &["-c"],
    },
    Interpreter {
        name: "pypy",
        valued: &["-W", "-X"],
        module: &["-m"],
        inline: &["-c"],
    },
    Interpreter {
        name: "node",
        valued: &[
            "-r",
            "--require",
            "--import",
            "--loader",
            "-C",
            "--conditions",
        ],
        module: &[],
        inline: &["-e", "--eval", "-p", "--print", "-pe"],
    },
    Interpreter {
        name: "bun",
        valued: &["-r", "--preload", "--cwd", "-c", "--config"],
        module: &[],
        inline: &["-e", "--eval", "-p", "--print"],
    },
    Interpreter {
        name: "deno",
        valued: &["-c", "--config", "--import-map"],
        module: &[],
        inline: &["eval"],
    },
    Interpreter {
        name: "ruby",
        valued: &["-I", "-r", "-C", "-E"],
        module: &[],
        inline: &["-e"],
    },
    Interpreter {
        name: "perl",
        valued: &["-I"],
        module: &[],
        inline: &["-e", "-E"],
    },
    Interpreter {
        name: "php",
        valued: &["-c", "-d", "-z"],
        module: &[],
        inline: &["-r"],
    },
    Interpreter {
        name: "java",
        valued: &["-cp", "-classpath", "--class-path", "-p", "--module-path"],
        module: &["-m", "--module", "-jar"],
        inline: &[],
    },
    Interpreter {
        name: "bash",
        valued: &["-o", "+o", "-O", "+O", "--rcfile", "--init-file"],
        module: &[],
        inline: &["-c"],
    },
    Interpreter {
        name: "dash",
        valued: &["-o", "+o"],
        module: &[],
        inline: &["-c"],
    },
    Interpreter {
        name: "zsh",
        valued: &["-o", "+o"],
        module: &[],
        inline: &["-c"],
    },
    Interpreter {
        name: "busybox",
        valued: &[],
        module: &[],
        inline: &["-c"],
    },
    Interpreter {
        name: "sh",
        valued: &["-o", "+o"],
        module: &[],
        inline: &["-c"],
    },
];

/// The script or module `argv` has this executable run: a path (made absolute where `cwd` is known), `-m NAME` for a
/// module, `-c` for code in an argument. `None` when the executable is no interpreter, or runs none.
#[must_use]
pub fn script_of(executable: &str, argv: &[String], cwd: &str) -> Option<String> {
    let name = executable.rsplit('/').next()?;
    let interpreter = INTERPRETERS.iter().find(|i| is(i.name, name))?;
    let mut arguments = argv.iter().skip(1).map(String::as_str);
    // What a multi-call binary is called with is the name of the interpreter.
    if interpreter.name == "deno" || interpreter.name == "bun" {
        let mut peeked = arguments.clone();
        if matches!(peeked.next(), Some("run" | "x")) {
            arguments = peeked;
        }
    }
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            return arguments.next().map(|script| absolute(script, cwd));
        }
        if interpreter.inline.contains(&argument) || short_inline(interpreter, argument) {
            return Some("-c".to_owned());
        }
        if interpreter.module.contains(&argument) {
            let module = arguments.next()?;
            return Some(if argument == "-jar" {
                absolute(module, cwd)
            } else {
                format!("-m {module}")
            });
        }
        if interpreter.valued.contains(&argument) || bundled_option(interpreter, argument) {
            arguments.next();
            continue;
        }
        if argument == "-" || argument.is_empty() {
            return None;
        }
        if argument.starts_with('-') || argument.starts_with('+') {
            continue;
        }
        return Some(if interpreter.name == "java" {
            // The main class: no path.
            argument.to_owned()
        } else {
            absolute(argument, cwd)
        });
    }
    None
}

/// Whether an executable runs what somebody else wrote.
#[must_use]
pub fn is_interpreter(executable: &str) -> bool {
    let name = executable.rsplit('/').next().unwrap_or(executable);
    INTERPRETERS.iter().any(|i| is(i.name, name))
}

/// `-ec CODE` of a shell: the letters together.
fn short_inline(interpreter: &Interpreter, argument: &str) -> bool {
    is_shell(interpreter)
        && argument
            .strip_prefix('-')
            .is_some_and(|letters| !letters.starts_with('-') && letters.contains('c'))
}

/// `-euo pipefail`: the last of the letters takes a value.
fn bundled_option(interpreter: &Interpreter, argument: &str) -> bool {
    is_shell(interpreter)
        && argument
            .strip_prefix(['-', '+'])
            .is_some_and(|letters| !letters.starts_with('-') && letters.ends_with(['o', 'O']))
}

fn is_shell(interpreter: &Interpreter) -> bool {
    SHELLS.contains(&interpreter.name)
}

const SHELLS: [&str; 4] = ["sh", "bash", "dash", "zsh"];

/// Whether a file of this name is a shell.
pub(crate) fn is_shell_name(name: &str) -> bool {
    name == "fish" || SHELLS.iter().any(|shell| is(shell, name))
}

/// `python3.13` is python, `nodejs` is node, `shred` is no sh.
fn is(interpreter: &str, name: &str) -> bool {
    let Some(rest) = name.strip_prefix(interpreter) else {
        return false;
    };
    let version = rest
        .bytes()
        .all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
    version || (interpreter == "node" && rest == "js")
}

fn absolute(script: &str, cwd: &str) -> String {
    if script.starts_with('/') || !cwd.starts_with('/') {
        return script.to_owned();
    }
    let mut path = PathBuf::from(cwd);
    for component in Path::new(script).components() {
        match component {
            Component::CurDir => {}
            // By name only: links are not followed.
            Component::ParentDir => {
                path.pop();
            }
            other => path.push(other),
        }
    }
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(executable: &str, argv: &str) -> Option<String> {
        let argv: Vec<String> = argv.split(' ').map(str::to_owned).collect();
        script_of(executable, &argv, "/srv/app")
    }

    #[test]
    fn scripts_modules_and_code() {
        for (executable, argv, script) in [
            (
                "/usr/bin/python3.13",
                "python3 -u tools/../run.py --x",
                Some("/srv/app/run.py"),
            ),
            (
                "/usr/bin/python3.13",
                "python3 -m http.server 80",
                Some("-m http.server"),
            ),
            (
                "/usr/bin/python3.13",
                "python3 -W error -c print()",
                Some("-c"),
            ),
            (
                "/usr/bin/node",
                "node /usr/bin/npm install",
                Some("/usr/bin/npm"),
            ),
            (
                "/usr/bin/node",
                "node -r ./x.js main.js",
                Some("/srv/app/main.js"),
            ),
            ("/usr/bin/nodejs", "nodejs -e 1", Some("-c")),
            (
                "/usr/bin/bash",
                "bash -euo pipefail deploy.sh",
                Some("/srv/app/deploy.sh"),
            ),
            (
                "/usr/bin/bash",
                "bash -e -o pipefail deploy.sh",
                Some("/srv/app/deploy.sh"),
            ),
            ("/usr/bin/dash", "sh -ec id", Some("-c")),
            ("/usr/bin/bash", "bash", None),
            ("/usr/bin/bash", "bash -i", None),
            (
                "/opt/jdk/bin/java",
                "java -Xmx1g -jar app.jar",
                Some("/srv/app/app.jar"),
            ),
            (
                "/opt/jdk/bin/java",
                "java -cp a:b com.example.Main",
                Some("com.example.Main"),
            ),
            (
                "/usr/bin/bun",
                "bun run index.ts",
                Some("/srv/app/index.ts"),
            ),
            ("/usr/bin/shred", "shred x", None),
            ("/usr/bin/curl", "curl https://example.com", None),
        ] {
            assert_eq!(of(executable, argv).as_deref(), script, "{argv}");
        }
    }

    #[test]
    fn a_relative_script_stays_relative_where_the_directory_is_not_known() {
        let argv = ["ruby".to_owned(), "x.rb".to_owned()];
        assert_eq!(script_of("/usr/bin/ruby", &argv, ""), Some("x.rb".into()));
    }
}
