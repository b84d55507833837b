//! Every way in which something was not seen: its name, what it says, and what there is to do about it.

use super::*;
use keytrail_core::correlate::Core;
use keytrail_model::event::Gap;
use keytrail_model::status::SignalReport;
use keytrail_model::{Bound, EventKind, Observation};
use std::io;

fn refused(hook: &str, reason: &str, remedy: &str) -> Refused {
    Refused {
        hook: hook.to_owned(),
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    }
}

fn library(path: &str, stack: &str) -> LibraryReport {
    LibraryReport {
        path: path.to_owned(),
        stack: TlsStack::of_word(stack),
        covered: false,
        reason: format!("no symbols of {stack}"),
        remedy: format!("install the symbols of {stack}"),
        ..LibraryReport::default()
    }
}

/// A sensor of which one signal has a second choice, one has nothing, and two proofs of offsets failed.
fn sensor() -> SensorStatus {
    SensorStatus {
        signals: vec![
            SignalReport {
                hook: "raw_tp:mm_filemap_get_pages".to_owned(),
                refused: vec![refused(
                    "fexit:security_file_permission",
                    "not allowed",
                    "none",
                )],
                ..SignalReport::new(Signal::FileRead)
            },
            SignalReport {
                refused: vec![
                    refused("fentry:tcp_sendmsg_locked", "no trampolines", ""),
                    refused(
                        "kprobe:tcp_sendmsg_locked",
                        "locked down",
                        "a kernel with CONFIG_KPROBES",
                    ),
                ],
                ..SignalReport::new(Signal::TcpSend)
            },
        ],
        offsets: vec![
            "start time of the agent's own task read wrong".to_owned(),
            "saved uid of the agent's own task read wrong".to_owned(),
        ],
        ..SensorStatus::default()
    }
}

#[test]
fn a_signal_without_a_hook_and_a_failed_proof_are_gaps_from_the_start() {
    let offsets = |what: &str| GapSeen {
        detail: format!("{what} of the agent's own task read wrong"),
        remedy: "report this kernel's version: what rests on these fields is not used".to_owned(),
        ..GapSeen::new(GapReason::Offsets, 7)
    };
    assert_eq!(
        initial(&sensor(), 7),
        [
            GapSeen {
                detail: "no hook for tcp_send: fentry:tcp_sendmsg_locked: no trampolines; \
                         kprobe:tcp_sendmsg_locked: locked down"
                    .to_owned(),
                remedy: "a kernel with CONFIG_KPROBES".to_owned(),
                signal: Some(Signal::TcpSend),
                ..GapSeen::new(GapReason::HookRefused, 7)
            },
            offsets("start time"),
            offsets("saved uid"),
        ]
    );
    // A second choice is one: nothing is missing.
    let served = SensorStatus {
        signals: sensor().signals.drain(..1).collect(),
        ..SensorStatus::default()
    };
    assert_eq!(initial(&served, 7), []);
}

#[test]
fn the_status_lists_all_signals_and_the_libraries_that_count() {
    let mut sensor = sensor();
    sensor.libraries = vec![library("/a", "go"), library("/b", "nss")];
    let shown = status(&sensor, |library| library.stack == Some(TlsStack::Nss));
    let signals: Vec<_> = shown
        .signals
        .iter()
        .map(|s| (Signal::word_of(s.signal), s.hook.as_str(), s.refused.len()))
        .collect();
    assert_eq!(
        signals,
        [
            ("file_read", "raw_tp:mm_filemap_get_pages", 1),
            ("tcp_send", "", 2)
        ]
    );
    assert_eq!(shown.unproven_offsets, sensor.offsets);
    assert_eq!(shown.libraries.len(), 1);
    assert_eq!(
        (
            shown.libraries[0].path.as_str(),
            shown.libraries[0].remedy.as_str()
        ),
        ("/b", "install the symbols of nss")
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn files_that_are_not_seen() {
    let closed = openat2("Operation not permitted");
    assert_eq!(closed.hook, "openat2(2)");
    assert_eq!(
        files_closed(&closed, 1),
        GapSeen {
            detail:
                "no file can be inspected, and no read is reported: openat2(2): Operation not permitted"
                    .to_owned(),
            remedy:
                "let openat2(2) through: a seccomp filter forbids it (systemd's RestrictSUIDSGID= does)"
                    .to_owned(),
            signal: Some(Signal::FileRead),
            ..GapSeen::new(GapReason::FilesClosed, 1)
        }
    );
    assert_eq!(
        unwatched(
            Path::new("/srv/.npmrc"),
            &io::Error::other("the table is full"),
            2
        ),
        GapSeen {
            detail: "/srv/.npmrc is not watched: the table is full".to_owned(),
            remedy:
                "see `keytrail doctor` for the hooks in use; a full table needs fewer watched files"
                    .to_owned(),
            count: 1,
            signal: Some(Signal::FileRead),
            ..GapSeen::new(GapReason::FileUnwatched, 2)
        }
    );
    assert_eq!(
        unlocated(12, 3, 100, 200),
        GapSeen {
            detail:
                "12 files that were read were gone, or not to be found, before they could be inspected"
                    .to_owned(),
            remedy: "name places of short-lived secrets under `watch` in the configuration"
                .to_owned(),
            count: 12,
            signal: Some(Signal::FileRead),
            from_wall_ns: 100,
            to_wall_ns: 200,
            ..GapSeen::new(GapReason::FileUnreadable, 3)
        }
    );
    let gone = reads_gone(3, 3, 100, 200);
    assert!(
        gone.detail.starts_with("3 files in /proc"),
        "{}",
        gone.detail
    );
    assert_eq!(
        (
            gone.reason,
            gone.signal,
            gone.count,
            gone.from_wall_ns,
            gone.to_wall_ns
        ),
        (
            GapReason::FileUnreadable,
            Some(Signal::ProcessRead),
            3,
            100,
            200
        )
    );
    assert!(!gone.remedy.is_empty());
    assert_eq!(
        writes_unseen("/mnt/nfs (nfs4)", "Operation not supported", 4),
        GapSeen {
            detail: "/mnt/nfs (nfs4): Operation not supported".to_owned(),
            remedy: "name places of credentials under `watch` in the configuration".to_owned(),
            count: 1,
            signal: Some(Signal::FileWrite),
            ..GapSeen::new(GapReason::WritesUnseen, 4)
        }
    );
    assert_eq!(
        not_inspected(9, "the queue was full", 5),
        GapSeen {
            detail: "files that were written were not inspected, 9 times: the queue was full"
                .to_owned(),
            remedy:
                "they are inspected when they are read; `keytrail inventory` finds what they hold"
                    .to_owned(),
            count: 9,
            signal: Some(Signal::FileWrite),
            ..GapSeen::new(GapReason::FilesSkipped, 5)
        }
    );
}

#[test]
fn lost_records_are_reported_by_kind_cpu_and_time() {
    assert_eq!(
        lost("exec_chunk", 3, 250, 6, 1_000, 2_000),
        GapSeen {
            detail: "250 exec_chunk records of CPU 3 did not fit into the ring".to_owned(),
            remedy: "raise ring_bytes, or exclude what makes so many records".to_owned(),
            count: 250,
            signal: Some(Signal::ExecChunk),
            from_wall_ns: 1_000,
            to_wall_ns: 2_000,
            ..GapSeen::new(GapReason::RecordsLost, 6)
        }
    );
}

#[test]
fn libraries_are_reported_by_stack_with_a_few_names() {
    let go: Vec<_> = (0..5)
        .map(|n| library(&format!("/usr/bin/go{n}"), "go"))
        .collect();
    let nss = library("/usr/lib/libnss.so", "nss");
    let all: Vec<_> = go.iter().chain([&nss]).collect();
    let gap = |stack: &str, named: &str, count| GapSeen {
        detail: format!("{stack}: no symbols of {stack} ({named})"),
        remedy: format!("install the symbols of {stack}"),
        count,
        signal: Some(Signal::TlsWrite),
        ..GapSeen::new(GapReason::LibraryNotCovered, 8)
    };
    assert_eq!(
        uncovered(&all, 8),
        [
            gap("go", "/usr/bin/go0, /usr/bin/go1, /usr/bin/go2, ...", 5),
            gap("nss", "/usr/lib/libnss.so", 1),
        ]
    );
    assert_eq!(uncovered(&[], 8), []);
}

#[test]
fn why_a_library_is_not_probed_is_reported_with_what_it_is() {
    let mut rustls = library("/usr/bin/x", "rustls");
    rustls.stack = Some(TlsStack::Rustls);
    rustls.users = vec![7];
    for (reason, reported) in [
        (
            "rustls 0.21.12: other methods",
            "rustls 0.21.12: other methods",
        ),
        ("it is cut off", "rustls: it is cut off"),
    ] {
        rustls.reason = reason.to_owned();
        let Observation::Unhooked(seen) = unhooked(&rustls, rustls.users.clone()) else {
            panic!("another observation");
        };
        assert_eq!(
            (seen.reason.as_str(), &seen.users[..]),
            (reported, &[7][..])
        );
        assert_eq!(seen.path, "/usr/bin/x");
    }
}

#[test]
fn what_found_no_room_is_reported_by_what_it_was() {
    let fewer =
        "name fewer places under `watch`, or report this: the bound is a constant of the agent";
    let lineage = "sends of who holds them are reported as lineage, with source and destination";
    for (bound, reason, detail, remedy, signal) in [
        (
            Bound::Secrets,
            GapReason::TableFull,
            "5 secrets found no room among those that are looked for in what is sent",
            lineage,
            Signal::TcpSend,
        ),
        (
            Bound::Weak,
            GapReason::SecretNotMatched,
            "5 secrets are too short, too monotonous or too long to be looked for in what is sent",
            lineage,
            Signal::TcpSend,
        ),
        (
            Bound::Execs,
            GapReason::TableFull,
            "5 programs were started at once whose arguments and environment were not inspected",
            "they are inspected again in /proc as far as they still run",
            Signal::Exec,
        ),
        (
            Bound::Files,
            GapReason::TableFull,
            "5 files with credentials found no room: reads of them are not reported",
            fewer,
            Signal::FileRead,
        ),
        (
            Bound::Roots,
            GapReason::TableFull,
            "5 times a process of a mount namespace that is not inspected was seen",
            "files in it are inspected when they are first read",
            Signal::FileRead,
        ),
        (
            Bound::Directories,
            GapReason::TableFull,
            "5 directories are not watched for new files",
            "new files in them are found within half a minute",
            Signal::FileRead,
        ),
        (
            Bound::Sampled,
            GapReason::FileTruncated,
            "5 files of text were larger than 8 MiB and inspected at their beginning only (1 MiB)",
            "split what must be known whole",
            Signal::FileRead,
        ),
    ] {
        assert_eq!(
            bound.gap(5, 9),
            GapSeen {
                detail: detail.to_owned(),
                remedy: remedy.to_owned(),
                count: 5,
                signal: Some(signal),
                ..GapSeen::new(reason, 9)
            }
        );
    }
}

/// Whatever a gap says, the event says.
#[test]
fn the_stream_says_all_of_it() {
    let library = library("/usr/bin/go0", "go");
    let gaps = [
        initial(&sensor(), 7),
        uncovered(&[&library], 8),
        vec![
            files_closed(&openat2("no"), 1),
            unwatched(Path::new("/x"), &io::Error::other("full"), 2),
            unlocated(12, 3, 100, 2_000_000_200),
            writes_unseen("/mnt", "no", 4),
            not_inspected(9, "full", 5),
            lost("exec", 1, 2, 6, 1_000, 2_000),
        ],
    ]
    .concat();
    assert_eq!(gaps.len(), 10);
    for gap in gaps {
        let events = Core::new().step(&Observation::Gap(gap.clone())).events;
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].kind, EventKind::CoverageGap);
        assert_eq!(events[0].boot_ns, gap.boot_ns);
        assert_eq!(events[0].process, None);
        let time = |ns: u64| (ns != 0).then_some(ns);
        assert_eq!(
            events[0].gap,
            Some(Gap {
                from_ns: time(gap.from_wall_ns),
                to_ns: time(gap.to_wall_ns),
                reason: gap.reason,
                detail: gap.detail,
                remedy: gap.remedy,
                count: gap.count,
                signal: gap.signal,
            })
        );
    }
}

/// A program that maps a library later is told once, and nothing is told where nobody is new.
#[test]
fn users_of_a_library_are_told_once() {
    assert_eq!(fresh(None, &[]), Some(vec![]));
    assert_eq!(fresh(None, &[1, 2]), Some(vec![1, 2]));
    let known = [1, 2].into();
    assert_eq!(fresh(Some(&known), &[1, 2]), None);
    assert_eq!(fresh(Some(&known), &[1, 2, 3]), Some(vec![3]));
}
