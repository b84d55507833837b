//! The core as a table of stories: observations in, what may be claimed out.

mod attempts;
mod context;
mod delivery;
mod fields;
mod files;
mod holdings;
mod in_use;
mod limits;
mod lineage;
mod messages;
mod metadata;
mod names;
mod pipes;
mod repeats;
mod sends;
mod taken;
mod tls;
mod tls_in_tls;
mod truncated;
mod uncovered;
mod written;

use super::Core;
use keytrail_model::event::{Event, Gap, Truncation};
use keytrail_model::*;
use std::sync::Arc;

const SEC: u64 = 1_000_000_000;

fn credential(name: &str) -> CredentialRef {
    Arc::new(Credential {
        kind: "github-token".to_owned(),
        identifier: String::new(),
        fingerprint: format!("kt1:{name:0>32}"),
        confidence: 0.9,
        expires: None,
        rule: "test".to_owned(),
        privilege: 2,
        attack: "T1552.001".to_owned(),
    })
}

fn pid(tgid: u32) -> Pid {
    Pid {
        tgid,
        start: u64::from(tgid) * 10,
    }
}

fn at(tgid: u32, boot_ns: u64) -> TaskInfo {
    TaskInfo {
        boot_ns,
        pid: pid(tgid),
        tid: tgid,
        uid: 0,
        euid: 0,
        gid: 0,
        cgroup_id: 0,
        comm: format!("p{tgid}"),
    }
}

fn start() -> Observation {
    Observation::Start(AgentStart {
        agent: "a".to_owned(),
        boot_id: "01234567-0000".to_owned(),
        epoch: 1,
        boot_ns: 0,
        wall_ns: 1_000 * SEC,
        ..AgentStart::default()
    })
}

fn exec(tgid: u32, parent: u32, boot_ns: u64, found: Vec<Found>) -> Observation {
    Observation::Exec(Box::new(ExecSeen {
        at: at(tgid, boot_ns),
        parent: pid(parent),
        exe: ExeFacts {
            path: format!("/bin/p{tgid}"),
            device: 1,
            inode: u64::from(tgid),
            fresh: false,
            upper_layer: false,
        },
        ns_tgid: tgid,
        argv: vec![],
        cwd: "/".to_owned(),
        cgroup: "/".to_owned(),
        loginuid: 0,
        session: 0,
        found,
        argv_truncated: false,
        env_truncated: false,
        env_bytes: 0,
        env_inspected: 0,
        argv_bytes: 0,
        argv_inspected: 0,
    }))
}

fn env(credential: &CredentialRef, name: &str) -> Found {
    Found {
        credential: credential.clone(),
        place: FoundIn::Env(name.to_owned()),
    }
}

fn ends(sock: u64, port: u16) -> Endpoints {
    Endpoints {
        sock,
        local_ip: "127.0.0.1".to_owned(),
        local_port: 40_000 + sock as u16,
        peer_ip: "127.0.0.1".to_owned(),
        peer_port: port,
        protocol: "tcp".to_owned(),
        net_ns: 1,
        ..Endpoints::default()
    }
}

fn hit(credential: &CredentialRef, secret: bool) -> Hit {
    Hit {
        credential: credential.clone(),
        secret,
        transform: Transform::Raw,
        part: String::new(),
        occurrences: 1,
        by: (!secret).then_some(IdentifiedBy::Identifier),
        open: false,
        layers: Vec::new(),
        request: None,
        body: false,
        target: false,
    }
}

fn payload(total: u64, hits: Vec<Hit>) -> Payload {
    Payload {
        total,
        inspected: total,
        truncated: false,
        hits,
        hosts: vec![],
        continues: false,
        ..Payload::default()
    }
}

fn tls(
    tgid: u32,
    boot_ns: u64,
    call: u64,
    session: u64,
    total: u64,
    hits: Vec<Hit>,
) -> Observation {
    Observation::TlsWrite(Box::new(TlsSeen {
        at: at(tgid, boot_ns),
        call,
        session,
        socket: None,
        once: false,
        digest: None,
        record: None,
        payload: payload(total, hits),
        hook: "uprobe:SSL_write".to_owned(),
    }))
}

fn send(
    tgid: u32,
    boot_ns: u64,
    ends: Endpoints,
    record: Option<(u8, u16)>,
    call: Option<(u64, u64)>,
    p: Payload,
) -> Observation {
    Observation::Send(Box::new(SendSeen {
        at: at(tgid, boot_ns),
        ends,
        payload: p,
        tls_record: record,
        tls_more: vec![],
        goes_on: None,
        tls_call: call,
        // As clients begin: with their hello.
        hello: (record == Some((0x16, 512))).then_some(Direction::Outgoing),
        direction: None,
        sealed: false,
        asked: 0,
        hook: "raw_tp:tcp_sendmsg_locked".to_owned(),
    }))
}

fn run(observations: &[Observation]) -> Vec<Event> {
    let mut core = Core::new();
    observations
        .iter()
        .flat_map(|o| core.step(o).events)
        .collect()
}

fn of<'a>(events: &'a [Event], kind: &str) -> Vec<&'a Event> {
    events.iter().filter(|e| e.kind.word() == kind).collect()
}

fn grade(e: &Event) -> &str {
    let grade = e.evidence.as_ref().and_then(|e| e.grade);
    grade.map_or("", EvidenceGrade::word)
}

fn method(e: &Event) -> &str {
    let method = e.evidence.as_ref().and_then(|e| e.destination_method);
    method.map_or("", DestinationMethod::word)
}

fn stop() -> Observation {
    Observation::Stop { boot_ns: 100 * SEC }
}
