use super::holes::{Background, GapRow, RunSpan, holes};
use super::*;

const S: i64 = 1_000_000_000;

fn question(from: i64, to: i64) -> Question {
    Question {
        from_ns: from * S,
        to_ns: to * S,
        acts: Act::ALL.into(),
        by: String::new(),
        to_host: String::new(),
        environment: String::new(),
    }
}

fn span(act: Act, first: i64, last: i64, count: u64) -> Span {
    Span {
        act: Some(act),
        grade: "observed".into(),
        executable: "/usr/bin/curl".into(),
        destination: (act == Act::Sent).then(|| ("api.example.com".into(), "192.0.2.7".into())),
        first_ns: first * S,
        last_ns: last * S,
        count,
        ..Span::default()
    }
}

fn run(epoch: u64, started: i64, alive: i64) -> RunSpan {
    RunSpan {
        epoch,
        started_ns: started * S,
        alive_ns: alive * S,
    }
}

fn gap(reason: &str, signal: &str, from: i64, to: i64) -> GapRow {
    GapRow {
        epoch: 1,
        reason: reason.into(),
        signal: signal.into(),
        from_ns: from * S,
        to_ns: to * S,
        ..GapRow::default()
    }
}

fn verdict(q: &Question, spans: &[Span], runs: &[RunSpan], gaps: &[GapRow]) -> Verdict {
    let about = Background::default();
    let holes = holes((q.from_ns, q.to_ns), runs, gaps, &about);
    judge(q, spans, &holes).verdict
}

#[test]
fn no_needs_an_agent_all_the_time() {
    let whole = [run(1, 0, 1000)];
    assert_eq!(verdict(&question(10, 20), &[], &whole, &[]), Verdict::No);
    let parts = [run(1, 0, 14), run(2, 16, 1000)];
    assert_eq!(
        verdict(&question(10, 20), &[], &parts, &[]),
        Verdict::Unknown
    );
    assert_eq!(verdict(&question(10, 13), &[], &parts, &[]), Verdict::No);
    assert_eq!(verdict(&question(10, 20), &[], &[], &[]), Verdict::Unknown);
    // A run within another does not end it.
    let nested = [run(1, 0, 1000), run(2, 11, 12)];
    assert_eq!(verdict(&question(10, 20), &[], &nested, &[]), Verdict::No);
}

#[test]
fn yes_needs_a_use_at_that_time() {
    let whole = [run(1, 0, 1000)];
    let uses = [span(Act::Read, 5, 30, 2)];
    assert_eq!(verdict(&question(5, 9), &uses, &whole, &[]), Verdict::Yes);
    assert_eq!(verdict(&question(10, 20), &uses, &whole, &[]), Verdict::No);
    // One more in between: at any time.
    let mut uses = [span(Act::Read, 5, 30, 3)];
    assert_eq!(
        verdict(&question(10, 20), &uses, &whole, &[]),
        Verdict::Unknown
    );
    uses[0].inside = Some(false);
    assert_eq!(verdict(&question(10, 20), &uses, &whole, &[]), Verdict::No);
    uses[0].inside = Some(true);
    assert_eq!(verdict(&question(10, 20), &uses, &whole, &[]), Verdict::Yes);
}

#[test]
fn a_holder_that_sent_something_is_neither_yes_nor_no() {
    let whole = [run(1, 0, 1000)];
    let mut lineage = span(Act::Sent, 12, 12, 1);
    lineage.grade = "lineage".into();
    assert_eq!(
        verdict(&question(10, 20), &[lineage.clone()], &whole, &[]),
        Verdict::Unknown
    );
    let mut elsewhere = question(10, 20);
    elsewhere.to_host = "other.example.com".into();
    assert_eq!(verdict(&elsewhere, &[lineage], &whole, &[]), Verdict::No);
}

#[test]
fn programs_and_hosts() {
    let whole = [run(1, 0, 1000)];
    let uses = [span(Act::Sent, 12, 12, 1), span(Act::Read, 12, 12, 1)];
    let ask = |by: &str, to: &str| {
        let mut q = question(10, 20);
        (q.by, q.to_host) = (by.into(), to.into());
        verdict(&q, &uses, &whole, &[])
    };
    for (by, to, expected) in [
        ("curl", "", Verdict::Yes),
        ("/usr/bin/curl", "API.example.com.", Verdict::Yes),
        ("/bin/curl", "", Verdict::No),
        ("wget", "", Verdict::No),
        ("", "192.0.2.7", Verdict::Yes),
        ("", "::ffff:192.0.2.7", Verdict::Yes),
        ("", "192.0.2.8", Verdict::No),
        ("", "example.com", Verdict::No),
    ] {
        assert_eq!(ask(by, to), expected, "{by} {to}");
    }
    // Without a name it may be any name; without a destination any place.
    let mut nameless = uses.to_vec();
    nameless[0].destination = Some((String::new(), "192.0.2.7".into()));
    let mut q = question(10, 20);
    q.to_host = "example.com".into();
    assert_eq!(verdict(&q, &nameless, &whole, &[]), Verdict::Unknown);
    nameless[0].destination = None;
    q.to_host = "192.0.2.9".into();
    assert_eq!(verdict(&q, &nameless, &whole, &[]), Verdict::Unknown);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn gaps_hide_what_they_can_and_no_more() {
    let whole = [run(1, 0, 1000)];
    let ask = |act: Act, gap: GapRow, from: i64, had: bool| {
        let mut q = question(from, from + 5);
        q.acts = vec![act];
        let uses = if had {
            vec![span(Act::Held, 1, 1, 1)]
        } else {
            vec![]
        };
        let about = Background {
            had,
            ..Background::default()
        };
        let reason = gap.reason.clone();
        let found = holes((q.from_ns, q.to_ns), &whole, &[gap], &about);
        // What lies there because somebody had it is another test's.
        let of_gap: Vec<_> = found.into_iter().filter(|h| h.reason == reason).collect();
        judge(&q, &uses, &of_gap).verdict
    };
    use Verdict::{No, Unknown};
    // Lost reads hide reads, around that time.
    assert_eq!(
        ask(
            Act::Read,
            gap("records_lost", "file_read", 100, 101),
            103,
            false
        ),
        Unknown
    );
    assert_eq!(
        ask(
            Act::Held,
            gap("records_lost", "file_read", 100, 101),
            103,
            false
        ),
        No
    );
    assert_eq!(
        ask(
            Act::Read,
            gap("records_lost", "file_read", 100, 101),
            300,
            false
        ),
        No
    );
    // What a metadata service gave was not seen, and is not looked for.
    for reason in ["records_lost", "payload_truncated"] {
        let of = |act| ask(act, gap(reason, "answer", 100, 101), 103, false);
        assert_eq!((of(Act::Read), of(Act::Held)), (Unknown, No), "{reason}");
    }
    // A hook that is refused is so until the end.
    assert_eq!(
        ask(
            Act::Read,
            gap("hook_refused", "file_read", 0, 0),
            900,
            false
        ),
        Unknown
    );
    // So is one that was lost, as far as a row tells.
    let lost = |signal: &str| gap("hook_lost", signal, 100, 101);
    assert_eq!(ask(Act::Read, lost("file_read"), 900, false), Unknown);
    assert_eq!(ask(Act::Sent, lost("tcp_send"), 900, true), Unknown);
    assert_eq!(ask(Act::Held, lost("tcp_send"), 900, false), No);
    assert_eq!(ask(Act::Read, lost("file_open"), 900, false), No);
    // A program that writes into memory can hide what lies there; that none is known of hides nothing.
    let foreign = |signal: &str| gap("foreign_bpf", signal, 100, 100);
    assert_eq!(ask(Act::Held, foreign(""), 900, false), Unknown);
    assert_eq!(ask(Act::Read, foreign(""), 900, false), No);
    assert_eq!(ask(Act::Held, foreign("process_attach"), 900, false), No);
    // Uses are remembered by themselves, whatever was learned from them.
    assert_eq!(
        ask(Act::Read, gap("learned_lost", "", 100, 100), 900, false),
        No
    );
    // Who has the agent's maps can hide everything.
    assert_eq!(
        ask(Act::Read, gap("agent_opened", "", 100, 100), 900, false),
        Unknown
    );
    assert_eq!(
        ask(
            Act::Held,
            gap("environment_unreadable", "exec", 3, 3),
            900,
            false
        ),
        Unknown
    );
    // A library nobody sees into matters where somebody has the credential.
    assert_eq!(
        ask(
            Act::Sent,
            gap("library_not_covered", "tls_write", 3, 3),
            900,
            true
        ),
        Unknown
    );
    assert_eq!(
        ask(
            Act::Sent,
            gap("library_not_covered", "tls_write", 3, 3),
            900,
            false
        ),
        No
    );
    // What nobody has thought of hides everything.
    assert_eq!(
        ask(Act::Held, gap("something_new", "", 3, 3), 900, false),
        Unknown
    );
    assert_eq!(
        ask(Act::Read, gap("files_skipped", "", 3, 900), 500, false),
        No
    );
}

#[test]
fn processes_of_before_the_agent_cannot_have_what_was_made_after() {
    let runs = [run(1, 50, 1000)];
    let gaps = [gap("backfill", "exec", 50, 50)];
    let q = question(100, 200);
    let ask = |created: Option<i64>| {
        let about = Background {
            created_ns: created.map(|s| s * S),
            ..Background::default()
        };
        let found = holes((q.from_ns, q.to_ns), &runs, &gaps, &about);
        judge(&q, &[], &found)
    };
    let unknown = ask(None);
    assert_eq!(unknown.verdict, Verdict::Unknown);
    assert_eq!(
        unknown.acts,
        [
            (Act::Read, Verdict::No),
            (Act::Held, Verdict::No),
            (Act::Sent, Verdict::Unknown)
        ]
    );
    assert_eq!(ask(Some(60)).verdict, Verdict::No);
    assert_eq!(ask(Some(40)).verdict, Verdict::Unknown);
}

#[test]
fn what_another_program_may_hide_does_not_matter() {
    let whole = [run(1, 0, 1000)];
    let mut hidden = gap("environment_unreadable", "exec", 3, 3);
    hidden.process = "b:1:2:0".into();
    hidden.executable = "/usr/sbin/sshd".into();
    let mut q = question(10, 20);
    q.by = "curl".into();
    assert_eq!(verdict(&q, &[], &whole, &[hidden.clone()]), Verdict::No);
    q.by = "sshd".into();
    assert_eq!(
        verdict(&q, &[], &whole, &[hidden.clone()]),
        Verdict::Unknown
    );
    // An interpreter may have run any script.
    q.by = "/srv/x.py".into();
    hidden.executable = "/usr/bin/python3.13".into();
    assert_eq!(verdict(&q, &[], &whole, &[hidden]), Verdict::Unknown);
}

#[test]
fn what_is_forgotten_is_not_denied() {
    let about = Background {
        uses_since_ns: Some(15 * S),
        ..Background::default()
    };
    let ask = |from, to| {
        let q = question(from, to);
        let found = holes((q.from_ns, q.to_ns), &[run(1, 0, 1000)], &[], &about);
        judge(&q, &[], &found).verdict
    };
    assert_eq!(ask(10, 20), Verdict::Unknown);
    assert_eq!(ask(15, 20), Verdict::No);
}

#[test]
fn what_is_not_reported_one_by_one_is_not_denied() {
    let whole = [run(1, 0, 1000)];
    let q = question(100, 200);
    let ask = |had: bool, held: bool| {
        let about = Background {
            had,
            held,
            ..Background::default()
        };
        let found = holes((q.from_ns, q.to_ns), &whole, &[], &about);
        judge(&q, &[], &found).acts
    };
    use Verdict::{No, Unknown};
    let acts = |read, held, sent| vec![(Act::Read, read), (Act::Held, held), (Act::Sent, sent)];
    assert_eq!(ask(false, false), acts(No, No, No));
    assert_eq!(ask(true, false), acts(No, No, Unknown));
    assert_eq!(ask(true, true), acts(No, Unknown, Unknown));
}

#[test]
fn an_environment_that_is_not_known_is_neither_yes_nor_no() {
    let whole = [run(1, 0, 1000)];
    let mut asked = question(10, 20);
    asked.environment = "production".into();
    let mut uses = [span(Act::Read, 12, 12, 1)];
    // Before the site said what belongs where.
    assert_eq!(verdict(&asked, &uses, &whole, &[]), Verdict::Unknown);
    uses[0].environment = "production".into();
    assert_eq!(verdict(&asked, &uses, &whole, &[]), Verdict::Yes);
    uses[0].environment = "test".into();
    assert_eq!(verdict(&asked, &uses, &whole, &[]), Verdict::No);
    assert_eq!(verdict(&question(10, 20), &uses, &whole, &[]), Verdict::Yes);
    // What hides a use hides where it was.
    let lost = [gap("records_lost", "exec", 12, 12)];
    assert_eq!(verdict(&asked, &uses, &whole, &lost), Verdict::Unknown);
}
