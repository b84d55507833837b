//! What the agent relies on: pairs, canonical values, placeholders, identifiers, places.

use crate::rules::template::expand;
use crate::{Classifier, Fingerprinter, Origin, WatchGlob};
use std::sync::LazyLock;

static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(Classifier::builtin);

fn print() -> Fingerprinter {
    Fingerprinter::new(&[9; 32])
}

#[test]
fn an_aws_pair_is_one_credential_in_file_env_and_json() {
    let (id, secret) = (
        expand("AKIA{base32:16}", 2).unwrap(),
        expand("{b64:40}", 3).unwrap(),
    );
    let file = format!(
        "[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\nregion = x\n"
    );
    let in_file = CLASSIFIER.classify(
        file.as_bytes(),
        Origin::File {
            path: "/root/.aws/credentials",
        },
    );
    let env = [
        (&b"PATH"[..], &b"/usr/bin"[..]),
        (b"AWS_ACCESS_KEY_ID", id.as_bytes()),
        (b"AWS_SECRET_ACCESS_KEY", secret.as_bytes()),
    ];
    let in_env = CLASSIFIER.classify_env(env);
    let json = format!(
        "{{\"AccessKeyId\": \"{id}\", \"SecretAccessKey\": {}}}",
        serde_json::to_string(&secret).unwrap().replace('/', "\\/")
    );
    let in_json = CLASSIFIER.classify(json.as_bytes(), Origin::Text);
    assert_eq!(
        (in_file.len(), in_env.len(), in_json.len()),
        (1, 1, 1),
        "{in_file:?} {in_env:?} {in_json:?}"
    );
    assert_eq!(in_env[0].0, "AWS_SECRET_ACCESS_KEY");
    let credentials = [
        in_file[0].credential(&print()),
        in_env[0].1.credential(&print()),
        in_json[0].credential(&print()),
    ];
    for c in &credentials {
        assert_eq!(c.kind, "aws-access-key");
        assert!(c.identifier.starts_with(&id), "{}", c.identifier);
        assert_eq!(c.fingerprint, credentials[0].fingerprint);
    }
    assert_eq!(in_file[0].public, [id]);
    assert_eq!(&file[in_file[0].span()], secret);
}

/// Its id is no secret, whatever a tool calls it.
#[test]
fn the_id_of_a_pair_is_not_reported_beside_it() {
    let (id, secret) = (
        expand("AKIA{base32:16}", 2).unwrap(),
        expand("{b64:40}", 3).unwrap(),
    );
    for (path, text) in [
        (
            "/root/.s3cfg",
            format!("[default]\naccess_key = {id}\nsecret_key = {secret}\n"),
        ),
        (
            "/srv/x.ini",
            format!("[default]\naccess_key = {id}\nsecret_key = {secret}\n"),
        ),
        (
            "/srv/x.yaml",
            format!("accessKey: {id}\nsecretKey: {secret}\n"),
        ),
        (
            "/srv/.env",
            format!("S3_ACCESS_KEY={id}\nS3_SECRET_KEY={secret}\n"),
        ),
        (
            "/srv/x.json",
            format!("{{\"access_key\": \"{id}\", \"secret_key\": \"{secret}\"}}"),
        ),
    ] {
        let found = CLASSIFIER.classify(text.as_bytes(), Origin::File { path });
        let kinds: Vec<String> = found.iter().map(|f| f.credential(&print()).kind).collect();
        assert_eq!(kinds, ["aws-access-key"], "{path}: {found:?}");
    }
}

#[test]
fn a_session_has_two_parts_and_a_lone_key_id_has_none() {
    let (id, secret, token) = (
        expand("ASIA{base32:16}", 2).unwrap(),
        expand("{b64:40}", 3).unwrap(),
        expand("IQoJb3JpZ2lu{base62:300}", 4).unwrap(),
    );
    let found = CLASSIFIER.classify_env([
        (&b"AWS_ACCESS_KEY_ID"[..], id.as_bytes()),
        (b"AWS_SECRET_ACCESS_KEY", secret.as_bytes()),
        (b"AWS_SESSION_TOKEN", token.as_bytes()),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    let names: Vec<&str> = found[0].1.parts.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(
        (found[0].1.kind.as_str(), names),
        ("aws-session", vec!["secret_access_key", "session_token"])
    );
    let lone = CLASSIFIER.classify(id.as_bytes(), Origin::Text);
    assert_eq!(lone.len(), 1);
    assert!(lone[0].parts.is_empty() && lone[0].public == [id]);
}

#[test]
fn keys_of_two_profiles_are_never_joined() {
    let secret = |n| expand("{b64:40}", n).unwrap();
    let id = |n| expand("AKIA{base32:16}", n).unwrap();
    // The first profile has only a secret, the second only an id, three lines apart; the third has both, far apart.
    let padding = "# a comment\n".repeat(80);
    let text = format!(
        "[one]\naws_secret_access_key = {}\n[two]\naws_access_key_id = {}\n[profile three]\naws_access_key_id = {}\n{padding}aws_secret_access_key = {}\n",
        secret(1),
        id(2),
        id(3),
        secret(4)
    );
    let found = CLASSIFIER.classify(
        text.as_bytes(),
        Origin::File {
            path: "/root/.aws/credentials",
        },
    );
    let said: Vec<(&str, bool, bool)> = found
        .iter()
        .map(|f| {
            (
                f.kind.as_str(),
                f.parts.is_empty(),
                f.identifier.contains("AKIA"),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            ("aws-secret-access-key", false, false),
            ("aws-access-key-id", true, true),
            ("aws-access-key", false, true),
        ],
        "{found:?}"
    );
    assert!(found[2].identifier.starts_with(&id(3)));
    // Joined by distance where there are no sections, with the nearer one.
    let text = format!(
        "id1={}\nsecret_access_key={}\n\n\n\nid2={}\nsecret_access_key={}\n",
        id(5),
        secret(6),
        id(7),
        secret(8)
    );
    let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
    let ids: Vec<bool> = found
        .iter()
        .zip([id(5), id(7)])
        .map(|(f, id)| f.kind == "aws-access-key" && f.identifier.starts_with(&id))
        .collect();
    assert_eq!(ids, [true, true], "{found:?}");
}

#[test]
fn one_key_in_many_wrappings_has_one_fingerprint() {
    let pem = expand("{openssh}", 5).unwrap();
    let json = serde_json::json!({"key": pem}).to_string();
    let crlf = pem.replace('\n', "\r\n");
    let base64 = expand(&format!("key: {{enc:{pem}}}"), 5).unwrap();
    let code = pem
        .lines()
        .map(|l| format!("\"{l}\\n\" +\n"))
        .collect::<String>();
    let prints: Vec<String> = [&pem, &json, &crlf, &base64, &code]
        .iter()
        .map(|text| {
            let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
            assert_eq!(found.len(), 1, "{text} {found:?}");
            assert!(
                found[0].identifier.contains("SHA256:")
                    && found[0].identifier.contains("user@example"),
                "{}",
                found[0].identifier
            );
            found[0].credential(&print()).fingerprint
        })
        .collect();
    assert!(prints.iter().all(|p| *p == prints[0]), "{prints:?}");
}

/// A database as gcloud leaves it, with one row in `access_tokens` (page size 512).
const ACCESS_TOKENS_DB: &str = "53514c69746520666f726d61742033000200010100402020000000020000000300000000000000000000000100000004000000000000000000000001000000000000000000000000000000000000000000000000000000000000000000000002002e63010d01f80002010e00010e01bd0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000812c01071727270182177461626c656163636573735f746f6b656e736163636573735f746f6b656e7302435245415445205441424c4520226163636573735f746f6b656e732220286163636f756e745f69642054455854205052494d415259204b45592c206163636573735f746f6b656e20544558542c20746f6b656e5f6578706972792054494d455354414d502c20726170745f746f6b656e20544558542c2069645f746f6b656e205445585429390206174d270100696e64657873716c6974655f6175746f696e6465785f6163636573735f746f6b656e735f316163636573735f746f6b656e730300000008000000000d00000001013d00013d00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000814001072382433300006d6540636f72702e6f7267796132392e6b376a71657674304d4c614d52547665747730744553756c4545546c64713862385677327a624a594178794c31614363546c4e39396d685770373038447747773548715844674c56585a783373634238666e76474e78366a767237534966745275746c5a664f6a555374456b5564664d49377a6370564d7730714450416a64364f635a4676316e69554b38694f355941676b42786a64323033302d30312d30312030303a30303a30300a0000000101f10001f1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000e0323096d6540636f72702e6f7267";

#[test]
fn gcloud_stores_name_account_and_expiry() {
    let file: Vec<u8> = (0..ACCESS_TOKENS_DB.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&ACCESS_TOKENS_DB[i..i + 2], 16).unwrap())
        .collect();
    let at = |path| CLASSIFIER.classify(&file, Origin::File { path });
    let found = at("/root/.config/gcloud/access_tokens.db");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].identifier.as_str(), found[0].expires),
        ("me@corp.org", Some(1_893_456_000))
    );
    assert!(file[found[0].span()].starts_with(b"ya29."));
    // Every truncation and every changed byte is survived.
    for n in (0..file.len()).step_by(7) {
        let mut broken = file.clone();
        broken[n] ^= 0xff;
        CLASSIFIER.classify(
            &broken,
            Origin::File {
                path: "/root/.config/gcloud/credentials.db",
            },
        );
        CLASSIFIER.classify(
            &file[..n],
            Origin::File {
                path: "/root/.config/gcloud/access_tokens.db",
            },
        );
    }
}

#[test]
fn the_same_value_twice_is_one_finding_with_two_places() {
    let token = expand("ghp_{base62:30}{crc32_base62}", 8).unwrap();
    let text = format!("GITHUB_TOKEN={token}\nurl = https://x:{token}@github.com/o/r\n");
    let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, "github-token");
    assert_eq!(found[0].places.len(), 2);
    assert!(found[0].places.iter().all(|p| text[p.clone()] == token));
}

#[test]
fn placeholders_are_no_credentials() {
    for text in [
        "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE\nAWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "password: changeme",
        "API_KEY=your-api-key",
        "token: ${TOKEN}",
        "token={{ token }}",
        "secret = <secret>",
        "API_KEY=xxxxxxxxxxxxxxxxxxxxxxxx",
        "api_key: 00000000000000000000000000000000",
        "postgres://user:${PW}@db/x",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ] {
        assert!(
            CLASSIFIER
                .classify(text.as_bytes(), Origin::Text)
                .is_empty(),
            "{text}"
        );
    }
}

#[test]
fn ordinary_text_is_left_alone() {
    for text in [
        "sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "integrity: sha512-9f86d081884c7d659a2feaa0c55ad015",
        "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "id: 3f5a9c1e-2b4d-4a6f-8c10-1d2e3f4a5b6c",
        "https://example.net/a/b?c=d",
        "version = 1.2.3-beta4",
        "PATH=/usr/local/sbin:/usr/local/bin",
        "LS_COLORS=rs=0:di=01;34:ln=01;36",
        "the key of the door is under the mat",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH user@host",
        "password = getpass.getpass()",
        "if token == other_token:",
        "public_key = \"9f86d081884c7d659a2feaa0c55ad015\"",
        "SSH_AUTH_SOCK=/tmp/ssh-XXXXabcdef/agent.1234",
        "PWD=/root/secret",
    ] {
        let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
        assert!(found.is_empty(), "{text}: {found:?}");
    }
}

/// Texts of manuals, programs and configuration that were once taken for credentials, by what they are.
#[test]
fn what_looks_like_an_assignment_and_is_none() {
    let digest = expand("{hex:40}", 5).unwrap();
    for text in [
        // Name service, paths, references.
        "passwd: files systemd\ngroup: files\n",
        "passwd: compat\n",
        "private_key = $dir/private/cakey.pem# The private key\n",
        "kms-key=projects/my-project/locations/us-central1/keyRings/my-ring/cryptoKeys/my-key",
        "secret = vault:secret/data/app#token",
        "creds = \" --username=\" + auth",
        // Help texts and translations.
        "  -W, --password           force password prompt (should happen automatically)\n",
        "  -p, --password WACHTWOORD     het wachtwoord veranderen\n",
        "  -w, --no-password      fr\u{e5}ga aldrig\n",
        // Lists of words.
        "'ssh2_auth_password', 'ssh2_auth_pubkey_file', 'ssh2_connect'",
        "\"pass\", \"poke\", \"print\"",
        "dict.fromkeys(['username', 'password', 'repository'], '')",
        // Code.
        "login(host=host, user=None, password=None,\n",
        "f(user=args.user, password=args.password)",
        "token = Name.Builtin.Pseudo",
        "'private_key': self._private_key_pkcs8_pem,",
        "if remark.Pass == \"inline\" and remark.Name == \"Inlined\":",
        "MODULE_PASS(\"print<machine-block-freq>\", MachineBlockPass())",
        "REG_NAME_KEY = r\"(?:[^\\\\[\\\\]%:/?#]|%[a-fA-F0-9]{2})*\"",
        "crypto_key: Base64-encoded string of a key",
        "\"minipass\": \"^7.0.4\",",
        "RegEnumKey = win32api.RegEnumKey",
        "pub const MD_VR_PASSWORD: u32 = 131072u32;",
        "pub const NO_SECRETS: NTSTATUS = 0xC0000156_u32 as _;",
        "t.pass(\"tests/run-pass/*.rs\");",
        "DHE:PSK:AES:GCM:256:AEAD:256:SHA384:384:rfc5487:0:0300:ffff",
        "generate_private_key: x25519_generate_private_key,",
        // Addresses.
        "[protocol://][user[:password]@]proxyhost[:port]",
        "http://[::1]:8080/@scope/pkg",
        "cvs://:pserver:anoncvs@sources.corp.net:/cvs/src",
        "https://abc:xyz@example.com/",
        // Typed by hand.
        "password=test123",
        "api_secret = \"abcdefg12346+FJQCK\"",
        "deployKey: px-dep-d4c3b2a1-f6e5-h8g7-j1i8-p5o0n5m3l2k1",
        "//registry.corp.net/:_authToken=MYTOKEN1",
        "machine imap login bob password bobwillknow",
        // Armour that is only spoken of.
        "<match value=\"-----BEGIN PGP PRIVATE KEY BLOCK-----\" offset=\"0\"/>",
    ] {
        let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
        assert!(found.is_empty(), "{text}: {found:?}");
    }
    for text in [
        format!("see https://github.com/o/token/blob/{digest}/src/key.rs"),
        format!("gpg --recv-keys {}", digest.to_uppercase()),
        format!("\0\x01\x02 passwd:shell\0 password: {digest}\0"),
    ] {
        let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
        assert!(found.is_empty(), "{text}: {found:?}");
    }
}

#[test]
fn values_of_variable_lists_belong_to_their_names() {
    let secret = expand("{base62:24}", 9).unwrap();
    for text in [
        format!("env:\n- name: API_TOKEN\n  value: \"{secret}\"\n"),
        format!("env:\n  - name: DB_PASSWORD\n    value: {secret}\n"),
        format!("[{{\"name\": \"DB_PASSWORD\", \"value\": \"{secret}\"}}]"),
        format!("buildConfigField 'String', 'API_KEY', '\"{secret}\"'"),
        // A process environment or a core dump.
        format!("HOME=/root\0DB_PASSWORD={secret}\0LANG=C\0"),
    ] {
        let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
        assert_eq!(found.len(), 1, "{text}");
        assert_eq!(&text[found[0].span()], secret, "{text}");
    }
}

#[test]
fn installation_tokens_name_their_app() {
    let text = expand("GITHUB_TOKEN=ghs_123456_{jwt}", 3).unwrap();
    let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
    assert_eq!(
        (
            found.len(),
            found[0].kind.as_str(),
            found[0].identifier.as_str()
        ),
        (1, "github-installation", "app 123456"),
        "{found:?}"
    );
    assert_eq!(found[0].span().end, text.len());
}

#[test]
fn specific_rules_outrank_generic_ones() {
    let text = expand("API_TOKEN=xoxb-{digit:12}-{digit:13}-{base62:24}", 3).unwrap();
    let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
    assert_eq!((found.len(), found[0].kind.as_str()), (1, "slack-token"));
    assert!(found[0].confidence > 0.9);
    let generic = CLASSIFIER.classify(b"SOME_TOKEN=q3VtZcK8s1LwXy7BnR0uTd4P", Origin::Text);
    assert!(generic[0].confidence < 0.7);
}

#[test]
fn flags_whose_value_is_the_next_argument() {
    let argv: [&[u8]; 5] = [
        b"/usr/bin/curl",
        b"-u",
        b"elastic:q3VtZcK8s1Lw",
        b"https://h/",
        b"-s",
    ];
    let found = CLASSIFIER.classify_argv(&argv).found;
    assert_eq!(
        (found.len(), found[0].0, found[0].1.identifier.as_str()),
        (1, 2, "elastic"),
        "{found:?}"
    );
    assert_eq!(found[0].1.span(), 8..20);
    let argv: [&[u8]; 3] = [b"mysql", b"--password", b"q3VtZcK8s1Lw"];
    assert_eq!(CLASSIFIER.classify_argv(&argv).found[0].0, 2);
}

/// Paths apart from content.
#[test]
fn usual_places_are_known() {
    for (path, kind) in [
        ("/root/.aws/credentials", "aws-secret-access-key"),
        ("/home/u/.aws/sso/cache/x.json", "aws-sso-token"),
        (
            "/home/u/.config/gcloud/application_default_credentials.json",
            "gcp-user-credentials",
        ),
        ("/home/u/.azure/msal_token_cache.json", "azure-msal-token"),
        ("/home/u/.oci/key.pem", "oci-api-key"),
        (
            "/var/run/secrets/kubernetes.io/serviceaccount/token",
            "kubernetes-service-account",
        ),
        (
            "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
            "eks-irsa-token",
        ),
        ("/home/u/.kube/config", "kubeconfig"),
        ("/etc/kubernetes/admin.conf", "kubeconfig"),
        ("/etc/rancher/k3s/k3s.yaml", "kubeconfig"),
        (
            "/var/lib/kubelet/pki/kubelet-client-current.pem",
            "kubelet-client-key",
        ),
        ("/etc/kubernetes/pki/ca.key", "kubernetes-pki-key"),
        ("/home/u/.docker/config.json", "docker-registry-auth"),
        ("/home/u/.vault-token", "vault-token"),
        ("/home/u/.config/gh/hosts.yml", "github-host-token"),
        ("/home/u/.git-credentials", "url-password"),
        ("/home/u/.npmrc", "npm-token"),
        ("/home/u/.pypirc", "pypirc"),
        ("/home/u/.cargo/credentials.toml", "cargo-token"),
        ("/srv/terraform.tfstate", "terraform-state-secret"),
        ("/home/u/.ssh/id_ed25519", "ssh-private-key"),
        ("/etc/ssh/ssh_host_rsa_key", "ssh-host-key"),
        ("/etc/ssl/private/x.key", "tls-private-key"),
        ("/etc/letsencrypt/live/a.b/privkey.pem", "tls-private-key"),
        ("/etc/wireguard/wg0.conf", "wireguard-key"),
        ("/etc/krb5.keytab", "kerberos-keytab"),
        ("/tmp/krb5cc_1000", "kerberos-ccache"),
        ("/etc/shadow", "shadow-hash"),
        ("/run/credentials/x.service/pw", "systemd-credential"),
        ("/home/u/.pgpass", "pgpass"),
        ("/home/u/.my.cnf", "mysql-config"),
        ("/home/u/.netrc", "netrc"),
        ("/home/u/.databrickscfg", "databricks-token"),
        ("/home/u/.claude/.credentials.json", "anthropic-oauth"),
        ("/home/u/.codex/auth.json", "codex-oauth"),
        ("/home/u/.cache/huggingface/token", "huggingface-token"),
        ("/srv/.mcp.json", "mcp-server-secret"),
        ("/var/lib/jenkins/secrets/master.key", "jenkins-master-key"),
        ("/home/u/.bash_history", "shell-history"),
        ("/srv/app/.env", "env-file"),
        (
            "/proc/12/root/root/.aws/credentials",
            "aws-secret-access-key",
        ),
    ] {
        assert!(
            CLASSIFIER.kinds_of_path(path).contains(&kind),
            "{path}: {:?}",
            CLASSIFIER.kinds_of_path(path)
        );
    }
    for path in [
        "/usr/bin/ls",
        "/etc/passwd",
        "/home/u/notes.txt",
        "/root/.aws/config.bak2",
    ] {
        assert!(CLASSIFIER.kinds_of_path(path).is_empty(), "{path}");
    }
    assert!(CLASSIFIER.watch_globs().contains(&WatchGlob {
        glob: "~/.aws/credentials".into(),
        kind: "aws-secret-access-key".into()
    }));
}

#[test]
fn bad_rules_are_refused_with_their_line_and_good_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let good = "[[rule]]\nname = 'acme-token'\nliterals = ['acme_']\nregex = 'acme_[0-9a-f]{32}'\nidentifier = 'prefix'\npositive = ['acme_{hex:32}', 'T=acme_{hex:32}', '\"acme_{hex:32}\"']\nnegative = ['acme_', 'acme_x', 'acme']\n";
    let bad = "\n[[rule]]\nname = 'broken'\nliterals = ['zz']\nregex = 'zz('\npositive = ['a','b','c']\nnegative = ['a','b','c']\n\n[[rule]]\nname = 'odd'\ncolour = 'red'\n";
    std::fs::write(dir.path().join("a.toml"), format!("{good}{bad}")).unwrap();
    std::fs::write(dir.path().join("b.toml"), "[[rule]\n").unwrap();
    std::fs::write(
        dir.path().join("c.toml"),
        good.replace("acme-token", "liar")
            .replace("'acme_', 'acme_x'", "'acme_{hex:32}', 'acme_x'"),
    )
    .unwrap();
    let (classifier, errors) = Classifier::with_rules_dir(dir.path());
    let text = errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        text.contains("a.toml:9") && text.contains("broken"),
        "{text}"
    );
    assert!(
        text.contains("a.toml:16") && text.contains("colour"),
        "{text}"
    );
    assert!(text.contains("b.toml:1"), "{text}");
    assert!(
        text.contains("c.toml:1: rule liar: negative example is found"),
        "{text}"
    );
    let found = classifier.classify(expand("acme_{hex:32}", 1).unwrap().as_bytes(), Origin::Text);
    assert_eq!(found[0].kind, "acme-token");
}

#[test]
fn what_is_published_is_never_claimed_with_high_confidence() {
    let key = expand("{openssh}", 5).unwrap();
    let at = |path| CLASSIFIER.classify(key.as_bytes(), Origin::File { path })[0].confidence;
    assert!(at("/root/.ssh/id_ed25519") >= 0.9);
    assert!(at("/usr/share/doc/x/examples/id_ed25519") < 0.9);
    let program = [b"\x7fELF\x02\x01\x01\0", key.as_bytes()].concat();
    assert!(
        CLASSIFIER.classify(
            &program,
            Origin::File {
                path: "/usr/lib/libx.so"
            }
        )[0]
        .confidence
            < 0.9
    );
}
