//! Credentials that were first seen where they are used, and by which other one the process is likely to have got them: it
//! sent that one to where tokens are given out a while before. The answer was not seen, so this is never more than likely.

use super::Core;
use super::paths::fits;
use crate::process::HoldingPlace;
use keytrail_model::event::Parent;
use keytrail_model::{CredentialRef, IdentifiedBy, InUseSeen, Payload, Pid, Request, TaskInfo};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How long after a request for a token what is used may be it.
const KEEP_NS: u64 = 600_000_000_000;
/// Requests remembered of one process, and processes.
const MAX_OF_ONE: usize = 8;
const MAX_PROCESSES: usize = 4_096;
/// Credentials named as those by which one was got.
const MAX_PARENTS: usize = 4;
/// Credentials first seen in use that a process holds beside the last: most are good for an hour.
const MAX_OLDER: usize = 16;

/// A request for a token, and what it was made with.
struct Exchange {
    boot_ns: u64,
    exec: u32,
    with: Vec<CredentialRef>,
    host: String,
    path: String,
}

/// Requests for tokens. What finds no room costs a credential the word on where it is likely to come from.
#[derive(Default)]
pub(super) struct Exchanges(BTreeMap<Pid, VecDeque<Exchange>>);

impl Exchanges {
    pub fn forget(&mut self, pid: Pid) {
        self.0.remove(&pid);
    }

    fn note(&mut self, pid: Pid, exchange: Exchange) {
        if self.0.len() >= MAX_PROCESSES && !self.0.contains_key(&pid) {
            self.0.pop_first();
        }
        let of = self.0.entry(pid).or_default();
        // The same again, or more of the same request.
        of.retain(|known| {
            (known.exec, &known.host, &known.path)
                != (exchange.exec, &exchange.host, &exchange.path)
                || fingerprints(&known.with) != fingerprints(&exchange.with)
        });
        while of.len() >= MAX_OF_ONE {
            of.pop_front();
        }
        of.push_back(exchange);
    }

    /// The one request that what is used now can have come of; `None` where there are several that differ in what they were
    /// made with.
    fn only(&self, pid: Pid, exec: u32, now_ns: u64) -> Option<&Exchange> {
        let of = self.0.get(&pid)?;
        let mut recent = of.iter().rev().filter(|e| {
            e.exec == exec && e.boot_ns <= now_ns && now_ns <= e.boot_ns.saturating_add(KEEP_NS)
        });
        let last = recent.next()?;
        recent
            .all(|other| fingerprints(&other.with) == fingerprints(&last.with))
            .then_some(last)
    }
}

fn fingerprints(of: &[CredentialRef]) -> Vec<&str> {
    of.iter().map(|c| c.fingerprint.as_str()).collect()
}

impl Core {
    /// What a payload asks for a token with.
    pub(super) fn notes_exchange(&mut self, at: &TaskInfo, payload: &Payload) {
        if payload.hits.is_empty() {
            return;
        }
        let exec = self.table.get(at.pid).map_or(0, |p| p.exec);
        for (place, request) in payload.requests.iter().enumerate() {
            if !gives_tokens(request) {
                continue;
            }
            let of_it = payload.hits.iter().filter(|hit| {
                let proves = hit.secret
                    || matches!(
                        hit.by,
                        Some(IdentifiedBy::JwtSignature | IdentifiedBy::AwsSignature)
                    );
                proves && hit.request.map(usize::from) == Some(place)
            });
            let mut with: Vec<CredentialRef> = of_it.map(|hit| hit.credential.clone()).collect();
            with.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
            with.dedup_by(|a, b| a.fingerprint == b.fingerprint);
            with.truncate(MAX_PARENTS);
            if with.is_empty() {
                continue;
            }
            let exchange = Exchange {
                boot_ns: at.boot_ns,
                exec,
                with,
                host: request.host.clone(),
                path: request.path.clone(),
            };
            self.exchanges.note(at.pid, exchange);
        }
    }

    /// Who uses what nobody knew holds it.
    pub(super) fn on_in_use(&mut self, seen: &InUseSeen) {
        let (pid, now_ns) = (seen.at.pid, seen.at.boot_ns);
        self.table.touch(&seen.at);
        let exec = self.table.get(pid).map_or(0, |p| p.exec);
        let wall_ns = self.boot_wall_ns;
        let parents: Arc<[Parent]> = match self.exchanges.only(pid, exec, now_ns) {
            Some(exchange) => exchange
                .with
                .iter()
                .map(|with| Parent {
                    kind: with.kind.clone(),
                    fingerprint: with.fingerprint.clone(),
                    host: exchange.host.clone(),
                    path: exchange.path.clone(),
                    time_ns: wall_ns + exchange.boot_ns,
                })
                .collect(),
            None => Arc::default(),
        };
        for credential in &seen.credentials {
            let of = match is_given_out(&credential.kind) {
                true => parents.clone(),
                false => Arc::default(),
            };
            let place = HoldingPlace::Use(of);
            self.hold(&seen.at, credential, place, now_ns);
        }
        self.drop_used(pid);
    }

    /// Of those that were first seen in use the last ones stay: a service that lives for months has had thousands.
    fn drop_used(&mut self, pid: Pid) {
        let is_used = |place: &HoldingPlace| matches!(place, HoldingPlace::Use(_));
        let Some(proc) = self.table.get(pid) else {
            return;
        };
        let used = proc.holdings.iter().filter(|h| is_used(&h.place));
        let mut times: Vec<u64> = used.map(|h| h.since_ns).collect();
        if times.len() <= MAX_OLDER + 1 {
            return;
        }
        times.sort_unstable();
        let since_ns = times[times.len() - 1 - MAX_OLDER];
        self.table
            .take_holdings(pid, |h| is_used(&h.place) && h.since_ns < since_ns);
    }
}

/// Whether a credential may be what a service has answered: names with passwords and keys of an account are had from
/// somewhere else.
fn is_given_out(kind: &str) -> bool {
    !matches!(
        kind,
        "http-basic-auth" | "http-token-header" | "gitlab-token"
    ) && !kind.ends_with("-key")
        && !kind.contains("password")
}

const GIVES: &[&str] = &["POST", "PUT"];

/// Where tokens are given out, as OAuth 2.0 (RFC 6749), OpenID providers, registries, Kubernetes, GitHub, Vault, Keystone and
/// Conjur have it: methods and path.
const TOKENS: &[(&[&str], &str)] = &[
    (GIVES, "**/token"),
    (GIVES, "**/access_token"),
    (GIVES, "**/access_tokens"),
    (GIVES, "**/access-token"),
    (GIVES, "**/oauth"),
    (GIVES, "**/login"),
    (GIVES, "**/authenticate"),
    (GIVES, "**/generateAccessToken"),
    (GIVES, "**/*:generateAccessToken"),
    (GIVES, "**/generateIdToken"),
    (GIVES, "**/*:generateIdToken"),
    (GIVES, "/v1/auth/**/login/**"),
    (GIVES, "/v1/auth/token/create"),
    (GIVES, "**/auth/tokens"),
    // Registries of containers.
    (&["GET"], "**/token"),
];

/// Whether a request is for a token: by its path, or by the name of AWS's security token service.
fn gives_tokens(request: &Request) -> bool {
    let (method, host) = (request.method.as_str(), request.host.as_str());
    let path = request.path.trim_end_matches('/');
    method == "POST" && host.starts_with("sts.") && host.contains(".amazonaws.com")
        || TOKENS
            .iter()
            .any(|(methods, at)| methods.contains(&method) && fits(at, path).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_tokens_are_given_out() {
        let asks = |method: &str, host: &str, path: &str| {
            gives_tokens(&Request {
                method: method.to_owned(),
                host: host.to_owned(),
                path: path.to_owned(),
                ..Request::default()
            })
        };
        for (method, host, path) in [
            ("POST", "login.corp.example", "/oauth2/token"),
            (
                "POST",
                "login.microsoftonline.com",
                "/{id}/oauth2/v2.0/token",
            ),
            ("POST", "github.com", "/login/oauth/access_token"),
            (
                "POST",
                "api.github.com",
                "/app/installations/{id}/access_tokens",
            ),
            ("POST", "vault", "/v1/auth/approle/login"),
            ("PUT", "vault", "/v1/auth/userpass/login/bob"),
            (
                "POST",
                "10.0.0.1",
                "/api/v1/namespaces/default/serviceaccounts/web/token",
            ),
            ("POST", "sts.eu-west-1.amazonaws.com", "/"),
            ("GET", "auth.docker.io", "/token"),
            (
                "POST",
                "iamcredentials.googleapis.com",
                "/v1/projects/-/serviceAccounts/a@b.c:generateAccessToken",
            ),
        ] {
            assert!(asks(method, host, path), "{method} {host}{path}");
        }
        for (method, path) in [
            ("GET", "/oauth2/authorize"),
            ("POST", "/repos/a/b/issues"),
            ("POST", "/tokens/count"),
            ("POST", "/v1/tokens"),
            ("GET", "/v1/secret/data/token/x"),
            ("DELETE", "/token"),
        ] {
            assert!(!asks(method, "api.corp.example", path), "{method} {path}");
        }
    }
}
