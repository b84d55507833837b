//! Building blocks of events.

use crate::process::{Holding, HoldingPlace};
use keytrail_model::event::{Destination, PathStep, Source};
use keytrail_model::{Endpoints, FileFacts, HostName, SourceType};

pub fn file_source(file: &FileFacts) -> Source {
    Source {
        path: file.path.clone(),
        host_path: file.host_path.clone(),
        device: file.device,
        inode: file.inode,
        owner_uid: file.owner_uid,
        owner_gid: file.owner_gid,
        mode: format!("{:04o}", file.mode & 0o7777),
        reach: file.reach,
        tracked: file.tracked,
        orphaned: file.orphaned,
        ..Source::new(SourceType::File)
    }
}

pub fn place_source(place: &HoldingPlace) -> Source {
    match place {
        HoldingPlace::File(file) => file_source(file),
        HoldingPlace::Env(name) => Source {
            env_name: name.clone(),
            ..Source::new(SourceType::Env)
        },
        HoldingPlace::Argv(index) => Source {
            argv_index: *index,
            ..Source::new(SourceType::Argv)
        },
        HoldingPlace::Process(key) => Source {
            inherited_from: key.clone(),
            ..Source::new(SourceType::Process)
        },
        HoldingPlace::Service(asked) => Source {
            path: asked.clone(),
            ..Source::new(SourceType::Service)
        },
        HoldingPlace::Use(parents) => Source {
            parents: parents.to_vec(),
            ..Source::new(SourceType::Payload)
        },
    }
}

/// The source of a use: the holding, or unknown when the process is not known to hold the credential.
pub fn holding_source(holding: Option<&Holding>, boot_wall_ns: u64) -> Source {
    let Some(holding) = holding else {
        return Source::new(SourceType::Unknown);
    };
    let mut source = place_source(&holding.place);
    if let Some(from) = &holding.inherited_from {
        source.inherited_from = from.to_string();
    }
    source.first_seen_ns = Some(boot_wall_ns + holding.since_ns);
    source
}

/// The way a credential that was passed on can have come by.
pub fn path(holding: Option<&Holding>) -> Vec<PathStep> {
    holding
        .and_then(|h| h.passed.as_ref())
        .map_or_else(Vec::new, |passed| passed.path.to_vec())
}

/// The destination of a send; `None` is an unknown one, which the evidence says.
pub fn destination(ends: Option<&Endpoints>, hosts: &[HostName]) -> Destination {
    let hosts = hosts.to_vec();
    let Some(ends) = ends else {
        return Destination {
            hosts,
            ..Destination::default()
        };
    };
    Destination {
        ip: ends.peer_ip.clone(),
        port: u32::from(ends.peer_port),
        protocol: ends.protocol.clone(),
        hosts,
        socket_path: ends.path.clone(),
        path: String::new(),
        local_ip: ends.local_ip.clone(),
        local_port: u32::from(ends.local_port),
        network_namespace: u64::from(ends.net_ns),
        direction: None,
        peer: None,
        stdout_of: String::new(),
    }
}
