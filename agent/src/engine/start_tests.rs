//! What the agent says at its start.

use super::*;

#[test]
fn what_ran_before_is_a_gap() {
    let gap = before_the_agent(42);
    assert_eq!(
        gap,
        GapSeen {
            detail:
                "42 processes ran before the agent; what they read and sent until now was not seen"
                    .to_owned(),
            remedy: "start the agent early in the boot".to_owned(),
            count: 42,
            signal: Some(Signal::Exec),
            ..GapSeen::new(GapReason::Backfill, gap.boot_ns)
        }
    );
    assert!(gap.boot_ns > 0);
}

#[test]
fn an_environment_that_cannot_be_read_is_a_gap_of_its_process() {
    let pid = Pid {
        tgid: 77,
        start: 5_000,
    };
    let gap = coverage::unreadable_environment(pid, "Permission denied", false, 1);
    assert_eq!(
        gap,
        GapSeen {
            detail: "the environment of process 77 cannot be read: Permission denied".to_owned(),
            remedy: "run the agent with CAP_SYS_PTRACE".to_owned(),
            count: 1,
            signal: Some(Signal::Exec),
            pid: Some(pid),
            ..GapSeen::new(GapReason::EnvironmentUnreadable, gap.boot_ns)
        }
    );
    let locked = coverage::unreadable_environment(pid, keytrail_host::areas::LATE, true, 1);
    assert!(locked.remedy.contains("what it waits for"), "{locked:?}");
    // Who has the right is not told to get it.
    let kept = coverage::unreadable_environment(pid, "Permission denied", true, 1);
    assert!(!kept.remedy.contains("CAP_SYS_PTRACE"), "{kept:?}");
}

/// The fleet's key comes before the state directory's, which is not even made for it; a bad one ends the start.
#[test]
fn the_fleets_key_is_used_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("fleet.key");
    fs::write(&key, [7u8; 32]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let state = dir.path().join("state");
    let mut options = EngineOptions {
        state_dir: Some(state.clone()),
        ..EngineOptions::default()
    };
    options.config.fingerprint_key_file = Some(key.clone());
    let expected = Fingerprinter::new(&[7; 32]).fingerprint(b"secret");
    assert_eq!(
        fingerprinter(&options).unwrap().fingerprint(b"secret"),
        expected
    );
    assert!(!state.exists());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = fingerprinter(&options).unwrap_err().to_string();
    assert!(
        error.contains(key.to_str().unwrap()) && error.contains("0644"),
        "{error}"
    );
    // Its own, which stays.
    options.config.fingerprint_key_file = None;
    let own = fingerprinter(&options).unwrap().fingerprint(b"secret");
    assert_ne!(own, expected);
    assert_eq!(fingerprinter(&options).unwrap().fingerprint(b"secret"), own);
}

/// No key of the configuration is read for nothing: each changes what some part of the agent is started with.
#[test]
fn every_key_of_the_configuration_has_an_effect() {
    let rules = tempfile::tempdir().unwrap();
    let rule = "[[rule]]\nid = \"site\"\n";
    fs::write(rules.path().join("site.toml"), rule).unwrap();
    let key = rules.path().join("key");
    fs::write(&key, [7u8; 32]).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let lines = [
        ("listen", "\"unix:/run/other.sock\"".to_owned()),
        ("state_dir", "\"/srv/state\"".to_owned()),
        ("rules_dir", format!("{:?}", rules.path())),
        ("findings_dir", format!("{:?}", rules.path())),
        ("fingerprint_key_file", format!("{key:?}")),
        ("tier", "\"base\"".to_owned()),
        ("ring_bytes", "65536".to_owned()),
        ("process_events", "true".to_owned()),
        ("system_calls", "false".to_owned()),
        ("self_check_seconds", "7".to_owned()),
        ("watch", "[\"/srv/x\"]".to_owned()),
        ("exclude", "[\"/mnt\"]".to_owned()),
        ("inspect_timeout_ms", "10".to_owned()),
        ("inspect_bytes", "4096".to_owned()),
        ("inspect_share", "1".to_owned()),
        ("retain_events", "7".to_owned()),
        ("retain_days", "7".to_owned()),
        ("history_bytes", "1048576".to_owned()),
        ("history_days", "7".to_owned()),
        ("capture.answer_bytes", "1".to_owned()),
        ("capture.key_server_bytes", "1".to_owned()),
        ("capture.process_bytes", "1".to_owned()),
        ("capture.connection_bytes", "1".to_owned()),
        ("capture.write_bytes", "1".to_owned()),
        ("tcp.listen", "\"127.0.0.1:7443\"".to_owned()),
        ("tcp.certificate_file", "\"/srv/tls.crt\"".to_owned()),
        ("tcp.key_file", "\"/srv/tls.key\"".to_owned()),
        ("tcp.client_ca_file", "\"/srv/ca.crt\"".to_owned()),
        ("tcp.read", "[\"spiffe://a/b\"]".to_owned()),
        ("tcp.administer", "[\"host.example\"]".to_owned()),
        ("metrics.listen", "\"127.0.0.1:9479\"".to_owned()),
        ("kubernetes.names", "false".to_owned()),
        ("kubernetes.pods_socket", "\"/srv/pods.sock\"".to_owned()),
        ("kubernetes.account_dir", "\"/srv/account\"".to_owned()),
        ("kubernetes.runtime_socket", "\"/srv/cri.sock\"".to_owned()),
        ("log.level", "\"trace\"".to_owned()),
        ("log.format", "\"json\"".to_owned()),
    ];
    let named: Vec<_> = lines.iter().map(|(key, _)| *key).collect();
    assert_eq!(named, config::keys(), "a key without a line here");
    let parsed = |text: &str| config::Config::parse(text, Path::new("x")).unwrap();
    for (key, value) in &lines {
        // What is served by TCP is made of all of its keys, as soon as there is an address.
        let with = match key.strip_prefix("tcp.") {
            Some(rest) if rest != "listen" => "tcp.listen = \"127.0.0.1:1\"\n",
            _ => "",
        };
        let text = format!("{with}{key} = {value}");
        assert_ne!(
            effects(&parsed(&text)),
            effects(&parsed(with)),
            "{key} changes nothing"
        );
    }
}

/// What the parts of the agent are started with.
fn effects(config: &config::Config) -> Vec<String> {
    let (classifier, bad) = Classifier::with_rules_dir(&config.rules_dir);
    let state = tempfile::tempdir().unwrap();
    let options = EngineOptions {
        state_dir: Some(state.path().to_owned()),
        config: config.clone(),
        ..EngineOptions::default()
    };
    // A key of its own is another one each time.
    let fingerprint = config
        .fingerprint_key_file
        .as_ref()
        .map(|_| fingerprinter(&options).unwrap().fingerprint(b"secret"));
    let level = config.log.level.as_deref().unwrap_or("info");
    let sensor = sensor_options(&options);
    let run = RunInfo {
        agent: String::new(),
        epoch: 1,
        previous_alive_wall_ns: None,
        previous_clean: true,
        rebooted: false,
    };
    let first = first_observation(&options, run, &v1::NodeStatus::default());
    vec![
        format!("{:?}", config.listen.parse::<keytrail_export::Address>()),
        format!("{:?}", EngineOptions::daemon(config.clone()).state_dir),
        format!("{}", bad.len()),
        format!(
            "{}",
            super::super::pipeline::judge::read_rules(&config.findings_dir).len()
        ),
        format!("{fingerprint:?}"),
        format!(
            "{:?} {} {} {:?} {:?}",
            sensor.tier, sensor.ring_bytes, sensor.system_calls, sensor.limits, sensor.checks.every
        ),
        format!("{}", first.process_events),
        format!("{:?}", patterns(&classifier, config)),
        format!("{:?}", inspection_options(config).unwrap()),
        format!("{:?}", retention(config)),
        format!("{:?}", config.tcp.spec()),
        format!("{:?}", config.metrics_listen),
        format!("{:?}", config.kubernetes),
        format!("{:?} {:?}", config::log_filter(level), config.log.format),
    ]
}
