//! Which script an interpreter runs: the program, where the executable says little.

mod letters;

use crate::multicall::{applet, is_multicall};
use letters::{Bundle, LUA, Letters, NONE, PYTHON};
use std::path::{Component, Path, PathBuf};

/// What stands for code in an argument, where a script would be named: the code itself may hold secrets, and is another each
/// time.
pub const INLINE: &str = "-c";

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
    /// Options of one letter, which may stand together.
    letters: Letters,
}

const INTERPRETERS: &[Interpreter] = &[
    Interpreter {
        name: "python",
        valued: &["-W", "-X", "--check-hash-based-pycs"],
        module: &["-m"],
        inline: &["-c"],
        letters: PYTHON,
    },
    Interpreter {
        name: "pypy",
        valued: &["-W", "-X"],
        module: &["-m"],
        inline: &["-c"],
        letters: PYTHON,
    },
    Interpreter {
        name: "node",
        valued: &[
            "-r",
            "--require",
            "--import",
            "--loader",
            "--experimental-loader",
            "--input-type",
            "--env-file",
            "-C",
            "--conditions",
        ],
        module: &[],
        inline: &["-e", "--eval", "-p", "--print", "-pe"],
        letters: NONE,
    },
    Interpreter {
        name: "bun",
        valued: &["-r", "--preload", "--cwd", "-c", "--config"],
        module: &[],
        inline: &["-e", "--eval", "-p", "--print"],
        letters: NONE,
    },
    Interpreter {
        name: "deno",
        valued: &["-c", "--config", "--import-map"],
        module: &[],
        inline: &["eval"],
        letters: NONE,
    },
    Interpreter {
        name: "ruby",
        valued: &["-I", "-r", "-C", "-E"],
        module: &[],
        inline: &["-e"],
        letters: Letters {
            code: "e",
            module: "",
            value: "IrCE",
            rest: "iFxKTW",
        },
    },
    Interpreter {
        name: "perl",
        valued: &["-I"],
        module: &[],
        inline: &["-e", "-E"],
        letters: Letters {
            code: "eE",
            module: "",
            value: "I",
            rest: "iFxmMdV",
        },
    },
    Interpreter {
        name: "php",
        valued: &["-c", "-d", "-z", "-S", "-t", "--define", "--docroot"],
        module: &[],
        inline: &[
            "-r",
            "-B",
            "-R",
            "-E",
            "--run",
            "--process-begin",
            "--process-code",
            "--process-end",
        ],
        letters: Letters {
            code: "rBRE",
            module: "",
            value: "cdzSt",
            rest: "",
        },
    },
    Interpreter {
        name: "lua",
        valued: &["-l"],
        module: &[],
        inline: &["-e"],
        letters: LUA,
    },
    Interpreter {
        name: "luajit",
        valued: &["-l"],
        module: &[],
        inline: &["-e"],
        letters: LUA,
    },
    Interpreter {
        name: "java",
        valued: &["-cp", "-classpath", "--class-path", "-p", "--module-path"],
        module: &["-m", "--module", "-jar"],
        inline: &[],
        letters: NONE,
    },
    Interpreter {
        name: "bash",
        valued: &["-o", "+o", "-O", "+O", "--rcfile", "--init-file"],
        module: &[],
        inline: &["-c"],
        letters: NONE,
    },
    Interpreter {
        name: "dash",
        valued: &["-o", "+o"],
        module: &[],
        inline: &["-c"],
        letters: NONE,
    },
    Interpreter {
        name: "zsh",
        valued: &["-o", "+o"],
        module: &[],
        inline: &["-c"],
        letters: NONE,
    },
    Interpreter {
        name: "sh",
        valued: &["-o", "+o"],
        module: &[],
        inline: &["-c"],
        letters: NONE,
    },
];

/// The script or module `argv` has this executable run: a path (made absolute where `cwd` is known), `-m NAME` for a
/// module, [`INLINE`] for code in an argument. `None` when the executable is no interpreter, or runs none.
#[must_use]
pub fn script_of(executable: &str, argv: &[String], cwd: &str) -> Option<String> {
    let (name, arguments) = called(executable, argv);
    let Some(interpreter) = INTERPRETERS.iter().find(|i| is(i.name, name)) else {
        return script_of_awk(name, arguments, cwd);
    };
    let mut arguments = arguments.iter().map(String::as_str);
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
        let option = match argument.split_once('=') {
            Some((option, _)) if option.starts_with("--") => option,
            _ => argument,
        };
        if interpreter.inline.contains(&option) || short_inline(interpreter, argument) {
            return Some(INLINE.to_owned());
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
        match interpreter.letters.of(argument) {
            Bundle::Code => return Some(INLINE.to_owned()),
            Bundle::Module("") => return Some(format!("-m {}", arguments.next()?)),
            Bundle::Module(module) => return Some(format!("-m {module}")),
            Bundle::Value => {
                arguments.next();
                continue;
            }
            Bundle::Nothing => {}
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

/// The name of the interpreter, and its arguments. What a multi-call binary is called as is the interpreter.
fn called<'a>(executable: &'a str, argv: &'a [String]) -> (&'a str, &'a [String]) {
    match applet(executable, argv) {
        Some((name, arguments)) if is_small_shell(name) => ("sh", arguments),
        Some(called) => called,
        None => {
            let name = executable.rsplit('/').next().unwrap_or(executable);
            (name, argv.get(1..).unwrap_or_default())
        }
    }
}

/// A program of awk stands in an argument as a rule, and then the executable says as much; only one in a file is a script.
fn script_of_awk(name: &str, arguments: &[String], cwd: &str) -> Option<String> {
    if !["awk", "gawk", "mawk", "original-awk"].contains(&name) {
        return None;
    }
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        let file = match argument {
            "-f" | "--file" => arguments.next()?,
            "-v" | "-F" => {
                arguments.next();
                continue;
            }
            _ => match (
                argument.strip_prefix("--file="),
                argument.strip_prefix("-f"),
            ) {
                (Some(file), _) | (None, Some(file)) => file,
                _ if argument.starts_with('-') => continue,
                _ => return None,
            },
        };
        return Some(absolute(file, cwd));
    }
    None
}

/// Whether an executable runs what somebody else wrote.
#[must_use]
pub fn is_interpreter(executable: &str) -> bool {
    let name = executable.rsplit('/').next().unwrap_or(executable);
    is_multicall(executable) || INTERPRETERS.iter().any(|i| is(i.name, name))
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

/// The shells of multi-call binaries.
fn is_small_shell(name: &str) -> bool {
    matches!(name, "ash" | "hush" | "lash")
}

/// Whether a file of this name is a shell.
pub(crate) fn is_shell_name(name: &str) -> bool {
    name == "fish" || is_small_shell(name) || SHELLS.iter().any(|shell| is(shell, name))
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

/// A path from the root on, where the directory that it is seen from is known.
#[must_use]
pub fn absolute(script: &str, cwd: &str) -> String {
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
            ("/usr/bin/node", "node --eval=1", Some("-c")),
            ("/usr/bin/node", "node -pe 1 x.js", Some("-c")),
            (
                "/usr/bin/node",
                "node --input-type module x.js",
                Some("/srv/app/x.js"),
            ),
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
            ("/bin/busybox", "sh run.sh", Some("/srv/app/run.sh")),
            ("/bin/busybox", "busybox ash -c id", Some("-c")),
            ("/bin/busybox", "awk -f x.awk y", Some("/srv/app/x.awk")),
            // What it reads or fetches is no script of its own.
            ("/bin/busybox", "cat /root/.ssh/id_rsa", None),
            ("/bin/busybox", "busybox wget -q https://x/", None),
            ("/usr/bin/curl", "curl https://example.com", None),
        ] {
            assert_eq!(of(executable, argv).as_deref(), script, "{argv}");
        }
    }

    /// Code is neither a path nor reported: it may hold secrets.
    #[test]
    fn letters_that_stand_together() {
        for (executable, argv, script) in [
            ("/usr/bin/perl", "perl -ne print", Some("-c")),
            ("/usr/bin/perl", "perl -i.bak -pe s/a/b/ x", Some("-c")),
            ("/usr/bin/perl", "perl -i -pe s/A=0/A=1/ .env", Some("-c")),
            ("/usr/bin/perl", "perl -F: -lanE say", Some("-c")),
            ("/usr/bin/perl", "perl -0777 -l012ne 1 x", Some("-c")),
            ("/usr/bin/perl", "perl -CSDne 1 x", Some("-c")),
            ("/usr/bin/perl", "perl -MSome::Else -e1", Some("-c")),
            ("/usr/bin/perl", "perl -wI lib x.pl", Some("/srv/app/x.pl")),
            ("/usr/bin/perl", "perl -MMore x.pl", Some("/srv/app/x.pl")),
            // A copy that is called e, and no code.
            ("/usr/bin/perl", "perl -ie x.pl", Some("/srv/app/x.pl")),
            ("/usr/bin/ruby", "ruby -lane puts", Some("-c")),
            ("/usr/bin/ruby", "ruby -rjson -ne puts x", Some("-c")),
            ("/usr/bin/ruby", "ruby -Eutf-8 x.rb", Some("/srv/app/x.rb")),
            ("/usr/bin/python3", "python3 -Ic 1", Some("-c")),
            ("/usr/bin/python3", "python3 -Im pip x", Some("-m pip")),
            ("/usr/bin/python3", "python3 -mpip x", Some("-m pip")),
            (
                "/usr/bin/python3",
                "python3 -Wd x.py",
                Some("/srv/app/x.py"),
            ),
            ("/usr/bin/php", "php -recho", Some("-c")),
            ("/usr/bin/php8.2", "php8.2 -d a=b -r 1", Some("-c")),
            ("/usr/bin/php", "php -da=b x.php", Some("/srv/app/x.php")),
            ("/usr/bin/lua5.4", "lua5.4 -e 1", Some("-c")),
            ("/usr/bin/lua", "lua -lx -eprint()", Some("-c")),
            ("/usr/bin/lua", "lua -l x y.lua", Some("/srv/app/y.lua")),
            ("/usr/bin/mawk", "awk -F : {print}/x /etc/passwd", None),
            (
                "/usr/bin/mawk",
                "awk -v a=b -f x.awk y",
                Some("/srv/app/x.awk"),
            ),
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
