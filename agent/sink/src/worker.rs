//! One sink: from its place in the ledger to its receiver, batch by batch.

use crate::backoff::Backoff;
use crate::bell::Bell;
use crate::carrier::{Carrier, Failure, Item};
use crate::cursor::{Cursor, Cursors};
use crate::format::{self, Reporter, time_ns};
use crate::progress::{Progress, ReportGap, lock};
use crate::spec::{Filter, Format};
use keytrail_host::clock::{boot_ns, wall_ns};
use keytrail_model::{EventKind, GapReason, GapSeen};
use keytrail_proto::v1::{Event, EventId, Gap};
use keytrail_store::{Reader, Resumed};
use pbjson_types::Timestamp;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long the ledger is not inspected when nobody rings; an event that went out before it was on disk is found then.
const POLL: Duration = Duration::from_secs(1);
/// How much later than it happened an event may be recorded, with room.
const DECIDED_NS: u64 = 60_000_000_000;
/// Bytes of events, as they are kept, that are read together.
const READ_MAX: usize = 1 << 20;
/// Events looked through at a time by who wants few of them.
const LOOK_THROUGH: usize = 1000;
/// How long deliveries fail until it is reported.
const OUTAGE: Duration = Duration::from_secs(5);
/// Tries until what the receiver refuses is left out.
const REFUSALS: u32 = 5;
/// Between two gaps about what was left out: each is an event that goes to the receiver too.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// What a receiver's kernel may have taken and the receiver not read: so much is sent again (net.ipv4.tcp_rmem is 6 MiB).
const UNREAD_MAX: usize = 8 << 20;
const UNREAD_BATCHES: usize = 4096;

pub(crate) struct Worker {
    /// For people: `sink NAME`.
    pub title: String,
    /// Names the cursor.
    pub key: String,
    pub carrier: Box<dyn Carrier>,
    pub format: Format,
    pub filter: Filter,
    /// Most events delivered together.
    pub batch: usize,
    /// How long an event waits for others, to be sent in a batch with them.
    pub together: Duration,
    pub reporter: Reporter,
    pub reader: Reader,
    pub cursors: Arc<Cursors>,
    pub progress: Arc<Mutex<Progress>>,
    pub bell: Bell,
    pub report_gap: ReportGap,
    pub state: State,
}

#[derive(Default)]
pub(crate) struct State {
    backoff: Backoff,
    /// When deliveries began to fail, and whether that was reported.
    outage: Option<(Instant, u64, bool)>,
    refusals: u32,
    /// The last batch was refused and left out.
    refused: bool,
    /// Places before the last batches of a connection, and their lengths.
    recent: VecDeque<((u64, u64), usize)>,
    unreported: u64,
    unreported_why: String,
    unreported_remedy: &'static str,
    reported: Option<Instant>,
    unsaved: bool,
}

enum Next {
    /// There may be more.
    More,
    /// That was all.
    Idle,
    /// Again after this time.
    Wait(Duration),
}

impl Worker {
    pub fn run(mut self) {
        loop {
            let seen = self.bell.count();
            let ending = self.bell.is_ending();
            let next = self.step();
            self.report_left_out();
            match next {
                Next::More => {}
                Next::Idle | Next::Wait(_) if ending => return,
                Next::Idle => {
                    self.bell.wait(seen, POLL);
                    self.bell.rest(self.together);
                }
                Next::Wait(time) => self.bell.rest(time),
            }
        }
    }

    fn cursor(&self) -> Cursor {
        lock(&self.progress).cursor.clone()
    }

    fn step(&mut self) -> Next {
        let at = self.cursor();
        let after = EventId {
            epoch: at.epoch,
            sequence: at.sequence,
            ..EventId::default()
        };
        // Who wants all takes a batch; who wants few looks through more.
        let most = if self.filter == Filter::default() {
            self.batch
        } else {
            LOOK_THROUGH.max(self.batch)
        };
        let asked = wall_ns();
        let mut found = match self.reader.events_after_at_most(&after, most, READ_MAX) {
            Ok(found) => found,
            Err(error) => return self.later(&format!("the ledger cannot be read: {error}"), None),
        };
        if found.upto == (at.epoch, at.sequence) {
            // Nothing waits, so nothing fails.
            if !self.state.refused {
                self.succeeded();
            }
            lock(&self.progress).cursor.drained_ns = asked;
            return Next::Idle;
        }
        // Numbers of events that are never kept look like forgotten ones.
        let horizon = found.gap.as_ref().and_then(|gap| gap.to);
        let drained = i128::from(at.drained_ns) - i128::from(DECIDED_NS);
        if horizon.is_some_and(|to| time_ns(Some(&to)) <= drained) {
            found.gap = None;
        }
        let selected = self.select(&found);
        let count = selected.items.len() as u64 - u64::from(selected.has_gap);
        let drained = (!selected.more).then_some(asked);
        if selected.items.is_empty() {
            self.commit(selected.upto, drained, 0, 0);
        } else {
            let bytes = selected.items.iter().map(|i| i.line.len()).sum();
            match self.carrier.deliver(&selected.items) {
                Ok(done) => {
                    if done.left_out > 0 {
                        self.leave_out(done.left_out, &done.why, "see what the receiver can take");
                    }
                    if done.fresh {
                        self.state.recent.clear();
                    }
                    self.remember((at.epoch, at.sequence), bytes);
                    self.succeeded();
                    let taken = count - done.left_out.min(count);
                    self.commit(selected.upto, drained, taken, done.left_out);
                }
                Err(Failure::Later { why, after, rewind }) => {
                    if rewind {
                        self.rewind();
                    }
                    return self.later(&why, after);
                }
                Err(Failure::Refused(why)) => {
                    self.state.refusals += 1;
                    if self.state.refusals < REFUSALS {
                        return self.later(&why, None);
                    }
                    self.state.refusals = 0;
                    self.state.refused = true;
                    let remedy = "see in the receiver's log why it refuses events";
                    self.leave_out(count, &format!("the receiver refused them: {why}"), remedy);
                    self.commit(selected.upto, drained, 0, count);
                }
            }
        }
        self.account(found.gap.map_or(0, |gap| gap.count), selected.unsaid);
        if selected.more {
            Next::More
        } else {
            Next::Idle
        }
    }

    /// Counts what was never there to be delivered.
    fn account(&mut self, forgotten: u64, unsaid: u64) {
        if forgotten > 0 {
            let why = "they were forgotten before they could be delivered";
            let remedy =
                "see to the receiver sooner, or raise history_bytes, retain_events or retain_days";
            self.leave_out(forgotten, why, remedy);
        }
        if unsaid > 0 {
            let why = "they cannot be said in this format";
            self.leave_out(unsaid, why, "use the format json");
        }
        if forgotten + unsaid > 0 {
            self.save(|cursor| cursor.left_out += forgotten + unsaid);
        }
    }

    /// What of these goes to the receiver, and how far that reaches.
    fn select(&self, found: &Resumed) -> Selected {
        let mut selected = Selected {
            upto: found.upto,
            more: found.more,
            ..Selected::default()
        };
        if let Some(gap) = &found.gap {
            let event = gap_event(&self.title, gap);
            if self.wants(&event) {
                selected.has_gap = self.say(Arc::new(event), &mut selected);
            }
        }
        let before = selected.items.len();
        for event in &found.events {
            if !self.wants(event) {
                continue;
            }
            let last = selected.items.last().and_then(|i| i.event.id.as_ref());
            if selected.items.len() - before >= self.batch
                && let Some(id) = last
            {
                // From here on next time.
                selected.upto = (id.epoch, id.sequence);
                selected.more = true;
                break;
            }
            self.say(event.clone(), &mut selected);
        }
        selected
    }

    fn wants(&self, event: &Event) -> bool {
        let class = self.filter.class;
        self.filter.passes(event) && class.is_none_or(|c| c.uid() == format::class_uid(event))
    }

    fn say(&self, event: Arc<Event>, selected: &mut Selected) -> bool {
        let line = format::encode(self.format, &event, &self.reporter);
        let said = line.is_some();
        match line {
            Some(line) => selected.items.push(Item { event, line }),
            None => selected.unsaid += 1,
        }
        said
    }

    fn remember(&mut self, at: (u64, u64), bytes: usize) {
        let recent = &mut self.state.recent;
        recent.push_back((at, bytes));
        let mut total: usize = recent.iter().map(|(_, n)| n).sum();
        while recent.len() > UNREAD_BATCHES || (total > UNREAD_MAX && recent.len() > 1) {
            if let Some((_, n)) = recent.pop_front() {
                total -= n;
            }
        }
    }

    /// The receiver went away with something unread: what was sent last comes again.
    fn rewind(&mut self) {
        let Some(((epoch, sequence), _)) = self.state.recent.pop_front() else {
            return;
        };
        self.state.recent.clear();
        self.save(|cursor| {
            cursor.epoch = epoch;
            cursor.sequence = sequence;
        });
    }

    fn commit(&mut self, upto: (u64, u64), drained: Option<u64>, delivered: u64, left_out: u64) {
        self.save(|cursor| {
            (cursor.epoch, cursor.sequence) = upto;
            cursor.delivered += delivered;
            cursor.left_out += left_out;
            cursor.drained_ns = drained.unwrap_or(cursor.drained_ns);
            if delivered > 0 {
                cursor.last_delivered_ns = wall_ns();
            }
        });
    }

    fn save(&mut self, change: impl FnOnce(&mut Cursor)) {
        let cursor = {
            let mut progress = lock(&self.progress);
            change(&mut progress.cursor);
            progress.cursor.clone()
        };
        let saved = self.cursors.save(&self.key, &cursor);
        if let Err(error) = &saved
            && !self.state.unsaved
        {
            tracing::error!(sink = self.title, %error, "how far it is cannot be noted: after a restart some events come again");
        }
        self.state.unsaved = saved.is_err();
    }

    fn later(&mut self, why: &str, after: Option<Duration>) -> Next {
        let wait = self.state.backoff.failed(after);
        let (since, wall, reported) = *self
            .state
            .outage
            .get_or_insert_with(|| (Instant::now(), wall_ns(), false));
        if since.elapsed() >= OUTAGE && !reported {
            self.state.outage = Some((since, wall, true));
            let at = self.cursor();
            let count = self
                .reader
                .count_after((at.epoch, at.sequence))
                .unwrap_or(0);
            tracing::warn!(
                sink = self.title,
                error = why,
                "events cannot be delivered; they wait in the ledger"
            );
            (self.report_gap)(GapSeen {
                detail: format!("{} fails: {why}", self.title),
                remedy: "see to its receiver; events wait as long as retain_events, retain_days and history_bytes keep them"
                    .into(),
                count,
                from_wall_ns: wall,
                to_wall_ns: wall_ns(),
                ..GapSeen::new(GapReason::SinkBehind, boot_ns())
            });
        }
        let mut progress = lock(&self.progress);
        why.clone_into(&mut progress.error);
        progress.failing_since_ns = wall;
        Next::Wait(wait)
    }

    fn succeeded(&mut self) {
        self.state.backoff.succeeded();
        self.state.refusals = 0;
        self.state.refused = false;
        if let Some((_, _, reported)) = self.state.outage.take() {
            if reported {
                tracing::info!(sink = self.title, "events are delivered again");
            }
            let mut progress = lock(&self.progress);
            progress.error.clear();
            progress.failing_since_ns = 0;
        }
    }

    fn leave_out(&mut self, count: u64, why: &str, remedy: &'static str) {
        self.state.unreported += count;
        why.clone_into(&mut self.state.unreported_why);
        self.state.unreported_remedy = remedy;
    }

    fn report_left_out(&mut self) {
        let state = &mut self.state;
        if state.unreported == 0
            || state
                .reported
                .is_some_and(|reported| reported.elapsed() < REPORT_INTERVAL)
        {
            return;
        }
        state.reported = Some(Instant::now());
        let count = std::mem::take(&mut state.unreported);
        tracing::error!(
            sink = self.title,
            count,
            why = state.unreported_why,
            "events were left out"
        );
        (self.report_gap)(GapSeen {
            detail: format!(
                "{count} events were not delivered to {} and will not be: {}",
                self.title, state.unreported_why
            ),
            remedy: state.unreported_remedy.to_owned(),
            count,
            to_wall_ns: wall_ns(),
            ..GapSeen::new(GapReason::SinkBehind, boot_ns())
        });
    }
}

#[derive(Default)]
struct Selected {
    items: Vec<Item>,
    /// The first of them reports a gap and was not in the ledger.
    has_gap: bool,
    /// Events the format has no form for.
    unsaid: u64,
    /// With these, everything up to this event is done with; and whether there is more.
    upto: (u64, u64),
    more: bool,
}

/// What a receiver is told in place of events that are not kept any more. It is no event of the ledger and has no id.
fn gap_event(title: &str, gap: &Gap) -> Event {
    let now = wall_ns();
    Event {
        time: Some(Timestamp {
            seconds: (now / 1_000_000_000).cast_signed(),
            nanos: (now % 1_000_000_000) as i32,
        }),
        kind: EventKind::CoverageGap.number(),
        gap: Some(Gap {
            reason: GapReason::SinkBehind.number(),
            detail: format!(
                "at most {} events were forgotten before they could be delivered to {title}",
                gap.count
            ),
            ..gap.clone()
        }),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests;
