//! Building blocks of events.

pub use crate::process::timestamp;
use crate::process::{Holding, HoldingPlace};
use keytrail_model::{Credential, Ends, FileFacts, HostName};
use keytrail_proto::v1;

pub fn credential(c: &Credential) -> v1::Credential {
    v1::Credential {
        kind: c.kind.clone(),
        identifier: c.identifier.clone(),
        fingerprint: c.fingerprint.clone(),
        confidence: c.confidence,
        expires: c
            .expires
            .map(|seconds| pbjson_types::Timestamp { seconds, nanos: 0 }),
        rule: c.rule.clone(),
        privilege: u32::from(c.privilege),
    }
}

pub fn file_source(file: &FileFacts) -> v1::Source {
    v1::Source {
        r#type: "file".to_owned(),
        path: file.path.clone(),
        device: file.device,
        inode: file.inode,
        owner_uid: file.owner_uid,
        owner_gid: file.owner_gid,
        mode: format!("{:04o}", file.mode & 0o7777),
        ..v1::Source::default()
    }
}

pub fn place_source(place: &HoldingPlace) -> v1::Source {
    match place {
        HoldingPlace::File(file) => file_source(file),
        HoldingPlace::Env(name) => v1::Source {
            r#type: "env".to_owned(),
            env_name: name.clone(),
            ..v1::Source::default()
        },
        HoldingPlace::Argv(index) => v1::Source {
            r#type: "argv".to_owned(),
            argv_index: *index,
            ..v1::Source::default()
        },
    }
}

/// The source of a use: the holding, or "unknown" when the process is not known to hold the credential.
pub fn holding_source(holding: Option<&Holding>, boot_wall_ns: u64) -> v1::Source {
    let Some(holding) = holding else {
        return v1::Source {
            r#type: "unknown".to_owned(),
            ..v1::Source::default()
        };
    };
    let mut source = place_source(&holding.place);
    if let Some(from) = &holding.inherited_from {
        source.inherited_from.clone_from(from);
    }
    source.first_seen = Some(timestamp(boot_wall_ns + holding.since_ns));
    source
}

/// The destination of a send; `None` is an unknown one, which the evidence says.
pub fn destination(ends: Option<&Ends>, hosts: &[HostName]) -> v1::Destination {
    let hosts = hosts
        .iter()
        .map(|h| v1::HostName {
            name: h.name.clone(),
            provenance: h.provenance.clone(),
        })
        .collect();
    let Some(ends) = ends else {
        return v1::Destination {
            hosts,
            ..v1::Destination::default()
        };
    };
    v1::Destination {
        ip: ends.peer_ip.clone(),
        port: u32::from(ends.peer_port),
        protocol: ends.protocol.clone(),
        hosts,
        socket_path: String::new(),
        local_ip: ends.local_ip.clone(),
        local_port: u32::from(ends.local_port),
        network_namespace: u64::from(ends.net_ns),
    }
}
