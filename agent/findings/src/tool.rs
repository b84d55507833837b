//! Which installed program a process runs: who may choose any name for a program of his own cannot choose this.

use crate::facts::ProcessFacts;

/// Where packages of the system put their programs.
pub(crate) fn is_installed(executable: &str) -> bool {
    [
        "/usr/",
        "/opt/",
        "/bin/",
        "/sbin/",
        "/lib/",
        "/snap/",
        "/nix/store/",
        "/gnu/store/",
    ]
    .iter()
    .any(|place| executable.starts_with(place))
}

/// The file name of a program that is installed: of its script as well, where it has one.
pub(crate) fn tool_of<'a>(executable: &'a str, script: &'a str) -> Option<&'a str> {
    let installed = |path: &str| is_installed(path) && !path.contains("/../");
    let program = if script.is_empty() {
        executable
    } else {
        script
    };
    (installed(executable) && installed(program))
        .then(|| program.rsplit('/').next().unwrap_or(program))
}

/// The installed program that a process runs, and nothing else before it.
pub(crate) fn tool_run_by(p: &ProcessFacts) -> Option<&str> {
    let tool = tool_of(&p.executable, &p.script).filter(|_| !loads_other_code(p))?;
    // What it is called as may be anything; one that is many programs runs nothing else than one of them.
    Some(if p.script.is_empty() { p.name() } else { tool })
}

/// Options by which an interpreter runs something else before its script.
const LOADING: &[&str] = &[
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "--preload",
    "-M",
];

/// Whether an interpreter was told to run something else in front of its script.
fn loads_other_code(p: &ProcessFacts) -> bool {
    if p.script.is_empty() {
        return false;
    }
    let called = p.script.rsplit('/').next().unwrap_or(&p.script);
    let options = p.argv.iter().skip(1);
    options
        .take_while(|argument| !argument.ends_with(called))
        .any(|argument| LOADING.iter().any(|option| argument.starts_with(option)))
}
