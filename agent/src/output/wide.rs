//! One line with everything.

use super::columns::Layout;
use super::style::{Colour, Style};
use keytrail_model::{
    Actor, ContextKind, DestinationMethod, Direction, EvidenceGrade, IdentifiedBy, LineageBasis,
    SourceType, Transform,
};
use keytrail_proto::v1::Event;
use std::fmt::Write as _;

/// One line with everything: nothing is cut, whatever the terminal's width.
pub fn wide(event: &Event, style: &Style) -> String {
    let mut out = Layout::new(None).line(event, style);
    let mut more = String::new();
    let mut say = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(more, " {name}={}", super::escape(value));
        }
    };
    credential(event, &mut say);
    evidence(event, &mut say);
    destination(event, &mut say);
    request(event, &mut say);
    process(event, &mut say);
    unseen(event, &mut say);
    if !more.is_empty() {
        style.paint(&mut out, Colour::Dim, &more);
    }
    out
}

/// Takes a name and what there is of it.
type Say<'a> = dyn FnMut(&str, &str) + 'a;

/// What it is, and where it came from.
fn credential(event: &Event, say: &mut Say<'_>) {
    if event.group != 0 {
        say("group", &event.group.to_string());
    }
    if let Some(c) = &event.credential {
        say("id", &c.identifier);
        say("fingerprint", &c.fingerprint);
        say("confidence", &format!("{:.2}", c.confidence));
        say(
            "expires",
            &c.expires
                .as_ref()
                .map(|t| t.seconds.to_string())
                .unwrap_or_default(),
        );
    }
    if let Some(delivery) = &event.delivery {
        say("brought", &super::describe::path(&delivery.path));
    }
    if let Some(s) = &event.source {
        say("from", &super::describe::source(s));
        say("host_path", &s.host_path);
        say("mode", &s.mode);
        if s.r#type == SourceType::File.number() {
            say("owner", &format!("{}:{}", s.owner_uid, s.owner_gid));
        }
    }
}

fn evidence(event: &Event, say: &mut Say<'_>) {
    if let Some(e) = &event.evidence {
        say("grade", EvidenceGrade::word_of(e.grade));
        say("transform", Transform::word_of(e.transform));
        say("identified_by", IdentifiedBy::word_of(e.identified_by));
        say("basis", LineageBasis::word_of(e.lineage_basis));
        say("path", &super::describe::path(&e.path));
        say("part", &e.part);
        say("in", if e.in_body { "body" } else { "" });
        say("in", if e.in_url { "url" } else { "" });
        say("hook", &e.hook);
        say(
            "destination_by",
            DestinationMethod::word_of(e.destination_method),
        );
        if e.payload_bytes > 0 {
            say(
                "inspected",
                &format!("{}/{}", e.inspected_bytes, e.payload_bytes),
            );
        }
    }
    if let Some(first) = event.repeats.as_ref().and_then(|r| r.first.as_ref()) {
        say("since", &super::utc(first));
    }
}

fn destination(event: &Event, say: &mut Say<'_>) {
    if let Some(d) = &event.destination {
        if !d.ip.is_empty() {
            say("ip", &format!("{} port {} {}", d.ip, d.port, d.protocol));
        }
        say("connection", Direction::word_of(d.direction));
        for host in &d.hosts {
            say(&super::escape(&host.provenance), &host.name);
        }
    }
}

/// What was asked for; its line is in the place.
fn request(event: &Event, say: &mut Say<'_>) {
    let Some(r) = &event.request else {
        return;
    };
    say("protocol", &r.protocol);
    say("host", &r.host);
    say("content_type", &r.content_type);
    if let Some(length) = r.content_length {
        say("content_length", &length.to_string());
    }
    say("request_bytes", &r.bytes.to_string());
}

fn process(event: &Event, say: &mut Say<'_>) {
    if let Some(p) = &event.process {
        say(
            "exe",
            p.executable
                .as_ref()
                .map(|e| e.path.as_str())
                .unwrap_or_default(),
        );
        say(
            "uid",
            &if p.uid == p.euid {
                p.uid.to_string()
            } else {
                format!("{}(euid {})", p.uid, p.euid)
            },
        );
        say("for", Actor::word_of(p.actor));
        let contexts = p.contexts.iter();
        let contexts: Vec<_> = contexts
            .map(|c| format!("{}:{}", ContextKind::word_of(c.kind), c.name))
            .collect();
        say("in", &contexts.join(","));
        say("cwd", &p.cwd);
        say("cgroup", &p.cgroup);
        say("argv", &super::describe::command(Some(p)));
        let chain = super::describe::ancestry(p);
        say("parents", chain.trim_start_matches(" < "));
    }
}

/// What was not seen of it.
fn unseen(event: &Event, say: &mut Say<'_>) {
    if let Some(t) = &event.truncation {
        let cut = [
            (t.argv, "argv"),
            (t.environment, "environment"),
            (t.payload, "payload"),
            (t.file, "file"),
        ];
        say(
            "truncated",
            &cut.iter()
                .filter(|c| c.0)
                .map(|c| c.1)
                .collect::<Vec<_>>()
                .join(","),
        );
    }
    for sentence in &event.coverage {
        say("coverage", sentence);
    }
    if let Some(g) = &event.gap {
        say("remedy", &g.remedy);
    }
}
