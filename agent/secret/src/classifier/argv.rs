//! What an argument vector gives away: by each argument, and by the program and the flags before it.

use super::Classifier;
use crate::api::{Finding, Origin};
use crate::resolve;
use crate::scan::Finds;
use crate::scan::name::{NameClass, classify};
use crate::scan::prefilter::Hook;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use zeroize::Zeroizing;

/// What was found in an argument vector; indices are those of arguments, places offsets into them.
#[derive(Debug, Default)]
pub struct Arguments {
    pub found: Vec<(usize, Finding)>,
    /// Values that stand where a secret stands, however little they look like one: nobody is to be shown them. A plain
    /// word as a password is too weak to be reported as a credential, and a password all the same.
    pub hidden: Vec<(usize, Range<usize>)>,
}

/// The arguments as the line that was typed.
struct CommandLine {
    bytes: Zeroizing<Vec<u8>>,
    /// Where each argument lies in it.
    places: Vec<Range<usize>>,
}

impl CommandLine {
    fn of(argv: &[&[u8]]) -> CommandLine {
        let length = argv.iter().map(|arg| arg.len() + 1).sum();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        let mut places = Vec::with_capacity(argv.len());
        for arg in argv {
            places.push(bytes.len()..bytes.len() + arg.len());
            bytes.extend_from_slice(arg);
            bytes.push(b' ');
        }
        CommandLine { bytes, places }
    }

    /// The argument in which `at` lies, and its place.
    fn argument(&self, at: usize) -> (usize, Range<usize>) {
        let index = self.places.partition_point(|place| place.start <= at) - 1;
        (index, self.places[index].clone())
    }
}

impl Classifier {
    /// The argument vector of a process. Knows flags whose value is the next argument (`-u user:password`,
    /// `--password x`) or the rest of this one (`mysql -pX`).
    pub fn classify_argv(&self, argv: &[&[u8]]) -> Arguments {
        let mut out = Arguments {
            found: Vec::new(),
            hidden: hidden_by_name(argv),
        };
        let program = argv
            .first()
            .map(|a| a.rsplit(|b| *b == b'/').next().unwrap_or(a))
            .unwrap_or_default();
        for (i, arg) in argv.iter().enumerate().take(4096) {
            let mut finds = Finds::of(arg);
            self.collect(arg, Origin::Argv { index: i as u32 }, &mut finds);
            if i >= 2 {
                self.flag_value(program, argv[i - 1], arg, &mut finds);
            }
            if finds.list.is_empty() {
                continue;
            }
            out.found.extend(
                resolve::resolve(self, arg, finds)
                    .into_iter()
                    .map(|f| (i, f)),
            );
        }
        if argv.len() > 2 {
            self.command_line(&CommandLine::of(argv), &mut out);
        }
        out
    }

    /// What only the program and the flags before it tell to be a secret (`mysql -pX`, `docker login -p X`): the arguments
    /// are inspected as the line that was typed.
    fn command_line(&self, line: &CommandLine, out: &mut Arguments) {
        let mut finds = Finds::of(&line.bytes);
        let hidden = &mut out.hidden;
        self.scan_seeing(
            &line.bytes,
            Origin::Argv { index: 0 },
            &mut finds,
            |start, hook| hidden.extend(self.behind_flag(line, start, hook)),
        );
        // Names of variables mean nothing across arguments.
        finds.list.retain(|raw| raw.rank > 0);
        if finds.list.is_empty() {
            return;
        }
        let found_ranges = FoundRanges::of(&out.found);
        for mut finding in resolve::resolve(self, &line.bytes, finds) {
            let Some(place) = finding.places.first().cloned() else {
                continue;
            };
            let (index, arg) = line.argument(place.start);
            let within = |range: &Range<usize>| range.start >= arg.start && range.end <= arg.end;
            let shift = |range: &Range<usize>| range.start - arg.start..range.end - arg.start;
            finding.places.retain(|range| within(range));
            for range in finding
                .places
                .iter_mut()
                .chain(finding.parts.iter_mut().map(|part| &mut part.span))
            {
                *range = if within(range) { shift(range) } else { 0..0 };
            }
            if !finding.places.is_empty() && !found_ranges.overlaps(index, &finding.places) {
                out.found.push((index, finding));
            }
        }
    }

    /// The value of a flag that takes a password, when a rule of such commands has its literal at `start`: by its notation
    /// alone, whatever the value is.
    fn behind_flag(
        &self,
        line: &CommandLine,
        start: usize,
        hook: Hook,
    ) -> Option<(usize, Range<usize>)> {
        let Hook::Token(rule) = hook else {
            return None;
        };
        let rule = &self.rules[rule as usize];
        if rule.spec.kind != "command-line-password" && rule.spec.name != "curl-user" {
            return None;
        }
        let from = start.saturating_sub(rule.spec.back);
        let to = line.bytes.len().min(start + rule.spec.max);
        let value = rule
            .regex()?
            .captures(&line.bytes[from..to])?
            .name("secret")?
            .range();
        let (index, arg) = line.argument(from + value.start);
        let end = (from + value.end).min(arg.end);
        Some((index, from + value.start - arg.start..end - arg.start))
    }
}

/// The places of what was found in each argument, in their order.
struct FoundRanges(HashMap<usize, BTreeMap<usize, usize>>);

impl FoundRanges {
    fn of(found: &[(usize, Finding)]) -> FoundRanges {
        let mut found_ranges: HashMap<usize, BTreeMap<usize, usize>> = HashMap::new();
        for (index, finding) in found {
            let places = found_ranges.entry(*index).or_default();
            places.extend(finding.places.iter().map(|p| (p.start, p.end)));
        }
        FoundRanges(found_ranges)
    }

    /// Something was found where one of these places is. What was found in one argument does not overlap.
    fn overlaps(&self, index: usize, places: &[Range<usize>]) -> bool {
        let Some(found_ranges) = self.0.get(&index) else {
            return false;
        };
        places.iter().any(|place| {
            found_ranges
                .range(..place.end)
                .next_back()
                .is_some_and(|(_, end)| *end > place.start)
        })
    }
}

/// Values of flags and variables whose name says that they are secret.
fn hidden_by_name(argv: &[&[u8]]) -> Vec<(usize, Range<usize>)> {
    let secret = |name: &[u8]| {
        matches!(
            classify(name),
            Some(NameClass::Password | NameClass::Secret)
        )
    };
    let mut out = Vec::new();
    for (i, arg) in argv.iter().enumerate().skip(1) {
        let before = argv[i - 1];
        let flag = before.starts_with(b"--") && !before.contains(&b'=') && secret(&before[2..]);
        if flag && !arg.starts_with(b"-") {
            out.push((i, 0..arg.len()));
        } else if let Some(sign) = arg.iter().position(|b| *b == b'=')
            && sign <= 64
            && arg[..sign]
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && secret(&arg[..sign])
        {
            out.push((i, sign + 1..arg.len()));
        }
    }
    out
}
