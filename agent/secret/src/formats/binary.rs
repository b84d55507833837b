//! Binary stores: Kerberos keytabs and ticket caches, PKCS#12 and Java key stores.

use super::Context;

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let bytes = self.data.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(bytes)
    }

    fn u16(&mut self) -> Option<usize> {
        Some(usize::from(u16::from_be_bytes(
            self.take(2)?.try_into().ok()?,
        )))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// 16-bit length and bytes.
    fn short(&mut self) -> Option<&'a [u8]> {
        let n = self.u16()?;
        self.take(n)
    }

    /// 32-bit length and bytes.
    fn long(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()? as usize;
        self.take(n)
    }
}

fn show(bytes: &[u8]) -> String {
    crate::scan::text::clean(bytes)
}

const MAX_ENTRIES: usize = 4096;

/// MIT keytab format 0x0502: principal, key version and key of every entry.
pub fn keytab(context: &mut Context<'_, '_>) {
    let Some(body) = context.text.strip_prefix(b"\x05\x02") else {
        return;
    };
    let mut r = Reader { data: body, at: 0 };
    for _ in 0..MAX_ENTRIES {
        let Some(size) = r.u32() else { return };
        let size = size as i32;
        let Some(entry) = r.take(size.unsigned_abs() as usize) else {
            return;
        };
        // A negative size is a hole.
        if size > 0
            && let Some((principal, at, key)) = keytab_entry(entry)
        {
            let start = 2 + r.at - entry.len() + at;
            context.emit_at("kerberos-keytab", key, start..start + key.len(), principal);
        }
    }
}

fn keytab_entry(entry: &[u8]) -> Option<(String, usize, &[u8])> {
    let mut r = Reader { data: entry, at: 0 };
    let components = r.u16()?;
    let realm = show(r.short()?);
    let mut names = Vec::new();
    for _ in 0..components.min(16) {
        names.push(show(r.short()?));
    }
    let (_name_type, _time) = (r.u32()?, r.u32()?);
    let version = r.take(1)?[0];
    let _enctype = r.u16()?;
    let n = r.u16()?;
    let at = r.at;
    let key = r.take(n)?;
    Some((
        format!("{}@{realm} kvno {version}", names.join("/")),
        at,
        key,
    ))
}

/// MIT credential cache, versions 3 and 4: the session key of each ticket, with its end.
pub fn ccache(context: &mut Context<'_, '_>) {
    if !(context.text.starts_with(b"\x05\x04") || context.text.starts_with(b"\x05\x03")) {
        return;
    }
    let mut r = Reader {
        data: context.text,
        at: 2,
    };
    if context.text[1] == 4 {
        let Some(n) = r.u16() else { return };
        if r.take(n).is_none() {
            return;
        }
    }
    if principal(&mut r).is_none() {
        return;
    }
    for _ in 0..MAX_ENTRIES {
        let Some((client, server, at, key, end)) = ticket(&mut r) else {
            return;
        };
        if server.starts_with("krb5_ccache_conf_data") {
            continue;
        }
        if let Some(raw) = context.emit_at(
            "kerberos-ccache",
            key,
            at..at + key.len(),
            format!("{client} for {server}"),
        ) {
            raw.expires = Some(i64::from(end));
        }
    }
}

fn principal(r: &mut Reader<'_>) -> Option<String> {
    let _kind = r.u32()?;
    let components = r.u32()?.min(16);
    let realm = show(r.long()?);
    let mut names = Vec::new();
    for _ in 0..components {
        names.push(show(r.long()?));
    }
    Some(format!("{}@{realm}", names.join("/")))
}

type Ticket<'a> = (String, String, usize, &'a [u8], u32);

fn ticket<'a>(r: &mut Reader<'a>) -> Option<Ticket<'a>> {
    let client = principal(r)?;
    let server = principal(r)?;
    let enctype = r.u16()?;
    // Version 3 writes the type twice.
    if r.data[1] == 3 {
        let _ = enctype;
        r.u16()?;
    }
    let n = r.u32()? as usize;
    let at = r.at;
    let key = r.take(n)?;
    let (_auth, _start, end, _renew) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
    r.take(1 + 4)?;
    for _ in 0..2 {
        // Addresses, then authorisation data: a count of typed blobs.
        let count = r.u32()?;
        for _ in 0..count.min(1024) {
            r.u16()?;
            r.long()?;
        }
    }
    r.long()?;
    r.long()?;
    Some((client, server, at, key, end))
}

/// The rule of the store that a file is by its first bytes, wherever it lies and whatever its name.
pub fn by_magic(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xfe, 0xed, 0xfe, 0xed, ..] | [0xce, 0xce, 0xce, 0xce, ..] => Some("java-keystore"),
        [5, 2, ..] => Some("kerberos-keytab"),
        // A store of certificates alone has the same beginning: without its name, a bag with a key must be seen.
        [0x30, 0x82 | 0x83 | 0x80, ..]
            if memchr::memmem::find(&head[..head.len().min(MAX_BAGS)], SHROUDED_KEY_BAG)
                .is_some() =>
        {
            Some("pkcs12")
        }
        _ if super::der::label(head).is_some() => Some("der-private-key"),
        _ => None,
    }
}

/// DER of pkcs8ShroudedKeyBag (1.2.840.113549.1.12.10.1.2, RFC 7292 appendix D).
const SHROUDED_KEY_BAG: &[u8] = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02";

/// How far into a store its bags are looked for: keys stand among the first, or after the chain of their certificates.
const MAX_BAGS: usize = 64 * 1024;

/// PKCS#12: the whole store is the secret, always encrypted.
pub fn pkcs12(context: &mut Context<'_, '_>) {
    // SEQUENCE { INTEGER 3, SEQUENCE { OID pkcs7 ...
    let text = context.text;
    let sequence = text.starts_with(b"\x30\x82")
        || text.starts_with(b"\x30\x83")
        || text.starts_with(b"\x30\x80");
    if sequence && memchr::memmem::find(&text[..text.len().min(16)], b"\x02\x01\x03").is_some() {
        store(context, "pkcs12");
    }
}

/// Java key store (JKS, JCEKS).
pub fn jks(context: &mut Context<'_, '_>) {
    if context.text.starts_with(b"\xfe\xed\xfe\xed")
        || context.text.starts_with(b"\xce\xce\xce\xce")
    {
        // Count of entries; the first one's tag 1 is a private key, 2 a certificate.
        let mut r = Reader {
            data: context.text,
            at: 8,
        };
        let (Some(_count), Some(tag)) = (r.u32(), r.u32()) else {
            return;
        };
        if tag == 1 || tag == 3 {
            store(context, "java-keystore");
        }
    }
}

fn store(context: &mut Context<'_, '_>, rule: &str) {
    let identifier = format!("{} (encrypted)", context.file_name());
    let text = context.text;
    let n = text.len().min(64 * 1024);
    context.emit_at(rule, &text[..n], 0..n, identifier.trim().to_string());
}
