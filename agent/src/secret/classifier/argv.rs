//! What an argument vector gives away: by the program and the flags, not by one argument alone.

use super::Classifier;
use crate::secret::api::{Finding, Origin};
use crate::secret::scan::Finds;
use crate::secret::scan::name::{NameClass, classify};
use crate::secret::scan::prefilter::Hook;
use crate::secret::settle;
use std::ops::Range;
use zeroize::Zeroizing;

/// The arguments as the line that was typed, and where each begins in it.
fn line_of(argv: &[&[u8]]) -> (Zeroizing<Vec<u8>>, Vec<usize>) {
    let length = argv.iter().map(|arg| arg.len() + 1).sum();
    let mut line = Zeroizing::new(Vec::with_capacity(length));
    let mut starts = Vec::with_capacity(argv.len());
    for arg in argv {
        starts.push(line.len());
        line.extend_from_slice(arg);
        line.push(b' ');
    }
    (line, starts)
}

impl Classifier {
    /// What only the program and the flags before it tell to be a secret (`mysql -pX`, `docker login -p X`): the arguments
    /// are looked at as the line that was typed.
    pub(super) fn command_line(&self, argv: &[&[u8]], out: &mut Vec<(usize, Finding)>) {
        let (line, starts) = line_of(argv);
        let mut finds = Finds::default();
        self.scan_text(&line, Origin::Argv { index: 0 }, &mut finds);
        // Names of variables mean nothing across arguments.
        finds.list.retain(|raw| raw.rank > 0);
        if finds.list.is_empty() {
            return;
        }
        for mut finding in settle::settle(self, &line, finds) {
            let Some(place) = finding.places.first().cloned() else {
                continue;
            };
            let index = starts.partition_point(|start| *start <= place.start) - 1;
            let base = starts[index];
            let end = base + argv[index].len();
            let within = |range: &Range<usize>| range.start >= base && range.end <= end;
            let shift = |range: &Range<usize>| range.start - base..range.end - base;
            finding.places.retain(|range| within(range));
            for range in finding
                .places
                .iter_mut()
                .chain(finding.parts.iter_mut().map(|part| &mut part.span))
            {
                *range = if within(range) { shift(range) } else { 0..0 };
            }
            let known = |(at, other): &(usize, Finding)| {
                *at == index
                    && other.places.iter().any(|there| {
                        finding
                            .places
                            .iter()
                            .any(|here| here.start < there.end && there.start < here.end)
                    })
            };
            if !finding.places.is_empty() && !out.iter().any(known) {
                out.push((index, finding));
            }
        }
    }

    /// Values that stand where a secret stands, however little they look like one: nobody is to be shown them. A plain
    /// word as a password is too weak to be told as a credential, and a password all the same.
    pub fn hidden_in_argv(&self, argv: &[&[u8]]) -> Vec<(usize, Range<usize>)> {
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
        if argv.len() > 2 {
            let (line, starts) = line_of(argv);
            self.prefilter.scan(&line, |start, _, hook| {
                let Hook::Token(rule) = hook else { return };
                let rule = &self.rules[rule as usize];
                if rule.spec.kind != "command-line-password" && rule.spec.name != "curl-user" {
                    return;
                }
                let from = start.saturating_sub(rule.spec.back);
                let Some(value) = rule
                    .regex()
                    .and_then(|regex| regex.captures(&line[from..]))
                    .and_then(|captures| captures.name("secret"))
                else {
                    return;
                };
                let value = from + value.start()..from + value.end();
                let index = starts.partition_point(|start| *start <= value.start) - 1;
                let (base, arg) = (starts[index], argv[index]);
                out.push((index, value.start - base..(value.end - base).min(arg.len())));
            });
        }
        out
    }
}
