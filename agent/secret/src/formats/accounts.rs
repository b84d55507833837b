//! Small files of daemons and clients that hold accounts, each in a line format of its own.

use super::Context;
use super::lines::{lines, show};
use crate::checks::{Doubt, doubt};
use std::ops::Range;

/// A secret with the name of the rule that tells its kind, its place and whose it is.
type Account = (&'static str, Range<usize>, String);

pub fn parse(context: &mut Context<'_, '_>) {
    let text = context.text;
    let path = context.path;
    let found: Vec<Account> = match context.file_name() {
        "chap-secrets" | "pap-secrets" => of_lines(text, ppp),
        "sasl_passwd" | "passwd" => of_lines(text, relay),
        "passwd.client" => of_lines(text, exim),
        ".curlrc" | "curlrc" => of_lines(text, curl),
        "userlist.txt" => of_lines(text, pgbouncer),
        "secrets" if path.contains("davfs2/") => of_lines(text, davfs),
        name if name.starts_with(".rsync") || name.starts_with("rsync") => of_lines(text, rsync),
        _ if path.contains("/svn.simple/") => subversion(text),
        _ if path.contains("/openvpn/") => openvpn(text),
        _ => Vec::new(),
    };
    for (rule, span, identifier) in found {
        if context.finds.full() {
            return;
        }
        if doubt(&text[span.clone()]) < Doubt::Word {
            context.emit_at(rule, &text[span.clone()], span, identifier);
        }
    }
}

/// What each line that is no comment holds.
fn of_lines(text: &[u8], read: fn(&[u8]) -> Option<Account>) -> Vec<Account> {
    lines(text)
        .filter(|(_, line)| !line.is_empty() && line[0] != b'#')
        .filter_map(|(start, line)| {
            let (rule, span, identifier) = read(line)?;
            (!span.is_empty()).then(|| (rule, start + span.start..start + span.end, identifier))
        })
        .collect()
}

/// The words of a line; quotes around one hold it together and are left out.
fn words(line: &[u8]) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let mut i = 0;
    while i < line.len() && out.len() < 8 {
        if line[i].is_ascii_whitespace() {
            i += 1;
            continue;
        }
        let quote = matches!(line[i], b'"' | b'\'').then_some(line[i]);
        let start = i + usize::from(quote.is_some());
        let length = line[start..]
            .iter()
            .position(|b| match quote {
                Some(quote) => *b == quote,
                None => b.is_ascii_whitespace(),
            })
            .unwrap_or(line.len() - start);
        out.push(start..start + length);
        i = start + length + usize::from(quote.is_some());
    }
    out
}

/// `user:password` in a part of a line: who, and where the password stands.
fn halves(line: &[u8], account: Range<usize>) -> Option<(String, Range<usize>)> {
    let text = &line[account.clone()];
    let colon = text.iter().position(|b| *b == b':')?;
    Some((show(&text[..colon]), account.start + colon + 1..account.end))
}

/// `client server secret addresses` (pppd(8)).
fn ppp(line: &[u8]) -> Option<Account> {
    let words = words(line);
    let [client, server, secret, ..] = words.as_slice() else {
        return None;
    };
    // `@/etc/ppp/secret` names a file.
    if line.get(secret.start) == Some(&b'@') {
        return None;
    }
    let identifier = format!(
        "{} {}",
        show(&line[client.clone()]),
        show(&line[server.clone()])
    );
    Some(("ppp-secret", secret.clone(), identifier))
}

/// `"user" "password"`, or its MD5, which logs in as well (pgbouncer(5), auth_file); what SCRAM keeps logs nobody in.
fn pgbouncer(line: &[u8]) -> Option<Account> {
    let words = words(line);
    let [user, password, ..] = words.as_slice() else {
        return None;
    };
    let quoted = line.first() == Some(&b'"');
    let known = line[password.clone()].starts_with(b"SCRAM-SHA-256$");
    (quoted && !known).then(|| {
        let user = show(&line[user.clone()]);
        ("pgbouncer-user", password.clone(), user)
    })
}

/// `address user password`, or a mount point for the address (davfs2.conf(5), secrets file).
fn davfs(line: &[u8]) -> Option<Account> {
    let words = words(line);
    let [place, user, password] = words.as_slice() else {
        return None;
    };
    let identifier = format!(
        "{}@{}",
        show(&line[user.clone()]),
        show(&line[place.clone()])
    );
    Some(("davfs2-secret", password.clone(), identifier))
}

/// `user:password` (rsyncd.conf(5), secrets file), or the password alone as rsync's --password-file takes it.
fn rsync(line: &[u8]) -> Option<Account> {
    let (user, password) = halves(line, 0..line.len())?;
    Some(("rsync-secret", password, user))
}

/// `host user:password` (postconf(5), smtp_sasl_password_maps).
fn relay(line: &[u8]) -> Option<Account> {
    let words = words(line);
    let [host, account] = words.as_slice() else {
        return None;
    };
    let (user, password) = halves(line, account.clone())?;
    let identifier = format!("{user}@{}", show(&line[host.clone()]));
    Some(("smtp-relay-password", password, identifier))
}

/// `host:user:password` (Exim's passwd.client).
fn exim(line: &[u8]) -> Option<Account> {
    let mut parts = line.splitn(3, |b| *b == b':');
    let (host, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    Some((
        "smtp-relay-password",
        line.len() - password.len()..line.len(),
        format!("{}@{}", show(user), show(host)),
    ))
}

/// `user = "name:password"` (curl(1), --config).
fn curl(line: &[u8]) -> Option<Account> {
    let line_start = line.len() - line.trim_ascii_start().len();
    let option = line[line_start..]
        .strip_prefix(b"--")
        .unwrap_or(&line[line_start..]);
    let rest = option
        .strip_prefix(b"proxy-user")
        .or_else(|| option.strip_prefix(b"user"))
        .or_else(|| option.strip_prefix(b"-u"))?;
    let value = rest.trim_ascii_start();
    let value = value
        .strip_prefix(b"=")
        .or_else(|| value.strip_prefix(b":"))
        .unwrap_or(value);
    if value.len() == rest.len() {
        return None;
    }
    let at = line.len() - value.len();
    let account = words(value).into_iter().next()?;
    let (user, password) = halves(line, at + account.start..at + account.end)?;
    Some(("curl-config", password, user))
}

/// Two lines, user and password (openvpn(8), --auth-user-pass).
fn openvpn(text: &[u8]) -> Vec<Account> {
    let all: Vec<(usize, &[u8])> = lines(text).filter(|(_, l)| !l.is_empty()).take(3).collect();
    match all.as_slice() {
        [(_, user), (start, password)] => {
            vec![("openvpn-auth", *start..start + password.len(), show(user))]
        }
        _ => Vec::new(),
    }
}

/// Subversion's hash dump: `K length`, name, `V length`, value.
fn subversion(text: &[u8]) -> Vec<Account> {
    let all: Vec<(usize, &[u8])> = lines(text).take(64).collect();
    let value = |name: &[u8]| {
        all.windows(3).find_map(|w| {
            (w[0].1 == name && w[1].1.starts_with(b"V "))
                .then(|| w[2].0..w[2].0 + w[2].1.len())
                .filter(|span| !span.is_empty())
        })
    };
    let Some(password) = value(b"password") else {
        return Vec::new();
    };
    let user = value(b"username").map(|span| show(&text[span]));
    vec![("subversion-password", password, user.unwrap_or_default())]
}
