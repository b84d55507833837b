//! How exposed a credential is: what can be said from its places alone.

use super::class;
use super::clock;
use super::model::{Area, Entry, Exposure, FileLocation, Location, Reach, SocketLocation};
use keytrail_model::is_history;

/// Places from which on the number itself is a finding.
const MANY_PLACES: u64 = 3;

/// Fills in the exposures of an entry at `now` (seconds since the epoch); `max_age` in seconds.
pub fn judge(entry: &mut Entry, now: i64, max_age: i64) {
    let mut out: Vec<Exposure> = Vec::new();
    let mut say = |code: &str, detail: String| {
        let exposure = Exposure {
            code: code.to_owned(),
            detail,
        };
        // One of each kind and place; the count tells the rest.
        if out.iter().filter(|e| e.code == code).count() < 8 && !out.contains(&exposure) {
            out.push(exposure);
        }
    };
    let (mut in_env, mut in_argv) = (0, 0);
    for place in &entry.places {
        match place {
            Location::File(f) => file(f, &mut say),
            Location::Socket(s) => socket(s, &mut say),
            Location::Process(p) if p.area == Area::Env => in_env += p.count,
            Location::Process(p) => in_argv += p.count,
        }
    }
    if in_argv > 0 {
        // Any user can read a command line, unless /proc is mounted with hidepid.
        say("in-argv", count(in_argv, "process", "processes"));
    }
    if in_env > 0 {
        say("in-env", count(in_env, "process", "processes"));
    }
    let files = entry
        .places
        .iter()
        .filter(|p| matches!(p, Location::File(_)))
        .count() as u64
        + entry.more_places;
    if files >= MANY_PLACES {
        say("many-places", count(files, "file", "files"));
    }
    let verdict = class::of(entry);
    entry.class = verdict.class;
    if let Some(package) = verdict.published {
        say("published", format!("by {package}"));
    }
    let is_socket = entry
        .places
        .iter()
        .all(|p| matches!(p, Location::Socket(_)));
    let expired = entry.credential.expires.filter(|at| *at <= now);
    if let Some(at) = expired {
        say("expired", clock::rfc3339(at));
    }
    let age = now.saturating_sub(entry.since());
    // What is expired is no longer too old.
    if !is_socket && expired.is_none() && age > max_age {
        say("older-than-policy", clock::span(age));
    }
    out.sort();
    entry.exposures = out;
}

fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn file(f: &FileLocation, say: &mut impl FnMut(&str, String)) {
    let world = f.reach == Reach::World;
    if world && f.mode & 0o004 != 0 {
        say("world-readable", f.path.clone());
    }
    if world && f.mode & 0o002 != 0 {
        say("world-writable", f.path.clone());
    }
    let group_reaches = world || f.reach == Reach::Group(f.gid);
    if f.mode & 0o040 != 0 && f.mode & 0o004 == 0 && group_reaches && f.shared_group {
        let group = if f.group.is_empty() {
            f.gid.to_string()
        } else {
            f.group.clone()
        };
        say("group-readable", format!("{} (group {group})", f.path));
    } else if f.mode & 0o004 != 0 && matches!(f.reach, Reach::Group(_)) {
        // Open to others, but only one group comes as far.
        say("group-readable", f.path.clone());
    }
    // Who is on the list must come as far, too; a single name is not asked whether it is in a group that does.
    if !f.acl.is_empty() && f.reach != Reach::Owner {
        say("acl-readable", format!("{} ({})", f.path, f.acl.join(", ")));
    }
    if let Some(git) = f.git.as_ref().filter(|g| !g.ignored) {
        let state = if git.tracked {
            "tracked"
        } else {
            "not ignored"
        };
        let remote = if git.remote.is_empty() {
            String::new()
        } else {
            format!(", remote {}", git.remote)
        };
        say("git-work-tree", format!("{} ({state}{remote})", f.path));
    }
    if is_history(&f.path) {
        say("shell-history", f.path.clone());
    }
    if !f.home_of.is_empty() && f.home_of != f.user {
        let owner = if f.user.is_empty() {
            f.uid.to_string()
        } else {
            f.user.clone()
        };
        say(
            "in-home-of-other-user",
            format!("{} (owner {owner}, home of {})", f.path, f.home_of),
        );
    }
}

fn socket(s: &SocketLocation, say: &mut impl FnMut(&str, String)) {
    // connect(2) on a unix socket needs write permission.
    if s.reach == Reach::World && s.mode & 0o002 != 0 {
        say("world-connectable", s.path.clone());
    }
}

/// Worst first: privilege, then what is exposed, how sure it is, and whether it lies where secrets are kept.
#[must_use]
pub fn badness(entry: &Entry) -> (u32, u32) {
    let weight = |e: &Exposure| match e.code.as_str() {
        // Everybody has it, and here it is in use.
        "published" => 60,
        "world-readable" | "world-writable" | "world-connectable" => 40,
        "git-work-tree" | "in-argv" => 25,
        "shell-history" | "group-readable" | "acl-readable" => 15,
        "in-home-of-other-user" | "many-places" => 8,
        "in-env" => 6,
        "older-than-policy" => 4,
        _ => 1,
    };
    let mut codes: Vec<(&str, u32)> = entry
        .exposures
        .iter()
        .map(|e| (e.code.as_str(), weight(e)))
        .collect();
    codes.sort_unstable();
    codes.dedup();
    let exposure: u32 = codes.iter().map(|c| c.1).sum();
    let privilege = match entry.credential.privilege {
        1 => 60,
        2 => 40,
        3 => 20,
        4 => 5,
        _ => 15,
    };
    let certain = (entry.credential.confidence.clamp(0.0, 1.0) * 100.0) as u32;
    let expired = entry.exposures.iter().any(|e| e.code == "expired");
    let score = (privilege + exposure) * certain.max(1) / if expired { 4 } else { 1 };
    // Where secrets are kept, one is one; in program code and manuals it is an example more often than not.
    let score = if class::is_in_use(entry) {
        score * 4
    } else {
        score
    };
    (score, certain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Class, GitFacts, ProcessLocation};
    use keytrail_model::Credential;

    fn entry(places: Vec<Location>) -> Entry {
        let credential = Credential {
            kind: "k".into(),
            identifier: String::new(),
            fingerprint: "kt1:0".into(),
            confidence: 0.9,
            expires: None,
            rule: "r".into(),
            privilege: 2,
            attack: String::new(),
        };
        Entry {
            credential,
            class: Class::default(),
            first_seen: NOW - 100,
            rotated: None,
            previous: String::new(),
            places,
            more_places: 0,
            exposures: Vec::new(),
        }
    }

    const NOW: i64 = 1_700_000_000;

    fn codes(mut e: Entry) -> Vec<String> {
        judge(&mut e, NOW, 500);
        e.exposures.into_iter().map(|x| x.code).collect()
    }

    fn of(f: FileLocation) -> Vec<String> {
        codes(entry(vec![Location::File(FileLocation {
            modified: NOW - 100,
            ..f
        })]))
        .into_iter()
        .filter(|c| c != "older-than-policy")
        .collect()
    }

    #[test]
    fn a_mode_counts_only_as_far_as_one_comes() {
        let f = |mode, reach| FileLocation {
            path: "/x".into(),
            mode,
            reach,
            gid: 5,
            ..FileLocation::default()
        };
        assert_eq!(of(f(0o644, Reach::World)), ["world-readable"]);
        assert!(of(f(0o644, Reach::Owner)).is_empty());
        assert!(of(f(0o600, Reach::World)).is_empty());
        assert_eq!(of(f(0o644, Reach::Group(5))), ["group-readable"]);
        // Nobody else is in the group.
        assert!(of(f(0o640, Reach::World)).is_empty());
        assert_eq!(
            of(FileLocation {
                shared_group: true,
                ..f(0o640, Reach::World)
            }),
            ["group-readable"]
        );
        assert!(
            of(FileLocation {
                shared_group: true,
                ..f(0o640, Reach::Group(6))
            })
            .is_empty()
        );
        assert_eq!(
            of(f(0o606, Reach::World)),
            ["world-readable", "world-writable"]
        );
    }

    #[test]
    fn an_access_list_exposes_what_the_mode_does_not() {
        let f = |reach| FileLocation {
            path: "/x".into(),
            mode: 0o600,
            reach,
            acl: vec!["user ann".into()],
            ..FileLocation::default()
        };
        assert_eq!(of(f(Reach::World)), ["acl-readable"]);
        assert!(of(f(Reach::Owner)).is_empty());
    }

    #[test]
    fn work_trees_histories_homes() {
        let f = || FileLocation {
            path: "/home/ann/.bash_history".into(),
            user: "bob".into(),
            home_of: "ann".into(),
            ..FileLocation::default()
        };
        assert_eq!(of(f()), ["in-home-of-other-user", "shell-history"]);
        assert!(
            of(FileLocation {
                user: "ann".into(),
                path: "/home/ann/history".into(),
                ..f()
            })
            .is_empty()
        );
        let git = |tracked, ignored| FileLocation {
            git: Some(GitFacts {
                tracked,
                ignored,
                ..GitFacts::default()
            }),
            ..FileLocation::default()
        };
        assert_eq!(of(git(true, false)), ["git-work-tree"]);
        assert_eq!(of(git(false, false)), ["git-work-tree"]);
        assert!(of(git(false, true)).is_empty());
    }

    #[test]
    fn age_expiry_processes_and_numbers() {
        let old = FileLocation {
            path: "/a".into(),
            modified: NOW - 1900,
            ..FileLocation::default()
        };
        assert_eq!(
            codes(entry(vec![Location::File(old.clone())])),
            ["older-than-policy"]
        );
        // A time of 1980 is no date.
        assert!(
            codes(entry(vec![Location::File(FileLocation {
                modified: 315_532_800,
                ..FileLocation::default()
            })]))
            .is_empty()
        );
        let mut expired = entry(vec![Location::File(old)]);
        expired.credential.expires = Some(NOW - 500);
        assert_eq!(codes(expired), ["expired"]);
        let process = |area, count| {
            Location::Process(ProcessLocation {
                area,
                count,
                ..ProcessLocation::default()
            })
        };
        let mut e = entry(vec![process(Area::Env, 3), process(Area::Argv, 1)]);
        judge(&mut e, NOW, 500);
        let said: Vec<_> = e
            .exposures
            .iter()
            .map(|x| format!("{} {}", x.code, x.detail))
            .collect();
        assert_eq!(said, ["in-argv 1 process", "in-env 3 processes"]);
        let files = (0..3).map(|i| {
            Location::File(FileLocation {
                path: format!("/{i}"),
                modified: NOW - 100,
                ..FileLocation::default()
            })
        });
        assert_eq!(codes(entry(files.collect())), ["many-places"]);
    }

    #[test]
    fn the_worst_comes_first() {
        let mut open = entry(vec![Location::File(FileLocation {
            mode: 0o644,
            reach: Reach::World,
            ..FileLocation::default()
        })]);
        let mut shut = entry(vec![Location::File(FileLocation::default())]);
        judge(&mut open, NOW, 500);
        judge(&mut shut, NOW, 500);
        assert!(badness(&open) > badness(&shut));
        let mut root = shut.clone();
        root.credential.privilege = 1;
        assert!(badness(&root) > badness(&shut));
        // In use, or in program code.
        let at = |path: &str| {
            let mut entry = entry(vec![Location::File(FileLocation {
                path: path.into(),
                ..FileLocation::default()
            })]);
            judge(&mut entry, NOW, 500);
            entry
        };
        let mut code = entry(vec![Location::File(FileLocation {
            path: "/home/a/src/x.js".into(),
            mode: 0o644,
            reach: Reach::World,
            ..FileLocation::default()
        })]);
        judge(&mut code, NOW, 500);
        assert!(badness(&at("/home/a/.netrc")) > badness(&code));
        assert!(badness(&at("/home/a/.netrc")) > badness(&at("/home/a/x/README.md")));
        assert!(badness(&at("/home/a/.config/x.js")) > badness(&at("/home/a/x.js")));
        let mut doubtful = open.clone();
        doubtful.credential.confidence = 0.2;
        assert!(badness(&doubtful) < badness(&shut));
    }
}
