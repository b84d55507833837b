//! Benchmark load: a build as `make` does it. C files with shared headers are compiled by gcc, as many at a time as there
//! are processors, then archived; prints nanoseconds per file, and those of all its processes' time.
//!
//! `bench_compile DIRECTORY FILES`. Each file is four processes (gcc, cc1, as and a shell, as make starts one), some
//! hundred files read and an assembler file and an object written.

use keytrail_tests::load::{Spent, Whose};
use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// Headers of the project; each file includes all of them.
const HEADERS: u32 = 30;
/// Functions in a file.
const FUNCTIONS: u32 = 6;

/// A header with types, constants and a function to inline.
fn header(number: u32) -> String {
    let mut text =
        format!("#ifndef PART_{number}_H\n#define PART_{number}_H\n#include <stddef.h>\n");
    for field in 0..20 {
        let _ = writeln!(
            text,
            "#define PART_{number}_LIMIT_{field} {}",
            field * 7 + number
        );
    }
    let _ = writeln!(
        text,
        "struct part_{number} {{ size_t length; int values[16]; const char *name; }};\n\
         static inline int part_{number}_sum(const struct part_{number} *part) {{\n\
         \tint sum = 0;\n\tfor (size_t i = 0; i < 16; i++) sum += part->values[i] * PART_{number}_LIMIT_3;\n\
         \treturn sum;\n}}\n#endif"
    );
    text
}

fn source(number: u32) -> String {
    let mut text = String::from(
        "#include <errno.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n",
    );
    for header in 0..HEADERS {
        let _ = writeln!(text, "#include \"part_{header}.h\"");
    }
    for function in 0..FUNCTIONS {
        let part = (number + function) % HEADERS;
        let _ = writeln!(
            text,
            "/* Reads a line, and counts what is in it. */\n\
             int unit_{number}_{function}(struct part_{part} *part, FILE *file) {{\n\
             \tchar line[256];\n\tint count = part_{part}_sum(part);\n\
             \twhile (fgets(line, sizeof line, file)) {{\n\
             \t\tchar *rest = NULL;\n\
             \t\tfor (char *word = strtok_r(line, \" \\t\", &rest); word; word = strtok_r(NULL, \" \\t\", &rest)) {{\n\
             \t\t\tlong value = strtol(word, NULL, {base});\n\
             \t\t\tif (errno == ERANGE || value < 0) continue;\n\
             \t\t\tpart->values[value % 16] += (int)(value % PART_{part}_LIMIT_{limit}) + 1;\n\
             \t\t\tcount += snprintf(line, sizeof line, \"%ld:%s\", value, part->name);\n\
             \t\t}}\n\t}}\n\treturn count;\n}}",
            base = 8 + 2 * (function % 5),
            limit = 4 + function,
        );
    }
    text
}

/// The project, written once: all runs compile the same.
fn prepare(dir: &Path, files: u32) -> io::Result<()> {
    let ready = dir.join("ready");
    if ready.exists() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    for number in 0..HEADERS {
        fs::write(dir.join(format!("part_{number}.h")), header(number))?;
    }
    for number in 0..files {
        fs::write(dir.join(format!("unit_{number}.c")), source(number))?;
    }
    fs::write(ready, "")
}

fn ran(command: &mut Command) -> io::Result<()> {
    let status = command.stdin(Stdio::null()).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{command:?}: {status}")))
    }
}

/// A recipe of a makefile, with an environment as a build has it.
fn recipe(dir: &Path, script: &str) -> io::Result<()> {
    let mut command = Command::new("/bin/sh");
    command.args(["-ec", script]).current_dir(dir);
    for number in 0..20 {
        command.env(
            format!("BUILD_SETTING_{number}"),
            "/usr/share/some/ordinary/directory:and-another",
        );
    }
    ran(&mut command)
}

fn build(dir: &Path, files: u32) -> io::Result<()> {
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let next = AtomicU32::new(0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= files {
                            return Ok(());
                        }
                        // A second command keeps the shell from becoming the compiler.
                        let unit = format!("unit_{number}");
                        recipe(dir, &format!("gcc -O1 -g -I. -c {unit}.c -o {unit}.o; :"))?;
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| match worker.join() {
                Ok(result) => result,
                Err(_) => Err(io::Error::other("a worker panicked")),
            })
    })?;
    recipe(dir, "rm -f all.a; ar rc all.a *.o; rm -f *.o")
}

fn run(dir: &Path, files: u32) -> io::Result<Spent> {
    prepare(dir, files)?;
    // The compiler gets into the page cache, and into what the agent remembers.
    build(dir, files.min(8))?;
    let started = Spent::now(Whose::Family)?;
    build(dir, files)?;
    started.until_now(files)
}

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let dir = args.next();
    let files = args
        .next()
        .and_then(|text| text.to_str()?.parse::<u32>().ok());
    let (Some(dir), Some(files)) = (dir, files.filter(|&files| files > 0)) else {
        eprintln!("usage: bench_compile DIRECTORY FILES");
        return ExitCode::from(2);
    };
    match run(Path::new(&dir), files) {
        Ok(spent) => {
            println!("{spent}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench_compile: {error}");
            ExitCode::FAILURE
        }
    }
}
