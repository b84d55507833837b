//! `keytrail classify` through the real binary: the protocol, the rules of the user, the exit status.

#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Letters and digits that nobody saw before; the same seed gives the same ones.
fn fresh(seed: u64, n: usize) -> String {
    const SET: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            SET[(state % 62) as usize] as char
        })
        .collect()
}

fn token(seed: u64) -> String {
    format!("ghp_{}", fresh(seed, 36))
}

struct Said {
    status: i32,
    out: String,
    err: String,
}

impl Said {
    fn lines(&self) -> Vec<Value> {
        self.out
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }
}

/// Runs `keytrail classify` with no rules but the built-in ones.
fn classify(args: &[&str], input: &[u8]) -> Said {
    let mut all = vec!["--rules-dir", "/nonexistent"];
    all.extend(args);
    classify_with(&all, input)
}

fn classify_with(args: &[&str], input: &[u8]) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_keytrail"))
        .arg("classify")
        .args(args)
        .args(["--state-dir", "/nonexistent"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // A command that refuses its arguments closes the pipe.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    Said {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn question(id: impl Into<Value>, text: &str) -> String {
    format!("{}\n", json!({"id": id.into(), "text": text}))
}

#[test]
fn thousands_of_lines_are_answered_in_their_order() {
    let input: String = (0..5000)
        .map(|i| {
            // Lines of very different cost.
            let filler = "lorem ipsum ".repeat(if i % 97 == 0 { 4000 } else { i % 5 });
            question(i, &format!("{filler} TOKEN={}", token(i as u64)))
        })
        .collect();
    let said = classify(&["--jsonl"], input.as_bytes());
    assert_eq!(said.status, 0, "{}", said.err);
    let answers = said.lines();
    assert_eq!(answers.len(), 5000);
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(answer["id"], i);
        assert_eq!(answer["credentials"][0]["kind"], "github-token", "{answer}");
    }
}

#[test]
fn ids_of_any_type_are_echoed() {
    let input = [
        question("a b", ""),
        question(json!({"n": [1]}), ""),
        question(Value::Null, ""),
        "{\"text\": \"no id\"}\n".to_string(),
    ]
    .concat();
    let ids: Vec<Value> = classify(&["--jsonl"], input.as_bytes())
        .lines()
        .iter()
        .map(|a| a["id"].clone())
        .collect();
    assert_eq!(
        ids,
        [json!("a b"), json!({"n": [1]}), json!(null), json!(null)]
    );
}

#[test]
fn a_bad_line_is_answered_with_its_number_and_the_others_are_not_harmed() {
    let secret = fresh(3, 20);
    let mut input = question(1, &format!("K={}", token(1))).into_bytes();
    input.extend(format!("not json {secret}\n\n").bytes());
    input.extend(format!("{{\"id\": 2, \"words\": \"{secret}\"}}\n").bytes());
    input.extend(format!("{{\"id\": 3, \"text\": 7, \"x\": \"{secret}\"}}\n").bytes());
    input.extend(b"{\"id\": 4, \"text\": \"\xff\xfe\"}\n");
    input.extend(question(5, &format!("K={}", token(5))).bytes());
    // No line break at the end.
    input.pop();
    let said = classify(&["--jsonl"], &input);
    assert_eq!(said.status, 0);
    let answers = said.lines();
    assert_eq!(answers.len(), 6, "{}", said.out);
    assert_eq!(
        (answers[0]["id"].as_i64(), answers[5]["id"].as_i64()),
        (Some(1), Some(5))
    );
    assert_eq!(answers[5]["credentials"].as_array().unwrap().len(), 1);
    let failed: Vec<(i64, &str)> = answers[1..5]
        .iter()
        .map(|a| (a["line"].as_i64().unwrap(), a["error"].as_str().unwrap()))
        .collect();
    // The empty third line is no question.
    assert_eq!(failed.iter().map(|f| f.0).collect::<Vec<_>>(), [2, 4, 5, 6]);
    assert!(failed[0].1.starts_with("not JSON"), "{failed:?}");
    assert!(
        failed[1].1.contains("\"text\"") && failed[2].1.contains("\"text\""),
        "{failed:?}"
    );
    assert_eq!(failed[3].1, "not UTF-8");
    assert!(!said.out.contains(&secret) && !said.err.contains(&secret));
}

#[test]
fn a_line_beyond_the_bound_is_refused_and_the_next_one_answered() {
    let mut input = Vec::with_capacity(34 << 20);
    input.extend_from_slice(b"{\"id\": 1, \"text\": \"");
    input.resize(33 << 20, b'x');
    input.extend_from_slice(b"\"}\n");
    input.extend(question(2, &format!("K={}", token(2))).bytes());
    let said = classify(&["--jsonl"], &input);
    let answers = said.lines();
    assert_eq!((said.status, answers.len()), (0, 2));
    assert_eq!(answers[0]["error"], "longer than 32 MiB");
    assert_eq!(answers[0]["line"], 1);
    assert_eq!(answers[1]["credentials"][0]["kind"], "github-token");
    // One just below it is inspected to its end.
    let mut input = Vec::with_capacity(9 << 20);
    input.extend_from_slice(b"{\"id\": 1, \"text\": \"");
    input.resize(8 << 20, b' ');
    input.extend_from_slice(format!("K={}\"}}\n", token(3)).as_bytes());
    let answers = classify(&["--jsonl"], &input).lines();
    assert_eq!(answers[0]["credentials"][0]["kind"], "github-token");
}

#[test]
fn no_input_gives_no_output() {
    for input in [&b""[..], b"\n\n  \n"] {
        let said = classify(&["--jsonl"], input);
        assert_eq!(
            (said.status, said.out.as_str(), said.err.as_str()),
            (0, "", "")
        );
    }
}

#[test]
fn the_path_is_a_hint() {
    let text = format!("[a]\ntoken = {}\n", fresh(9, 36));
    let ask = |path: Option<&str>| {
        let line = format!("{}\n", json!({"id": 1, "path": path, "text": text}));
        classify(&["--jsonl"], line.as_bytes()).lines()[0].clone()
    };
    let hinted = ask(Some("/root/.databrickscfg"));
    assert_eq!(
        hinted["credentials"][0]["kind"], "databricks-token",
        "{hinted}"
    );
    assert_eq!(hinted["usual_place_of"][0], "databricks-token");
    for path in [None, Some("")] {
        let bare = ask(path);
        assert_ne!(bare["credentials"][0]["kind"], "databricks-token", "{bare}");
        assert!(bare.get("usual_place_of").is_none());
    }
    // The place alone is no credential.
    let empty = classify(
        &["--jsonl"],
        b"{\"path\": \"/root/.vault-token\", \"text\": \"\"}\n",
    )
    .lines();
    assert_eq!(empty[0]["credentials"], json!([]));
    assert_eq!(empty[0]["usual_place_of"], json!(["vault-token"]));
}

/// `TOKEN:x-oauth-basic` and its like: the token stands where a name should, and names are shown.
#[test]
fn a_token_in_the_place_of_a_name_is_never_shown() {
    use base64::Engine as _;
    let basic = |user: &str, password: &str| {
        base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
    };
    let opaque = fresh(41, 40);
    for secret in [token(40), opaque, format!("glpat-{}", fresh(42, 20))] {
        for password in ["x-oauth-basic", "X", "", "api_token", &fresh(43, 18)] {
            let generated = password.len() > 16;
            let encoded = basic(&secret, password);
            for (text, path) in [
                (format!("Authorization: Basic {encoded}\n"), ""),
                (
                    format!("curl -u {secret}:{password} https://api.internal/\n"),
                    "",
                ),
                (
                    format!("machine git.internal login {secret} password {password}\n"),
                    "/root/.netrc",
                ),
                (
                    format!("{{\"auths\":{{\"r.internal\":{{\"auth\":\"{encoded}\"}}}}}}"),
                    "/root/.docker/config.json",
                ),
                (
                    format!("[pypi]\nusername = {secret}\npassword = {password}\n"),
                    "/root/.pypirc",
                ),
                (
                    format!("git clone https://{secret}:{password}@git.internal/x.git\n"),
                    "",
                ),
            ] {
                let line = format!("{}\n", json!({"id": 1, "text": text, "path": path}));
                let said = classify(&["--jsonl"], line.as_bytes());
                // With a generated password behind it a value of no known form may be a name.
                if !generated || secret.contains(['_', '-']) {
                    assert!(!said.out.contains(&secret[6..]), "{text}: {}", said.out);
                }
                assert!(
                    !generated || !said.out.contains(password),
                    "{text}: {}",
                    said.out
                );
                let found = said.lines()[0]["credentials"].as_array().unwrap().len();
                // curl asks for a password, and netrc has no word for none.
                let silent = password.is_empty()
                    && (text.starts_with("curl") || text.starts_with("machine"))
                    && !secret.contains(['_', '-']);
                assert!(found > 0 || silent, "{text}: {}", said.out);
            }
        }
    }
}

#[test]
fn offsets_are_bytes_and_slice_to_the_secret() {
    let (token, password, key) = (token(11), fresh(12, 16), fresh(13, 40));
    for (text, secret) in [
        (format!("\u{e9}\u{1f511} GITHUB_TOKEN={token}\n"), &token),
        (
            format!("url: postgres://\u{fc}ser:{password}@db.internal/x"),
            &password,
        ),
        (
            format!("{{\"a\": \"\u{2603}\", \"client_secret\": \"{key}\"}}"),
            &key,
        ),
        (format!("export A=1\r\nAPI_TOKEN='{key}'\r\n"), &key),
    ] {
        let said = classify(&["--jsonl"], question(1, &text).as_bytes());
        let answer = &said.lines()[0];
        let found = &answer["credentials"][0];
        let (start, end) = (
            found["start"].as_u64().unwrap() as usize,
            found["end"].as_u64().unwrap() as usize,
        );
        assert_eq!(&text[start..end], secret, "{answer}");
        assert!(!said.out.contains(secret.as_str()), "{}", said.out);
    }
}

#[test]
fn one_secret_in_two_forms_has_one_fingerprint() {
    let secret = fresh(21, 24);
    let url = format!("DB=mysql://app:{secret}@db.internal/x");
    let env = format!("DB_PASSWORD={secret}");
    let json = json!({"password": secret}).to_string();
    let other = format!("DB_PASSWORD={}", fresh(22, 24));
    let input: String = [&url, &env, &json, &other]
        .iter()
        .map(|t| question(0, t))
        .collect();
    let answers = classify(&["--jsonl"], input.as_bytes()).lines();
    let prints: Vec<&str> = answers
        .iter()
        .map(|a| a["credentials"][0]["fingerprint"].as_str().unwrap())
        .collect();
    assert!(
        prints[0].starts_with("kt1:") && prints[0].len() == 36,
        "{prints:?}"
    );
    assert!(
        prints[0] == prints[1] && prints[1] == prints[2] && prints[2] != prints[3],
        "{prints:?}"
    );
}

#[test]
fn a_key_file_makes_fingerprints_comparable_between_runs() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "5a".repeat(32)).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let line = question(1, &format!("K={}", token(31)));
    let print = |args: &[&str]| {
        classify(args, line.as_bytes()).lines()[0]["credentials"][0]["fingerprint"].clone()
    };
    let with = ["--jsonl", "--key-file", key.to_str().unwrap()];
    assert_eq!(print(&with), print(&with));
    assert_ne!(
        print(&["--jsonl"]),
        print(&["--jsonl"]),
        "a key of its own for every run"
    );
    // A key that others can read is none.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = classify(&with, line.as_bytes());
    assert_eq!((said.status, said.out.as_str()), (1, ""), "{}", said.err);
}

#[test]
fn several_files_and_standard_input_are_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_string()
    };
    let a = write("a.jsonl", question("a1", "") + &question("a2", ""));
    let b = write("b.jsonl", question("b1", "") + "broken\n");
    let said = classify(&["--jsonl", &a, "-", &b], question("in", "").as_bytes());
    let answers = said.lines();
    let ids: Vec<&str> = answers.iter().filter_map(|a| a["id"].as_str()).collect();
    assert_eq!((said.status, ids), (0, vec!["a1", "a2", "in", "b1"]));
    assert_eq!(answers[4]["line"], 2, "lines are counted within their file");
    // A file that is not there is named; the others are answered; the status says it.
    let said = classify(&["--jsonl", &a, "/nonexistent/x", &b], b"");
    assert_eq!((said.status, said.lines().len()), (1, 4));
    assert!(said.err.contains("/nonexistent/x"), "{}", said.err);
}

#[test]
fn files_and_standard_input_as_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (token(41), fresh(42, 18));
    let env = dir.path().join(".env");
    std::fs::write(&env, format!("A=1\nGITHUB_TOKEN={one}\n")).unwrap();
    let input = format!("x\ny\nmysql://u:{two}@h.internal/d\n");
    let said = classify(&[env.to_str().unwrap(), "-"], input.as_bytes());
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(
        said.out.contains(".env:2") && said.out.contains("-:3"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("github-token") && said.out.contains("mysql-url"),
        "{}",
        said.out
    );
    assert!(!said.out.contains(&one) && !said.out.contains(&two));
    // Bytes that are not UTF-8 are inspected all the same.
    let binary = [b"\xff\xfe\x80 ".as_slice(), one.as_bytes(), b" \xff"].concat();
    let said = classify(&[], &binary);
    assert!(said.out.contains("github-token"), "{}", said.out);
    assert_eq!(classify(&[], b"nothing here").out, "no credentials found\n");
    let said = classify(&[dir.path().to_str().unwrap()], b"");
    assert_eq!(said.status, 1);
    assert!(said.err.contains("is a directory"), "{}", said.err);
}

#[test]
fn findings_below_the_floor_are_left_out() {
    let line = question(1, &format!("K={}\npassword: {}", token(51), fresh(52, 12)));
    let count = |floor: &str| {
        classify(&["--jsonl", "--min-confidence", floor], line.as_bytes()).lines()[0]["credentials"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!((count("0"), count("0.9"), count("1")), (2, 1, 0));
}

const GOOD: &str = "[[rule]]\nname = 'acme-token'\nliterals = ['acme_']\nregex = 'acme_[0-9a-f]{32}'\nidentifier = 'prefix'\npositive = ['acme_{hex:32}', 'T=acme_{hex:32}', '\"acme_{hex:32}\"']\nnegative = ['acme_', 'acme_x', 'acme']\n";

fn with_rules(dir: &Path, input: &str) -> Said {
    classify_with(
        &["--jsonl", "--rules-dir", dir.to_str().unwrap()],
        input.as_bytes(),
    )
}

#[test]
fn a_bad_rule_is_refused_with_file_line_and_reason_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let broken = "\n[[rule]]\nname = 'broken'\nliterals = ['zz']\nregex = 'zz('\npositive = ['a','b','c']\nnegative = ['a','b','c']\n";
    let liar = GOOD
        .replace("acme-token", "liar")
        .replace("'acme_', 'acme_x'", "'acme_{hex:32}', 'acme_x'");
    std::fs::write(dir.path().join("a.toml"), format!("{GOOD}{broken}\n{liar}")).unwrap();
    std::fs::write(dir.path().join("b.toml"), "# fine\n[[rule]\n").unwrap();
    std::fs::write(dir.path().join("c.txt"), "no rule file").unwrap();
    let secret = format!("acme_{}", "0a1b2c3d4e5f60718293a4b5c6d7e8f9");
    let said = with_rules(
        dir.path(),
        &question(1, &format!("x {secret}\ny {}", token(61))),
    );
    assert_eq!(said.status, 0, "{}", said.err);
    let kinds: Vec<String> = said.lines()[0]["credentials"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["kind"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(kinds, ["acme-token", "github-token"], "{}", said.err);
    for expected in [
        "a.toml:9: rule broken: `regex`",
        "a.toml:16: rule liar: negative example is found",
        "b.toml:2: ",
    ] {
        assert!(said.err.contains(expected), "{expected} in {}", said.err);
    }
    assert_eq!(said.err.lines().count(), 3, "{}", said.err);
}

#[test]
fn a_rule_of_the_user_replaces_the_built_in_one_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("mine.toml"),
        GOOD.replace("acme-token", "jwt"),
    )
    .unwrap();
    let jwt = format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.{}", fresh(71, 43));
    let found = |dir: &Path| {
        with_rules(dir, &question(1, &format!("x {jwt}"))).lines()[0]["credentials"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(
        (found(dir.path()), found(Path::new("/nonexistent"))),
        (0, 1)
    );
}

#[test]
fn kinds_are_listed_and_wrong_options_are_a_usage_error() {
    let said = classify(&["--kinds", "--json"], b"");
    let kinds = said.lines();
    assert_eq!(said.status, 0);
    assert!(
        kinds.len() > 300
            && kinds.iter().all(|k| k["kind"].is_string()
                && k["confidence"]
                    .as_f64()
                    .is_some_and(|c| c > 0.0 && c <= 1.0))
    );
    let said = classify(&["--no-such-option"], b"");
    assert_eq!((said.status, said.out.as_str()), (2, ""));
    assert_eq!(
        classify(&["--json"], b"").status,
        2,
        "--json belongs to --kinds"
    );
}

#[test]
fn a_reader_that_goes_away_ends_it_without_a_complaint() {
    let input: String = (0..20_000).map(|i| question(i, "TOKEN=none")).collect();
    let mut child = Command::new(env!("CARGO_BIN_EXE_keytrail"))
        .args(["classify", "--jsonl", "--rules-dir", "/nonexistent"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        assert!(
            output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    });
}
