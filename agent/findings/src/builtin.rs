//! The rules that come with keytrail.

/// File names and texts.
pub(crate) const BUILTIN: &[(&str, &str)] = &[
    (
        "added-to-container.toml",
        include_str!("../rules/added-to-container.toml"),
    ),
    (
        "after-silence.toml",
        include_str!("../rules/after-silence.toml"),
    ),
    (
        "agent-in-install.toml",
        include_str!("../rules/agent-in-install.toml"),
    ),
    ("agent-tool.toml", include_str!("../rules/agent-tool.toml")),
    (
        "bulk-harvest.toml",
        include_str!("../rules/bulk-harvest.toml"),
    ),
    ("bulk-send.toml", include_str!("../rules/bulk-send.toml")),
    (
        "coverage-lost.toml",
        include_str!("../rules/coverage-lost.toml"),
    ),
    ("created.toml", include_str!("../rules/created.toml")),
    (
        "cross-environment.toml",
        include_str!("../rules/cross-environment.toml"),
    ),
    (
        "decoy-touched.toml",
        include_str!("../rules/decoy-touched.toml"),
    ),
    ("dns-tunnel.toml", include_str!("../rules/dns-tunnel.toml")),
    ("duplicated.toml", include_str!("../rules/duplicated.toml")),
    (
        "expired-used.toml",
        include_str!("../rules/expired-used.toml"),
    ),
    ("expiring.toml", include_str!("../rules/expiring.toml")),
    (
        "fresh-program.toml",
        include_str!("../rules/fresh-program.toml"),
    ),
    (
        "in-arguments.toml",
        include_str!("../rules/in-arguments.toml"),
    ),
    ("in-body.toml", include_str!("../rules/in-body.toml")),
    ("in-dns.toml", include_str!("../rules/in-dns.toml")),
    (
        "in-git-config.toml",
        include_str!("../rules/in-git-config.toml"),
    ),
    (
        "in-shell-history.toml",
        include_str!("../rules/in-shell-history.toml"),
    ),
    ("in-url.toml", include_str!("../rules/in-url.toml")),
    (
        "in-work-tree.toml",
        include_str!("../rules/in-work-tree.toml"),
    ),
    ("key-sent.toml", include_str!("../rules/key-sent.toml")),
    (
        "linked-over.toml",
        include_str!("../rules/linked-over.toml"),
    ),
    ("long-lived.toml", include_str!("../rules/long-lived.toml")),
    (
        "machine-uses-person.toml",
        include_str!("../rules/machine-uses-person.toml"),
    ),
    (
        "metadata-credentials-unusual-program.toml",
        include_str!("../rules/metadata-credentials-unusual-program.toml"),
    ),
    (
        "new-address.toml",
        include_str!("../rules/new-address.toml"),
    ),
    (
        "new-destination.toml",
        include_str!("../rules/new-destination.toml"),
    ),
    ("new-hour.toml", include_str!("../rules/new-hour.toml")),
    (
        "new-program.toml",
        include_str!("../rules/new-program.toml"),
    ),
    ("new-source.toml", include_str!("../rules/new-source.toml")),
    (
        "new-workload.toml",
        include_str!("../rules/new-workload.toml"),
    ),
    (
        "not-by-http.toml",
        include_str!("../rules/not-by-http.toml"),
    ),
    (
        "not-rotated.toml",
        include_str!("../rules/not-rotated.toml"),
    ),
    ("orphaned.toml", include_str!("../rules/orphaned.toml")),
    (
        "own-environment.toml",
        include_str!("../rules/own-environment.toml"),
    ),
    (
        "package-install-sent.toml",
        include_str!("../rules/package-install-sent.toml"),
    ),
    (
        "package-install.toml",
        include_str!("../rules/package-install.toml"),
    ),
    (
        "persistence.toml",
        include_str!("../rules/persistence.toml"),
    ),
    (
        "person-uses-machine.toml",
        include_str!("../rules/person-uses-machine.toml"),
    ),
    ("reused.toml", include_str!("../rules/reused.toml")),
    ("searched.toml", include_str!("../rules/searched.toml")),
    (
        "sent-after-key.toml",
        include_str!("../rules/sent-after-key.toml"),
    ),
    (
        "sent-by-shell.toml",
        include_str!("../rules/sent-by-shell.toml"),
    ),
    (
        "sent-in-clear.toml",
        include_str!("../rules/sent-in-clear.toml"),
    ),
    ("stale.toml", include_str!("../rules/stale.toml")),
    ("static-key.toml", include_str!("../rules/static-key.toml")),
    (
        "taken-from-process.toml",
        include_str!("../rules/taken-from-process.toml"),
    ),
    (
        "temporary-program.toml",
        include_str!("../rules/temporary-program.toml"),
    ),
    ("uploaded.toml", include_str!("../rules/uploaded.toml")),
    (
        "used-from-copy.toml",
        include_str!("../rules/used-from-copy.toml"),
    ),
    (
        "world-readable.toml",
        include_str!("../rules/world-readable.toml"),
    ),
    (
        "written-by-service.toml",
        include_str!("../rules/written-by-service.toml"),
    ),
    (
        "written-to-log-or-terminal.toml",
        include_str!("../rules/written-to-log-or-terminal.toml"),
    ),
    (
        "wrong-place.toml",
        include_str!("../rules/wrong-place.toml"),
    ),
    (
        "wrong-protocol.toml",
        include_str!("../rules/wrong-protocol.toml"),
    ),
];
