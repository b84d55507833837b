//! How many credentials one process, or its parent by several children that do the same, took in within a minute, and gave
//! to one place.

use crate::clients::is_client_of;
use crate::facts::{AncestorFacts, Facts, ProcessFacts};
use crate::key_places::is_hidden;
use crate::session::is_typed;
use crate::sweep::sweep_of;
use crate::text::{kept, number};
use keytrail_model::is_interpreter;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const WINDOW_NS: i64 = 60_000_000_000;
/// Processes that are remembered, and acts of each.
const MOST: usize = 4096;
const MOST_ACTS: usize = 64;

/// What different credentials, of what kinds and out of how many stores, there were within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub kinds: usize,
    pub credentials: usize,
    /// Files and processes. What lies in a project that a program works in, or in a service's own places, is one.
    pub stores: usize,
}

impl Counts {
    /// The one that is more of a harvest.
    fn most(self, other: Counts) -> Counts {
        let rank = |c: &Counts| (c.kinds.min(c.stores), c.kinds, c.credentials);
        if rank(&other) > rank(&self) {
            other
        } else {
            self
        }
    }
}

/// One credential that was taken or given. Only how many different ones there are is asked for, so numbers do.
#[derive(Clone, Copy, Debug)]
struct Act {
    time_ns: i64,
    kind: u64,
    fingerprint: u64,
    store: u64,
    /// What a project is configured by: scripts have many programs read it.
    configures: bool,
}

/// What one process, or one process towards one place, did lately.
#[derive(Default)]
struct Acts {
    list: VecDeque<Act>,
    last_ns: i64,
}

impl Acts {
    fn add(&mut self, act: Act) {
        let since = act.time_ns - WINDOW_NS;
        self.last_ns = act.time_ns;
        self.list.push_back(act);
        while self.list.len() > MOST_ACTS || self.list.front().is_some_and(|a| a.time_ns < since) {
            self.list.pop_front();
        }
    }

    fn counts(&self, time_ns: i64) -> Counts {
        let different = |of: fn(&Act) -> u64| {
            let lately = self
                .list
                .iter()
                .filter(|a| a.time_ns >= time_ns - WINDOW_NS);
            lately.map(of).collect::<BTreeSet<u64>>().len()
        };
        Counts {
            kinds: different(|a| a.kind),
            credentials: different(|a| a.fingerprint),
            stores: different(|a| a.store),
        }
    }
}

#[derive(Default)]
struct Table {
    acts: BTreeMap<String, Acts>,
    /// When room was made last: not for every event.
    forgot_ns: i64,
    /// Acts of those that found no room.
    refused: u64,
}

impl Table {
    fn add(&mut self, key: &str, act: Act) -> Counts {
        if self.acts.len() >= MOST && !self.acts.contains_key(key) {
            self.forget(act.time_ns);
            if self.acts.len() >= MOST {
                self.refused += 1;
                return Counts::default();
            }
        }
        let acts = self.acts.entry(key.to_owned()).or_default();
        acts.add(act);
        acts.counts(act.time_ns)
    }

    /// The same; nothing where the act adds nothing to what others did before.
    fn add_to_others(&mut self, key: &str, act: Act) -> Counts {
        let before = self.counts(key, act.time_ns);
        let after = self.add(key, act);
        if (after.kinds, after.stores) == (before.kinds, before.stores) {
            Counts::default()
        } else {
            after
        }
    }

    fn counts(&self, key: &str, time_ns: i64) -> Counts {
        self.acts
            .get(key)
            .map_or_else(Counts::default, |acts| acts.counts(time_ns))
    }

    /// Makes room: who did nothing within the window goes.
    fn forget(&mut self, now_ns: i64) {
        if now_ns - self.forgot_ns < WINDOW_NS / 60 {
            return;
        }
        self.forgot_ns = now_ns;
        self.acts
            .retain(|_, acts| acts.last_ns >= now_ns - WINDOW_NS);
    }
}

/// What was harvested within a minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Harvested {
    /// Names the process.
    pub run: String,
    /// Names the parent and what its children do.
    pub siblings: Option<String>,
    /// They took or sent more than the process alone.
    pub by_siblings: bool,
    /// Read by the process (files, environments by /proc); or by the children of its parent that do the same, if that is
    /// more and the process adds to it. What a client reads of its own kind is none, and neither is for the others what
    /// comes past a backup or a search.
    pub taken: Counts,
    /// By the process, and by the children of the script that it runs.
    pub own: Counts,
    /// Sent to the place of this event, where it was seen.
    pub sent: Counts,
    /// Kinds of places that outlast who wrote them, by the process or the script that started it, if somebody is let in by one of
    /// them; else 0.
    pub persisted: usize,
}

#[derive(Default)]
pub(crate) struct Harvest {
    taken: Table,
    /// With what children read for the script that started them.
    family: Table,
    sent: Table,
    /// Places that make programs run by themselves, or let somebody in.
    persisted: Table,
}

impl Harvest {
    /// Acts that found no room since the last time.
    pub fn take_refused(&mut self) -> u64 {
        let tables = [
            &mut self.taken,
            &mut self.family,
            &mut self.sent,
            &mut self.persisted,
        ];
        let refused = tables.map(|table| std::mem::take(&mut table.refused));
        refused.iter().sum()
    }

    /// Takes an event in; gives what was harvested until then, this event included.
    pub fn take(&mut self, facts: &Facts) -> Harvested {
        let mut harvested = Harvested::default();
        let Some(process) = &facts.process else {
            return harvested;
        };
        harvested.persisted = self.persist(facts, process);
        let act = facts.credential.as_ref().map(|c| Act {
            time_ns: facts.time_ns,
            // What has no more than a telling name is one kind.
            kind: number(if c.kind.starts_with("generic-") {
                "generic"
            } else {
                &c.kind
            }),
            fingerprint: number(&c.fingerprint),
            store: number(&store(facts, process)),
            configures: facts.victim.is_none() && configures(&facts.source.path),
        });
        let taken = facts.kind == "credential_taken" && facts.grade == "observed";
        let read = facts.kind == "credential_read"
            && !is_shipped(&facts.source.path)
            && facts
                .credential
                .as_ref()
                .is_some_and(|c| !is_client_of(process, &c.kind));
        let sends = facts.kind == "credential_sent" && facts.grade == "observed";
        let to = facts
            .destination
            .as_ref()
            .filter(|_| sends)
            .map(|destination| kept(&destination.place()).into_owned());
        let taken = act.filter(|_| read || taken);
        let sent = act.zip(to.as_deref());
        harvested.run.clone_from(&process.key);
        self.add_own(process, taken, sent, &mut harvested, facts.time_ns);
        // What a backup or a search comes past, the others did not look for.
        let shared = taken.filter(|act| !act.configures && sweep_of(process).is_none());
        let parent = parent_of(process);
        if let (Some(parent), Some(act)) = (parent.filter(|p| runs_script(p)), shared) {
            self.family.add(&parent.key, act);
        }
        if let Some(key) = parent.map(|parent| siblings(process, parent)) {
            let before = (harvested.taken, harvested.sent);
            let taken = match shared {
                Some(act) => self.taken.add_to_others(&key, act),
                None => Counts::default(),
            };
            harvested.taken = harvested.taken.most(taken);
            if let Some((act, to)) = sent {
                let sent = self.sent.add(&format!("{key} {to}"), act);
                harvested.sent = harvested.sent.most(sent);
            }
            harvested.by_siblings = before != (harvested.taken, harvested.sent);
            harvested.siblings = Some(key);
        }
        harvested
    }

    /// Notes what outlasts its writer; in how many kinds of places there is something by now, where one lets somebody in.
    fn persist(&mut self, facts: &Facts, process: &ProcessFacts) -> usize {
        let path = &facts.source.path;
        if facts.kind != "persistence_written" || is_typed(process, path) {
            return 0;
        }
        let lets_in = lets_in(path);
        let act = Act {
            time_ns: facts.time_ns,
            kind: number(place_of(path)),
            fingerprint: number(path),
            store: number(path),
            configures: false,
        };
        let script = parent_of(process).filter(|parent| runs_script(parent));
        let keys = [Some(&process.key), script.map(|parent| &parent.key)];
        let mut most = 0;
        for key in keys.into_iter().flatten() {
            let all = self.persisted.add(key, act);
            let key = format!("{key} in");
            let ways_in = if lets_in {
                self.persisted.add(&key, act)
            } else {
                self.persisted.counts(&key, facts.time_ns)
            };
            if ways_in.kinds > 0 {
                most = most.max(all.kinds);
            }
        }
        most
    }

    /// What the process itself did.
    fn add_own(
        &mut self,
        process: &ProcessFacts,
        taken: Option<Act>,
        sent: Option<(Act, &str)>,
        harvested: &mut Harvested,
        time_ns: i64,
    ) {
        let key = &process.key;
        harvested.taken = match taken {
            Some(act) => self.taken.add(key, act),
            None => self.taken.counts(key, time_ns),
        };
        harvested.own = match taken {
            Some(act) => self.family.add(key, act),
            None => self.family.counts(key, time_ns),
        };
        if let Some((act, to)) = sent {
            harvested.sent = self.sent.add(&format!("{key} {to}"), act);
        }
    }
}

/// Whether who has a key named in this file may log in.
fn lets_in(path: &str) -> bool {
    path.rsplit('/')
        .next()
        .is_some_and(|name| name.starts_with("authorized_keys"))
}

/// What kind of place it is that outlasts its writer; start-up files of shells and all others are one.
fn place_of(path: &str) -> &'static str {
    if lets_in(path) {
        "keys"
    } else if path.contains("/systemd/") {
        "unit"
    } else if path.contains("cron") {
        "cron"
    } else {
        "start"
    }
}

/// Programs that read whatever they are given: which of them a script takes makes no difference.
const READERS: &[&str] = &[
    "cat", "tac", "head", "tail", "less", "more", "cp", "mv", "dd", "tar", "bsdtar", "zip", "gzip",
    "xz", "zstd", "7z", "cpio", "base64", "base32", "xxd", "od", "hexdump", "strings", "grep",
    "egrep", "fgrep", "rg", "ag", "sed", "awk", "gawk", "mawk", "cut", "sort", "tr", "tee", "find",
    "xargs", "jq", "yq", "rsync", "scp", "curl", "wget", "nc", "ncat", "socat", "openssl", "gpg",
    "age", "sh", "bash", "dash", "zsh", "ash", "perl",
];

/// The script or program that started a process. A login shell is the parent of all that a person does, and counts nothing.
pub(crate) fn parent_of(process: &ProcessFacts) -> Option<&AncestorFacts> {
    let above = &process.ancestors;
    let mut at = 0;
    // `$(cat x | tr y z)`: a copy of a shell that executed nothing itself is that shell.
    while let (Some(this), Some(next)) = (above.get(at), above.get(at + 1))
        && this.key.ends_with(":0")
        && !next.key.is_empty()
        && (&this.executable, &this.script) == (&next.executable, &next.script)
    {
        at += 1;
    }
    let parent = above.get(at).filter(|parent| !parent.key.is_empty())?;
    let session =
        |c: &crate::facts::ContextFacts| c.kind == "login_shell" && c.ancestor == parent.key;
    (!process.contexts.iter().any(session)).then_some(parent)
}

/// Whether what a parent starts is what its script says: a manager of services starts everybody's, and at a shell without a
/// script somebody types one thing and then another.
pub(crate) fn runs_script(parent: &AncestorFacts) -> bool {
    is_interpreter(&parent.executable) && !parent.script.is_empty()
}

/// What the process is counted with: the others that its parent started to do the same.
fn siblings(process: &ProcessFacts, parent: &AncestorFacts) -> String {
    let program = process.program();
    let does = if READERS.contains(&process.name()) {
        "reads"
    } else {
        &kept(&program)
    };
    format!("{} {does}", parent.key)
}

/// Beginnings of the places where others' credentials lie, whoever reads them.
const OTHERS: &[&str] = &[
    "/root/",
    "/home/",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/ssh/",
    "/etc/kubernetes/",
    "/etc/rancher/",
];
/// Endings of the files that a project is configured by, or consists of.
const PROJECT: &[&str] = &[
    ".env",
    ".yml",
    ".yaml",
    ".json",
    ".toml",
    ".ini",
    ".cfg",
    ".conf",
    ".properties",
    ".xml",
    ".tfvars",
    ".tfstate",
    ".py",
    ".js",
    ".ts",
    ".rb",
    ".php",
    ".go",
    ".java",
    ".kt",
    ".scala",
    ".rs",
    ".c",
    ".h",
    ".cc",
    ".cpp",
    ".hpp",
    ".cs",
    ".swift",
    ".ex",
    ".lua",
    ".sql",
    ".tf",
    ".md",
];

/// Whether a file is one that a project is configured by.
fn configures(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    !is_hidden(path)
        && (name.starts_with(".env") || PROJECT.iter().any(|ending| name.ends_with(ending)))
}

/// What packages brought along is everybody's: samples, keys of tests.
pub(crate) fn is_shipped(path: &str) -> bool {
    ["/usr/lib/", "/usr/share/", "/usr/include/", "/usr/libexec/"]
        .iter()
        .any(|place| path.starts_with(place))
        || ["/site-packages/", "/dist-packages/", "/node_modules/"]
            .iter()
            .any(|place| path.contains(place))
}

/// Whether a file configures the project that a program works in.
pub(crate) fn is_project(process: &ProcessFacts, path: &str) -> bool {
    !is_home(&process.cwd)
        && path
            .strip_prefix(process.cwd.as_str())
            .is_some_and(|rest| rest.starts_with('/'))
        && configures(path)
}

/// What a credential was taken from.
fn store(facts: &Facts, process: &ProcessFacts) -> String {
    if let Some(victim) = &facts.victim {
        return format!("process {}", victim.key);
    }
    let path = &facts.source.path;
    // A repository is one store: whoever has it has all that git keeps in it, and what builds it reads all of it.
    if facts.source.tracked {
        return "its own".to_owned();
    }
    if is_hidden(path) {
        return path.clone();
    }
    let services =
        process.actor == "service" && !OTHERS.iter().any(|place| path.starts_with(place));
    if is_project(process, path) || services {
        return "its own".to_owned();
    }
    path.clone()
}

/// Whether a directory is no project: a home, or one of everybody's.
fn is_home(dir: &str) -> bool {
    matches!(dir, "" | "/" | "/root" | "/home" | "/tmp" | "/var/tmp")
        || dir
            .strip_prefix("/home/")
            .is_some_and(|name| !name.contains('/'))
}
