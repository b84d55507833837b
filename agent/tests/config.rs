//! The configuration file: defaults, complaints with places.

#![allow(clippy::unwrap_used, reason = "tests")]

use keytrail::config::{CaptureConfig, Config, LogFormat, Tier, reference};
use std::path::Path;

fn complaint(text: &str) -> String {
    Config::parse(text, Path::new("/etc/keytrail/agent.toml"))
        .unwrap_err()
        .to_string()
}

#[test]
fn the_commented_file_is_the_default() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/agent.toml");
    assert_eq!(Config::load(Path::new(file)).unwrap(), Config::default());
    // The keys that are commented out are understood as well.
    let text = std::fs::read_to_string(file).unwrap();
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest
                    .split_once(" = ")
                    .is_some_and(|(key, _)| !key.contains(' ')) =>
            {
                rest
            }
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let config = Config::parse(&uncommented, Path::new(file)).unwrap();
    assert_eq!(
        config.fingerprint_key_file.as_deref(),
        Some(Path::new("/etc/keytrail/fleet.key"))
    );
    assert_eq!(config.log.level.as_deref(), Some("info"));
}

#[test]
fn everything_can_be_set() {
    let config = Config::parse(
        r#"
        listen = "unix:/tmp/a.sock"
        state_dir = "/tmp/state"
        rules_dir = "/tmp/rules"
        fingerprint_key_file = "/tmp/key"
        tier = "base"
        ring_bytes = 0x10_0000
        process_events = true
        system_calls = false
        watch = ["/srv/*/secrets/*"]
        exclude = ["/mnt/*/cache"]
        inspect_timeout_ms = 250
        inspect_bytes = 65536
        inspect_share = 5
        retain_events = 0
        retain_days = 1
        capture = { answer_bytes = 1, key_server_bytes = 2, process_bytes = 3, connection_bytes = 4, write_bytes = 5 }
        tcp = { listen = "[::]:7443", certificate_file = "/a", key_file = "/b", client_ca_file = "/c", read = ["spiffe://a/b"], administer = ["Host.Example"] }
        kubernetes = { names = false, pods_socket = "/e", account_dir = "/d" }
        metrics = { listen = "127.0.0.1:9479" }
        log = { level = "keytrail_export=debug,info", format = "json" }
        "#,
        Path::new("x"),
    )
    .unwrap();
    assert_eq!(config.listen, "unix:/tmp/a.sock");
    assert_eq!(config.tier, Tier::Base);
    assert_eq!(config.ring_bytes, 1 << 20);
    assert_eq!(
        config.capture,
        CaptureConfig {
            answer_bytes: 1,
            key_server_bytes: 2,
            process_bytes: 3,
            connection_bytes: 4,
            write_bytes: 5,
        }
    );
    assert!(config.process_events);
    assert!(!config.system_calls);
    assert_eq!(config.watch, ["/srv/*/secrets/*"]);
    assert_eq!(config.exclude, ["/mnt/*/cache"]);
    assert_eq!(
        (
            config.inspect_timeout_ms,
            config.inspect_bytes,
            config.inspect_share
        ),
        (250, 65_536, 5)
    );
    assert_eq!((config.retain_events, config.retain_days), (0, 1));
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(!config.kubernetes.names);
    assert_eq!(config.kubernetes.account_dir, Path::new("/d"));
    assert_eq!(config.kubernetes.pods_socket, Path::new("/e"));
    let tcp = config.tcp.spec().unwrap();
    assert_eq!(tcp.listen.to_string(), "[::]:7443");
    assert_eq!(tcp.files.key, Path::new("/b"));
    assert_eq!(tcp.read, ["spiffe://a/b".parse().unwrap()]);
    assert_eq!(tcp.administer[0].to_string(), "host.example");
    assert_eq!(config.metrics_listen, Some(([127, 0, 0, 1], 9479).into()));
}

#[test]
fn unknown_keys_are_refused_by_name_with_file_and_line() {
    assert_eq!(
        complaint("# a comment\n\nlisen = \"unix:/run/x\"\n"),
        "/etc/keytrail/agent.toml:3: unknown key `lisen` (did you mean `listen`?)"
    );
    assert_eq!(
        complaint("[log]\nlevel = \"info\"\nformatt = \"text\"\n"),
        "/etc/keytrail/agent.toml:3: unknown key `log.formatt` (did you mean `log.format`?)"
    );
    assert_eq!(
        complaint("quux = 1"),
        "/etc/keytrail/agent.toml:1: unknown key `quux`"
    );
    // The first mistake of the file is the one named, not the first of the alphabet.
    assert!(complaint("zzz = 1\naaa = 1\n").contains(":1: unknown key `zzz`"));
    // A hostile name does not reach the terminal as it is.
    assert!(!complaint("\"\\u001b[2J\" = 1").contains('\x1b'));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn wrong_types_and_values_name_key_and_line() {
    for (text, expected) in [
        (
            "\nlisten = 5",
            ":2: `listen` must be a string, not an integer",
        ),
        (
            "listen = \"tcp:0.0.0.0:1\"",
            ":1: `listen` is not an address:",
        ),
        (
            "state_dir = \"relative\"",
            ":1: `state_dir` must be an absolute path",
        ),
        (
            "tier = \"best\"",
            ":1: `tier` must be \"auto\", \"base\" or \"fentry\"",
        ),
        (
            "\n\nring_bytes = \"8M\"",
            ":3: `ring_bytes` must be an integer, not a string",
        ),
        (
            "ring_bytes = 100000",
            ":1: `ring_bytes` must be a power of two",
        ),
        (
            "ring_bytes = 4096",
            ":1: `ring_bytes` must be between 65536 and 1073741824",
        ),
        ("ring_bytes = -1", ":1: `ring_bytes` must be between"),
        (
            "ring_bytes = 99999999999999999999",
            ":1: `ring_bytes` must be between",
        ),
        (
            "process_events = \"yes\"",
            ":1: `process_events` must be true or false, not a string",
        ),
        (
            "watch = \"/a\"",
            ":1: `watch` must be an array of strings, not a string",
        ),
        (
            "watch = [\n \"/a\",\n 7,\n]",
            ":3: `watch` must be a string, not an integer",
        ),
        ("watch = [\"a\"]", "is not absolute"),
        ("watch = [\"/a[\"]", ":1: `watch` holds a bad glob"),
        ("watch = [\"/{a/b,c}\"]", ":1: `watch` holds a bad glob"),
        (
            "watch = [\"/ok\", \"/a/**/b\"]",
            ":1: `watch` holds \"/a/**/b\": `**` cannot be watched",
        ),
        ("watch = [\"/a/b**\"]", "`**` cannot be watched"),
        ("watch = [\"/a/../b\"]", "`..` is not allowed"),
        ("watch = [\"//\"]", "names no file"),
        (
            "exclude = [\"a\"]",
            ":1: `exclude` must hold absolute globs",
        ),
        ("exclude = [\"/a[\"]", ":1: `exclude` holds a bad glob"),
        (
            "inspect_timeout_ms = 0",
            ":1: `inspect_timeout_ms` must be between 10 and 60000",
        ),
        (
            "inspect_share = 101",
            ":1: `inspect_share` must be between 1 and 100",
        ),
        (
            "retain_days = 0",
            ":1: `retain_days` must be between 1 and 3650",
        ),
        ("log = 3", ":1: `log` must be a table, not an integer"),
        (
            "[log]\nlevel = \"loud\"",
            ":2: `log.level` is not a log level or filter",
        ),
        (
            "[log]\nformat = \"xml\"",
            ":2: `log.format` must be \"text\" or \"json\"",
        ),
        (
            "[tcp]\nlisten = \"localhost:7443\"",
            ":2: `tcp.listen` must be ADDRESS:PORT",
        ),
        (
            "[tcp]\nread = [\"*.example.org\"]",
            ":2: `tcp.read` names a client that cannot be",
        ),
        (
            "[metrics]\nlisten = 9479",
            ":2: `metrics.listen` must be a string, not an integer",
        ),
        (
            "state_dir = \"/a\\u0000b\"",
            ":1: `state_dir` must not contain a NUL character",
        ),
    ] {
        let got = complaint(text);
        assert!(
            got.starts_with("/etc/keytrail/agent.toml:") && got.contains(expected),
            "{text:?} gave {got:?}"
        );
    }
}

#[test]
fn what_is_not_toml_names_the_line() {
    for (text, line) in [
        ("listen = \"a\n", 1),
        ("a = 1\nb = = 2\n", 2),
        ("listen = \"/a\"\nlisten = \"/b\"\n", 2),
    ] {
        let e = Config::parse(text, Path::new("f")).unwrap_err();
        assert_eq!(e.line(), Some(line), "{text:?}: {e}");
        assert!(!e.to_string().contains('\n'), "{e}");
    }
}

#[test]
fn odd_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c");
    std::fs::write(&file, b"# ok\n# \xff\n").unwrap();
    let e = Config::load(&file).unwrap_err();
    assert_eq!(
        (e.line(), e.to_string().contains("not UTF-8")),
        (Some(2), true)
    );
    assert!(
        Config::load(Path::new("/dev/zero"))
            .unwrap_err()
            .to_string()
            .contains("larger than 1 MiB")
    );
    assert!(
        Config::load(&dir.path().join("none"))
            .unwrap_err()
            .to_string()
            .contains("cannot read")
    );
    let deep = format!("watch = {}", "[".repeat(200_000));
    assert!(Config::parse(&deep, Path::new("f")).is_err());
}

#[test]
fn the_reference_has_every_key_and_its_default() {
    let mut toml = String::new();
    for key in reference::KEYS.iter().filter(|k| !k.default.is_empty()) {
        toml.push_str(&format!("{} = {}\n", key.name, key.default));
    }
    assert_eq!(
        Config::parse(&toml, Path::new("x")).unwrap(),
        Config::default()
    );
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/agent.toml");
    let commented = std::fs::read_to_string(file).unwrap();
    let mut table = String::new();
    let mut keys = Vec::new();
    for line in commented.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            table = format!("{name}.");
        }
        if let Some((name, _)) = line.trim_start_matches("# ").split_once(" = ")
            && !name.contains(' ')
        {
            keys.push(format!("{table}{name}"));
        }
    }
    let named: Vec<_> = reference::KEYS.iter().map(|k| k.name).collect();
    assert_eq!(named, keys, "deploy/agent.toml and the reference");
    let mut known = keytrail::config::keys();
    known.sort_unstable();
    let mut named = named;
    named.sort_unstable();
    assert_eq!(named, known, "the parser and the reference");
}

#[test]
fn the_page_is_made_of_the_reference() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CONFIGURATION.md");
    let made = reference::markdown();
    if std::env::var_os("KEYTRAIL_BLESS").is_some() {
        std::fs::write(page, &made).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(page).unwrap(),
        made,
        "write it anew with KEYTRAIL_BLESS=1"
    );
}

/// Tables whose keys all are set, by which each key is tried.
const TABLES: [&str; 11] = [
    "[[sink]]\nname = \"a\"\ncarrier = \"file\"\npath = \"/var/log/a\"\n",
    "[[sink]]\nname = \"a\"\ncarrier = \"syslog\"\naddress = \"unix:/dev/log\"\n",
    "[[sink]]\nname = \"a\"\ncarrier = \"webhook\"\nurl = \"https://a/b\"\n",
    "[[response]]\nname = \"a\"\ncommand = [\"/bin/a\"]\n",
    "[[response]]\nname = \"a\"\nurl = \"https://a/b\"\n",
    "[[sink]]\nname = \"a\"\ncarrier = \"nats\"\nurl = \"nats://a:4222\"\nsubject = \"a.b\"\n",
    "[[sink]]\nname = \"a\"\ncarrier = \"otlp\"\nurl = \"https://a:4317/\"\n",
    "[[sink]]\nname = \"a\"\ncarrier = \"s3\"\nurl = \"https://a/b\"\ncredentials_file = \"/c\"\n",
    "[[sink]]\nname = \"a\"\ncarrier = \"kafka\"\nbrokers = [\"a:9093\"]\ntopic = \"a\"\n",
    "[[sink]]\nname = \"a\"\ncarrier = \"s3\"\nurl = \"https://a/b\"\ncredentials_file = \"/c\"\nformat = \"ocsf-parquet\"\nsource = \"s\"\naccount = \"1\"\nclass = \"base_event\"\nevery_ms = 30000\n",
    "[[sink]]\nname = \"a\"\ncarrier = \"otlp\"\nurl = \"https://a:4317/\"\nsignal = \"metrics\"\nevery_ms = 30000\n",
];

/// For each key a table and another value for it; with what has to go for it.
const CHANGES: &[(&str, usize, &str, &str)] = &[
    ("sink.name", 0, "name = \"b\"", "name"),
    (
        "sink.carrier",
        0,
        "carrier = \"webhook\"\nurl = \"http://a\"",
        "carrier path",
    ),
    ("sink.format", 0, "format = \"ocsf\"", ""),
    ("sink.path", 0, "path = \"/var/log/b\"", "path"),
    ("sink.rotate_bytes", 0, "rotate_bytes = 4096", ""),
    ("sink.keep", 0, "keep = 0", ""),
    ("sink.address", 1, "address = \"udp:a:514\"", "address"),
    ("sink.url", 2, "url = \"https://a/c\"", "url"),
    ("sink.url_file", 2, "url_file = \"/a\"", "url"),
    ("sink.protocol", 6, "protocol = \"grpc\"", ""),
    ("sink.signal", 6, "signal = \"metrics\"", ""),
    ("sink.temporality", 10, "temporality = \"delta\"", ""),
    ("sink.body", 2, "body = \"array\"", ""),
    ("sink.headers_file", 2, "headers_file = \"/a\"", ""),
    ("sink.secret_file", 2, "secret_file = \"/a\"", ""),
    ("sink.subject", 5, "subject = \"a\"", "subject"),
    ("sink.brokers", 8, "brokers = [\"b\"]", "brokers"),
    ("sink.topic", 8, "topic = \"b\"", "topic"),
    ("sink.tls", 8, "tls = false", ""),
    ("sink.mechanism", 8, "mechanism = \"PLAIN\"", ""),
    ("sink.credentials_file", 5, "credentials_file = \"/a\"", ""),
    ("sink.region", 7, "region = \"a-1\"", ""),
    ("sink.source", 9, "source = \"t/1.0\"", "source"),
    ("sink.account", 9, "account = \"external_1\"", "account"),
    ("sink.class", 9, "class = \"detection_finding\"", "class"),
    ("sink.every_ms", 7, "every_ms = 100", ""),
    ("sink.ca_file", 2, "ca_file = \"/a\"", ""),
    ("sink.timeout_ms", 2, "timeout_ms = 1", ""),
    ("sink.kinds", 0, "kinds = [\"finding\"]", ""),
    ("sink.grades", 0, "grades = [\"observed\"]", ""),
    ("sink.severity", 0, "severity = \"high\"", ""),
    ("sink.batch", 0, "batch = 1", ""),
    ("response.name", 3, "name = \"b\"", "name"),
    ("response.rules", 3, "rules = [\"decoy*\"]", ""),
    ("response.severity", 3, "severity = \"high\"", ""),
    ("response.command", 3, "command = [\"/bin/b\"]", "command"),
    ("response.url", 4, "url = \"https://a/c\"", "url"),
    ("response.url_file", 4, "url_file = \"/a\"", "url"),
    ("response.headers_file", 4, "headers_file = \"/a\"", ""),
    ("response.secret_file", 4, "secret_file = \"/a\"", ""),
    ("response.ca_file", 4, "ca_file = \"/a\"", ""),
    ("response.timeout_ms", 3, "timeout_ms = 1", ""),
    ("response.at_once", 3, "at_once = 1", ""),
];

#[test]
fn each_key_of_a_sink_and_a_response_changes_something() {
    let parse = |text: &str| Config::parse(text, Path::new("x")).unwrap();
    for (key, table, line, without) in CHANGES {
        let plain = TABLES[*table];
        let gone: Vec<&str> = without.split(' ').filter(|w| !w.is_empty()).collect();
        let mut changed: String = plain
            .lines()
            .filter(|l| !l.split_once(" = ").is_some_and(|(k, _)| gone.contains(&k)))
            .map(|l| format!("{l}\n"))
            .collect();
        changed.push_str(line);
        assert_ne!(parse(plain), parse(&changed), "{key} changes nothing");
    }
    let tried: Vec<_> = CHANGES.iter().map(|(key, ..)| *key).collect();
    assert_eq!(tried, keytrail::config::sink_keys());
    let named: Vec<_> = reference::SINK_KEYS.iter().map(|k| k.name).collect();
    let (mut tried, mut named) = (tried, named);
    tried.sort_unstable();
    named.sort_unstable();
    assert_eq!(named, tried, "the reference and the parser");
}

#[test]
fn the_defaults_of_a_sink_are_those_of_the_reference() {
    for key in reference::SINK_KEYS
        .iter()
        .filter(|k| !k.default.is_empty())
    {
        let (table, name) = key.name.split_once('.').unwrap();
        let line = format!("{name} = {}\n", key.default);
        let mut tried = false;
        for plain in TABLES
            .iter()
            .filter(|t| t.starts_with(&format!("[[{table}]]")))
        {
            let Ok(with) = Config::parse(&format!("{plain}{line}"), Path::new("x")) else {
                // Not a key of this carrier.
                continue;
            };
            assert_eq!(
                Config::parse(plain, Path::new("x")).unwrap(),
                with,
                "{}",
                key.name
            );
            tried = true;
        }
        assert!(tried, "{}", key.name);
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn wrong_sinks_are_refused_with_their_line() {
    let file = TABLES[0];
    for (text, expected) in [
        (
            "[[sink]]\ncarrier = \"file\"\n".to_owned(),
            ":1: `sink` needs `name`",
        ),
        (
            "[sink]\nname = \"a\"\n".to_owned(),
            ": `sink` must be an array of tables, not a table",
        ),
        (
            format!("{file}pth = 1\n"),
            ":5: unknown key `sink.pth` (did you mean `sink.path`?)",
        ),
        (
            format!("{file}address = \"unix:/dev/log\"\n"),
            ":5: `sink.address` is no key of the carrier file",
        ),
        (
            format!("{file}format = \"xml\"\n"),
            ":5: `sink.format` must be json, ocsf, ecs, cef or ocsf-parquet",
        ),
        (
            format!("{file}kinds = [\"sent\"]\n"),
            ":5: `sink.kinds` holds \"sent\", which does not exist",
        ),
        (
            format!("{file}kinds = [\"process_exit\"]\n"),
            "which the ledger does not keep",
        ),
        (
            format!("{file}batch = 0\n"),
            ":5: `sink.batch` must be between 1 and 1000",
        ),
        (
            format!("{file}\n{file}"),
            ":7: `sink.name` \"a\" is there already",
        ),
        (
            format!("retain_events = 0\n{file}"),
            "`retain_events` must not be 0",
        ),
        (
            "[[sink]]\nname = \"a/b\"\n".to_owned(),
            ":2: `sink.name` must be 1 to 64 letters",
        ),
        (
            format!("{}kinds = [\"finding\"]\n", TABLES[10]),
            ":7: `sink.kinds` is of events: metrics have none",
        ),
        (
            format!("{}temporality = \"delta\"\n", TABLES[6]),
            ":5: `sink.temporality` has a meaning with signal = \"metrics\" only",
        ),
        (
            format!("{}signal = \"traces\"\n", TABLES[6]),
            ":5: `sink.signal` must be logs or metrics",
        ),
        (
            format!("{file}signal = \"metrics\"\n"),
            ":5: `sink.signal` is no key of the carrier file",
        ),
        (
            format!("{}{}", TABLES[6], TABLES[10]),
            ":6: `sink.name` \"a\" is there already",
        ),
        (
            "[[sink]]\nname = \"a\"\ncarrier = \"mail\"\n".to_owned(),
            ":3: `sink.carrier` must be file, syslog, webhook, otlp, nats, kafka or s3",
        ),
        (
            format!("{}format = \"json\"\n", TABLES[6]),
            ":5: `sink.format` is no key of the carrier otlp",
        ),
        (
            format!("{}protocol = \"http/json\"\n", TABLES[6]),
            ":5: `sink.protocol` must be http/protobuf or grpc",
        ),
        (
            format!(
                "{}protocol = \"grpc\"\n",
                TABLES[6].replace("4317/", "4317/v1/logs")
            ),
            ":4: `sink.url` must be https://HOST:PORT or http://HOST:PORT with",
        ),
        (
            format!(
                "{}protocol = \"grpc\"\n",
                TABLES[6].replace("4317/", "4317?x")
            ),
            ":4: `sink.url` must be https://HOST:PORT",
        ),
        (
            format!("{}protocol = \"grpc\"\n", TABLES[2]),
            ":5: `sink.protocol` is no key of the carrier webhook",
        ),
        (
            format!("{}url_file = \"/a\"\n", TABLES[5]),
            ":6: `sink.url_file` is no key of the carrier nats",
        ),
        (
            format!("{file}format = \"ocsf-parquet\"\n"),
            ":5: `sink.format` makes objects in a bucket",
        ),
        (
            format!("{}class = \"base_event\"\n", TABLES[7]),
            ":6: `sink.class` is a key of format = \"ocsf-parquet\"",
        ),
        (
            TABLES[9].replace("class = \"base_event\"\n", ""),
            ":1: `sink` needs `class`",
        ),
        (
            TABLES[9].replace("base_event", "http_activity"),
            ":9: `sink.class` must be base_event, file_activity",
        ),
        (
            TABLES[9].replace("source = \"s\"", "source = \"../s\""),
            ":7: `sink.source` must be 1 to 64 letters, digits, `-`, `_`, `.`, `/`",
        ),
        (
            TABLES[9].replace("account = \"1\"", "account = \"\""),
            ":8: `sink.account` must be 1 to 64 letters",
        ),
        (
            TABLES[8].replace("[\"a:9093\"]", "[]"),
            ":4: `sink.brokers` must name 1 to 16 brokers",
        ),
        (
            TABLES[8].replace("a:9093", "u:p@a:9093"),
            ":4: `sink.brokers` must not hold a password",
        ),
        (
            TABLES[8].replace("topic = \"a\"", "topic = \"a b\""),
            ":5: `sink.topic` must be 1 to 249 letters",
        ),
        (
            format!("{}mechanism = \"GSSAPI\"\n", TABLES[8]),
            ":6: `sink.mechanism` must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        ),
        (
            format!("{}tls = false\nmechanism = \"PLAIN\"\n", TABLES[8]),
            ":7: `sink.mechanism` would tell the password to the network",
        ),
        (
            format!("{}tls = false\nca_file = \"/a\"\n", TABLES[8]),
            ":7: `sink.ca_file` has no meaning with tls = false",
        ),
        (
            TABLES[7].replace("a/b", "a/"),
            ":4: `sink.url` must have the bucket",
        ),
        (
            format!("{}format = \"cef\"\n", TABLES[7]),
            ":6: `sink.format` must be of JSON",
        ),
        (
            TABLES[5].replace("a.b", "a.>"),
            ":5: `sink.subject` must be words",
        ),
        (
            TABLES[5].replace("a:4222", "u:p@a"),
            ":4: `sink.url` must not hold a password",
        ),
        (
            TABLES[5].replace("nats://", "https://"),
            ":4: `sink.url` must be nats://HOST",
        ),
        (
            "[[sink]]\nname = \"a\"\ncarrier = \"syslog\"\naddress = \"log:514\"\n".to_owned(),
            ":4: `sink.address` must be udp:HOST:PORT",
        ),
        (
            "[[sink]]\nname = \"a\"\ncarrier = \"syslog\"\naddress = \"tcp:log:601\"\nca_file = \"/a\"\n"
                .to_owned(),
            ":5: `sink.ca_file` has a meaning with `address` = \"tls:...\" only",
        ),
        (
            "[[sink]]\nname = \"a\"\ncarrier = \"webhook\"\nurl = \"https://u:p@h/\"\n".to_owned(),
            ":4: `sink.url` must not hold a password",
        ),
        (
            "[[sink]]\nname = \"a\"\ncarrier = \"webhook\"\nurl = \"ftp://h/\"\n".to_owned(),
            ":4: `sink.url` must be https://HOST",
        ),
        (
            format!("{}url_file = \"/a\"\n", TABLES[2]),
            "says the same as `url`",
        ),
        (
            format!("{}format = \"cef\"\nbody = \"array\"\n", TABLES[2]),
            "which cef is not",
        ),
        (
            "[[response]]\nname = \"a\"\n".to_owned(),
            ":1: `response` needs `command`, `url` or `url_file`",
        ),
        (
            "[[response]]\nname = \"a\"\ncommand = [\"sh\"]\n".to_owned(),
            ":3: `response.command` must begin with the absolute path",
        ),
        (
            format!("{}url = \"http://a\"\n", TABLES[3]),
            ":4: `response.url` is no key of the carrier command",
        ),
    ] {
        let got = complaint(&text);
        assert!(
            got.starts_with("/etc/keytrail/agent.toml:") && got.contains(expected),
            "{text:?} gave {got:?}"
        );
        // What may be secret is not repeated.
        assert!(!got.contains("u:p@"), "{got}");
    }
}
