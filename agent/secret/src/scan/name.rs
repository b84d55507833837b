//! What the name of a variable, key or field says about its value.

/// How secret a name sounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameClass {
    /// Chosen by a person: any value counts.
    Password,
    /// Made by a machine: the value must look like it.
    Secret,
    /// `..._KEY` without a word that makes it secret: only a strongly random value counts.
    Key,
}

const MAX_NAME: usize = 80;

/// Words after which the one before decides: `password_value`, `token_prod`, `secret2`.
const TRAILERS: &[&str] = &[
    "value",
    "val",
    "string",
    "str",
    "plain",
    "text",
    "b64",
    "base64",
    "prod",
    "production",
    "dev",
    "development",
    "staging",
    "stage",
    "test",
    "live",
    "new",
    "old",
    "default",
    "env",
    "ci",
    "raw",
    "literal",
    "sandbox",
    "primary",
    "secondary",
    "admin",
    "root",
    "user",
    "main",
    "is",
    "clear",
    "base",
];

const PASSWORD: &[&str] = &[
    "password",
    "passwd",
    "pwd",
    "pass",
    "passphrase",
    "passcode",
    "pswd",
    "psw",
    "psswd",
    "passwort",
    "passe",
    "contrasena",
    // Letters beyond ASCII stand as question marks here: contraseña.
    "contrase??a",
    "senha",
    "wachtwoord",
    "kennwort",
    "pword",
    "passw",
    "userpass",
    "dbpass",
    "mdp",
    "pw",
    "psk",
    "authtok",
    "bindpw",
    "rootpw",
    "userpw",
];
/// Words that make `...pass` a password.
const PASS_OF: &[&str] = &[
    "db", "my", "user", "usr", "ftp", "sftp", "mail", "email", "smtp", "imap", "pop", "admin",
    "root", "key", "store", "ldap", "mysql", "pg", "sql", "mongo", "redis", "wifi", "login",
    "auth", "svn", "git", "ssh", "su", "sudo", "http", "proxy", "cert", "pem", "jks", "ks", "app",
    "api", "web", "vpn", "master", "bind", "host", "account", "basic", "rabbit", "mq", "postgres",
    "oracle", "server", "client", "default", "priv", "enc", "remote", "local",
];
const SECRET: &[&str] = &[
    "secret",
    "secrets",
    "token",
    "credential",
    "credentials",
    "cred",
    "creds",
    "pat",
    "apikey",
    "apitoken",
    "authtoken",
    "accesstoken",
    "refreshtoken",
    "secretkey",
    "privatekey",
    "accesskey",
    "clientsecret",
    "authkey",
    "jwt",
    "appsecret",
    "apisecret",
    "encryptionkey",
    "masterkey",
    "signingkey",
    "licensekey",
    "sharedkey",
    "accountkey",
    "secretaccesskey",
    "sharedaccesskey",
    "authpass",
    "bearer",
    "appkey",
    "servicekey",
    "usertoken",
    "bottoken",
    "pepper",
];
/// Words that make `... key` secret.
const KEY_OF: &[&str] = &[
    "api",
    "access",
    "secret",
    "private",
    "auth",
    "encryption",
    "encrypt",
    "crypt",
    "crypto",
    "signing",
    "sign",
    "signature",
    "master",
    "license",
    "service",
    "account",
    "shared",
    "storage",
    "app",
    "application",
    "admin",
    "consumer",
    "deploy",
    "webhook",
    "session",
    "cookie",
    "hmac",
    "aes",
    "jwt",
    "cipher",
    "subscription",
    "integration",
    "server",
    "security",
    "write",
    "rest",
    "sdk",
    "token",
    "decrypt",
    "decryption",
    "auth0",
    "oauth",
    "rsa",
    "ssh",
    "host",
    "pepper",
    "record",
    "stream",
    "authorization",
    "authentication",
    "bearer",
    "kms",
    "seal",
    "unseal",
    "recovery",
    "join",
    "pre",
    "preshared",
    "psk",
];
/// Words that make `... key` something else.
const KEY_NOT: &[&str] = &[
    "public",
    "pub",
    "primary",
    "foreign",
    "partition",
    "sort",
    "index",
    "unique",
    "row",
    "object",
    "s3",
    "map",
    "dict",
    "lookup",
    "group",
    "translation",
    "message",
    "i18n",
    "l10n",
    "label",
    "short",
    "hot",
    "keyboard",
    "arrow",
    "enter",
    "registry",
    "order",
    "item",
    "column",
    "field",
    "config",
    "option",
    "property",
    "attribute",
    "parent",
    "child",
    "ref",
    "default",
    "site",
    "cache",
    "hash",
    "range",
    "composite",
    "natural",
    "routing",
    "locale",
    "json",
    "xml",
    "yaml",
    "header",
    "param",
    "query",
    "path",
    "file",
    "bucket",
    "redis",
    "kv",
    "meta",
    "tag",
    "event",
    "idempotency",
    "trusted",
    "known",
    "gpg",
    "signed",
    "dns",
    "recv",
    "manager",
    "win",
    "reg",
    "subkey",
];
/// Words anywhere in the name that say the value is no secret.
const NEVER: &[&str] = &[
    "public",
    "pub",
    "sha",
    "sha1",
    "sha256",
    "sha512",
    "md5",
    "checksum",
    "digest",
    "etag",
    "integrity",
    "commit",
    "fingerprint",
    "thumbprint",
    "csrf",
    "xsrf",
    "keyboard",
    "keycode",
    "hint",
    "regex",
    "pattern",
    "placeholder",
    "example",
    "sample",
    "expired",
    "invalid",
    "algorithm",
    "schema",
    "uuid",
    "next",
    "page",
    "continuation",
    "sync",
    "publishable",
    "pagination",
    "cursor",
    "revision",
    "hashed",
];

/// Judges a name. The cost is bounded by `MAX_NAME`.
pub fn classify(name: &[u8]) -> Option<NameClass> {
    if name.len() > MAX_NAME || name.is_empty() {
        return None;
    }
    // The shell's last working directory; `PWD` is that, and a password in ODBC: the value tells.
    if name == b"OLDPWD" {
        return None;
    }
    let mut buffer = [0u8; MAX_NAME];
    let mut words: [&str; 16] = [""; 16];
    let n = split(name, &mut buffer, &mut words);
    let words = &words[..n];
    if words.iter().any(|w| NEVER.contains(w)) {
        return None;
    }
    let (last, head) = without_trailers(words).split_last()?;
    let last = last.trim_end_matches(|c: char| c.is_ascii_digit());
    let before = head.last().copied().unwrap_or_default();
    if names_password(last) {
        // `by pass`, `one pass`: not in names of secrets.
        let passes = last == "pass" && PASS_NOT.contains(&before);
        return (!passes).then_some(NameClass::Password);
    }
    // OCI's `pass_phrase`.
    if before == "pass" && matches!(last, "phrase" | "word") {
        return Some(NameClass::Password);
    }
    // dbpass, smtppass; not minipass or compass.
    if last
        .strip_suffix("pass")
        .is_some_and(|of| PASS_OF.contains(&of))
    {
        return Some(NameClass::Password);
    }
    if names_secret(last) {
        // What makes a request the same as one before, and what says which change is meant, opens nothing.
        let same = last == "token"
            && TOKENS_NOT
                .iter()
                .any(|(whole, words)| head.ends_with(words) && (!whole || head == *words));
        return (!same).then_some(NameClass::Secret);
    }
    if matches!(last, "key" | "keys") {
        // What makes a request the same as one before, and what begins a conversation.
        if matches!(before, "idempotency" | "websocket") {
            return None;
        }
        return key_of(before);
    }
    if last.len() > 3 && last.ends_with("key") && !KEY_WORDS.contains(&last) {
        return Some(NameClass::Key);
    }
    // What is mixed into hashes and drawn keys from: secret where a program has one for all.
    if matches!(last, "salt" | "seed") && !head.is_empty() {
        return Some(NameClass::Key);
    }
    // The word that nodes of Erlang know each other by.
    if last == "cookie" && matches!(before, "erlang" | "release") {
        return Some(NameClass::Secret);
    }
    if last == "auth" && name.len() <= 32 {
        return Some(NameClass::Key);
    }
    None
}

/// Words before a token that opens nothing, with whether there may be no others: those of AWS's requests, and of anybody's.
const TOKENS_NOT: &[(bool, &[&str])] = &[
    (true, &["change"]),
    (true, &["purchase"]),
    (false, &["lifecycle", "action"]),
    (false, &["client", "request"]),
    (false, &["idempotency"]),
];

/// Words behind which `pass` is no password.
const PASS_NOT: &[&str] = &[
    "by", "first", "second", "render", "single", "multi", "one", "two",
];

/// Words that end in `key` and are none, or one that is no secret.
const KEY_WORDS: &[&str] = &[
    "monkey",
    "turkey",
    "whiskey",
    "hockey",
    "jockey",
    "donkey",
    "hotkey",
    "keykey",
    "pubkey",
    "publickey",
    "sitekey",
    "passkey",
];

/// The words without those at the end that say nothing of what it is: numbers, files, values.
fn without_trailers<'w, 'n>(mut words: &'w [&'n str]) -> &'w [&'n str] {
    while let [head @ .., last] = words
        && !head.is_empty()
        && (TRAILERS.contains(last) || last.bytes().all(|b| b.is_ascii_digit()))
    {
        words = head;
    }
    words
}

fn names_password(last: &str) -> bool {
    PASSWORD.contains(&last)
        || last.ends_with("password")
        || last.ends_with("passwd")
        || last.ends_with("passphrase")
}

fn names_secret(last: &str) -> bool {
    SECRET.contains(&last)
        || last.ends_with("secret")
        || last.ends_with("apikey")
        || last.ends_with("secretkey")
        || last.ends_with("privatekey")
        || last.ends_with("token")
}

/// A key by the word before it.
fn key_of(before: &str) -> Option<NameClass> {
    if KEY_NOT.contains(&before) {
        return None;
    }
    Some(if KEY_OF.contains(&before) {
        NameClass::Secret
    } else {
        NameClass::Key
    })
}

/// Lower-case words of a name, split at separators and at changes from lower to upper case.
fn split<'a>(name: &[u8], buffer: &'a mut [u8; MAX_NAME], words: &mut [&'a str; 16]) -> usize {
    let mut ends = [(0usize, 0usize); 16];
    let mut count = 0;
    let mut start = 0;
    let mut push = |from: usize, to: usize| {
        if to > from {
            if count == 16 {
                // The last words decide: drop the first.
                ends.copy_within(1.., 0);
                count = 15;
            }
            ends[count] = (from, to);
            count += 1;
        }
    };
    for (i, &b) in name.iter().enumerate() {
        let previous = if i == 0 { b'_' } else { name[i - 1] };
        if !b.is_ascii_alphanumeric() && b.is_ascii() {
            push(start, i);
            start = i + 1;
        } else if b.is_ascii_uppercase()
            && (previous.is_ascii_lowercase()
                || (previous.is_ascii_uppercase()
                    && name.get(i + 1).is_some_and(u8::is_ascii_lowercase)))
        {
            push(start, i);
            start = i;
        }
        buffer[i] = if b.is_ascii() {
            b.to_ascii_lowercase()
        } else {
            b'?'
        };
    }
    push(start, name.len());
    let buffer: &'a [u8; MAX_NAME] = buffer;
    for (slot, &(from, to)) in words.iter_mut().zip(&ends[..count]) {
        *slot = std::str::from_utf8(&buffer[from..to]).unwrap_or_default();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_and_of_other_things() {
        use NameClass::*;
        for (name, class) in [
            ("DB_PASSWORD", Some(Password)),
            ("db.password", Some(Password)),
            ("FromEmailPassword", Some(Password)),
            ("userPwd", Some(Password)),
            ("MYSQL_ROOT_PASSWORD_PROD", Some(Password)),
            ("password1", Some(Password)),
            ("REACT_APP_PASS", Some(Password)),
            ("dbpass", Some(Password)),
            ("pass_phrase", Some(Password)),
            ("STRIPE_PUBLISHABLE_KEY", None),
            ("phrase", None),
            ("clientSecret", Some(Secret)),
            ("GITHUB_TOKEN", Some(Secret)),
            ("apiKey", Some(Secret)),
            ("X-Api-Key", Some(Secret)),
            ("HTTPToken", Some(Secret)),
            ("AWSSecretKey", Some(Secret)),
            ("encryption_key", Some(Secret)),
            ("FOO_KEY", Some(Key)),
            ("DJANGO_KEY", Some(Key)),
            ("PWD", Some(Password)),
            ("contraseña", Some(Password)),
            ("remotepass", Some(Password)),
            ("OLDPWD", None),
            ("public_key", None),
            ("primaryKey", None),
            ("password_file", None),
            ("token_url", None),
            ("secret_name", None),
            ("passed", None),
            ("author", None),
            ("keyboard", None),
            ("tokenizer", None),
            ("next_page_token", None),
            ("clientRequestToken", None),
            ("LifecycleActionToken", None),
            ("oauth_request_token", Some(Secret)),
            ("api_key_id", None),
            ("monkey", None),
            ("bypass", None),
            ("secretName", None),
            ("sha256_key", None),
            ("", None),
        ] {
            assert_eq!(classify(name.as_bytes()), class, "{name}");
        }
    }
}
