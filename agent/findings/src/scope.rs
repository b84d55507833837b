//! What conditions and texts of rules may name: `process.executable`, `baseline.new_program`.

use crate::baseline::{DAY_NS, News};
use crate::facts::{Facts, NO_LOGIN, ProcessFacts};
use crate::harvest::Harvested;
use cel::Value;
use cel::objects::{Key, Map};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Text(String),
    Number(i64),
    Bool(bool),
    List(Vec<String>),
}

impl Cell {
    fn value(&self) -> Value {
        match self {
            Cell::Text(text) => Value::String(Arc::new(text.clone())),
            Cell::Number(number) => Value::Int(*number),
            Cell::Bool(bool) => Value::Bool(*bool),
            Cell::List(list) => Value::List(Arc::new(
                list.iter()
                    .map(|text| Value::String(Arc::new(text.clone())))
                    .collect(),
            )),
        }
    }

    fn text(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Number(number) => number.to_string(),
            Cell::Bool(bool) => bool.to_string(),
            Cell::List(list) => list.join(", "),
        }
    }
}

/// What the stage knows beside the event and the baseline.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Beside {
    pub decoy: bool,
    /// Files and variables it was seen in; programs that used it.
    pub places: usize,
    pub consumers: usize,
    /// What the process or its parent read within a minute, and sent to one place.
    pub harvested: Harvested,
    pub usual_programs: Vec<String>,
    pub usual_destinations: Vec<String>,
}

/// All of it, by group and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope(BTreeMap<&'static str, BTreeMap<&'static str, Cell>>);

impl Scope {
    pub fn new(facts: &Facts, news: &News, beside: &Beside) -> Scope {
        let mut scope = Scope::default();
        scope.event(facts);
        scope.process(&facts.process.clone().unwrap_or_default(), facts.time_ns);
        scope.victim(facts);
        scope.credential(facts, beside);
        scope.source(facts);
        scope.destination(facts);
        scope.put("baseline", "learning", Cell::Bool(news.learning));
        for (name, is) in [
            ("new_program", news.program),
            ("new_workload", news.workload),
            ("new_source", news.source),
            ("new_destination", news.destination),
            ("new_hour", news.hour),
        ] {
            scope.put("baseline", name, Cell::Bool(is));
        }
        scope.put(
            "baseline",
            "silent_days",
            Cell::Number(news.silent_ns / DAY_NS),
        );
        scope.put(
            "baseline",
            "programs",
            Cell::List(beside.usual_programs.clone()),
        );
        scope.put(
            "baseline",
            "destinations",
            Cell::List(beside.usual_destinations.clone()),
        );
        for (name, number) in [
            ("kinds", beside.harvested.taken.kinds),
            ("credentials", beside.harvested.taken.credentials),
            ("own_kinds", beside.harvested.own.kinds),
            ("sent_kinds", beside.harvested.sent.kinds),
            ("sent", beside.harvested.sent.credentials),
        ] {
            scope.put("harvest", name, Cell::Number(number as i64));
        }
        let gap = facts.gap.clone().unwrap_or_default();
        scope.text("gap", "reason", &gap.reason);
        scope.text("gap", "signal", &gap.signal);
        scope.text("gap", "detail", &gap.detail);
        scope.text("gap", "remedy", &gap.remedy);
        scope
    }

    fn put(&mut self, group: &'static str, name: &'static str, cell: Cell) {
        self.0.entry(group).or_default().insert(name, cell);
    }

    fn text(&mut self, group: &'static str, name: &'static str, text: &str) {
        self.put(group, name, Cell::Text(text.to_owned()));
    }

    fn event(&mut self, facts: &Facts) {
        self.text("event", "kind", &facts.kind);
        self.text("event", "grade", &facts.grade);
        self.text("event", "channel", &facts.channel);
        self.text("event", "request", &facts.request);
        self.put("event", "bytes", Cell::Number(facts.bytes as i64));
        let hour = facts.time_ns.div_euclid(3_600_000_000_000).rem_euclid(24);
        self.put("event", "hour", Cell::Number(hour));
    }

    fn process(&mut self, p: &ProcessFacts, time_ns: i64) {
        let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        self.text("process", "executable", &p.executable);
        self.text("process", "name", &name(&p.executable));
        self.text("process", "script", &p.script);
        self.text("process", "program", p.program());
        self.text("process", "comm", &p.comm);
        self.put("process", "argv", Cell::List(p.argv.clone()));
        self.put("process", "uid", Cell::Number(p.uid.into()));
        self.put("process", "euid", Cell::Number(p.euid.into()));
        self.put("process", "login", Cell::Bool(p.loginuid != NO_LOGIN));
        self.text("process", "workload", &p.workload());
        self.text("process", "unit", &p.unit);
        self.text("process", "container", &p.container);
        self.text("process", "pod", &p.pod);
        let contexts = p.contexts.iter().map(|c| c.name.clone());
        self.put("process", "context", Cell::List(contexts.collect()));
        let age = time_ns.saturating_sub(p.start_ns).max(0) / 1_000_000_000;
        self.put("process", "age_seconds", Cell::Number(age));
        self.put(
            "process",
            "deleted",
            Cell::Bool(p.executable.ends_with(" (deleted)")),
        );
        self.put(
            "process",
            "temporary",
            Cell::Bool(is_temporary(&p.executable)),
        );
        self.put(
            "process",
            "in_memory",
            Cell::Bool(p.executable.starts_with("/memfd:")),
        );
        let ancestors = p
            .ancestors
            .iter()
            .flat_map(|a| [name(&a.executable), a.comm.clone(), name(&a.script)])
            .filter(|name| !name.is_empty());
        self.put("process", "ancestors", Cell::List(ancestors.collect()));
        for (name, kind) in [
            ("installer", "package_install"),
            ("agent", "agent_tool"),
            ("ci", "ci_job"),
            ("cron", "cron"),
            ("ssh", "ssh_session"),
        ] {
            let context = p.contexts.iter().find(|c| c.kind == kind);
            self.text("process", name, context.map_or("", |c| &c.name));
        }
    }

    fn victim(&mut self, facts: &Facts) {
        let victim = facts.victim.clone().unwrap_or_default();
        let itself = facts.process.as_ref().is_some_and(|p| p.key == victim.key);
        self.text("victim", "program", victim.program());
        self.text("victim", "workload", &victim.workload());
        self.put("victim", "uid", Cell::Number(victim.uid.into()));
        self.put("victim", "itself", Cell::Bool(itself));
        let started = facts
            .process
            .as_ref()
            .is_some_and(|p| victim.ancestors.iter().any(|a| a.key == p.key));
        self.put("victim", "descends", Cell::Bool(started));
    }

    fn credential(&mut self, facts: &Facts, beside: &Beside) {
        let c = facts.credential.clone().unwrap_or_default();
        self.text("credential", "kind", &c.kind);
        self.text("credential", "identifier", &c.identifier);
        self.text("credential", "fingerprint", &c.fingerprint);
        self.put("credential", "privilege", Cell::Number(c.privilege.into()));
        // What says no end has one so far away that no rule meets it.
        let now = facts.time_ns / 1_000_000_000;
        let left = c.expires.map_or(i64::MAX, |at| at.saturating_sub(now));
        self.put("credential", "expires_in_days", Cell::Number(left / 86_400));
        self.put("credential", "expired", Cell::Bool(left < 0));
        self.put("credential", "decoy", Cell::Bool(beside.decoy));
        self.put("credential", "places", Cell::Number(beside.places as i64));
        self.put(
            "credential",
            "consumers",
            Cell::Number(beside.consumers as i64),
        );
    }

    fn source(&mut self, facts: &Facts) {
        let s = &facts.source;
        self.text("source", "type", &s.kind);
        self.text("source", "path", &s.path);
        self.text("source", "env", &s.env_name);
        self.text("source", "mode", &s.mode);
        self.text("source", "text", &facts.source_text());
        self.put("source", "owner_uid", Cell::Number(s.owner_uid.into()));
        let mode = u32::from_str_radix(&s.mode, 8).unwrap_or(0);
        self.put("source", "world_readable", Cell::Bool(mode & 0o004 != 0));
        self.put("source", "inherited", Cell::Bool(s.inherited));
    }

    fn destination(&mut self, facts: &Facts) {
        let known = facts.destination.is_some();
        let d = facts.destination.clone().unwrap_or_default();
        self.put("destination", "known", Cell::Bool(known));
        self.text("destination", "host", &d.host);
        self.text("destination", "ip", &d.ip);
        self.text("destination", "path", &d.path);
        self.put("destination", "port", Cell::Number(d.port.into()));
        let text = if known {
            d.text()
        } else {
            "an unknown place".into()
        };
        self.text("destination", "text", &text);
        let ip = d.ip.parse::<IpAddr>();
        let loopback = d.protocol == "unix" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback());
        self.put("destination", "loopback", Cell::Bool(loopback));
    }

    /// `group.name` as text; `None` when there is no such thing.
    pub fn lookup(&self, dotted: &str) -> Option<String> {
        let (group, name) = dotted.split_once('.')?;
        Some(self.0.get(group)?.get(name)?.text())
    }

    /// The groups as CEL sees them.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, Value)> + '_ {
        self.0.iter().map(|(group, cells)| {
            let map: HashMap<Key, Value> = cells
                .iter()
                .map(|(name, cell)| (Key::from((*name).to_owned()), cell.value()))
                .collect();
            (*group, Value::Map(Map { map: Arc::new(map) }))
        })
    }
}

/// Places anybody can write to, and that do not outlive a boot.
fn is_temporary(executable: &str) -> bool {
    ["/tmp/", "/var/tmp/", "/dev/shm/", "/run/user/", "/memfd:"]
        .iter()
        .any(|place| executable.starts_with(place))
}
