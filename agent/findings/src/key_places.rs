//! Where keys lie, by the names of files and directories.

/// Words by which whoever packs or looks for keys names their places.
pub(crate) const KEYS: &[&str] = &[
    ".aws",
    ".ssh",
    ".kube",
    ".docker",
    ".npmrc",
    ".netrc",
    ".gnupg",
    ".azure",
    ".env",
    ".pgpass",
    ".pypirc",
    ".config",
    ".git-credentials",
    ".vault-token",
    "credential",
    "secret",
    "token",
    "id_rsa",
    "id_ed25519",
    "id_ecdsa",
    "shadow",
    "gcloud",
];

/// Whether a file lies below a name that begins with a point, where programs keep what is theirs; `.env` configures a project.
pub(crate) fn is_hidden(path: &str) -> bool {
    let hidden = |part: &str| {
        part.starts_with('.') && !part.starts_with(".env") && !matches!(part, "." | "..")
    };
    path.split('/').any(hidden)
}
