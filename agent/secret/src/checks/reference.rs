//! Values that say where a secret is, and hold none: paths, ARNs, addresses in stores of secrets.

use super::looks_random;

/// How addresses of secrets begin in the notations of the stores and of what resolves them.
const STORES: &[&[u8]] = &[
    b"arn:",
    b"urn:",
    b"op://",
    b"vault:",
    b"secretsmanager:",
    b"aws-secretsmanager:",
    b"aws-ssm:",
    b"ssm:",
    b"gcp-secretmanager:",
    b"gcp-sm:",
    b"sm://",
    b"akv:",
    b"azure-keyvault:",
    b"keyvault:",
    b"bws:",
    b"ref+",
    b"doppler:",
    b"infisical:",
    b"conjur:",
    b"cyberark:",
    b"keyring:",
    b"keychain:",
    b"keepassxc:",
    b"file:",
    b"env:",
    b"secret://",
    b"secrets://",
    b"k8s:",
    b"kubernetes://",
    b"credhub:",
    b"awssm:",
    b"aws-sm:",
    b"awskms:",
    b"kms:",
    b"gcpsm:",
    b"gsm:",
    b"bao:",
    b"openbao:",
    b"hcp:",
    b"berglas:",
    b"chamber:",
    b"keeper:",
    b"keepass:",
    b"lpass:",
    b"lastpass:",
    b"bitwarden:",
    b"dashlane:",
    b"gopass:",
    b"dl://",
    b"secretref:",
    b"@microsoft.keyvault(",
    b"sops:",
    b"pass://",
    b"projects/",
];

/// Directories that paths to files with secrets begin with.
const DIRECTORIES: &[&[u8]] = &[
    b"run",
    b"var",
    b"etc",
    b"home",
    b"root",
    b"usr",
    b"opt",
    b"srv",
    b"tmp",
    b"mnt",
    b"media",
    b"data",
    b"app",
    b"apps",
    b"secrets",
    b"secret",
    b"vault",
    b"config",
    b"conf",
    b"proc",
    b"dev",
    b"users",
    b"private",
    b"credentials",
    b"creds",
    b"keys",
    b"certs",
    b"workspace",
    b"builds",
    b"github",
    b"kaniko",
    b"bitnami",
    b"tokens",
    b"volumes",
    b"lib",
    b"library",
    b"mount",
];

/// The value names the place of a secret.
#[must_use]
pub fn refers(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    let value = match value {
        [a @ (b'"' | b'\''), inner @ .., b] if a == b => inner,
        _ => value,
    };
    let starts = |mark: &[u8]| {
        value
            .get(..mark.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(mark))
    };
    // `@path` is how programs are told to read a file.
    let path = value.strip_prefix(b"@").unwrap_or(value);
    STORES.iter().any(|mark| starts(mark)) || is_path(path)
}

/// An absolute path, or one from here or from home. Base64 may begin with a slash, too; its segments look random.
fn is_path(value: &[u8]) -> bool {
    if [&b"./"[..], b"../", b"~/", b"$HOME/", b"${HOME}/"]
        .iter()
        .any(|mark| value.starts_with(mark))
        || matches!(value, [drive, b':', b'\\' | b'/', ..] if drive.is_ascii_alphabetic())
    {
        return true;
    }
    // `$PWD/secret`: a variable that holds a directory.
    if let Some(after) = value.strip_prefix(b"$") {
        let name = after
            .iter()
            .take_while(|b| b.is_ascii_uppercase() || **b == b'_')
            .count();
        if name >= 3 && after.get(name) == Some(&b'/') {
            return true;
        }
    }
    let Some(rest) = value
        .strip_prefix(b"/")
        .filter(|rest| !rest.starts_with(b"/"))
    else {
        return false;
    };
    let mut segments = rest.split(|b| *b == b'/');
    let first = segments.next().unwrap_or_default();
    DIRECTORIES
        .iter()
        .any(|directory| first.eq_ignore_ascii_case(directory))
        && rest.len() > first.len()
        || !value.contains(&b'+')
            && !value.contains(&b'=')
            && rest.contains(&b'/')
            && !rest.split(|b| *b == b'/').any(looks_random)
            && rest.split(|b| *b == b'/').filter(|s| s.len() >= 3).count() >= 2
            && super::strength::worded(value)
}

/// A variable of this name holds the place of a secret: `DB_PASSWORD_FILE`, `API_TOKEN_ARN`.
#[must_use]
pub fn named_for_reference(name: &[u8]) -> bool {
    let end = name
        .iter()
        .rposition(u8::is_ascii_alphanumeric)
        .map_or(0, |at| at + 1);
    let name = &name[..end];
    let word = name
        .iter()
        .rev()
        .take_while(|b| b.is_ascii_alphabetic())
        .count();
    let word = &name[name.len() - word..];
    [
        &b"file"[..],
        b"filename",
        b"path",
        b"arn",
        b"dir",
        b"directory",
    ]
    .iter()
    .any(|last| {
        word.eq_ignore_ascii_case(last)
                // tokenFile
                || word.len() > last.len() && {
                    let tail = &word[word.len() - last.len()..];
                    tail[0].is_ascii_uppercase()
                        && tail.eq_ignore_ascii_case(last)
                        && word[word.len() - last.len() - 1].is_ascii_lowercase()
                }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_place_and_what_does_not() {
        for value in [
            "/run/secrets/db_password",
            "/var/run/secrets/tokens/api-token-1",
            "/etc/app/secret.key",
            "~/.config/token",
            "./secrets/token.txt",
            "C:\\secrets\\token",
            "@/etc/token",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-AbCdEf",
            "op://Engineering/github/credential",
            "vault:secret/data/app#token",
            "projects/p/secrets/s/versions/latest",
            "ref+awsssm://prod/db",
            "\"op://a/b/c\"",
            "$PWD/secret",
        ] {
            assert!(refers(value.as_bytes()), "{value}");
        }
        for value in [
            "/wJalrXUtnFEMI7K7MDENG7bPxRfiCYq3VtZcK8s",
            "/8aV3/kq9Zr+T1/bX7Lm0PqW2sD4fGhJkLzXcVbN=",
            "q3VtZcK8s1LwXy7BnR0uTd4P",
            "hunter2",
            "",
        ] {
            assert!(!refers(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn names_of_files_and_of_secrets() {
        for name in [
            "DB_PASSWORD_FILE",
            "API_TOKEN_ARN=",
            "tokenFile: ",
            "datadog.key.path = \"",
            "KEY_DIR",
        ] {
            assert!(named_for_reference(name.as_bytes()), "{name}");
        }
        for name in ["PROFILE", "API_KEY", "token", "EARN", "", "_="] {
            assert!(!named_for_reference(name.as_bytes()), "{name}");
        }
    }
}
