//! Learnt secrets in what is reported about a host beside arguments: names of files, programs, sockets, hosts and variables are chosen by
//! programs, and some put a secret there (`https://KEY.example`, a file called by its token). From here on it stands there by
//! its kind and fingerprint.

use crate::exec::{label, without};
use keytrail_model::{Endpoints, FileFacts, Found, FoundIn, Observation, Payload};
use keytrail_payload::Matcher;
use std::collections::HashSet;
use std::ops::Range;

/// Texts remembered that have no learnt secret.
const CLEAR_MAX: usize = 512;

/// Looks into names, most of which come again and again: those of programs with every record.
#[derive(Default)]
pub struct Shown {
    clear: HashSet<String>,
    /// Secrets and windows of the matcher that `clear` was found by.
    of: (usize, usize),
}

impl Shown {
    /// The observation without learnt secrets in its names; `None` when it has none.
    pub fn of(&mut self, observation: &Observation, matcher: &Matcher) -> Option<Observation> {
        if matcher.is_empty() {
            return None;
        }
        let of = (matcher.len(), matcher.windows());
        if self.of != of {
            self.clear.clear();
            self.of = of;
        }
        let mut found = false;
        texts(observation, &mut |text| {
            found = found || self.has(text, matcher);
        });
        found.then(|| {
            let mut shown = observation.clone();
            texts_mut(&mut shown, &mut |text| hide(text, matcher));
            shown
        })
    }

    fn has(&mut self, text: &str, matcher: &Matcher) -> bool {
        if text.len() < SHORTEST || self.clear.contains(text) {
            return false;
        }
        if !matcher.places(text.as_bytes()).is_empty() || !pieces(text, matcher).is_empty() {
            return true;
        }
        if self.clear.len() >= CLEAR_MAX {
            self.clear.clear();
        }
        self.clear.insert(text.to_owned());
        false
    }
}

/// No secret that is looked for is shorter.
const SHORTEST: usize = 6;

/// What is most likely a piece of a learnt secret, of each name of a path by itself: the others stay.
fn pieces(text: &str, matcher: &Matcher) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let mut start = 0;
    for name in text.split('/') {
        let found = matcher.suspects(name.as_bytes()).into_iter();
        out.extend(found.map(|place| start + place.start..start + place.end));
        start += name.len() + 1;
    }
    out
}

fn hide(text: &mut String, matcher: &Matcher) {
    if text.len() < SHORTEST {
        return;
    }
    let mut spans: Vec<_> = matcher
        .places(text.as_bytes())
        .into_iter()
        .map(|(place, of)| (place, label(&of.kind, &of.fingerprint)))
        .collect();
    let whole: Vec<Range<usize>> = spans.iter().map(|(place, _)| place.clone()).collect();
    let apart = |piece: &Range<usize>| {
        whole
            .iter()
            .all(|place| piece.end <= place.start || place.end <= piece.start)
    };
    let pieces = pieces(text, matcher).into_iter().filter(apart);
    spans.extend(pieces.map(|place| (place, "[redacted]".to_owned())));
    spans.sort_by_key(|(place, _)| (place.start, std::cmp::Reverse(place.end)));
    *text = without(text.as_bytes(), &(0..text.len()), &spans);
}

/// Makes two functions out of one list: to inspect the texts of an observation, and to change them.
macro_rules! visit {
    ($texts:ident, $file:ident, $ends:ident, $payload:ident, $found:ident $(, $mut:tt)?) => {
        fn $texts(observation: & $($mut)? Observation, each: &mut dyn FnMut(& $($mut)? String)) {
            match observation {
                Observation::Exec(seen) => {
                    each(& $($mut)? seen.at.comm);
                    each(& $($mut)? seen.exe.path);
                    each(& $($mut)? seen.cwd);
                    each(& $($mut)? seen.cgroup);
                    $found(& $($mut)? seen.found, each);
                }
                Observation::Snapshot(seen) => {
                    each(& $($mut)? seen.at.comm);
                    each(& $($mut)? seen.exe.path);
                    each(& $($mut)? seen.cwd);
                    each(& $($mut)? seen.cgroup);
                    $found(& $($mut)? seen.found, each);
                }
                Observation::File(seen) => {
                    each(& $($mut)? seen.at.comm);
                    $file(& $($mut)? seen.file, each);
                }
                Observation::InUse(seen) => each(& $($mut)? seen.at.comm),
                Observation::Answer(seen) => {
                    each(& $($mut)? seen.at.comm);
                    $ends(& $($mut)? seen.ends, each);
                }
                Observation::Connect { at, ends } => {
                    each(& $($mut)? at.comm);
                    $ends(ends, each);
                }
                Observation::Send(seen) => {
                    each(& $($mut)? seen.at.comm);
                    $ends(& $($mut)? seen.ends, each);
                    $payload(& $($mut)? seen.payload, each);
                }
                Observation::Write(seen) => {
                    each(& $($mut)? seen.at.comm);
                    each(& $($mut)? seen.path);
                    $payload(& $($mut)? seen.payload, each);
                }
                Observation::TlsWrite(seen) => {
                    each(& $($mut)? seen.at.comm);
                    $payload(& $($mut)? seen.payload, each);
                }
                Observation::Created { at, file, .. } => {
                    if let Some(at) = at { each(& $($mut)? at.comm); }
                    $file(file, each);
                }
                Observation::Persistence { at, file, link, .. } => {
                    if let Some(at) = at { each(& $($mut)? at.comm); }
                    $file(file, each);
                    each(link);
                }
                Observation::FileChanged { at, file, change, .. } => {
                    if let Some(at) = at { each(& $($mut)? at.comm); }
                    $file(file, each);
                    each(& $($mut)? change.new_path);
                    each(& $($mut)? change.link);
                }
                Observation::Gap(gap) => {
                    each(& $($mut)? gap.detail);
                    each(& $($mut)? gap.remedy);
                }
                Observation::Unhooked(seen) => {
                    each(& $($mut)? seen.path);
                    each(& $($mut)? seen.reason);
                }
                Observation::Fork { at, .. } | Observation::Exit { at, .. } => each(& $($mut)? at.comm),
                Observation::Pipes(seen) => each(& $($mut)? seen.at.comm),
                Observation::Taken(seen) => each(& $($mut)? seen.at.comm),
                Observation::Start(_)
                | Observation::Tick { .. }
                | Observation::Withdrawn { .. }
                | Observation::Pod { .. }
                | Observation::PodGone { .. }
                | Observation::Findings { .. }
                | Observation::Stop { .. } => {}
            }
        }

        fn $file(file: & $($mut)? FileFacts, each: &mut dyn FnMut(& $($mut)? String)) {
            each(& $($mut)? file.path);
            each(& $($mut)? file.host_path);
        }

        fn $ends(ends: & $($mut)? Endpoints, each: &mut dyn FnMut(& $($mut)? String)) {
            each(& $($mut)? ends.path);
            if let Some(peer) = & $($mut)? ends.peer {
                each(& $($mut)? peer.executable);
                each(& $($mut)? peer.comm);
            }
        }

        fn $payload(payload: & $($mut)? Payload, each: &mut dyn FnMut(& $($mut)? String)) {
            for host in & $($mut)? payload.hosts {
                each(& $($mut)? host.name);
            }
            for request in & $($mut)? payload.requests {
                each(& $($mut)? request.host);
                // Its path was inspected part by part.
                if let Some(target) = & $($mut)? request.target {
                    each(& $($mut)? target.name);
                }
            }
        }

        fn $found(found: & $($mut)? [Found], each: &mut dyn FnMut(& $($mut)? String)) {
            for found in found {
                if let FoundIn::Env(name) = & $($mut)? found.place {
                    each(name);
                }
            }
        }
    };
}

visit!(texts, file, ends, payload, found);
visit!(texts_mut, file_mut, ends_mut, payload_mut, found_mut, mut);

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_model::{GapReason, GapSeen, HostName, PeerSeen, Pid, SendSeen, TaskInfo};

    const SECRET: &str = "4f0c2a9be1d87736a5c04412ee90bd31";

    fn matcher() -> Matcher {
        let mut matcher = Matcher::new(&[9; 32]);
        let credential = keytrail_model::Credential {
            kind: "datadog-api-key".into(),
            identifier: String::new(),
            fingerprint: "kt1:aa".into(),
            confidence: 0.9,
            expires: None,
            rule: "r".into(),
            privilege: 2,
            attack: String::new(),
        };
        matcher.learn(credential.into(), "", SECRET.as_bytes());
        matcher
    }

    fn at() -> TaskInfo {
        TaskInfo {
            boot_ns: 1,
            pid: Pid { tgid: 1, start: 1 },
            tid: 1,
            uid: 0,
            euid: 0,
            gid: 0,
            cgroup_id: 0,
            comm: "x".into(),
        }
    }

    fn file(path: String) -> FileFacts {
        FileFacts {
            host_path: format!("/host{path}"),
            path,
            ..FileFacts::default()
        }
    }

    #[test]
    fn names_with_a_learnt_secret_are_reported_without_it() {
        let m = matcher();
        let named = format!("/srv/x-{SECRET}.env");
        let percent: String = SECRET.bytes().map(|b| format!("%{b:02x}")).collect();
        let send = SendSeen {
            at: at(),
            ends: Endpoints {
                path: named.clone(),
                peer: Some(Box::new(PeerSeen {
                    executable: named.clone(),
                    ..PeerSeen::default()
                })),
                ..Endpoints::default()
            },
            payload: Payload {
                hosts: vec![HostName {
                    name: format!("{SECRET}.corp.test"),
                    provenance: "tls_sni".into(),
                }],
                ..Payload::default()
            },
            tls_record: None,
            tls_more: Vec::new(),
            goes_on: None,
            tls_call: None,
            hello: None,
            direction: None,
            sealed: false,
            asked: 0,
            hook: "h".into(),
        };
        let gap = GapSeen {
            detail: format!("{named} cannot be read"),
            ..GapSeen::new(GapReason::FileUnreadable, 1)
        };
        let snapshot = keytrail_model::Snapshot {
            at: at(),
            parent: Pid { tgid: 1, start: 1 },
            exe: keytrail_model::ExeFacts::default(),
            ns_tgid: 1,
            argv: Vec::new(),
            cwd: "/".into(),
            cgroup: format!("/jobs/{SECRET}"),
            loginuid: 0,
            session: 0,
            found: Vec::new(),
            env_unreadable: None,
            executed: false,
        };
        let observations = [
            Observation::Snapshot(Box::new(snapshot)),
            Observation::Persistence {
                at: None,
                boot_ns: 1,
                file: file(named.clone()),
                technique: "T1".into(),
                link: named.clone(),
            },
            Observation::Created {
                at: None,
                boot_ns: 1,
                file: file(format!("/srv/{percent}")),
                credentials: Vec::new(),
            },
            Observation::Send(Box::new(send)),
            Observation::Gap(gap),
        ];
        for observation in observations {
            let shown = Shown::default().of(&observation, &m).unwrap();
            let text = serde_json::to_string(&shown).unwrap();
            assert!(!text.contains(SECRET) && !text.contains(&percent), "{text}");
            assert!(text.contains("[redacted datadog-api-key kt1:aa]"), "{text}");
        }
    }

    #[test]
    fn what_surrounds_it_stays() {
        let m = matcher();
        let mut text = format!("/a/{SECRET}/ü/{SECRET}");
        hide(&mut text, &m);
        let label = "[redacted datadog-api-key kt1:aa]";
        assert_eq!(text, format!("/a/{label}/ü/{label}"));
    }

    /// Of a secret of another process nine bytes in a row are known by their hashes: whatever piece holds them goes, and what of
    /// it stands in other notations.
    #[test]
    fn pieces_that_hold_what_is_known_and_other_notations_go() {
        let m = matcher();
        let hidden = |name: &str| {
            let mut text = format!("/srv/a.{name}/app.conf");
            hide(&mut text, &m);
            assert!(
                text.starts_with("/srv/") && text.ends_with("/app.conf"),
                "{text}"
            );
            !text.contains(name)
        };
        assert!((0..=12).any(|at| hidden(&SECRET[at..at + 20])));
        let each = |one: fn(u8) -> String, between: &str| {
            let all: Vec<String> = SECRET.bytes().map(one).collect();
            all.join(between)
        };
        for name in [
            each(|b| format!("{b:02x}"), ":"),
            each(|b| format!("{b:02X}"), " "),
            each(|b| format!("\\x{b:02x}"), ""),
            each(|b| format!("&#{b};"), ""),
            each(|b| format!("%25{b:02x}"), ""),
        ] {
            assert!(hidden(&name), "{name}");
        }
    }

    #[test]
    fn others_are_not_touched() {
        let observation = Observation::Persistence {
            at: None,
            boot_ns: 1,
            file: file("/srv/app/.env".into()),
            technique: "T1".into(),
            link: String::new(),
        };
        let mut shown = Shown::default();
        assert_eq!(shown.of(&observation, &matcher()), None);
        // Until it is learnt what was in it.
        let none = Matcher::new(&[9; 32]);
        let named = Observation::Exit {
            at: TaskInfo {
                comm: SECRET[..15].into(),
                ..at()
            },
            status: 0,
            signal: 0,
            dumped: None,
        };
        assert_eq!(shown.of(&named, &none), None);
        let mut learnt = matcher();
        assert_eq!(shown.of(&named, &learnt), None);
        let credential = keytrail_model::Credential {
            fingerprint: "kt1:bb".into(),
            ..(*learnt.places(SECRET.as_bytes())[0].1).clone()
        };
        learnt.learn(credential.into(), "", &SECRET.as_bytes()[..15]);
        assert!(shown.of(&named, &learnt).is_some());
    }
}
