//! What happened to files that hold credentials, in words.

use super::escape::escape;
use super::fingerprint::short_fingerprint;
use super::style::Colour;
use keytrail_model::FileAction;
use keytrail_proto::v1::{Event, FileChange, Source};
use std::fmt::Write as _;

/// What happened to a credential's file.
pub fn action(event: &Event) -> (String, Colour) {
    let action = event.change.as_ref().map_or(0, |c| c.action);
    let (text, colour) = match FileAction::of_number(action) {
        Some(FileAction::Replaced) => ("replaced file", Colour::Plain),
        Some(FileAction::Rotated) => ("rotated", Colour::Cyan),
        Some(FileAction::Removed) => ("removed", Colour::Cyan),
        Some(FileAction::Deleted) => ("deleted file", Colour::Yellow),
        Some(FileAction::Moved) => ("moved file", Colour::Yellow),
        Some(FileAction::Permissions) => ("changed mode", Colour::Yellow),
        Some(FileAction::Linked) => ("linked file", Colour::Yellow),
        Some(FileAction::Covered) => ("mounted over", Colour::Yellow),
        None => ("changed file", Colour::Plain),
    };
    (text.into(), colour)
}

/// `/srv/.env 0600 > 0644, now at /srv/.env~`: the file, and what is another now than it was.
pub fn place(change: &FileChange, source: &Source) -> String {
    let mut text = escape(&source.path).into_owned();
    let owner = |change: &FileChange| {
        let uid = change.previous_owner_uid.unwrap_or(source.owner_uid);
        let gid = change.previous_owner_gid.unwrap_or(source.owner_gid);
        (uid, gid)
    };
    if !change.previous_mode.is_empty() && change.previous_mode != source.mode {
        let _ = write!(
            text,
            " {} > {}",
            escape(&change.previous_mode),
            escape(&source.mode)
        );
    }
    let (uid, gid) = owner(change);
    if (uid, gid) != (source.owner_uid, source.owner_gid) {
        let (now, now_of) = (source.owner_uid, source.owner_gid);
        let _ = write!(text, " owner {uid}:{gid} > {now}:{now_of}");
    }
    if !change.new_path.is_empty() {
        let way = match FileAction::of_number(change.action) {
            Some(FileAction::Linked) => "also at",
            _ => "now at",
        };
        let _ = write!(text, ", {way} {}", escape(&change.new_path));
    }
    if !change.link.is_empty() {
        let _ = write!(text, ", a link to {}", escape(&change.link));
    }
    if !change.previous_fingerprint.is_empty() {
        let _ = write!(
            text,
            " in place of {}",
            short_fingerprint(&change.previous_fingerprint)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_another_now_is_said() {
        let source = Source {
            path: "/srv/.env".into(),
            mode: "0644".into(),
            owner_uid: 0,
            ..Source::default()
        };
        let change = |action: FileAction| FileChange {
            action: action.number(),
            previous_mode: "0644".into(),
            previous_owner_uid: Some(0),
            previous_owner_gid: Some(0),
            ..FileChange::default()
        };
        let said = |change: FileChange| place(&change, &source);
        assert_eq!(said(change(FileAction::Deleted)), "/srv/.env");
        let wider = FileChange {
            previous_mode: "0600".into(),
            previous_owner_uid: Some(1000),
            ..change(FileAction::Permissions)
        };
        assert_eq!(said(wider), "/srv/.env 0600 > 0644 owner 1000:0 > 0:0");
        let moved = FileChange {
            new_path: "/tmp/a\u{1b}b".into(),
            ..change(FileAction::Moved)
        };
        assert_eq!(said(moved), "/srv/.env, now at /tmp/a\\u{1b}b");
        let rotated = FileChange {
            action: FileAction::Rotated.number(),
            previous_fingerprint: "kt1:00112233445566778899aabbccddeeff".into(),
            ..FileChange::default()
        };
        assert_eq!(said(rotated), "/srv/.env in place of 0011..ff");
    }

    #[test]
    fn every_action_has_words() {
        let words = |action: i32| {
            let change = Some(FileChange {
                action,
                ..FileChange::default()
            });
            action_of(Event {
                change,
                ..Event::default()
            })
        };
        let action_words: std::collections::BTreeSet<String> =
            FileAction::ALL.iter().map(|a| words(a.number())).collect();
        assert_eq!(action_words.len(), FileAction::ALL.len());
        assert!(!action_words.contains(&words(0)) && words(0) == words(99));
    }

    fn action_of(event: Event) -> String {
        super::action(&event).0
    }
}
