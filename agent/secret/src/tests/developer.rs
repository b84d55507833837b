//! What a developer's machine is full of and what is none: lists of digests, program code, manuals, build scripts. Each class
//! has its twin, which is one.

use crate::rules::template::expand;
use crate::{Classifier, Origin};
use std::sync::LazyLock;

static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(Classifier::builtin);

/// Kinds of what is found with at least the confidence that an inventory shows.
fn shown(text: &str, path: &str) -> Vec<String> {
    let mut found = CLASSIFIER.classify(text.as_bytes(), Origin::File { path });
    found.retain(|f| !f.parts.is_empty() && f.confidence >= 0.5);
    found.into_iter().map(|f| f.kind).collect()
}

fn none(cases: &[(&str, String)]) {
    for (path, text) in cases {
        let found = shown(text, path);
        assert!(found.is_empty(), "{path}: {text}\n{found:?}");
    }
}

fn one(cases: &[(&str, String)]) {
    for (path, text) in cases {
        assert_eq!(shown(text, path).len(), 1, "{path}: {text}");
    }
}

fn made(template: &str, seed: u64) -> String {
    expand(template, seed).unwrap()
}

#[test]
fn lists_of_digests() {
    let (base64, md5) = (made("{b64url:43}", 1), made("{hex:32}", 2));
    none(&[
        (
            "/home/a/v/lib/python3.11/site-packages/x-1.dist-info/RECORD",
            format!(
                "x/providers/bitbucket/__init__.py,sha256={base64},0\nx/y.py,sha256={base64},7\n"
            ),
        ),
        (
            "/home/a/src/SUMS",
            format!("{md5}  usr/share/x/adobe-api-key.tag\n{md5}  usr/share/y.tag\n"),
        ),
        (
            "/home/a/src/SUMS",
            format!("MD5 (datadog-api-key.tgz) = {md5}\n"),
        ),
    ]);
    one(&[
        ("/home/a/src/adobe.conf", format!("ADOBE_API_KEY={md5}\n")),
        ("/home/a/src/adobe.conf", format!("adobe_api_key: {md5}\n")),
    ]);
}

#[test]
fn program_code() {
    none(&[
        (
            "/home/a/src/headers.ts",
            "const headers = {\n  'x-goog-api-key': appConfig.apiKey!,\n};\n".to_owned(),
        ),
        (
            "/home/a/src/types.d.ts",
            "  /**\n   * it falls back to `jwt.secret` or `NEXTAUTH_SECRET` from the environment\n   */\n".to_owned(),
        ),
        (
            "/home/a/src/limits.py",
            "RATES = {\n    \"change_password\": \"5/m/user\",\n    \"reset_password\": \"20/m/ip,5/m/key\",\n}\n".to_owned(),
        ),
        (
            "/home/a/src/migrations/0007.py",
            "    dependencies = [\n        (\"auth\", \"0006_require_contenttypes_0002\"),\n    ]\n".to_owned(),
        ),
        (
            "/home/a/src/login.js",
            "const passField = \"passValue\";\nreturn post({ password: passValue, token: tokenValue });\n"
                .to_owned(),
        ),
        (
            "/home/a/src/keygen.js",
            "let privateB64 = '-----BEGIN OPENSSH PRIVATE KEY-----\\n';\nlet out = [];\nfor (let i = 0; i < n; ++i) { out.push(chunk(i)); }\nreturn (privateB64 + out.join('') + '-----END OPENSSH PRIVATE KEY-----');\n".to_owned(),
        ),
    ]);
    let (secret, key) = (made("{base62:40}", 3), made("{openssh}", 4));
    one(&[
        ("/home/a/src/.env", format!("JWT_SECRET={secret}\n")),
        (
            "/home/a/src/headers.ts",
            format!("const headers = {{\n  'x-api-token': '{secret}',\n}};\n"),
        ),
        ("/home/a/src/key.js", format!("const key = `{key}`;\n")),
    ]);
}

/// What a token may do is its maker's choice: not every one of a kind gives everything.
#[test]
fn no_more_privilege_than_every_one_of_a_kind_gives() {
    let text = made("GITHUB_TOKEN=ghp_{base62:30}{crc32_base62}\n", 9);
    let path = "/home/a/.env";
    let found = CLASSIFIER.classify(text.as_bytes(), Origin::File { path });
    assert_eq!(
        (found[0].kind.as_str(), found[0].privilege),
        ("github-token", 3)
    );
}

#[test]
fn build_scripts() {
    none(&[
        (
            "/home/a/src/build.sh",
            "PASSWORD=\"$PWD/secret\"\nexport OLDPWD=$PWD\nDB_PASS=\"$DB_PASSWORD\"\nTOKEN=$(cat token)\n".to_owned(),
        ),
        ("/home/a/src/run.sh", "docker run -e PWD=\"$PWD\" -v \"$PWD:/work\" img\n".to_owned()),
    ]);
    one(&[(
        "/home/a/src/build.sh",
        "PASSWORD=\"$Pw/d9secret\"\n".to_owned(),
    )]);
}

#[test]
fn examples_of_manuals() {
    let session = made("{b64:200}", 5);
    none(&[
        (
            "/home/a/src/api.md",
            "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\n".to_owned(),
        ),
        (
            "/home/a/src/sts.json",
            format!(
                "{{\"Credentials\": {{\"AccessKeyId\": \"AKIAIOSFODNN7EXAMPLE\", \"SecretAccessKey\": \"wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY\", \"SessionToken\": \"{session}\", \"Expiration\": \"2030-01-01T00:00:00Z\"}}}}"
            ),
        ),
        (
            "/home/a/src/map.js",
            format!(
                "const mapboxToken = 'pk.eyJ{}.{}';\n",
                made("{base62:30}", 6),
                made("{base62:22}", 7)
            ),
        ),
    ]);
    one(&[(
        "/home/a/src/api.md",
        format!("Authorization: Bearer {}\n", made("{base62:32}", 8)),
    )]);
}
