//! What conditions and texts of rules may name: `process.executable`, `baseline.new_program`.

use crate::baseline::{DAY_NS, News};
use crate::carry::is_carried;
use crate::clients::{is_client_of, is_temporary};
use crate::facts::{Facts, NO_LOGIN, ProcessFacts, program_of};
use crate::harvest::{Harvested, is_project};
use crate::headers::{is_never_by_http, is_only_in_headers};
use crate::sweep::{Sweep, sweep_of};
use crate::tool::{is_installed, tool_of, tool_run_by};
use cel::Value;
use cel::objects::{Key, Map};
use keytrail_model::{INLINE, is_history};
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
    /// It was seen before.
    pub known: bool,
    /// Files it was seen in, units that had or sent it, and programs that sent it.
    pub places: usize,
    pub units: usize,
    pub senders: usize,
    /// When it was used first, wall clock, nanoseconds; `None` for what was not used before.
    pub first_ns: Option<i64>,
    /// When it was last seen to be sent; `None` for never.
    pub sent_ns: Option<i64>,
    /// When its workload was last seen to send another one.
    pub others_sent_ns: Option<i64>,
    /// The first finding by which somebody else has it, and when that was made.
    pub leak: Option<(String, i64)>,
    /// Its process sent nothing to another place before, with this credential in hand.
    pub first_place: bool,
    /// On its way it was packed with all that lay there.
    pub packed: bool,
    /// What the process or its parent read within a minute, and sent to one place.
    pub harvested: Harvested,
    pub usual_programs: Vec<String>,
    pub usual_destinations: Vec<String>,
    /// In which the name of the destination was seen.
    pub usual_networks: Vec<String>,
}

/// All of it, by group and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope(BTreeMap<&'static str, BTreeMap<&'static str, Cell>>);

impl Scope {
    pub fn new(facts: &Facts, news: &News, beside: &Beside) -> Scope {
        let mut scope = Scope::default();
        scope.event(facts, beside);
        scope.environments("", std::iter::empty());
        let carried = is_carried(facts) && !beside.packed;
        scope.put("event", "carried", Cell::Bool(carried));
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
            ("known_destination", news.known_destination),
            ("new_address", news.new_address),
            ("new_hour", news.hour),
            ("by_people", news.by_people),
            ("by_machines", news.by_machines),
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
        scope.put(
            "baseline",
            "networks",
            Cell::List(beside.usual_networks.clone()),
        );
        let since = |at: i64| facts.time_ns.saturating_sub(at).max(0) / DAY_NS;
        let age = beside.first_ns.map_or(0, since);
        scope.put("baseline", "age_days", Cell::Number(age));
        let unsent = beside.sent_ns.or(beside.first_ns).map_or(0, since);
        scope.put("credential", "unsent_days", Cell::Number(unsent));
        let others = beside.others_sent_ns.map_or(-1, since);
        scope.put("baseline", "others_sent_days", Cell::Number(others));
        for (name, number) in [
            ("kinds", beside.harvested.taken.kinds),
            ("stores", beside.harvested.taken.stores),
            ("credentials", beside.harvested.taken.credentials),
            ("own_kinds", beside.harvested.own.kinds),
            ("own_stores", beside.harvested.own.stores),
            ("sent_kinds", beside.harvested.sent.kinds),
            ("sent", beside.harvested.sent.credentials),
            ("persisted", beside.harvested.persisted),
        ] {
            scope.put("harvest", name, Cell::Number(number as i64));
        }
        let change = facts.change.clone().unwrap_or_default();
        scope.text("change", "action", &change.action);
        scope.text("change", "new_path", &change.new_path);
        scope.text("change", "link", &change.link);
        let other = change
            .previous_owner_uid
            .is_some_and(|uid| uid != facts.source.owner_uid);
        scope.put("change", "other_owner", Cell::Bool(other));
        let gap = facts.gap.clone().unwrap_or_default();
        scope.text("gap", "reason", &gap.reason);
        scope.text("gap", "signal", &gap.signal);
        scope.text("gap", "detail", &gap.detail);
        scope.text("gap", "remedy", &gap.remedy);
        scope
    }

    /// The environment of an event, and all of its credential, as the site has them.
    pub fn environments<'a>(&mut self, this: &str, all: impl Iterator<Item = &'a String>) {
        self.text("event", "environment", this);
        let all = Cell::List(all.cloned().collect());
        self.put("credential", "environments", all);
    }

    fn put(&mut self, group: &'static str, name: &'static str, cell: Cell) {
        self.0.entry(group).or_default().insert(name, cell);
    }

    fn text(&mut self, group: &'static str, name: &'static str, text: &str) {
        self.put(group, name, Cell::Text(text.to_owned()));
    }

    fn event(&mut self, facts: &Facts, beside: &Beside) {
        self.text("event", "kind", &facts.kind);
        self.text("event", "grade", &facts.grade);
        self.text("event", "channel", &facts.channel);
        self.text("event", "request", &facts.request);
        self.text("event", "taken", taken(&facts.channel));
        self.text("event", "part", &facts.part);
        self.put("event", "first_place", Cell::Bool(beside.first_place));
        let own = facts.steps.is_empty() && !facts.source.inherited;
        self.put("event", "own", Cell::Bool(own));
        self.put("event", "in_body", Cell::Bool(facts.in_body));
        self.put("event", "in_url", Cell::Bool(facts.in_url));
        self.put("event", "bytes", Cell::Number(facts.bytes as i64));
        let hour = facts.time_ns.div_euclid(3_600_000_000_000).rem_euclid(24);
        self.put("event", "hour", Cell::Number(hour));
    }

    fn process(&mut self, p: &ProcessFacts, time_ns: i64) {
        let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        self.text("process", "executable", &p.executable);
        self.text("process", "name", p.name());
        self.text("process", "script", &p.script);
        self.text("process", "program", &p.program_text());
        self.text("process", "called", p.called());
        self.text("process", "actor", &p.actor);
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
        // What an upgrade has replaced runs on in thousands of places.
        let installed = is_installed(&p.executable);
        self.put(
            "process",
            "deleted",
            Cell::Bool(p.executable.ends_with(" (deleted)") && !installed),
        );
        self.put("process", "installed", Cell::Bool(installed));
        self.put(
            "process",
            "temporary",
            Cell::Bool(is_temporary(&p.executable)),
        );
        self.put("process", "fresh", Cell::Bool(p.fresh));
        self.put("process", "upper_layer", Cell::Bool(p.upper_layer));
        self.put(
            "process",
            "in_memory",
            Cell::Bool(p.executable.starts_with("/memfd:")),
        );
        let ancestors = p
            .ancestors
            .iter()
            .flat_map(|a| [name(&a.executable), a.comm.clone(), name(&a.script)])
            .filter(|name| !name.is_empty() && name != INLINE);
        self.put("process", "ancestors", Cell::List(ancestors.collect()));
        self.chosen_by_nobody(p);
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

    /// What excuses: whoever runs a process chooses its names and those of its files, but not what lies where only the
    /// administrator installs.
    fn chosen_by_nobody(&mut self, p: &ProcessFacts) {
        self.text("process", "tool", tool_run_by(p).unwrap_or_default());
        self.text("process", "sweep", sweep_of(p).map_or("", Sweep::word));
        let above = p.ancestors.iter();
        let tools = above.filter_map(|a| tool_of(&a.executable, &a.script));
        let tools = tools.map(str::to_owned).collect();
        self.put("process", "ancestor_tools", Cell::List(tools));
        let above = p.ancestors.iter();
        let paths = above.map(|a| program_of(&a.executable, &a.script).into_owned());
        let paths = paths.filter(|path| !path.is_empty()).collect();
        self.put("process", "ancestor_programs", Cell::List(paths));
        let installers = p.contexts.iter().filter(|c| c.kind == "package_install");
        let installers = installers.map(|c| c.name.clone()).collect();
        self.put("process", "installers", Cell::List(installers));
    }

    fn victim(&mut self, facts: &Facts) {
        let victim = facts.victim.clone().unwrap_or_default();
        let itself = facts.process.as_ref().is_some_and(|p| p.key == victim.key);
        self.text("victim", "program", &victim.program_text());
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
        let client = facts
            .process
            .as_ref()
            .is_some_and(|p| is_client_of(p, &c.kind));
        self.put("process", "client", Cell::Bool(client));
        self.text("credential", "kind", &c.kind);
        self.text("credential", "identifier", &c.identifier);
        self.text("credential", "fingerprint", &c.fingerprint);
        self.put("credential", "privilege", Cell::Number(c.privilege.into()));
        // What says no end has one so far away that no rule meets it.
        let now = facts.time_ns / 1_000_000_000;
        let left = c.expires.map_or(i64::MAX, |at| at.saturating_sub(now));
        self.put("credential", "expires_in_days", Cell::Number(left / 86_400));
        self.put("credential", "expired", Cell::Bool(left < 0));
        let over = left.saturating_neg().max(0) / 60;
        self.put("credential", "expired_minutes", Cell::Number(over));
        // How long it is valid at least: what was issued for an hour ends soon all the time.
        let first = beside.first_ns.unwrap_or(facts.time_ns) / 1_000_000_000;
        let lives = c.expires.map_or(i64::MAX, |at| at.saturating_sub(first));
        self.put(
            "credential",
            "lifetime_days",
            Cell::Number(lives.max(0) / 86_400),
        );
        let header = is_only_in_headers(&c.kind);
        self.put("credential", "only_in_headers", Cell::Bool(header));
        let never = is_never_by_http(&c.kind);
        self.put("credential", "never_by_http", Cell::Bool(never));
        self.put("credential", "decoy", Cell::Bool(beside.decoy));
        self.put("credential", "known", Cell::Bool(beside.known));
        for (name, number) in [
            ("places", beside.places),
            ("units", beside.units),
            ("senders", beside.senders),
        ] {
            self.put("credential", name, Cell::Number(number as i64));
        }
        let (rule, at) = beside.leak.clone().unwrap_or_default();
        let days = facts.time_ns.saturating_sub(at).max(0) / DAY_NS;
        let days = if rule.is_empty() { -1 } else { days };
        self.text("credential", "leak", &rule);
        self.put("credential", "leaked_days", Cell::Number(days));
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
        // A mode counts as far as one comes.
        let open = mode & 0o004 != 0 && s.reach == "world";
        self.put("source", "world_readable", Cell::Bool(open));
        let project = facts
            .process
            .as_ref()
            .is_some_and(|p| is_project(p, &s.path));
        self.put("source", "project", Cell::Bool(project));
        self.put("source", "inherited", Cell::Bool(s.inherited));
        self.put("source", "temporary", Cell::Bool(is_temporary(&s.path)));
        self.put("source", "history", Cell::Bool(is_history(&s.path)));
        self.put("source", "tracked", Cell::Bool(s.tracked));
        self.put("source", "orphaned", Cell::Bool(s.orphaned));
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
        // In a sentence that is whole without it.
        let to = if known {
            format!(" to {text}")
        } else {
            String::new()
        };
        self.text("destination", "to", &to);
        let ip = d.ip.parse::<IpAddr>();
        let loopback = d.protocol == "unix" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback());
        self.put("destination", "loopback", Cell::Bool(loopback));
        self.put("destination", "log", Cell::Bool(is_log(facts)));
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

/// What is read of another process, by each channel.
fn taken(channel: &str) -> &'static str {
    match channel {
        "process_environment" => "the environment",
        "process_memory" => "memory",
        "process_vm_readv" => "memory, by process_vm_readv,",
        "ptrace" => "memory or registers, by ptrace,",
        "pidfd_getfd" => "a descriptor, by pidfd_getfd,",
        "core_dump" => "all memory, by a core dump,",
        _ => "something",
    }
}

/// Whether a pipe is the one that a CI job or an installation was started with: whoever runs it keeps what comes out.
/// The pipe of a pipeline within the job is not.
fn is_log(facts: &Facts) -> bool {
    let Some(process) = &facts.process else {
        return false;
    };
    let line = |key: &str| {
        if key == process.key {
            return Some(0);
        }
        process
            .ancestors
            .iter()
            .position(|a| a.key == key)
            .map(|at| at + 1)
    };
    let Some(outermost) = line(&facts.stdout_of) else {
        return false;
    };
    process
        .contexts
        .iter()
        .filter(|c| matches!(c.kind.as_str(), "ci_job" | "package_install"))
        .filter_map(|c| line(&c.ancestor))
        .any(|giver| outermost + 1 >= giver)
}
