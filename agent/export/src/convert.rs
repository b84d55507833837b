//! From what the core and the sensor say to `keytrail.v1`: the only place where protobuf is made of it.

use keytrail_model::event::{
    Ancestor, Context, Destination, Event, EventId, Evidence, Gap, Parent, PathStep, Peer, Process,
    ProcessExit, Source, Truncation, WorkloadNames,
};
use keytrail_model::status::{LibraryReport, Refused, SignalReport};
use keytrail_model::{
    Actor, Credential, DestinationMethod, Direction, ExeFacts, FileChange, HostName, IdentifiedBy,
    LineageBasis, Reach, Request, Signal, Tier, TlsStack, Transform,
};
use keytrail_proto::v1;
use pbjson_types::Timestamp;

/// Nanoseconds since the epoch.
#[must_use]
pub fn timestamp(wall_ns: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(wall_ns / 1_000_000_000).unwrap_or(i64::MAX),
        nanos: (wall_ns % 1_000_000_000) as i32,
    }
}

/// An event as clients, files and the store get it.
#[must_use]
pub fn event(event: Event) -> v1::Event {
    v1::Event {
        id: Some(id(event.id)),
        time: Some(timestamp(event.time_ns)),
        boot_time_ns: event.boot_ns,
        kind: event.kind.number(),
        process: event.process.map(process),
        credential: event.credential.as_deref().map(credential),
        source: event.source.map(source),
        destination: event.destination.map(destination),
        evidence: event.evidence.map(evidence),
        truncation: event.truncation.map(truncation),
        coverage: event.coverage,
        attack: event.attack,
        gap: event.gap.map(gap),
        exit: event.exit.map(exit),
        victim: event.victim.map(process),
        // Made by a later stage.
        finding: None,
        request: event.request.map(request),
        workload: event.workload.map(|names| workload(*names)),
        change: event.change.map(|change| file_change(*change)),
        repeats: event.repeats.map(|repeats| v1::Repeats {
            count: repeats.count,
            first: Some(timestamp(repeats.first_ns)),
        }),
        delivery: event.delivery.map(|delivery| v1::Delivery {
            container: delivery.container,
            path: delivery.path.into_iter().map(step).collect(),
        }),
        // A later stage knows what the site calls it.
        environment: String::new(),
        group: event.group,
    }
}

fn file_change(c: FileChange) -> v1::FileChange {
    v1::FileChange {
        action: c.action.number(),
        previous_mode: c
            .before
            .map_or_else(String::new, |b| format!("{:04o}", b.mode & 0o7777)),
        previous_owner_uid: c.before.map(|b| b.uid),
        previous_owner_gid: c.before.map(|b| b.gid),
        new_path: c.new_path,
        link: c.link,
        previous_fingerprint: c.previous,
    }
}

#[must_use]
pub fn id(id: EventId) -> v1::EventId {
    v1::EventId {
        agent: id.agent,
        boot: id.boot,
        epoch: id.epoch,
        sequence: id.sequence,
    }
}

fn process(p: Process) -> v1::Process {
    v1::Process {
        key: p.key,
        pid: p.pid,
        namespace_pid: p.namespace_pid,
        executable: p.executable.map(executable),
        comm: p.comm,
        argv: p.argv,
        cwd: p.cwd,
        uid: p.uid,
        euid: p.euid,
        gid: p.gid,
        loginuid: p.loginuid,
        session: p.session,
        cgroup: p.cgroup,
        container: p.container,
        unit: p.unit,
        pod: p.pod,
        ancestors: p.ancestors.into_iter().map(ancestor).collect(),
        start_time: p.start_time_ns.map(timestamp),
        ppid: p.ppid,
        contexts: p.contexts.into_iter().map(context).collect(),
        actor: p.actor.map_or(0, Actor::number),
        workload: p.workload.map(|names| workload(*names)),
    }
}

fn workload(names: WorkloadNames) -> v1::Workload {
    let owner = names.owner.unwrap_or_default();
    v1::Workload {
        pod_uid: names.pod_uid,
        container_id: names.container_id,
        namespace: names.namespace,
        pod: names.pod,
        container: names.container,
        image: names.image,
        image_digest: names.image_digest,
        service_account: names.service_account,
        node: names.node,
        owner_kind: owner.kind,
        owner: owner.name,
        labels: names.labels,
    }
}

fn context(c: Context) -> v1::Context {
    v1::Context {
        kind: c.kind.number(),
        name: c.name,
        ancestor: c.key,
    }
}

fn executable(exe: ExeFacts) -> v1::Executable {
    v1::Executable {
        path: exe.path,
        device: exe.device,
        inode: exe.inode,
        fresh: exe.fresh,
        upper_layer: exe.upper_layer,
    }
}

fn ancestor(a: Ancestor) -> v1::Ancestor {
    v1::Ancestor {
        key: a.key,
        pid: a.pid,
        comm: a.comm,
        executable: a.executable,
        script: a.script,
    }
}

fn credential(c: &Credential) -> v1::Credential {
    v1::Credential {
        kind: c.kind.clone(),
        identifier: c.identifier.clone(),
        fingerprint: c.fingerprint.clone(),
        confidence: c.confidence,
        expires: c.expires.map(|seconds| Timestamp { seconds, nanos: 0 }),
        rule: c.rule.clone(),
        privilege: u32::from(c.privilege),
    }
}

fn source(s: Source) -> v1::Source {
    v1::Source {
        r#type: s.r#type.number(),
        path: s.path,
        device: s.device,
        inode: s.inode,
        owner_uid: s.owner_uid,
        owner_gid: s.owner_gid,
        mode: s.mode,
        env_name: s.env_name,
        argv_index: s.argv_index,
        inherited_from: s.inherited_from,
        first_seen: s.first_seen_ns.map(timestamp),
        reach: s.reach.map_or(0, Reach::number),
        tracked: s.tracked,
        orphaned: s.orphaned,
        host_path: s.host_path,
        likely_parents: s.parents.into_iter().map(parent).collect(),
    }
}

fn parent(p: Parent) -> v1::Parent {
    v1::Parent {
        kind: p.kind,
        fingerprint: p.fingerprint,
        host: p.host,
        path: p.path,
        time: Some(timestamp(p.time_ns)),
    }
}

fn destination(d: Destination) -> v1::Destination {
    v1::Destination {
        ip: d.ip,
        port: d.port,
        protocol: d.protocol,
        hosts: d.hosts.into_iter().map(host_name).collect(),
        socket_path: d.socket_path,
        path: d.path,
        local_ip: d.local_ip,
        local_port: d.local_port,
        network_namespace: d.network_namespace,
        direction: d.direction.map_or(0, Direction::number),
        peer: d.peer.map(peer),
        stdout_of: d.stdout_of,
    }
}

fn peer(p: Peer) -> v1::Peer {
    v1::Peer {
        key: p.key,
        pid: p.pid,
        comm: p.comm,
        executable: p.executable,
    }
}

fn host_name(h: HostName) -> v1::HostName {
    v1::HostName {
        name: h.name,
        provenance: h.provenance,
    }
}

fn evidence(e: Evidence) -> v1::Evidence {
    v1::Evidence {
        grade: e.grade.map_or(0, |grade| grade.number()),
        transform: e.transform.map_or(0, Transform::number),
        channel: e.channel.number(),
        payload_bytes: e.payload_bytes,
        inspected_bytes: e.inspected_bytes,
        destination_method: e.destination_method.map_or(0, DestinationMethod::number),
        part: e.part,
        occurrences: e.occurrences,
        hook: e.hook,
        lineage_basis: e.lineage_basis.map_or(0, LineageBasis::number),
        layers: e.layers.into_iter().map(Transform::number).collect(),
        path: e.path.into_iter().map(step).collect(),
        identified_by: e.identified_by.map_or(0, IdentifiedBy::number),
        in_body: e.in_body,
        in_url: e.in_url,
    }
}

fn step(s: PathStep) -> v1::PathStep {
    v1::PathStep {
        how: s.how,
        name: s.name,
        process: s.key,
        pid: s.pid,
        executable: s.executable,
        comm: s.comm,
    }
}

fn request(r: Request) -> v1::Request {
    v1::Request {
        protocol: r.protocol,
        method: r.method,
        host: r.host,
        path: r.path,
        content_type: r.content_type,
        content_length: r.content_length,
        bytes: r.bytes,
        target: r.target.map(|t| v1::Target {
            service: t.service,
            kind: t.kind,
            name: t.name,
        }),
        status_class: r.status_class,
    }
}

fn truncation(t: Truncation) -> v1::Truncation {
    v1::Truncation {
        argv: t.argv,
        environment: t.environment,
        payload: t.payload,
        file: t.file,
    }
}

fn gap(g: Gap) -> v1::Gap {
    v1::Gap {
        reason: g.reason.number(),
        detail: g.detail,
        remedy: g.remedy,
        count: g.count,
        from: g.from_ns.map(timestamp),
        to: g.to_ns.map(timestamp),
        signal: g.signal.map_or(0, Signal::number),
    }
}

fn exit(e: ProcessExit) -> v1::ProcessExit {
    v1::ProcessExit {
        status: e.status,
        signal: e.signal,
        inherited_exposures: e.inherited_exposures,
        untold_sends: e.untold_sends,
    }
}

/// One signal as `keytrail doctor` shows it.
#[must_use]
pub fn signal(report: &SignalReport) -> v1::SignalStatus {
    v1::SignalStatus {
        signal: report.signal.number(),
        hook: report.hook.clone(),
        tier: report.tier.map_or(0, Tier::number),
        refused: report.refused.iter().map(refused).collect(),
        self_test: report.self_test.clone(),
        note: report.note.clone(),
    }
}

fn refused(refused: &Refused) -> v1::RefusedHook {
    v1::RefusedHook {
        hook: refused.hook.clone(),
        reason: refused.reason.clone(),
        remedy: refused.remedy.clone(),
    }
}

/// One TLS library as `keytrail doctor` shows it.
#[must_use]
pub fn library(report: &LibraryReport) -> v1::LibraryStatus {
    v1::LibraryStatus {
        path: report.path.clone(),
        stack: report.stack.map_or(0, TlsStack::number),
        covered: report.covered,
        reason: report.reason.clone(),
        remedy: report.remedy.clone(),
        hooks: report.hooks.clone(),
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
