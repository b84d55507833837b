//! Credentials recognized by their content, whatever the file's name or the notation.

use crate::Classifier;
use crate::api::Origin;
use crate::rules::template::expand;
use std::sync::LazyLock;

static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(Classifier::builtin);

fn kinds(bytes: &[u8], path: &str) -> Vec<String> {
    let found = CLASSIFIER.classify(bytes, Origin::File { path });
    found.into_iter().map(|f| f.kind).collect()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

#[test]
fn stores_are_known_by_their_first_bytes() {
    let filler: Vec<u8> = (0..200u32).map(|i| (i * 37 % 251) as u8).collect();
    let keytab = hex(
        "05020000004e00020008434f52502e4e45540004686f7374000d776562302e636f72702e6e65740000000100000000030012002000070e151c232a31383f464d545b626970777e858c939aa1a8afb6bdc4cbd2d9",
    );
    assert_eq!(kinds(&keytab, "/srv/http.kt"), ["kerberos-keytab"]);
    for magic in ["feedfeed", "cececece"] {
        let key = [
            hex(&format!("{magic}000000020000000100000001")),
            filler.clone(),
        ]
        .concat();
        assert_eq!(kinds(&key, "/srv/store"), ["java-keystore"]);
        let certificate = [
            hex(&format!("{magic}000000020000000100000002")),
            filler.clone(),
        ]
        .concat();
        assert!(kinds(&certificate, "/srv/store").is_empty());
    }
    let head = hex("3082012c020103308201");
    let bag = hex("060b2a864886f70d010c0a0102");
    let pkcs12 = [head.clone(), filler.clone(), bag, filler.clone()].concat();
    assert_eq!(kinds(&pkcs12, "/srv/identity.keystore"), ["pkcs12"]);
    assert_eq!(kinds(&pkcs12, "/srv/identity"), ["pkcs12"]);
    // Certificates alone: no bag with a key.
    assert!(kinds(&[head, filler].concat(), "/srv/cacerts").is_empty());
}

#[test]
fn a_secret_manifest_in_json_is_decoded() {
    let text = expand(
        "{{\"apiVersion\":\"v1\",\"items\":[{{\"data\":{{\"token\":\"{enc:ghp_[base62:36]}\"},\"kind\":\"Secret\",\"metadata\":{{\"name\":\"ci\",\"namespace\":\"prod\"}}],\"kind\":\"List\"}",
        5,
    )
    .unwrap();
    let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, "github-token");
    assert!(found[0].identifier.contains("prod/ci/token"));
    assert!(found[0].parts[0].value.starts_with(b"ghp_"));
}

#[test]
fn a_kubeconfig_in_json_is_one() {
    let text = expand(
        "{{\"kind\": \"Config\", \"users\": [{{\"name\": \"admin\", \"user\": {{\"token\": \"{base62:40}\"}}]}",
        5,
    )
    .unwrap();
    assert_eq!(kinds(text.as_bytes(), "/root/.kube/config"), ["kubeconfig"]);
}

#[test]
fn flags_of_a_tool_server_stand_one_per_line() {
    let text = expand(
        "{{\"mcpServers\": {{\"a\": {{\"command\": \"x\", \"args\": [\n  \"--api-key\",\n  \"{base62:32}\",\n  \"--port\",\n  \"8080\"\n]}}}",
        5,
    )
    .unwrap();
    assert_eq!(
        kinds(text.as_bytes(), "/srv/.mcp.json"),
        ["mcp-server-secret"]
    );
}

#[test]
fn the_default_of_a_shell_parameter_keeps_its_kind_and_its_span() {
    for (template, kind) in [
        (
            "AWS_SECRET_ACCESS_KEY=\"${{AWS_SECRET_ACCESS_KEY:-{b64:40}}\"\n",
            "aws-secret-access-key",
        ),
        ("X_TOKEN=\"${{X_TOKEN:-{base62:32}}\"\n", "generic-secret"),
        ("DB=\"${{DB_PASSWORD:-{base62:12}}\"\n", "generic-password"),
    ] {
        let text = expand(template, 9).unwrap();
        let value = text.split_once(":-").unwrap().1.trim_end_matches("}\"\n");
        let found = CLASSIFIER.classify(text.as_bytes(), Origin::File { path: "/srv/a.sh" });
        assert_eq!(found.len(), 1, "{text} {found:?}");
        assert_eq!(
            (found[0].kind.as_str(), &text[found[0].span()]),
            (kind, value)
        );
    }
}

#[test]
fn long_tokens_are_taken_whole() {
    for (template, kind) in [
        ("T=glpat-{b64url:120}.{base36:9}\n", "gitlab-token"),
        ("T=glcbt-{jwt}\n", "gitlab-token"),
        ("JIRA_TOKEN={base62:24}+{base62:19}\n", "jira-token"),
        ("X-Api-Key: {base62:30}.{base62:30}\n", "api-key-header"),
        ("azure-storage-key: {b64:86}==\n", "azure-storage-key"),
    ] {
        let text = expand(template, 11).unwrap();
        let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
        assert_eq!(found.len(), 1, "{text} {found:?}");
        let start = text.find(['=', ' ']).unwrap() + 1;
        assert_eq!(
            (found[0].kind.as_str(), &text[found[0].span()]),
            (kind, text[start..].trim_end())
        );
    }
}

#[test]
fn a_name_of_another_kind_wins_over_a_word_before_it() {
    let text = expand("heroku config:set VAULT_SECRET_ID={uuid}\n", 3).unwrap();
    assert_eq!(kinds(text.as_bytes(), ""), ["vault-approle-secret-id"]);
    let text = expand("RECAPTCHA_SITE_KEY=6L{base62:38}\n", 3).unwrap();
    assert!(kinds(text.as_bytes(), "").is_empty());
}

/// What the command lines of real tools give away, and where: each secret whole, in its own argument.
#[test]
fn flags_of_programs_are_known_in_a_real_argument_vector() {
    let secret = "S3cretXy12Zk";
    for line in [
        "mysql -u root -pS3cretXy12Zk db",
        "/usr/bin/mysqldump -h db1 -uroot -pS3cretXy12Zk shop",
        "docker login -u bob -p S3cretXy12Zk r.corp.net",
        "sshpass -p S3cretXy12Zk ssh bob@h",
        "sshpass -pS3cretXy12Zk ssh bob@h",
        "redis-cli -h r -a S3cretXy12Zk ping",
        "ldapsearch -x -D cn=admin -w S3cretXy12Zk -b dc=x",
        "smbclient //srv/s -U bob%S3cretXy12Zk",
        "sqlcmd -S db -U sa -P S3cretXy12Zk",
        "mongosh --host h -u root -p S3cretXy12Zk admin",
        "zip -P S3cretXy12Zk b.zip data",
        "curl -s -u bob:S3cretXy12Zk https://x",
        "psql --password=S3cretXy12Zk",
    ] {
        let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let found = CLASSIFIER.classify_argv(&argv).found;
        let shown: Vec<(usize, &[u8])> = found
            .iter()
            .map(|(i, f)| (*i, &argv[*i][f.span()]))
            .collect();
        let at = argv
            .iter()
            .position(|a| a.ends_with(secret.as_bytes()))
            .unwrap();
        assert_eq!(shown, [(at, secret.as_bytes())], "{line}");
        assert_eq!(&found[0].1.parts[0].value[..], secret.as_bytes(), "{line}");
    }
    for line in [
        "mysql -h db1 -u app -p shop",
        "grep -r password /etc",
        "docker login -u bob --password-stdin r.corp.net",
        "gcc -c -o main.o main.c -pthread -pipe",
        "ssh -p 2222 bob@host2 uptime",
        "tar -P -czf backup-2024.tgz data1",
    ] {
        let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        assert!(CLASSIFIER.classify_argv(&argv).found.is_empty(), "{line}");
    }
}

#[test]
fn keytrails_own_events_hold_no_credential() {
    for kind in [
        "datadog-api-key",
        "asana-secret",
        "jenkins-token",
        "sentry-config",
        "generic-secret",
    ] {
        let text = format!(
            "{{\"credential\":{{\"kind\":\"{kind}\",\"fingerprint\":\"kt1:9f86d081884c7d659a2feaa0c55ad015\",\"secret\":\"kt1:9f86d081884c7d659a2feaa0c55ad015\"}}}}"
        );
        let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
        assert!(found.is_empty(), "{kind} {found:?}");
    }
}

#[test]
fn an_openssh_key_keeps_the_columns_it_is_written_in() {
    let text = expand("{openssh}\n", 3).unwrap();
    let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
    assert_eq!(
        String::from_utf8_lossy(&found[0].parts[0].value).trim_end(),
        text.trim_end(),
        "a file in base64 or hex is found by the bytes as they lie there"
    );
}

#[test]
fn a_variable_of_an_issuer_needs_a_value_of_some_length() {
    let kinds = |value: &str| -> Vec<String> {
        let block = [(b"GITHUB_TOKEN".as_slice(), value.as_bytes())];
        let found = CLASSIFIER.classify_env(block);
        found.into_iter().map(|(_, f)| f.kind).collect()
    };
    assert!(!kinds("npm_no").contains(&"github-token".to_owned()));
    assert_eq!(kinds("q3VtZcK8s1LwXy7BnR0uTd4P"), ["github-token"]);
}
