//! What people and machines do all day with credentials is not to be found fault with.

use crate::{
    agent::Agent,
    command::{Done, act},
    events::{Ask as _, list, of_kind},
    machine::{Scratch, find, turn},
    plant,
    server::free_port,
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// What may be said of such a day: a secret that has a copy, or several consumers.
const DEFENSIBLE: [&str; 2] = ["duplicated", "reused"];

/// A home below /home, gone with the test.
struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Home {
    /// `port`: of the server that a password is for.
    fn new(port: u16) -> Self {
        let home = Self(PathBuf::from(format!("/home/ktday{}", std::process::id())));
        let write = |name: &str, text: String| {
            let path = home.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        plant::aws_credentials(&home.0);
        let (github, database) = (plant::github().value, plant::database_url().value);
        write(
            ".netrc",
            format!("machine mirror.example login ada password {github}\n"),
        );
        write(
            ".npmrc",
            format!("//registry.npmjs.org/:_authToken={}\n", plant::npm().value),
        );
        write(
            ".git-credentials",
            format!(
                "http://ada:{}@127.0.0.1:{port}\n",
                plant::typed_password().value
            ),
        );
        write(
            ".kube/config",
            format!(
                "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'https://c.example'}}}}]\n\
                 users:\n- name: ada\n  user:\n    token: {}\n",
                plant::oidc_request().value
            ),
        );
        let stripe = plant::stripe().value;
        write(
            "project/.env",
            format!("DEBUG=0\nDATABASE_URL={database}\nSTRIPE_SECRET_KEY={stripe}\n"),
        );
        write("project/.gitignore", ".env*\n".to_owned());
        write("project/readme", "TODO: more\n".to_owned());
        home
    }
}

fn day(dir: &Path, home: &Home, port: u16, token: &str) -> Done {
    act("bash")
        .args(["-c", include_str!("ordinary.sh"), "day"])
        .env("HOME", &home.0)
        .env("DAY", dir)
        .env("PORT", port.to_string())
        .env("API_TOKEN", token)
        .env("npm_config_update_notifier", "false")
        .limit(60)
        .run()
        .ok()
}

pub fn a_day_accuses_nobody() {
    let _turn = turn();
    let scratch = Scratch::new();
    let dir = scratch.make("day");
    for (name, text) in [
        ("server.py", include_str!("ordinary_server.py")),
        ("web.py", include_str!("ordinary_web.py")),
        ("cluster.py", include_str!("ordinary_cluster.py")),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
    fs::copy(find("bash").unwrap(), dir.join("cron")).unwrap();
    let agent = Agent::start(&scratch);
    let port = free_port();
    let home = Home::new(port);
    let token = plant::github().value;
    let roots = [1, 2].map(|_| day(&dir, &home, port, &token).pid);
    agent.wait_idle();
    let mine: Vec<_> = roots.iter().flat_map(|root| agent.tree(*root)).collect();
    // The day was seen: the service's key on its way, and what backed it up.
    for (what, by) in [("credential_sent", "python3"), ("credential_read", "tar")] {
        let seen = of_kind(&mine, what);
        let seen = seen.iter().any(|e| e.executable().contains(by));
        assert!(seen, "no {what} by {by}:\n{}", list(&mine));
    }
    let said: Vec<(String, String)> = of_kind(&mine, "finding")
        .iter()
        .filter_map(|e| e.finding.clone())
        .map(|f| (f.rule, format!("{} {}: {}", f.severity, f.subject, f.seen)))
        .collect();
    let rules: BTreeSet<&str> = said.iter().map(|(rule, _)| rule.as_str()).collect();
    assert!(
        said.len() <= 2 && rules.iter().all(|rule| DEFENSIBLE.contains(rule)),
        "{said:#?}"
    );
}
