//! Records in, observations out: what is found, what is shown, what the kernel side is told.

use super::files::Files;
use super::{Digest, DigestOptions, Digested, InspectionOptions, Registry, Verdict};
use crate::decode::Record;
use keytrail_abi as abi;
use keytrail_host::clock::boot_ns;
use keytrail_model::{
    Access, Effect, ExecSeen, FileKey, FoundIn, InventoryUpdate, Observation, SensorChange, Why,
};
use keytrail_payload::{Matcher, Streams};
use keytrail_secret::{Classifier, Fingerprinter};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::time::{Duration, Instant};

/// What the digest asked of the kernel side.
#[derive(Default)]
struct Asked {
    watched: Vec<(String, abi::FileId)>,
    unwatched: Vec<FileKey>,
}

fn digest(patterns: &[String]) -> Digest {
    digest_with(patterns, InspectionOptions::default())
}

fn digest_with(patterns: &[String], inspection: InspectionOptions) -> Digest {
    Digest::new(DigestOptions {
        classifier: Classifier::builtin().into(),
        registry: Registry::new(Fingerprinter::new(&[7; 32]), Matcher::new(&[9; 32])),
        streams: Streams::new(),
        files: Files::new(patterns.to_vec()),
        inspection,
    })
    .unwrap()
}

/// Takes in answers until `done` says so.
fn answers_until(digest: &mut Digest, out: &mut Digested, done: impl Fn(&Digest) -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done(digest) {
        assert!(Instant::now() < end, "no answer came");
        while digest.answer(boot_ns(), out).is_some() {}
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Surveys what may have changed, and takes in what comes of it.
fn watch(digest: &mut Digest, asked: &mut Asked, out: &mut Digested) {
    while digest.files.is_dirty() || !digest.is_idle() {
        digest.watch();
        answers_until(digest, out, Digest::is_idle);
    }
    for effect in std::mem::take(&mut out.effects) {
        match effect {
            Effect::Sensor(SensorChange::Watch { path, file }) => {
                let id = abi::FileId {
                    ino: file.inode,
                    dev: file.device,
                    pad: 0,
                };
                asked.watched.push((path.display().to_string(), id));
            }
            Effect::Sensor(SensorChange::Unwatch { file }) => asked.unwatched.push(file),
            other => out.effects.push(other),
        }
    }
}

/// Ingests a record once the file it is about was inspected, as the engine does.
fn record(digest: &mut Digest, record: &Record<'_>, hook: &str, out: &mut Digested) {
    let inspection = digest.inspection(record);
    if let Some(inspection) = &inspection {
        answers_until(digest, out, |_| inspection.verdict().is_some());
    }
    digest.record(record, hook, inspection.as_ref(), out);
}

/// Random letters and digits: nothing in these tests is a token that was ever issued.
fn random(n: usize) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = vec![0u8; n];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
        .iter()
        .map(|b| ALPHABET[usize::from(*b) % 62] as char)
        .collect()
}

fn github() -> String {
    format!("ghp_{}", random(36))
}

fn header(kind: u16, tgid: u32) -> abi::Header {
    abi::Header {
        kind,
        tgid,
        tid: tgid,
        start_ns: 5_000_000_000,
        boot_ns: 6_000_000_000,
        ..abi::Header::default()
    }
}

fn exec(tgid: u32, exec_id: u64, argv: usize, env: usize) -> abi::Exec {
    abi::Exec {
        header: header(abi::Kind::EXEC, tgid),
        exec_id,
        exe: abi::PathId::default(),
        exe_ctime_ns: 0,
        cwd: abi::PathId::default(),
        cgroups: 0,
        parent_start_ns: 0,
        arg_len: argv as u64,
        env_len: env as u64,
        mnt_ns: 0,
        net_ns: 0,
        parent_tgid: 1,
        old_tid: tgid,
        ns_tgid: tgid,
        argc: 0,
        envc: 0,
        suid: 0,
        loginuid: u32::MAX,
        sessionid: u32::MAX,
        filename_len: 4,
        secureexec: 0,
        upper_layer: 0,
        pad: 0,
        filename: {
            let mut name = [0; 256];
            name[..4].copy_from_slice(b"/bin");
            name
        },
    }
}

fn chunk(
    tgid: u32,
    exec_id: u64,
    area: u32,
    offset: usize,
    data: &[u8],
    last: bool,
) -> abi::ExecChunk {
    abi::ExecChunk {
        header: header(abi::Kind::EXEC_CHUNK, tgid),
        exec_id,
        area,
        offset: offset as u32,
        data_len: data.len() as u32,
        last: u32::from(last),
    }
}

/// A pid beyond the kernel's maximum: /proc has nothing to add.
const NOBODY: u32 = 99_999_999;

fn run_exec(digest: &mut Digest, argv: &[u8], env: &[u8]) -> ExecSeen {
    let mut out = Digested::default();
    record(
        digest,
        &Record::Exec(exec(NOBODY, 1, argv.len(), env.len())),
        "h",
        &mut out,
    );
    record(
        digest,
        &Record::ExecChunk(chunk(NOBODY, 1, abi::AREA_ARGV, 0, argv, false), argv),
        "h",
        &mut out,
    );
    let (first, second) = env.split_at(env.len() / 2);
    record(
        digest,
        &Record::ExecChunk(chunk(NOBODY, 1, abi::AREA_ENV, 0, first, false), first),
        "h",
        &mut out,
    );
    let at = first.len();
    record(
        digest,
        &Record::ExecChunk(chunk(NOBODY, 1, abi::AREA_ENV, at, second, true), second),
        "h",
        &mut out,
    );
    assert_eq!(
        out.decided().len(),
        1,
        "the kernel side may decide this exec"
    );
    match out.observations.pop() {
        Some(Observation::Exec(seen)) => *seen,
        other => panic!("no exec came out: {other:?}"),
    }
}

#[test]
fn an_environment_in_two_chunks_is_one() {
    let token = github();
    let env = format!("PATH=/bin\0GITHUB_TOKEN={token}\0COPY=x{token}y\0HOME=/nonexistent\0");
    let seen = run_exec(&mut digest(&[]), b"prog\0", env.as_bytes());
    assert!(!seen.env_truncated && !seen.argv_truncated);
    let names: Vec<_> = seen
        .found
        .iter()
        .map(|f| match &f.place {
            FoundIn::Env(name) => name.as_str(),
            FoundIn::Argv(_) => "argv",
        })
        .collect();
    assert!(
        names.contains(&"GITHUB_TOKEN") && names.contains(&"COPY"),
        "{names:?}"
    );
    assert!(
        seen.found
            .iter()
            .all(|f| f.credential.fingerprint == seen.found[0].credential.fingerprint)
    );
    assert!(!serde_json::to_string(&seen).unwrap().contains(&token));
}

#[test]
fn arguments_are_shown_without_what_must_not_be_shown() {
    let token = github();
    let argv =
        format!("curl\0-H\0Authorization: Bearer {token}\0https://example.org/?t={token}&x=1\0");
    let seen = run_exec(&mut digest(&[]), argv.as_bytes(), b"A=b\0");
    let shown = seen.argv.join("|");
    assert!(!shown.contains(&token), "{shown}");
    assert!(
        shown.starts_with("curl|-H|Authorization: Bearer [redacted github-token kt1:"),
        "{shown}"
    );
    assert!(shown.ends_with("&x=1"), "{shown}");
    let indices: Vec<_> = seen.found.iter().map(|f| f.place.clone()).collect();
    assert!(
        indices.contains(&FoundIn::Argv(2)) && indices.contains(&FoundIn::Argv(3)),
        "{indices:?}"
    );
}

/// Real command lines: what the program makes a secret is not shown, reported as a credential or not.
#[test]
fn passwords_on_command_lines_are_not_shown() {
    for (line, secret, reported) in [
        ("mysql -u root -pS3cretXy12Zk db", "S3cretXy12Zk", true),
        (
            "/usr/bin/docker login -u bob -p S3cretXy12Zk r.corp.net",
            "S3cretXy12Zk",
            true,
        ),
        ("zip -P S3cretXy12Zk b.zip data", "S3cretXy12Zk", true),
        // Too weak to be reported as a credential, and a password all the same.
        ("/usr/bin/mysql -u root -phunter db", "hunter", false),
        ("sshpass -p hunter ssh h", "hunter", false),
        ("app --password hunter --verbose", "hunter", false),
        ("app --db-password=hunter --verbose", "hunter", false),
        ("env PGPASSWORD=hunter psql", "hunter", false),
    ] {
        let argv = line.replace(' ', "\0") + "\0";
        let seen = run_exec(&mut digest(&[]), argv.as_bytes(), b"A=b\0");
        let shown = seen.argv.join(" ");
        assert!(
            !shown.contains(secret) && shown.contains("[redacted"),
            "{shown}"
        );
        assert!(!reported || seen.found.len() == 1, "{line}");
        let (first, last) = (line.split(' ').next(), line.rsplit(' ').next());
        assert_eq!(
            (shown.split(' ').next(), shown.rsplit(' ').next()),
            (first, last)
        );
    }
    let plain = "app --password-stdin --token-file /x -p 80 key=1";
    let argv = plain.replace(' ', "\0") + "\0";
    let seen = run_exec(&mut digest(&[]), argv.as_bytes(), b"A=b\0");
    assert_eq!(seen.argv.join(" "), plain);
}

#[test]
fn a_secret_known_from_the_environment_is_redacted_in_any_form() {
    use base64::Engine as _;
    let mut digest = digest(&[]);
    let token = github();
    let env = format!("GITHUB_TOKEN={token}\0");
    run_exec(&mut digest, b"x\0", env.as_bytes());
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("user:{token}"));
    let argv = format!("curl\0Authorization: Basic {encoded}\0");
    let seen = run_exec(&mut digest, argv.as_bytes(), b"A=b\0");
    assert!(
        !seen.argv.join(" ").contains(&encoded[12..]),
        "{:?}",
        seen.argv
    );
    assert_eq!(seen.found.len(), 1);
}

#[test]
fn pieces_of_a_secret_at_hand_are_redacted_in_any_notation() {
    let token = github();
    let (head, tail) = token.split_at(token.len() / 2);
    let hex: String = token.bytes().map(|b| format!("{b:02x}")).collect();
    let percent: String = token.bytes().map(|b| format!("%{b:02x}")).collect();
    let env = format!("GITHUB_TOKEN={token}\0");
    for shown in [
        head.to_owned(),
        tail.to_owned(),
        token[7..20].to_owned(),
        hex.clone(),
        hex[10..50].to_uppercase(),
        percent[..60].to_owned(),
    ] {
        for line in [
            format!("nslookup\0{shown}.example.org\0-x\0"),
            format!("curl\0--data=a:{shown}\0end\0"),
        ] {
            let seen = run_exec(&mut digest(&[]), line.as_bytes(), env.as_bytes());
            let argv = seen.argv.join("|");
            assert!(
                !argv.contains(&shown) && argv.contains("[redacted"),
                "{argv}"
            );
            assert!(argv.ends_with("|-x") || argv.ends_with("|end"), "{argv}");
        }
    }
    // A name of any bytes.
    let env = [b"MY_\xff_TOKEN=".as_slice(), token.as_bytes(), b"\0"].concat();
    let line = format!("x\0{tail}\0");
    let seen = run_exec(&mut digest(&[]), line.as_bytes(), &env);
    assert_eq!(seen.argv, ["x", "[redacted]"]);
    // What has nothing to do with it stays.
    let env = format!("GITHUB_TOKEN={token}\0");
    let line = "git\0clone\0https://github.com/o/r.git\0ghp_\0--token-file=/x\0";
    let seen = run_exec(&mut digest(&[]), line.as_bytes(), env.as_bytes());
    assert_eq!(seen.argv.join("\0") + "\0", line);
}

#[test]
fn a_piece_of_a_secret_of_another_process_goes_when_it_holds_the_known_bytes() {
    let mut digest = digest(&[]);
    // Not a random one: the bytes by which it is known are the rarest, and may be those of its mark.
    let token = "ghp_w7Rk2ZpQ9xLm4TnV8cYb1HsJd6FgE3aUoXiP";
    run_exec(
        &mut digest,
        b"x\0",
        format!("GITHUB_TOKEN={token}\0").as_bytes(),
    );
    // All but its mark: the bytes by which it is known are in there.
    let cut = &token[4..];
    let hex: String = cut.bytes().map(|b| format!("{b:02x}")).collect();
    for shown in [cut, &hex] {
        let line = format!("nslookup\0{shown}.example.org\0");
        let seen = run_exec(&mut digest, line.as_bytes(), b"A=b\0");
        assert_eq!(seen.argv, ["nslookup", "[redacted].example.org"], "{shown}");
        assert!(seen.found.is_empty(), "nobody holds a piece");
    }
}

#[test]
fn a_lost_chunk_is_a_truncation_and_not_a_silence() {
    let mut digest = digest(&[]);
    let mut out = Digested::default();
    let env = format!("GITHUB_TOKEN={}\0", github());
    record(
        &mut digest,
        &Record::Exec(exec(NOBODY, 9, 5, 9_000)),
        "h",
        &mut out,
    );
    record(
        &mut digest,
        &Record::ExecChunk(
            chunk(NOBODY, 9, abi::AREA_ENV, 0, env.as_bytes(), false),
            env.as_bytes(),
        ),
        "h",
        &mut out,
    );
    digest.tick(6_100_000_000, &mut out);
    assert!(out.observations.is_empty(), "its last chunk may still come");
    digest.tick(7_000_000_000, &mut out);
    let Some(Observation::Exec(seen)) = out.observations.pop() else {
        panic!("nothing came out")
    };
    assert!(seen.env_truncated && seen.argv_truncated);
    assert_eq!(seen.found.len(), 1, "what did come was inspected");
}

#[test]
fn chunks_that_lie_about_their_place_do_no_harm() {
    let mut digest = digest(&[]);
    let mut out = Digested::default();
    record(
        &mut digest,
        &Record::Exec(exec(NOBODY, 3, 10, 10)),
        "h",
        &mut out,
    );
    for offset in [0, 5, usize::MAX / 2, u32::MAX as usize] {
        record(
            &mut digest,
            &Record::ExecChunk(
                chunk(NOBODY, 3, abi::AREA_ENV, offset, b"A=b", false),
                b"A=b",
            ),
            "h",
            &mut out,
        );
        record(
            &mut digest,
            &Record::ExecChunk(chunk(NOBODY, 77, 9, offset, b"A=b", true), b"A=b"),
            "h",
            &mut out,
        );
    }
    record(
        &mut digest,
        &Record::ExecChunk(chunk(NOBODY, 3, abi::AREA_ENV, 0, b"", true), b""),
        "h",
        &mut out,
    );
    let Some(Observation::Exec(seen)) = out.observations.pop() else {
        panic!("nothing came out")
    };
    assert!(seen.env_truncated);
}

#[test]
fn files_are_learnt_watched_and_known_in_their_new_version() {
    let dir = tempfile::tempdir().unwrap();
    let aws = dir.path().join(".aws");
    std::fs::create_dir(&aws).unwrap();
    let write = |name: &str, token: &str| {
        std::fs::write(aws.join(name), format!("token = {token}\n")).unwrap();
    };
    write("one", &github());
    let pattern = format!("{}/*", aws.display());
    let mut digest = digest(&[pattern]);
    let mut asked = Asked::default();
    digest.files.add_own([]);
    let mut out = Digested::default();
    watch(&mut digest, &mut asked, &mut out);
    assert_eq!(asked.watched.len(), 1, "{:?}", asked.watched);
    assert!(
        matches!(out.places()[..], [InventoryUpdate::Inspected(l)] if l.why == Why::Start && l.held.len() == 1),
        "what was there at the start was not created"
    );
    out.effects.clear();

    // A new file in the watched directory is found because the directory says so.
    write("two", &github());
    digest.files.read_events();
    assert!(digest.files.is_dirty());
    watch(&mut digest, &mut asked, &mut out);
    assert_eq!(asked.watched.len(), 2);
    assert!(
        matches!(out.places()[..], [InventoryUpdate::Inspected(l)] if l.why == Why::Changed && l.raw.ends_with(b"/two"))
    );

    // A read of a version that is not known yet looks again first.
    let (_, id) = asked.watched[0].clone();
    let mut access = abi::FileAccess {
        header: header(abi::Kind::FILE_READ, NOBODY),
        file: id,
        size: 0,
        ctime_ns: 12345,
        access: abi::access::READ,
        count: 1,
    };
    let changed = |name: &str| {
        use std::os::unix::fs::MetadataExt as _;
        let meta = std::fs::metadata(aws.join(name)).unwrap();
        (
            meta.ctime() as u64 * 1_000_000_000 + meta.ctime_nsec() as u64,
            meta.size(),
        )
    };
    let (before, _) = changed("one");
    let second = github();
    write("one", &second);
    out.observations.clear();
    record(&mut digest, &Record::File(access), "hook", &mut out);
    assert!(
        out.observations.is_empty(),
        "a version nobody knows was read"
    );
    assert_eq!(std::mem::take(&mut digest.unlocated), 1);
    (access.ctime_ns, access.size) = changed("one");
    out.observations.clear();
    record(&mut digest, &Record::File(access), "hook", &mut out);
    let Some(Observation::File(seen)) = out.observations.pop() else {
        panic!("no read came out")
    };
    assert_eq!((seen.access, seen.credentials.len()), (Access::Read, 1));
    let expected = digest
        .registry
        .fingerprinter()
        .fingerprint(second.as_bytes());
    assert_eq!(seen.credentials[0].fingerprint, expected);
    // The read of the version before, reported late: not of what is there now.
    access.ctime_ns = before;
    record(&mut digest, &Record::File(access), "hook", &mut out);
    let Some(Observation::File(seen)) = out.observations.pop() else {
        panic!("the read of the first version did not come out")
    };
    assert_eq!(seen.credentials.len(), 1);
    assert_ne!(seen.credentials[0].fingerprint, expected);

    // A file that is not watched says nothing.
    access.file.ino = 1;
    record(&mut digest, &Record::File(access), "hook", &mut out);
    assert!(out.observations.is_empty());

    // Gone is gone.
    std::fs::remove_file(aws.join("two")).unwrap();
    digest.files.mark_all();
    watch(&mut digest, &mut asked, &mut out);
    assert_eq!(asked.unwatched.len(), 1);
    assert!(
        matches!(out.places().last(), Some(InventoryUpdate::Gone { raw, .. }) if raw.ends_with(b"/two"))
    );
}

fn file_new(tgid: u32, exec_id: u64) -> abi::FileNew {
    abi::FileNew {
        header: header(abi::Kind::FILE_NEW, tgid),
        file: abi::FileId {
            ino: 1,
            dev: 1,
            pad: 0,
        },
        size: 100,
        ctime_ns: 5,
        exec_id,
        access: abi::access::READ,
        depth: 0,
        owner_uid: 0,
        owner_gid: 0,
        mode: 0o100_600,
        data_len: 0,
        names: [[0; abi::NAME_MAX]; abi::NAME_DEPTH],
    }
}

/// The kernel side follows a process under a number until it is decided; its children begin under the same one.
#[test]
fn a_child_is_settled_by_what_its_parent_is_followed_under() {
    let mut digest = digest(&[]);
    let mut out = Digested::default();
    record(
        &mut digest,
        &Record::FileNew(file_new(NOBODY, 41), &[]),
        "h",
        &mut out,
    );
    out.effects.clear();
    let fork = abi::Fork {
        header: header(abi::Kind::FORK, NOBODY),
        child_start_ns: 7_000_000_000,
        child_tgid: NOBODY - 1,
        child_ns_tgid: 1,
    };
    record(&mut digest, &Record::Fork(fork), "h", &mut out);
    let decided: Vec<_> = out
        .decided()
        .iter()
        .map(|s| (s.pid.tgid, s.exec_id))
        .collect();
    assert_eq!(decided, [(NOBODY - 1, 41)]);
}

#[test]
fn an_exec_whose_record_was_lost_is_known_to_be_missing() {
    let mut digest = digest(&[]);
    run_exec(&mut digest, b"prog\0", b"A=b\0");
    assert!(!digest.missed(NOBODY, 1));
    assert!(digest.missed(NOBODY, 2));
    assert!(
        digest.missed(NOBODY - 1, 1),
        "nothing was reported about this one"
    );
}

#[test]
fn what_cannot_be_looked_for_or_was_read_in_part_is_counted() {
    use keytrail_model::Bound;
    let home = tempfile::tempdir().unwrap();
    let aws = home.path().join(".aws");
    std::fs::create_dir_all(&aws).unwrap();
    let pattern = format!("{}/*", aws.display());
    let mut digest = digest(&[pattern]);
    let mut asked = Asked::default();
    digest.files.add_own([]);
    let mut out = Digested::default();
    // Four letters: a match would be chance.
    std::fs::write(aws.join("app.env"), "DB_PASSWORD=ab1!\n").unwrap();
    let mut large = format!("TOKEN={}\n", github()).into_bytes();
    large.resize((8 << 20) + 1, b'\n');
    std::fs::write(aws.join("large"), large).unwrap();
    watch(&mut digest, &mut asked, &mut out);
    let reported: Vec<_> = digest.dropped().take().collect();
    assert_eq!(reported, [(Bound::Weak, 1), (Bound::Sampled, 1)]);
    assert!(digest.dropped().is_empty(), "reported once");
}

/// A place for a file whose reads block: a FIFO is opened without waiting, so a process stopped by hand is no use; a
/// deadline that has passed before a thread can answer is the same to the one who asks.
#[test]
fn a_record_does_not_wait_beyond_the_deadline() {
    use keytrail_model::Bound;
    let dir = tempfile::tempdir().unwrap();
    let options = InspectionOptions {
        timeout_ns: 0,
        ..InspectionOptions::default()
    };
    let mut digest = digest_with(&[], options);
    let mut out = Digested::default();
    let (_file, new) = readable(dir.path(), &format!("token = {}\n", github()));
    record(&mut digest, &Record::FileNew(new, &[]), "h", &mut out);
    assert!(out.observations.is_empty() && out.clean().is_empty());
    let reported: Vec<_> = digest.dropped().take().collect();
    assert_eq!(reported, [(Bound::InspectionTime, 1)]);
}

/// Writes a file that this process has open, and the record of a read of it.
fn readable(dir: &std::path::Path, text: &str) -> (std::fs::File, abi::FileNew) {
    use std::os::unix::fs::MetadataExt as _;
    let path = dir.join("settings.txt");
    std::fs::write(&path, text).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let meta = file.metadata().unwrap();
    let mut new = file_new(std::process::id(), 0);
    new.file = abi::FileId {
        ino: meta.ino(),
        dev: keytrail_host::kernel_device(meta.dev()),
        pad: 0,
    };
    new.size = meta.size();
    new.ctime_ns = meta.ctime() as u64 * 1_000_000_000 + meta.ctime_nsec() as u64;
    (file, new)
}

#[test]
fn a_new_file_is_inspected_once_for_all_who_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut digest = digest(&[]);
    let mut out = Digested::default();
    let (_file, new) = readable(dir.path(), &format!("token = {}\n", github()));
    let one = digest.inspection(&Record::FileNew(new, &[])).unwrap();
    let two = digest.inspection(&Record::FileNew(new, &[])).unwrap();
    assert_eq!(one.id, two.id);
    answers_until(&mut digest, &mut out, |_| one.verdict().is_some());
    assert_eq!(two.verdict(), Some(Verdict::Known));
    assert!(digest.inspection(&Record::FileNew(new, &[])).is_none());
    digest.record(&Record::FileNew(new, &[]), "h", Some(&one), &mut out);
    assert!(
        matches!(&out.observations[..], [Observation::File(seen)] if seen.credentials.len() == 1)
    );
    assert_eq!(out.watched().len(), 1);
}

/// What the configuration excludes is neither inspected nor asked about again.
#[test]
fn an_excluded_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = InspectionOptions {
        excluded: crate::Excluded::new(&[dir.path().display().to_string()]).unwrap(),
        ..InspectionOptions::default()
    };
    let pattern = format!("{}/*", dir.path().display());
    let mut digest = digest_with(&[pattern], options);
    digest.files.add_own([]);
    let (mut asked, mut out) = (Asked::default(), Digested::default());
    let (_file, mut new) = readable(dir.path(), &format!("token = {}\n", github()));
    // By its path: this test does not know its names within the file system.
    watch(&mut digest, &mut asked, &mut out);
    assert!(asked.watched.is_empty());
    new.ctime_ns += 1;
    record(&mut digest, &Record::FileNew(new, &[]), "h", &mut out);
    assert!(out.observations.is_empty() && digest.files.table.is_empty());
}

/// The owner of a file pays for it: nobody else is kept waiting by it.
#[test]
fn a_file_has_a_bound_of_findings() {
    use keytrail_model::Bound;
    let dir = tempfile::tempdir().unwrap();
    let mut digest = digest(&[]);
    let mut out = Digested::default();
    let text: String = (0..1_100)
        .map(|n| format!("token_{n} = {}\n", github()))
        .collect();
    let (_file, new) = readable(dir.path(), &text);
    record(&mut digest, &Record::FileNew(new, &[]), "h", &mut out);
    let [Observation::File(seen)] = &out.observations[..] else {
        panic!("no read came out")
    };
    assert_eq!(seen.credentials.len(), 1_024);
    assert!(digest.dropped().take().any(|d| d == (Bound::InFile, 76)));
}

/// A file in memory that went with its mount namespace: what its reader had is what is known, and nobody looks for it.
#[test]
fn a_file_that_is_gone_is_known_by_what_its_reader_had() {
    let mut digest = digest(&[]);
    let mut out = Digested::default();
    let content = format!("token = {}\n", github());
    let mut new = file_new(NOBODY, 0);
    new.access = abi::access::CALL;
    new.size = content.len() as u64;
    new.data_len = content.len() as u32;
    // Without a path it cannot be reported.
    record(
        &mut digest,
        &Record::FileNew(new, content.as_bytes()),
        "h",
        &mut out,
    );
    assert!(out.observations.is_empty());
    assert_eq!(std::mem::take(&mut digest.unlocated), 1);
    let mut out = Digested::default();
    // SAFETY: integers and bytes only.
    let mut target: abi::FdTarget = unsafe { std::mem::zeroed() };
    target.header = header(abi::Kind::FD_TARGET, NOBODY);
    target.file = new.file;
    target.depth = 2;
    target.names[0][..5].copy_from_slice(b"token");
    target.names[1][..7].copy_from_slice(b"secrets");
    digest.learn_target(&target);
    new.ctime_ns += 1;
    record(
        &mut digest,
        &Record::FileNew(new, content.as_bytes()),
        "h",
        &mut out,
    );
    let [Observation::File(seen)] = &out.observations[..] else {
        panic!("no read came out")
    };
    assert_eq!(
        (
            seen.file.path.as_str(),
            seen.file.mode,
            seen.credentials.len()
        ),
        ("/secrets/token", 0o600, 1)
    );
    assert!(out.watched().is_empty() && out.places().is_empty() && out.clean().is_empty());
    assert_eq!(digest.unlocated, 0);
}
