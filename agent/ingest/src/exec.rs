//! Puts an exec together from its chunks and finds the credentials in its argv and environment.

use super::names::{Names, ProgramNames};
use super::registry::Registry;
use super::{convert, environment};
use crate::decode;
use keytrail_abi as abi;
use keytrail_model::{Bound, Dropped, ExecSeen, Found, FoundIn, PipesSeen};
use keytrail_payload::Pieces;
use keytrail_secret::{Arguments, Classifier, Finding};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use zeroize::Zeroizing;

/// Execs whose chunks are still coming; beyond it the oldest are finished as they are.
const MAX_OPEN: usize = 1_024;
/// An exec whose last chunk did not come within this time is finished as it is.
const WAIT_NS: u64 = 200_000_000;
/// Environments whose findings are remembered: a shell starts many programs with the same one.
const MAX_CACHED: usize = 4_096;
/// Arguments shown, and bytes of each.
const MAX_ARGS_SHOWN: usize = 256;
const MAX_ARG_SHOWN: usize = 4_096;

struct Area {
    bytes: Zeroizing<Vec<u8>>,
    total: u64,
    holes: bool,
}

impl Area {
    fn new(total: u64) -> Self {
        let room = (total as usize).min(abi::EXEC_AREA_MAX);
        Self {
            bytes: Zeroizing::new(Vec::with_capacity(room)),
            total,
            holes: false,
        }
    }

    fn add(&mut self, offset: usize, data: &[u8], unreadable: bool) {
        let end = offset.saturating_add(data.len());
        if end > self.bytes.capacity() {
            self.holes = true;
            return;
        }
        if offset > self.bytes.len() || unreadable {
            // A hole is filled with separators: what stands beside it is not joined to what it was not beside.
            self.holes = true;
        }
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(data);
    }

    fn truncated(&self) -> bool {
        self.holes || (self.bytes.len() as u64) < self.total
    }
}

struct Open {
    exec: abi::Exec,
    pipes: Option<PipesSeen>,
    argv: Area,
    env: Area,
}

/// Execs in assembly, and what earlier ones taught.
#[derive(Default)]
pub struct Execs {
    open: HashMap<u64, Open>,
    /// Streams of an exec whose record comes next.
    pipes: HashMap<u64, PipesSeen>,
    pub dropped: Dropped,
    cache: HashMap<String, (u64, Vec<Found>)>,
    names: Names,
}

/// A whole exec: the observation, and which exec of which process may now be decided.
pub struct Finished {
    pub seen: ExecSeen,
    pub pipes: Option<PipesSeen>,
    pub exec_id: u64,
    pub mnt_ns: u32,
    /// `HOME` of the new program: a place where credential files may lie.
    pub home: Option<String>,
}

impl Execs {
    /// The pipes of a program whose record comes next.
    pub fn pipes(&mut self, exec_id: u64, pipes: PipesSeen) {
        if self.pipes.len() >= MAX_OPEN {
            self.dropped.add(Bound::Pipes, self.pipes.len() as u64);
            self.pipes.clear();
        }
        self.pipes.insert(exec_id, pipes);
    }

    pub fn begin(&mut self, exec: abi::Exec) {
        if self.open.len() >= MAX_OPEN {
            // Only hostile or lost input comes here: `overdue` normally clears the table.
            self.dropped.add(Bound::Execs, self.open.len() as u64);
            self.open.clear();
        }
        let (argv, env) = (Area::new(exec.arg_len), Area::new(exec.env_len));
        let pipes = self.pipes.remove(&exec.exec_id);
        let open = Open {
            exec,
            pipes,
            argv,
            env,
        };
        self.open.insert(exec.exec_id, open);
    }

    /// Adds a chunk; returns the exec when it was the last one.
    pub fn chunk(
        &mut self,
        chunk: &abi::ExecChunk,
        data: &[u8],
        classifier: &Classifier,
        registry: &mut Registry,
    ) -> Option<Finished> {
        let open = self.open.get_mut(&chunk.exec_id)?;
        let area = if chunk.area == abi::AREA_ENV {
            &mut open.env
        } else {
            &mut open.argv
        };
        let unreadable = chunk.header.flags & abi::header::flags::UNREADABLE != 0;
        area.add(chunk.offset as usize, data, unreadable);
        if chunk.last == 0 {
            return None;
        }
        let open = self.open.remove(&chunk.exec_id)?;
        Some(self.finish(open, classifier, registry))
    }

    /// Finishes execs whose last chunk was lost.
    pub fn overdue(
        &mut self,
        boot_ns: u64,
        classifier: &Classifier,
        registry: &mut Registry,
    ) -> Vec<Finished> {
        let mut late: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, o)| o.exec.header.boot_ns + WAIT_NS < boot_ns)
            .map(|(id, _)| *id)
            .collect();
        late.sort_unstable();
        late.into_iter()
            .filter_map(|id| self.open.remove(&id))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|open| self.finish(open, classifier, registry))
            .collect()
    }

    fn finish(&mut self, open: Open, classifier: &Classifier, registry: &mut Registry) -> Finished {
        let Open {
            exec,
            pipes,
            argv,
            env,
        } = open;
        let at = convert::task_info(&exec.header);
        let filename =
            decode::name(&exec.filename[..(exec.filename_len as usize).min(exec.filename.len())]);
        let ProgramNames { exe, cwd, cgroup } = self.names.of(&exec, filename);
        let mut found = self.environment(&env, classifier, registry);
        let clear = in_clear(&env.bytes, &found, registry);
        let (shown, in_argv) = arguments(&argv.bytes, &clear, classifier, registry);
        found.extend(in_argv);
        let home = environment::pairs(&env.bytes)
            .find(|(name, _)| *name == b"HOME")
            .and_then(|(_, v)| std::str::from_utf8(v).ok())
            .map(ToOwned::to_owned);
        let seen = ExecSeen {
            parent: convert::pid(exec.parent_tgid, exec.parent_start_ns),
            exe,
            ns_tgid: exec.ns_tgid,
            argv: shown,
            cwd,
            cgroup,
            loginuid: exec.loginuid,
            session: exec.sessionid,
            found,
            argv_truncated: argv.truncated(),
            env_truncated: env.truncated(),
            env_bytes: env.total,
            env_inspected: env.bytes.len() as u64,
            argv_bytes: argv.total,
            argv_inspected: argv.bytes.len() as u64,
            at,
        };
        Finished {
            seen,
            pipes,
            exec_id: exec.exec_id,
            mnt_ns: exec.mnt_ns,
            home,
        }
    }

    fn environment(
        &mut self,
        env: &Area,
        classifier: &Classifier,
        registry: &mut Registry,
    ) -> Vec<Found> {
        let key = registry.fingerprinter().fingerprint(&env.bytes);
        if let Some((generation, found)) = self.cache.get(&key)
            && *generation == registry.generation
        {
            return found.clone();
        }
        let found = in_environment(&env.bytes, classifier, registry);
        if self.cache.len() >= MAX_CACHED {
            self.cache.clear();
        }
        self.cache.insert(key, (registry.generation, found.clone()));
        found
    }
}

/// Credentials of an environment block, by rule and by being known already.
pub fn in_environment(
    block: &[u8],
    classifier: &Classifier,
    registry: &mut Registry,
) -> Vec<Found> {
    let pairs: Vec<(&[u8], &[u8])> = environment::pairs(block).collect();
    let mut found: Vec<Found> = Vec::new();
    let mut known: HashSet<(String, String)> = HashSet::new();
    let mut add = |credential: keytrail_model::CredentialRef, name: String| {
        if known.insert((credential.fingerprint.clone(), name.clone())) {
            found.push(Found {
                credential,
                place: FoundIn::Env(name),
            });
        }
    };
    for (name, finding) in classifier.classify_env(pairs.iter().copied()) {
        if let Some(credential) = learn(registry, &finding) {
            add(credential, name);
        }
    }
    for (name, value) in &pairs {
        for (_, credential) in registry.matcher.places(value) {
            add(credential, String::from_utf8_lossy(name).into_owned());
        }
    }
    found
}

/// The secrets themselves that an environment holds, as far as they are known.
pub fn in_clear<'a>(block: &'a [u8], found: &[Found], registry: &Registry) -> Vec<&'a [u8]> {
    let names: HashSet<&str> = found
        .iter()
        .filter_map(|f| match &f.place {
            FoundIn::Env(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    environment::pairs(block)
        // A name may be of any bytes; it was reported as text.
        .filter(|(name, _)| names.contains(&*String::from_utf8_lossy(name)))
        .flat_map(|(_, value)| {
            let places = registry.matcher.places(value);
            places.into_iter().filter_map(|(place, _)| value.get(place))
        })
        .collect()
}

/// Arguments with every credential and every long piece of one replaced, and the credentials that were in them. `clear`:
/// secrets that are at hand.
pub fn arguments(
    area: &[u8],
    clear: &[&[u8]],
    classifier: &Classifier,
    registry: &mut Registry,
) -> (Vec<String>, Vec<Found>) {
    let ranges = environment::arguments(area);
    let argv: Vec<&[u8]> = ranges.iter().map(|range| &area[range.clone()]).collect();
    let mut found: Vec<Found> = Vec::new();
    let mut known: HashSet<(String, usize)> = HashSet::new();
    let mut add = |credential: keytrail_model::CredentialRef, index: usize| {
        if known.insert((credential.fingerprint.clone(), index)) {
            let place = FoundIn::Argv(u32::try_from(index).unwrap_or(u32::MAX));
            found.push(Found { credential, place });
        }
    };
    let mut spans: Vec<(Range<usize>, String)> = Vec::new();
    let Arguments {
        found: findings,
        hidden,
    } = classifier.classify_argv(&argv);
    for (index, finding) in &findings {
        let index = *index;
        let Some(range) = ranges.get(index) else {
            continue;
        };
        let Some(credential) = learn(registry, finding) else {
            continue;
        };
        let label = label(&credential.kind, &credential.fingerprint);
        for place in &finding.places {
            let start = range.start.saturating_add(place.start);
            spans.push((
                start..range.start.saturating_add(place.end).min(range.end),
                label.clone(),
            ));
        }
        add(credential, index);
    }
    for (index, range) in ranges.iter().enumerate() {
        for (place, credential) in registry.matcher.places(&area[range.clone()]) {
            spans.push((
                range.start + place.start..range.start + place.end,
                label(&credential.kind, &credential.fingerprint),
            ));
            add(credential, index);
        }
    }
    let own = findings
        .iter()
        .flat_map(|(_, f)| f.parts.iter().map(|part| &part.value[..]));
    let pieces = Pieces::of(clear.iter().copied().chain(own));
    let flagged: Vec<Range<usize>> = hidden
        .into_iter()
        .filter_map(|(index, place)| Some(shift(ranges.get(index)?, &place)))
        .collect();
    let nameless = nameless(
        area,
        &ranges,
        &flagged,
        &pieces,
        &HiddenRanges::of(&spans),
        registry,
    );
    let redacted = |place| (place, "[redacted]".to_owned());
    spans.extend(nameless.into_iter().map(redacted));
    (shown(area, &ranges, spans), found)
}

/// What has no name of its own: values that flags hide, and pieces of secrets. Not what is reported by its name already.
fn nameless(
    area: &[u8],
    ranges: &[Range<usize>],
    flagged: &[Range<usize>],
    pieces: &Pieces,
    hidden: &HiddenRanges,
    registry: &Registry,
) -> Vec<Range<usize>> {
    let mut places: Vec<Range<usize>> = Vec::new();
    places.extend(flagged.iter().filter(|p| !hidden.overlaps(p)).cloned());
    for range in ranges.iter().take(MAX_ARGS_SHOWN) {
        let argument = &area[range.clone()];
        let here = |places: Vec<Range<usize>>| places.into_iter().map(|place| shift(range, &place));
        places.extend(here(pieces.places(argument)).filter(|p| !hidden.covers(p)));
        let suspects = here(registry.matcher.suspects(argument));
        places.extend(suspects.filter(|p| !hidden.overlaps(p)));
    }
    places.retain(|place| !place.is_empty());
    places
}

/// A place in an argument as one in the area of all.
fn shift(argument: &Range<usize>, place: &Range<usize>) -> Range<usize> {
    argument.start + place.start..argument.start + place.end
}

/// The arguments without what is hidden.
fn shown(
    area: &[u8],
    ranges: &[Range<usize>],
    mut spans: Vec<(Range<usize>, String)>,
) -> Vec<String> {
    spans.sort_by_key(|(place, _)| (place.start, std::cmp::Reverse(place.end)));
    let mut from = 0;
    ranges
        .iter()
        .take(MAX_ARGS_SHOWN)
        .map(|range| {
            // Spans and arguments are both in order: what ended before this one concerns no later one.
            while spans
                .get(from)
                .is_some_and(|(place, _)| place.end <= range.start)
            {
                from += 1;
            }
            redact(area, range, &spans[from..])
        })
        .collect()
}

/// What is hidden under a name already, in order.
struct HiddenRanges(Vec<Range<usize>>);

impl HiddenRanges {
    fn of(spans: &[(Range<usize>, String)]) -> HiddenRanges {
        let mut places: Vec<_> = spans.iter().map(|(place, _)| place.clone()).collect();
        places.sort_by_key(|place| (place.start, place.end));
        // Those that touch are one.
        let mut hidden: Vec<Range<usize>> = Vec::new();
        for place in places {
            match hidden.last_mut() {
                Some(last) if place.start <= last.end => last.end = last.end.max(place.end),
                _ => hidden.push(place),
            }
        }
        HiddenRanges(hidden)
    }

    fn overlaps(&self, place: &Range<usize>) -> bool {
        let at = self.0.partition_point(|hidden| hidden.end <= place.start);
        self.0
            .get(at)
            .is_some_and(|hidden| hidden.start < place.end)
    }

    /// Nothing of the place would be shown.
    fn covers(&self, place: &Range<usize>) -> bool {
        let at = self.0.partition_point(|hidden| hidden.end < place.end);
        self.0
            .get(at)
            .is_some_and(|hidden| hidden.start <= place.start && place.end <= hidden.end)
    }
}

pub(crate) fn label(kind: &str, fingerprint: &str) -> String {
    format!("[redacted {kind} {fingerprint}]")
}

fn learn(registry: &mut Registry, finding: &Finding) -> Option<keytrail_model::CredentialRef> {
    // A public identifier alone is no holding of the credential.
    if finding.parts.is_empty() {
        None
    } else {
        registry.learn(finding)
    }
}

/// One argument as it may be shown. Spans are sorted; one that only touches the argument in part blanks that part.
fn redact(area: &[u8], range: &Range<usize>, spans: &[(Range<usize>, String)]) -> String {
    let mut out = without(area, range, spans);
    if out.len() > MAX_ARG_SHOWN {
        let mut end = MAX_ARG_SHOWN;
        while !out.is_char_boundary(end) {
            end -= 1;
        }
        out.truncate(end);
        out.push('…');
    }
    out
}

/// A part of a text with labels in place of what is hidden. Spans are in order, of those that begin together the longest first;
/// of those that overlap the first one speaks for all.
pub(crate) fn without(
    area: &[u8],
    range: &Range<usize>,
    spans: &[(Range<usize>, String)],
) -> String {
    let mut out = String::new();
    let mut at = range.start;
    for (place, label) in spans {
        if place.start >= range.end {
            break;
        }
        if place.end <= at {
            continue;
        }
        if place.start > at {
            out.push_str(&String::from_utf8_lossy(&area[at..place.start]));
        }
        if place.start >= at {
            out.push_str(label);
        }
        at = place.end.min(range.end);
    }
    if at < range.end {
        out.push_str(&String::from_utf8_lossy(&area[at..range.end]));
    }
    out
}
