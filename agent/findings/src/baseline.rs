//! What is usual for one credential.

use crate::facts::{DestinationFacts, Facts};
use crate::recent::Remembered;
use crate::text::{fits, kept};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const SECOND_NS: i64 = 1_000_000_000;
pub(crate) const DAY_NS: i64 = 86_400 * SECOND_NS;
const HOUR_NS: i64 = 3_600 * SECOND_NS;
/// How long is learned at least: so many days, and so many uses.
const LEARN_DAYS: i64 = 7;
const LEARN_USES: u64 = 20;
/// Different values of one kind that are remembered, and bytes of them; a credential with more has no usual ones.
const MOST: usize = 256;
const MOST_TEXT: usize = 16 << 10;
const HOURS_OF_WEEK: usize = 168;
/// A name stays where it is that was seen in so few networks (it may have one of each version of IP), in so many uses.
const FEW_NETWORKS: usize = 2;
const MOVED_USES: u64 = 10;
/// Bytes of a tree, and of an entry in it beside its text, about.
const TREE: usize = 368;
const IN_TREE: usize = 64;

/// How often each value was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    #[serde(default)]
    pub values: BTreeMap<String, u64>,
    /// There were more than are remembered: nothing is new any more.
    #[serde(default)]
    pub full: bool,
}

impl Known {
    fn is_new(&self, value: &str) -> bool {
        !value.is_empty() && !self.full && !self.has(value)
    }

    /// Whether it was seen and is remembered: of what is full, the others may have been seen as well, and nobody knows.
    fn has(&self, value: &str) -> bool {
        self.values.contains_key(kept(value).as_ref())
    }

    /// One too many, and from now on nothing is new any more.
    fn add(&mut self, value: &str) {
        if value.is_empty() || self.full {
            return;
        }
        let value = kept(value);
        if let Some(count) = self.values.get_mut(value.as_ref()) {
            *count += 1;
        } else if self.values.len() < MOST && self.text() + value.len() <= MOST_TEXT {
            self.values.insert(value.into_owned(), 1);
        } else {
            self.full = true;
        }
    }

    /// Bytes of all values.
    fn text(&self) -> usize {
        self.values.keys().map(String::len).sum()
    }

    fn bytes(&self) -> usize {
        if self.values.is_empty() {
            return 0;
        }
        TREE + self.text() + IN_TREE * self.values.len()
    }

    /// What comes from the disk is as hostile as what made it.
    fn within_bounds(&mut self) {
        let values = std::mem::take(&mut self.values);
        let mut text = 0;
        for (value, count) in values {
            let value = if fits(&value) {
                value
            } else {
                kept(&value).into_owned()
            };
            text += value.len();
            if self.values.len() >= MOST || text > MOST_TEXT {
                self.full = true;
                break;
            }
            self.values.insert(value, count);
        }
    }
}

/// The usual programs, workloads, sources, destinations and hours of a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Wall clock of the first and the last use, nanoseconds.
    pub first_ns: i64,
    pub last_ns: i64,
    /// The last time it was seen to be sent, or to be proven in what was sent; 0 for never.
    #[serde(default)]
    pub sent_ns: i64,
    pub uses: u64,
    /// Somebody said that what is known is what is usual.
    #[serde(default)]
    pub accepted: bool,
    #[serde(default)]
    pub programs: Known,
    #[serde(default)]
    pub workloads: Known,
    #[serde(default)]
    pub sources: Known,
    #[serde(default)]
    pub destinations: Known,
    /// Destinations with a name, each with a network in which it was seen.
    #[serde(default)]
    pub networks: Known,
    /// On whose behalf it is used.
    #[serde(default)]
    pub actors: Known,
    /// Uses by the hour of the week, from Monday 0:00 UTC on.
    #[serde(default)]
    pub hours: Vec<u32>,
}

/// What of an event is not usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    pub learning: bool,
    pub program: bool,
    pub workload: bool,
    pub source: bool,
    pub destination: bool,
    /// It went there before, as far as that is remembered: of a name, to a network in which that was seen.
    pub known_destination: bool,
    /// The name is known, and was seen in few networks and often, and never in this one.
    pub new_address: bool,
    pub hour: bool,
    /// All uses that were learned were on behalf of people, or of services and jobs.
    pub by_people: bool,
    pub by_machines: bool,
    /// Since the last use before.
    pub silent_ns: i64,
}

impl Baseline {
    /// Whether it is too early to call anything unusual at this time.
    #[must_use]
    pub fn is_learning(&self, time_ns: i64) -> bool {
        !self.accepted
            && (self.uses < LEARN_USES
                || time_ns.saturating_sub(self.first_ns) < LEARN_DAYS * DAY_NS)
    }

    /// What is not usual in a use, before it is learned.
    #[must_use]
    pub fn news(&self, facts: &Facts) -> News {
        let process = facts.process.as_ref();
        let workload = process.map(|p| p.workload()).unwrap_or_default();
        // Only what leaves goes anywhere.
        let left = facts.destination.as_ref().filter(|d| d.path.is_empty());
        let destination = left.map(DestinationFacts::place);
        News {
            learning: self.is_learning(facts.time_ns),
            program: process.is_some_and(|p| self.programs.is_new(&p.program())),
            // A container has another name each time it is started.
            workload: !workload.starts_with("container:") && self.workloads.is_new(&workload),
            source: self.sources.is_new(&facts.source_text()),
            known_destination: left.is_some_and(|d| self.is_known(d)),
            new_address: left.is_some_and(|d| self.is_moved(d)),
            destination: destination.is_some_and(|d| self.destinations.is_new(&d)),
            hour: self.is_odd_hour(facts.time_ns),
            by_people: self.is_only_by(&["person"]),
            by_machines: self.is_only_by(&["service", "job", "ci"]),
            silent_ns: if self.uses == 0 {
                0
            } else {
                facts.time_ns.saturating_sub(self.last_ns).max(0)
            },
        }
    }

    /// Whether it went there before. The name is what the sender says: it has to have gone to the same network too.
    fn is_known(&self, destination: &DestinationFacts) -> bool {
        let place = destination.place();
        self.destinations.has(&place)
            && (!destination.is_named()
                || self.networks.has(&met_in(&place, &destination.network())))
    }

    /// Whether a name that stayed where it was is now elsewhere. One that was seen in many networks moves all the time, and
    /// of one that was seen a few times nobody knows.
    fn is_moved(&self, destination: &DestinationFacts) -> bool {
        let (place, network) = (destination.place(), destination.network());
        if !destination.is_named() || network.is_empty() || self.networks.full {
            return false;
        }
        let Some(uses) = self.destinations.values.get(kept(&place).as_ref()) else {
            return false;
        };
        let met = self.networks_of(destination);
        let stays = (1..=FEW_NETWORKS).contains(&met.len());
        stays && (self.accepted || *uses >= MOVED_USES) && !met.contains(&network)
    }

    /// The networks in which the name of a destination was seen.
    pub(crate) fn networks_of(&self, destination: &DestinationFacts) -> Vec<String> {
        let begin = met_in(&destination.place(), "");
        let met = self.networks.values.keys();
        met.filter_map(|value| value.strip_prefix(&begin))
            .map(str::to_owned)
            .collect()
    }

    fn is_only_by(&self, actors: &[&str]) -> bool {
        let known = &self.actors.values;
        !known.is_empty() && known.keys().all(|actor| actors.contains(&actor.as_str()))
    }

    /// An hour of the week in which, and next to which, nothing ever happened; said only of what was used for weeks.
    fn is_odd_hour(&self, time_ns: i64) -> bool {
        if time_ns.saturating_sub(self.first_ns) < 2 * LEARN_DAYS * DAY_NS {
            return false;
        }
        let hour = hour_of_week(time_ns);
        [HOURS_OF_WEEK - 1, 0, 1].iter().all(|shift| {
            let at = (hour + shift) % HOURS_OF_WEEK;
            self.hours.get(at).is_none_or(|count| *count == 0)
        })
    }

    /// What was kept before, within the bounds of now.
    pub(crate) fn within_bounds(&mut self) {
        self.hours.truncate(HOURS_OF_WEEK);
        self.hours.shrink_to_fit();
        self.kinds_mut().for_each(Known::within_bounds);
    }

    fn kinds_mut(&mut self) -> impl Iterator<Item = &mut Known> {
        [
            &mut self.programs,
            &mut self.workloads,
            &mut self.sources,
            &mut self.destinations,
            &mut self.networks,
            &mut self.actors,
        ]
        .into_iter()
    }

    /// Takes a use in. When nothing is learned any more, only that it was used is noted. Returns of how many kinds there are
    /// now more values than are remembered.
    pub fn learn(&mut self, facts: &Facts) -> usize {
        let learning = self.is_learning(facts.time_ns);
        if self.uses == 0 {
            self.first_ns = facts.time_ns;
        }
        self.uses = self.uses.saturating_add(facts.repeats.max(1));
        self.last_ns = self.last_ns.max(facts.time_ns);
        if facts.kind == "credential_sent" {
            self.sent_ns = self.sent_ns.max(facts.time_ns);
        }
        if !learning {
            return 0;
        }
        let full = |baseline: &mut Baseline| baseline.kinds_mut().filter(|k| k.full).count();
        let before = full(self);
        self.add(facts);
        full(self) - before
    }

    /// What this event shows is usual from now on.
    fn add(&mut self, facts: &Facts) {
        if let Some(process) = &facts.process {
            self.programs.add(&process.program());
            self.workloads.add(&process.workload());
            self.actors.add(if process.actor.is_empty() {
                "unknown"
            } else {
                &process.actor
            });
        }
        self.sources.add(&facts.source_text());
        if let Some(destination) = &facts.destination
            && destination.path.is_empty()
        {
            let place = destination.place();
            self.destinations.add(&place);
            if destination.is_named() {
                self.networks.add(&met_in(&place, &destination.network()));
            }
        }
        if self.hours.len() != HOURS_OF_WEEK {
            self.hours.resize(HOURS_OF_WEEK, 0);
            self.hours.shrink_to_fit();
        }
        if let Some(count) = self.hours.get_mut(hour_of_week(facts.time_ns)) {
            *count = count.saturating_add(1);
        }
    }

    /// In words, for people.
    #[must_use]
    pub fn lines(&self, time_ns: i64) -> Vec<String> {
        let mut lines = vec![if self.accepted {
            format!("accepted; {} uses", self.uses)
        } else if self.is_learning(time_ns) {
            format!(
                "learning: {} of {LEARN_USES} uses, {} of {LEARN_DAYS} days",
                self.uses.min(LEARN_USES),
                (time_ns.saturating_sub(self.first_ns) / DAY_NS).clamp(0, LEARN_DAYS)
            )
        } else {
            format!("learned; {} uses", self.uses)
        }];
        for (what, known) in [
            ("program", &self.programs),
            ("workload", &self.workloads),
            ("actor", &self.actors),
            ("source", &self.sources),
            ("destination", &self.destinations),
            ("network", &self.networks),
        ] {
            for (value, count) in &known.values {
                lines.push(format!("{what} {value} ({count})"));
            }
            if known.full {
                lines.push(format!(
                    "{what}: more than are remembered, so that none is unusual"
                ));
            }
        }
        lines
    }
}

impl Remembered for Baseline {
    fn bytes(&self) -> usize {
        let kinds = [
            &self.programs,
            &self.workloads,
            &self.sources,
            &self.destinations,
            &self.networks,
            &self.actors,
        ];
        let known: usize = kinds.into_iter().map(Known::bytes).sum();
        size_of::<Baseline>() + size_of::<u32>() * self.hours.capacity() + known
    }

    /// As soon as somebody accepted it, or as learning may have ended.
    fn is_established(&self) -> bool {
        !self.is_learning(self.last_ns)
    }
}

/// A destination with a name, and a network. Names have no blanks.
fn met_in(place: &str, network: &str) -> String {
    format!("{place} {network}")
}

/// From Monday 0:00 UTC on.
fn hour_of_week(time_ns: i64) -> usize {
    // The epoch began on a Thursday.
    let hours = time_ns.div_euclid(HOUR_NS) + 3 * 24;
    hours.rem_euclid(HOURS_OF_WEEK as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::ProcessFacts;

    fn used(day: i64, hour: i64, program: &str) -> Facts {
        Facts {
            time_ns: day * DAY_NS + hour * HOUR_NS,
            process: Some(ProcessFacts {
                executable: program.into(),
                ..Default::default()
            }),
            destination: Some(DestinationFacts {
                host: "a.example".into(),
                port: 443,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn learning_ends_after_days_and_uses_and_then_news_are_not_learned() {
        let mut baseline = Baseline::default();
        for n in 0..20 {
            baseline.learn(&used(100, n, "/bin/a"));
        }
        assert!(
            baseline.is_learning(used(106, 0, "").time_ns),
            "too few days"
        );
        let late = used(107, 0, "/bin/b");
        let news = baseline.news(&late);
        assert!(
            !news.learning && news.program && !news.destination,
            "{news:?}"
        );
        baseline.learn(&late);
        assert!(
            baseline.news(&late).program,
            "what is unusual does not become usual by itself"
        );
        let mut few = Baseline::default();
        few.learn(&used(100, 0, "/bin/a"));
        assert!(few.is_learning(used(200, 0, "").time_ns), "too few uses");
        few.accepted = true;
        assert!(!few.is_learning(used(100, 0, "").time_ns));
    }

    fn called(host: &str, ip: &str) -> Facts {
        let mut facts = used(100, 0, "/bin/a");
        facts.destination = Some(DestinationFacts {
            host: host.into(),
            ip: ip.into(),
            port: 443,
            ..Default::default()
        });
        facts
    }

    /// `known_destination`, `new_address`, `destination`.
    fn news_of(baseline: &Baseline, host: &str, ip: &str) -> (bool, bool, bool) {
        let news = baseline.news(&called(host, ip));
        (news.known_destination, news.new_address, news.destination)
    }

    /// Whoever sends chooses the name.
    #[test]
    fn a_known_name_elsewhere() {
        let mut baseline = Baseline::default();
        for host in [140, 141, 142] {
            baseline.learn(&called("api.example", &format!("140.82.112.{host}")));
        }
        let known = (true, false, false);
        assert_eq!(news_of(&baseline, "api.example", "140.82.121.9"), known);
        let few = (false, false, false);
        assert_eq!(news_of(&baseline, "api.example", "45.9.0.1"), few);
        baseline.accepted = true;
        let moved = (false, true, false);
        for ip in ["45.9.0.1", "10.0.0.1", "127.0.0.1", "2606:4700::1"] {
            assert_eq!(news_of(&baseline, "api.example", ip), moved, "{ip}");
        }
        let new = (false, false, true);
        assert_eq!(news_of(&baseline, "evil.example", "140.82.112.3"), new);
    }

    #[test]
    fn a_name_that_was_met_often_stays_where_it_is_and_one_in_many_networks_moves() {
        let mut baseline = Baseline::default();
        for _ in 0..MOVED_USES {
            baseline.learn(&called("api.example", "10.0.0.1"));
        }
        let (moved, unknown) = ((false, true, false), (false, false, false));
        assert_eq!(news_of(&baseline, "api.example", "10.0.0.2"), moved);
        for network in 1..30 {
            let address = format!("{network}.7.0.1");
            baseline.learn(&called("cdn.example", &address));
        }
        assert_eq!(news_of(&baseline, "cdn.example", "52.7.0.1"), unknown);
        let known = (true, false, false);
        assert_eq!(news_of(&baseline, "cdn.example", "9.7.200.1"), known);
    }

    #[test]
    fn what_has_too_many_values_has_no_news() {
        let mut baseline = Baseline::default();
        for n in 0..=MOST {
            baseline.learn(&used(100, 0, &format!("/bin/{n}")));
        }
        assert!(!baseline.news(&used(100, 1, "/bin/other")).program);
        assert!(baseline.programs.values.len() <= MOST);
    }

    /// A file with tokens that is read by copies of one program below a path as long as paths may be.
    #[test]
    fn long_values_take_little_and_are_known_again() {
        let path = |n: usize| format!("/srv/{}/cat{n}", "d".repeat(4_000));
        let mut baseline = Baseline::default();
        baseline.learn(&used(100, 0, &path(0)));
        baseline.accepted = true;
        assert!(
            !baseline.news(&used(100, 1, &path(0))).program,
            "it is known"
        );
        assert!(
            baseline.news(&used(100, 1, &path(1))).program,
            "another one"
        );
        let mut many = Baseline::default();
        let full: usize = (0..2 * MOST)
            .map(|n| many.learn(&used(100, 0, &path(n))))
            .sum();
        assert_eq!(full, 1, "reported once, and of programs only");
        assert!(many.bytes() < 40 << 10, "{}", many.bytes());
        assert!(serde_json::to_string(&many).unwrap().len() < many.bytes());
        assert!(
            many.lines(0)
                .iter()
                .any(|line| line.contains("more than are remembered"))
        );
    }

    #[test]
    fn what_was_kept_without_bounds_is_brought_within_them() {
        let path = |n: usize| format!("/srv/{}/cat{n}", "d".repeat(4_000));
        let mut old = Baseline::default();
        old.programs.values = (0..MOST).map(|n| (path(n), 1)).collect();
        old.workloads.values = [(path(0), 3)].into();
        old.hours = vec![1; 100_000];
        old.within_bounds();
        assert!(
            old.bytes() < 40 << 10 && old.programs.full,
            "{}",
            old.bytes()
        );
        assert_eq!(
            old.workloads.values.values().copied().collect::<Vec<_>>(),
            [3]
        );
        assert!(!old.workloads.is_new(&path(0)) && old.workloads.is_new(&path(1)));
        let again = old.clone();
        old.within_bounds();
        assert_eq!(old, again, "nothing changes a second time");
    }

    #[test]
    fn odd_hours() {
        let mut baseline = Baseline::default();
        for day in 0..7 {
            (9..17).for_each(|hour| {
                baseline.learn(&used(100 + day, hour, "/bin/a"));
            });
        }
        assert!(
            !baseline.news(&used(110, 3, "/bin/a")).hour,
            "known for a few days only"
        );
        assert!(baseline.news(&used(120, 3, "/bin/a")).hour);
        assert!(
            !baseline.news(&used(120, 8, "/bin/a")).hour,
            "an hour early is not odd"
        );
    }

    #[test]
    fn the_week_begins_on_monday() {
        // 1970-01-05 was a Monday.
        assert_eq!(hour_of_week(4 * DAY_NS), 0);
        assert_eq!(hour_of_week(4 * DAY_NS - 1), 167);
    }
}
