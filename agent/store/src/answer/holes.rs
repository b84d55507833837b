//! From runs and gaps to the intervals in which a use could have gone unseen.

use crate::history::Act;

/// An interval in which a use could not have been seen, or not been told apart. Wall clock, nanoseconds, inclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hole {
    pub from_ns: i64,
    pub to_ns: i64,
    /// What it could hide.
    pub acts: Vec<Act>,
    pub reason: String,
    pub detail: String,
    pub remedy: String,
    pub signal: String,
    /// Process key, and executable, when it is one process.
    pub process: String,
    pub executable: String,
    pub count: u64,
}

impl Hole {
    pub(crate) fn within(&self, from_ns: i64, to_ns: i64) -> Hole {
        Hole {
            from_ns: self.from_ns.max(from_ns),
            to_ns: self.to_ns.min(to_ns),
            ..self.clone()
        }
    }
}

/// One run of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunSpan {
    pub epoch: u64,
    pub started_ns: i64,
    /// Last sign of life; of the run that answers: now.
    pub alive_ns: i64,
}

/// What an agent said it could not see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GapRow {
    pub epoch: u64,
    pub reason: String,
    pub signal: String,
    pub process: String,
    pub executable: String,
    pub detail: String,
    pub remedy: String,
    pub from_ns: i64,
    pub to_ns: i64,
    pub count: u64,
}

/// What is known about the credential that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Background {
    /// When it was made, if an agent saw that.
    pub created_ns: Option<i64>,
    /// Somebody was seen to have it by then; in the environment or the arguments.
    pub had: bool,
    pub held: bool,
    /// Nothing before is remembered.
    pub uses_since_ns: Option<i64>,
}

/// What a gap can hide.
struct Effect {
    acts: &'static [Act],
    /// Until when: the end of the gap, or of the run.
    lasting: bool,
    /// It can only hide what a process that has the credential does.
    of_holders: bool,
    /// Reported so much later than it began, and over so much later, nanoseconds.
    margin_ns: i64,
}

const ALL: &[Act] = &[Act::Read, Act::Held, Act::Sent];
const READ: &[Act] = &[Act::Read];
const SENT: &[Act] = &[Act::Sent];
/// What is read without being seen can be sent without being inspected; the same for what is held.
const READ_AND_SENT: &[Act] = &[Act::Read, Act::Sent];
const HELD_AND_SENT: &[Act] = &[Act::Held, Act::Sent];
const SECOND_NS: i64 = 1_000_000_000;

/// Losses are reported at most once in ten seconds; a process whose record was lost is inspected within ten.
const REPORTED_NS: i64 = 15 * SECOND_NS;

impl Effect {
    const NONE: Effect = Effect::new(&[]);
    const EVERYTHING: Effect = Effect::new(ALL).lasting();

    const fn new(acts: &'static [Act]) -> Effect {
        Effect {
            acts,
            lasting: false,
            of_holders: false,
            margin_ns: REPORTED_NS,
        }
    }

    const fn lasting(mut self) -> Effect {
        self.lasting = true;
        self
    }

    const fn of_holders(mut self) -> Effect {
        self.of_holders = true;
        self
    }

    /// What is not known here hides everything: a new reason must not make an answer bolder.
    fn of(reason: &str, signal: &str) -> Effect {
        match reason {
            // Reported by the runs, or of one client only; files that are written are inspected when they are read; uses that
            // were learned from are remembered by themselves.
            "agent_down" | "client_too_slow" | "sink_behind" | "replay_limited"
            | "names_unavailable" | "files_skipped" | "writes_unseen" | "agent_replaced"
            | "learned_lost" => Effect::NONE,
            "ledger_lost" | "agent_stopped" => Effect::new(ALL),
            "records_lost" => match signal {
                "exit" | "file_open" | "file_write" => Effect::NONE,
                // The kernel side has made the reader a holder by itself.
                "file_read" => Effect::new(READ),
                // Nobody has inspected the file, or knows the reader: what it sends is not captured.
                // What was given is not looked for in what is sent.
                "file_new" | "fanotify" | "answer" => Effect::new(READ_AND_SENT).lasting(),
                "process_read" | "process_attach" => Effect::new(READ_AND_SENT),
                // What came by a pipe may not have been looked for in what its reader sends.
                "pipes" => Effect::new(SENT).lasting(),
                "tcp_send" | "tls_write" | "connect" | "unix_send" | "udp_send" | "fd_write" => {
                    Effect::new(SENT).of_holders()
                }
                _ => Effect::new(ALL),
            },
            // What memory holds when it is inspected may not be what the program put there, or will send. That nobody can
            // tell whether such a program is there (it has a signal then) speaks against no answer.
            "foreign_bpf" if signal.is_empty() => Effect::new(HELD_AND_SENT).lasting(),
            "foreign_bpf" => Effect::NONE,
            // That hooks were not tried for a while speaks against no answer: none was seen to be off.
            "hook_lost" if signal.is_empty() => Effect::NONE,
            // A row does not say whether the hook came back: it hides until the end of the run.
            "hook_refused" | "hook_lost" => match signal {
                "exit" | "file_open" | "file_write" => Effect::NONE,
                "file_read" | "process_read" | "process_attach" | "answer" => {
                    Effect::new(READ_AND_SENT).lasting()
                }
                "tcp_send" | "tls_write" | "connect" | "unix_send" | "udp_send" | "fd_write" => {
                    Effect::new(SENT).lasting().of_holders()
                }
                _ => Effect::EVERYTHING,
            },
            "environment_truncated" | "environment_unreadable" | "argv_truncated" => {
                Effect::new(HELD_AND_SENT).lasting()
            }
            "library_not_covered" | "secret_not_matched" => {
                Effect::new(SENT).lasting().of_holders()
            }
            // What was given is not known, nor looked for.
            "payload_truncated" if signal == "answer" => Effect::new(READ_AND_SENT).lasting(),
            "payload_truncated" | "tls_write_unsent" | "budget_used" => {
                Effect::new(SENT).of_holders()
            }
            // Records at the end of a run that nobody inspected.
            "records_left" => Effect::EVERYTHING,
            "backfill" => Effect::new(SENT).lasting(),
            "table_full" => match signal {
                "file_read" => Effect::new(READ_AND_SENT).lasting(),
                "tcp_send" | "tls_write" | "connect" | "unix_send" | "udp_send" => {
                    Effect::new(SENT).of_holders()
                }
                "pipes" => Effect::new(SENT).lasting(),
                _ => Effect::EVERYTHING,
            },
            "file_unreadable" | "file_truncated" | "file_unwatched" | "files_closed"
            | "inspection_timeout" | "inspection_backlog" | "inspection_budget" | "excluded" => {
                Effect::new(READ_AND_SENT).lasting()
            }
            _ => Effect::EVERYTHING,
        }
    }
}

/// Everything that could hide a use of a credential between two times.
#[must_use]
pub fn holes(
    (from_ns, to_ns): (i64, i64),
    runs: &[RunSpan],
    gaps: &[GapRow],
    about: &Background,
) -> Vec<Hole> {
    let mut holes = Vec::new();
    let since = about.uses_since_ns.unwrap_or(i64::MIN);
    if from_ns < since {
        holes.push(Hole {
            from_ns,
            to_ns: to_ns.min(since - 1),
            acts: ALL.into(),
            reason: "not_remembered".into(),
            detail: "uses of that time are not remembered any more".into(),
            remedy: "raise history_bytes or history_days".into(),
            ..Hole::default()
        });
    }
    without_agent((from_ns.max(since), to_ns), runs, &mut holes);
    unreported((from_ns, to_ns), about, &mut holes);
    let found: Vec<(Hole, bool)> = gaps
        .iter()
        .filter_map(|gap| hole(gap, runs, about))
        .filter(|(hole, _)| hole.from_ns <= to_ns && hole.to_ns >= from_ns)
        .collect();
    // A holder nobody knows of does what a holder does.
    let possibly_had = about.had
        || holes.iter().any(|hole| hole.acts.contains(&Act::Read))
        || gaps.iter().any(|gap| {
            gap.from_ns <= to_ns
                && Effect::of(&gap.reason, &gap.signal)
                    .acts
                    .iter()
                    .any(|act| *act != Act::Sent)
        });
    holes.extend(
        found
            .into_iter()
            .filter(|(_, of_holders)| !of_holders || possibly_had)
            .map(|(hole, _)| hole),
    );
    holes
}

fn hole(gap: &GapRow, runs: &[RunSpan], about: &Background) -> Option<(Hole, bool)> {
    let effect = Effect::of(&gap.reason, &gap.signal);
    if effect.acts.is_empty() {
        return None;
    }
    let run = runs.iter().find(|run| run.epoch == gap.epoch);
    // Processes that ran before the agent cannot have obtained before what was made after.
    if gap.reason == "backfill"
        && run.is_some_and(|run| about.created_ns.is_some_and(|at| at >= run.started_ns))
    {
        return None;
    }
    let end = if effect.lasting {
        run.map_or(i64::MAX, |run| run.alive_ns)
    } else {
        gap.to_ns.saturating_add(effect.margin_ns)
    };
    Some((
        Hole {
            from_ns: gap.from_ns.saturating_sub(effect.margin_ns),
            to_ns: end.max(gap.to_ns),
            acts: effect.acts.into(),
            reason: gap.reason.clone(),
            detail: gap.detail.clone(),
            remedy: gap.remedy.clone(),
            signal: gap.signal.clone(),
            process: gap.process.clone(),
            executable: gap.executable.clone(),
            count: gap.count,
        },
        effect.of_holders,
    ))
}

/// What an agent sees and does not tell one by one.
fn unreported((from_ns, to_ns): (i64, i64), about: &Background, holes: &mut Vec<Hole>) {
    let mut push = |act: Act, reason: &str, detail: &str| {
        holes.push(Hole {
            from_ns,
            to_ns,
            acts: vec![act],
            reason: reason.into(),
            detail: detail.into(),
            remedy: "see what its holders started and where they connected: `keytrail uses`".into(),
            ..Hole::default()
        });
    };
    if about.held {
        push(
            Act::Held,
            "inherited_not_told",
            "programs that inherit it from a process that has it are not reported one by one",
        );
    }
    if about.had {
        push(
            Act::Sent,
            "lineage_not_told",
            "sends of its holders in which it was not seen are not reported one by one",
        );
    }
}

/// The parts of an interval in which no agent ran.
fn without_agent((from_ns, to_ns): (i64, i64), runs: &[RunSpan], holes: &mut Vec<Hole>) {
    let mut runs: Vec<&RunSpan> = runs.iter().collect();
    runs.sort_unstable_by_key(|run| run.started_ns);
    let mut seen_until = from_ns;
    let mut push = |from_ns: i64, to_ns: i64| {
        if from_ns <= to_ns {
            holes.push(Hole {
                from_ns,
                to_ns,
                acts: ALL.into(),
                reason: "no_agent".into(),
                detail: "no agent ran".into(),
                remedy: "keep the agent running, for example as a systemd service".into(),
                ..Hole::default()
            });
        }
    };
    for run in runs {
        if run.alive_ns < seen_until {
            continue;
        }
        if run.started_ns > to_ns {
            break;
        }
        push(seen_until, run.started_ns - 1);
        seen_until = run.alive_ns.saturating_add(1);
    }
    push(seen_until, to_ns);
}
