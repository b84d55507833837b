//! The vm part: the same test programs, in a kernel booted for them.

use super::{
    matrix::Matrix,
    selection,
    summary::{self, Part, Tally},
};
use crate::{arch::Arch, build, cmd, vm};
use anyhow::{Context as _, Result, bail};
use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

/// Under emulation all takes 10 to 20 times as long.
const TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// Runs a test program, and what failed in it (if that is little) a second time, alone; see [`super::summary`].
const SCRIPT: &str = r#"status=0
tested=$(mktemp)
program() {
    echo "$1"
    { "$@"; echo "status $?"; } | tee "$tested"
    grep -q '^status 0$' "$tested" && return
    failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$tested")
    if [ -z "$failed" ] || [ "$(echo "$failed" | wc -l)" -gt MOST ]; then status=1; return; fi
    echo AGAIN $failed
    "$1" --exact $failed || status=1
    echo "OVER"
}
"#;

fn runner() -> String {
    SCRIPT
        .replace("AGAIN", summary::AGAIN)
        .replace("OVER", summary::AGAIN_OVER)
        .replace("MOST", &summary::AGAIN_MOST.to_string())
}

/// One boot of every kernel.
#[derive(Clone, Copy)]
struct Boot {
    name: &'static str,
    init: vm::Init,
    /// Packages and their test programs.
    suites: &'static [(&'static str, &'static str)],
    /// Files of the checkout that go into `/job`.
    files: &'static [&'static str],
}

static BOOTS: [Boot; 2] = [
    // What depends on the kernel. The rest of the agent's tests would say the same there as here, slower.
    Boot {
        name: "vm",
        init: vm::Init::Script,
        suites: &[("keytrail-sensor", "sensor"), ("keytrail-tests", "vm")],
        files: &[],
    },
    Boot {
        name: "systemd",
        init: vm::Init::Systemd,
        suites: &[("keytrail-tests", "systemd")],
        files: &["deploy/systemd/keytrail.service", "deploy/agent.toml"],
    },
];

impl Boot {
    /// Packages are made for x86-64 alone.
    fn is_for(&self, arch: Arch) -> bool {
        arch == Arch::X86_64 || self.init == vm::Init::Script
    }
}

/// What a kernel is asked that is not tried as a whole.
fn asked(arch: Arch) -> Vec<String> {
    let cases: &[&str] = match arch {
        Arch::X86_64 => &[],
        Arch::Aarch64 => &OF_AARCH64,
    };
    let all = [MATRIX].into_iter().chain(cases.iter().copied());
    all.map(str::to_owned).collect()
}

/// One of the boots, in one kernel.
struct Boots<'a> {
    plan: &'static Boot,
    programs: &'a Programs,
    kernel: &'a vm::Kernel,
    filter: &'a [String],
    nice: bool,
}

/// Which of the boots, and what of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Extent {
    /// In every known kernel which hook serves which signal, and no more
    Quick,
    /// Every known kernel, everything
    Whole,
}

/// The case that says which hook serves which signal.
const MATRIX: &str = "matrix::";
/// What is tried in every kernel of aarch64, where nothing else of the whole is: a read, an environment, what is sent in clear
/// and what is sent by TLS, by a library and by Go.
const OF_AARCH64: [&str; 5] = [
    "reads::cat_is_one_read",
    "cli::trace_of_a_short_command",
    "sends_tcp::environment_posted_in_clear",
    "sends_tls::bearer_by_curl",
    "tls_programs::go_hey",
];
/// Set to write docs/COVERAGE.md rather than to compare with it.
const BLESS: &str = "KEYTRAIL_BLESS";

/// The test programs of a boot, for each machine that is booted.
type Programs = Vec<(Arch, Vec<PathBuf>)>;

/// What is booted: the test programs are built before anything runs.
pub struct Guests<'a> {
    kernels: &'a [vm::Kernel],
    /// Kernels that are asked which hook serves which signal, and no more.
    others: &'a [vm::Kernel],
    filter: Vec<String>,
    boots: &'static [Boot],
    /// For each of `boots`.
    programs: Vec<Programs>,
    matrix: Mutex<Matrix>,
}

impl<'a> Guests<'a> {
    /// Builds the test programs.
    ///
    /// # Errors
    /// When they do not build.
    pub fn prepare(
        (kernels, others): (&'a [vm::Kernel], &'a [vm::Kernel]),
        filter: &[String],
        extent: Option<Extent>,
    ) -> Result<Self> {
        let all = || kernels.iter().chain(others);
        let archs: Vec<Arch> = [Arch::X86_64, Arch::Aarch64]
            .into_iter()
            .filter(|arch| all().any(|kernel| kernel.arch == *arch))
            .collect();
        for arch in &archs {
            build::all(*arch, build::Profile::Debug, build::Log::Silent)?;
        }
        let quick = extent == Some(Extent::Quick);
        let boots = if quick || !archs.contains(&Arch::X86_64) {
            &BOOTS[..1]
        } else {
            &BOOTS[..]
        };
        let mut filter = filter.to_vec();
        if quick && filter.is_empty() {
            filter.push(MATRIX.to_owned());
        }
        if boots.iter().any(|plan| plan.init == vm::Init::Systemd) {
            // By another build of this program: packages take crates that nothing else here needs.
            cmd::run(cmd::cargo().args([
                "run",
                "--quiet",
                "--package",
                "xtask",
                "--features",
                "dist",
                "--",
                "dist",
                "--for-tests",
            ]))?;
        }
        let mut programs = Vec::new();
        for plan in boots {
            let mut of_plan = Vec::new();
            for arch in archs.iter().filter(|arch| plan.is_for(**arch)) {
                let mut of_arch = Vec::new();
                for (package, test) in plan.suites {
                    let selection = selection(package, test);
                    let words: Vec<&str> = selection.iter().map(String::as_str).collect();
                    of_arch.extend(built(*arch, &words)?);
                }
                of_plan.push((*arch, of_arch));
            }
            programs.push(of_plan);
        }
        Ok(Self {
            kernels,
            others,
            filter,
            boots,
            programs,
            matrix: Mutex::default(),
        })
    }

    /// Boots each kernel for the test programs that need one and, at the same time, for those that need systemd: both
    /// wait more than they work. `first` is done meanwhile, here; the guests then take only the processor time that
    /// is left over. What is printed is in order: that of `first`, then a guest's after the other's.
    pub fn run(&self, first: Option<impl FnOnce() -> Part>) -> Vec<Part> {
        let nice = first.is_some();
        let asides: Vec<Aside> = self.boots.iter().map(|_| Aside::default()).collect();
        thread::scope(|scope| {
            let lanes: Vec<_> = self
                .boots
                .iter()
                .zip(&self.programs)
                .zip(&asides)
                .map(|((plan, programs), aside)| {
                    let boots = move || -> Vec<Part> {
                        let whole = self.kernels.iter().map(|kernel| (kernel, &self.filter));
                        // Only in the first boot is that case.
                        let others: &[vm::Kernel] = match plan.name == self.boots[0].name {
                            true => self.others,
                            false => &[],
                        };
                        let asked = [Arch::X86_64, Arch::Aarch64].map(asked);
                        let asked = |kernel: &vm::Kernel| &asked[kernel.arch as usize];
                        whole
                            .chain(others.iter().map(|kernel| (kernel, asked(kernel))))
                            .filter(|(kernel, _)| plan.is_for(kernel.arch))
                            .map(|(kernel, filter)| {
                                let what = Boots {
                                    plan,
                                    programs,
                                    kernel,
                                    filter,
                                    nice,
                                };
                                self.part(&what, aside)
                            })
                            .collect()
                    };
                    scope.spawn(boots)
                })
                .collect();
            let mut parts: Vec<Part> = first.map(|first| first()).into_iter().collect();
            for (lane, aside) in lanes.into_iter().zip(&asides) {
                aside.release();
                match lane.join() {
                    Ok(more) => parts.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            parts
        })
    }

    fn part(&self, what: &Boots<'_>, aside: &Aside) -> Part {
        let mut part = Part::new(format!("{} {}", what.plan.name, what.kernel));
        match self.boot(what, aside) {
            Ok((tally, outcome)) => {
                part.note(format!(
                    "kernel {}, boot {:.1} s, whole run {:.0} s, console {}",
                    outcome.release,
                    outcome.boot.as_secs_f32(),
                    outcome.total.as_secs_f32(),
                    outcome.console.display()
                ));
                part.tests(Ok((tally, outcome.status == 0)));
            }
            Err(error) => part.fail(format!("{error:#}")),
        }
        part
    }

    fn boot(&self, what: &Boots<'_>, aside: &Aside) -> Result<(Tally, vm::VmOutcome)> {
        let Boots {
            plan,
            programs,
            kernel,
            filter,
            nice,
        } = *what;
        let mut files = vec![
            vm::keytrail(kernel.arch, build::Profile::Debug)
                .context("the agent is missing after its build")?,
        ];
        for file in plan.files {
            files.push(vm::into_job(&cmd::root().join(file))?);
        }
        if plan.init == vm::Init::Systemd {
            let package =
                build::agent_path(kernel.arch, build::Profile::Debug).with_extension("deb");
            files.push(vm::into_job(&package)?);
        }
        let mut script = runner();
        if blessed() {
            script.push_str(&format!("export {BLESS}=1\n"));
        }
        let of_this = programs.iter().filter(|(arch, _)| *arch == kernel.arch);
        for program in of_this.flat_map(|(_, programs)| programs) {
            let file = vm::into_job(program)?;
            let words: Vec<String> = filter.iter().map(|word| cmd::quote(word)).collect();
            let guest = cmd::quote(&file.guest.display().to_string());
            script.push_str(&format!("program {guest} {}\n", words.join(" ")));
            files.push(file);
        }
        script.push_str("exit $status\n");
        let mut tally = Tally::default();
        let command = ["sh", "-c", &script].map(str::to_owned);
        let job = vm::Job {
            kernel,
            flavour: vm::Flavour::Base,
            init: plan.init,
            command: &command,
            files,
            collect: None,
            timeout: TIMEOUT,
            nice,
        };
        let outcome = vm::run(&job, |text| {
            aside.line(text);
            tally.read(text);
            let mut matrix = self.matrix.lock().unwrap_or_else(PoisonError::into_inner);
            matrix.read(text);
        })?;
        Ok((tally, outcome))
    }

    /// Writes what the kernels showed into docs/COVERAGE.md, if that is asked for.
    ///
    /// # Errors
    /// A kernel said nothing, or the file cannot be written.
    pub fn bless(&self) -> Result<()> {
        if !blessed() {
            return Ok(());
        }
        let matrix = self.matrix.lock().unwrap_or_else(PoisonError::into_inner);
        matrix.write(self.kernels)
    }
}

fn blessed() -> bool {
    std::env::var_os(BLESS).is_some()
}

/// Lines that wait for their turn to be printed.
struct Aside(Mutex<Option<Vec<String>>>);

impl Default for Aside {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl Aside {
    fn line(&self, line: &str) {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(waiting) => waiting.push(line.to_owned()),
            None => println!("{line}"),
        }
    }

    /// From now on they are printed as they come.
    fn release(&self) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in waiting.take().into_iter().flatten() {
            println!("{line}");
        }
    }
}

/// Builds test programs without running them; returns where they are.
fn built(arch: Arch, selection: &[&str]) -> Result<Vec<PathBuf>> {
    let mut command = build::cargo(arch, "test")?;
    command
        .args(["--no-run", "--message-format=json-render-diagnostics"])
        .args(selection);
    cmd::step(cmd::show(&command));
    let mut found = Vec::new();
    let ok = cmd::lines(&mut command, |line| {
        // Only what was built as a test: the agent itself is in the messages too.
        if is_test(line) {
            found.extend(build::executable(line).map(PathBuf::from));
        }
    })?;
    if !ok {
        bail!("the test programs do not build");
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Whether a message of cargo is about something compiled with the test harness.
fn is_test(line: &str) -> bool {
    line.split_once(r#""profile":{"#)
        .and_then(|(_, rest)| rest.split_once('}'))
        .is_some_and(|(profile, _)| profile.contains(r#""test":true"#))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What the script says of programs that answer like test programs.
    fn tried(programs: &[&str]) -> (Tally, bool) {
        let mut script = runner();
        for (n, text) in programs.iter().enumerate() {
            script.push_str(&format!("p{n}() (\n{text}\n)\nprogram p{n}\n"));
        }
        script.push_str("exit $status\n");
        let out = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stderr), "");
        let mut tally = Tally::default();
        String::from_utf8(out.stdout)
            .unwrap()
            .lines()
            .for_each(|line| tally.read(line));
        (tally, out.status.success())
    }

    #[test]
    fn what_failed_in_a_guest_is_tried_alone() {
        let good = "echo 'test a ... ok'; echo 'test result: ok. 1 passed; 0 failed'";
        let alone = "if [ \"$1\" = --exact ]; then [ \"$*\" = '--exact b c' ] || exit 9; \
            echo 'test b ... ok'; echo 'test c ... ok'; echo 'test result: ok. 2 passed; 0 failed'; exit 0; fi; \
            echo 'test b ... FAILED'; echo 'test c ... FAILED'; echo 'test result: FAILED. 0 passed; 2 failed'; exit 101";
        let broken =
            "echo 'test d ... FAILED'; echo 'test result: FAILED. 0 passed; 1 failed'; exit 101";
        let crashed = "exit 139";

        let (tally, ok) = tried(&[alone, good]);
        assert!(ok);
        assert_eq!((tally.passed, tally.failed), (3, 0));
        assert_eq!(tally.unsteady, ["b", "c"]);
        let (tally, ok) = tried(&[broken, alone]);
        assert!(!ok);
        assert_eq!((tally.passed, tally.failed), (2, 1));
        let (tally, ok) = tried(&[good, crashed]);
        assert!(!ok);
        assert_eq!((tally.passed, tally.failed), (1, 0));
    }

    #[test]
    fn the_profile_decides() {
        let message = |in_profile: bool| {
            format!(
                r#"{{"target":{{"kind":["test"],"test":true}},"profile":{{"opt_level":"0","test":{in_profile}}},"executable":"/t"}}"#
            )
        };
        assert!(is_test(&message(true)));
        assert!(!is_test(&message(false)));
    }
}
