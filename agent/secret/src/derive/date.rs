//! Timestamps in credential files.

/// Seconds since the epoch of an RFC 3339 / ISO 8601 date-time (`2026-11-21T19:24:00.123Z`, `...+02:00`), of a date with
/// a space instead of the T, or of a plain number of seconds or milliseconds. No zone means UTC.
pub fn epoch(text: &str) -> Option<i64> {
    let text = text.trim();
    if !text.is_empty() && text.len() <= 14 && text.bytes().all(|b| b.is_ascii_digit()) {
        return number(text.parse().ok()?);
    }
    let b = text.as_bytes();
    if b.len() < 19
        || b[4] != b'-'
        || b[7] != b'-'
        || !matches!(b[10], b'T' | b' ' | b't')
        || b[13] != b':'
        || b[16] != b':'
    {
        return None;
    }
    let field = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let rest = text.get(19..)?;
    let zone_at = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let zone = &rest[zone_at..];
    let offset = match zone.as_bytes() {
        [] | [b'Z' | b'z'] => 0,
        [sign, digits @ ..] if digits.len() >= 4 => {
            let digits: Vec<i64> = digits
                .iter()
                .filter(|d| d.is_ascii_digit())
                .map(|d| i64::from(d - b'0'))
                .collect();
            if digits.len() < 4 {
                return None;
            }
            let minutes = (digits[0] * 10 + digits[1]) * 60 + digits[2] * 10 + digits[3];
            if *sign == b'-' {
                -minutes * 60
            } else {
                minutes * 60
            }
        }
        _ => return None,
    };
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// Seconds since the epoch of a number that may be milliseconds.
pub fn number(n: i64) -> Option<i64> {
    match n {
        1_000_000_000..=9_999_999_999 => Some(n),
        1_000_000_000_000..=9_999_999_999_999 => Some(n / 1000),
        _ => None,
    }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar (Howard Hinnant's days_from_civil).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let of_era = y.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_credential_files() {
        assert_eq!(epoch("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(epoch("2026-11-21T19:24:00Z"), Some(1_795_289_040));
        assert_eq!(epoch("2026-11-21T20:24:00.5+01:00"), Some(1_795_289_040));
        assert_eq!(epoch("2026-11-21 19:24:00.000000"), Some(1_795_289_040));
        assert_eq!(epoch("1795289040000"), Some(1_795_289_040));
        assert_eq!(epoch("20218925T124723Z"), None);
        assert_eq!(epoch("2026-13-21T19:24:00Z"), None);
        assert_eq!(epoch("héllo-wörld-and-more"), None);
    }
}
