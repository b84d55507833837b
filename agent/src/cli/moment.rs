//! Times as people write them: `2h` for two hours ago, RFC 3339, `now`.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment, wall clock, nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub i64);

impl Moment {
    #[must_use]
    pub fn now() -> Moment {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Moment(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    #[must_use]
    pub fn timestamp(self) -> pbjson_types::Timestamp {
        pbjson_types::Timestamp {
            seconds: self.0.div_euclid(1_000_000_000),
            nanos: self.0.rem_euclid(1_000_000_000) as i32,
        }
    }
}

/// `30s`, `5m`, `2h`, `7d` ago; `2026-11-28T20:00:00Z`, with an offset, or a day; `now`.
///
/// # Errors
/// A sentence when it is none of these.
pub fn parse(text: &str) -> Result<Moment, String> {
    let now = Moment::now();
    if text == "now" {
        return Ok(now);
    }
    if let Some(seconds) = ago(text) {
        return Ok(Moment(
            now.0.saturating_sub(seconds.saturating_mul(1_000_000_000)),
        ));
    }
    rfc3339(text).map(Moment).ok_or_else(|| {
        format!(
            "{text:?} is not a time: write 30s, 5m, 2h or 7d for so long ago, a day such as 2026-11-28, or \
             2026-11-28T20:00:00Z"
        )
    })
}

fn ago(text: &str) -> Option<i64> {
    let unit = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3_600,
        b'd' => 86_400,
        _ => return None,
    };
    let digits = text.get(..text.len() - 1)?;
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i64>().ok()?.checked_mul(unit)
}

fn rfc3339(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits
            .bytes()
            .all(|c| c.is_ascii_digit())
            .then(|| digits.parse::<i64>().ok())?
    };
    let bytes = text.as_bytes();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    if bytes.get(4) != Some(&b'-') || bytes.get(7) != Some(&b'-') {
        return None;
    }
    let days = days_from_civil(year, month, day)?;
    if bytes.len() == 10 {
        return days.checked_mul(86_400_000_000_000);
    }
    if !matches!(bytes.get(10)?, b'T' | b't' | b' ')
        || bytes.get(13) != Some(&b':')
        || bytes.get(16) != Some(&b':')
    {
        return None;
    }
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            let digits = rest.get(..end.min(9))?;
            let scale = 10i64.checked_pow(9 - u32::try_from(digits.len()).ok()?)?;
            (
                digits.parse::<i64>().ok()?.checked_mul(scale)?,
                rest.get(end..)?,
            )
        }
        None => (0, rest),
    };
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = match zone.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            if hours.len() != 2 || minutes.len() != 2 {
                return None;
            }
            sign * (hours.parse::<u32>().ok()? * 3_600 + minutes.parse::<u32>().ok()? * 60) as i64
        }
    };
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction)
}

/// Days since 1970-01-01 of a date of the Gregorian calendar; `None` when there is no such day.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years begin in March, so that the odd day comes last.
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let of_era = y.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let s = 1_000_000_000;
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("2000-02-29", Some(951_782_400 * s)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000 * s)),
            (
                "2023-11-14T23:13:20.5+01:00",
                Some(1_700_000_000 * s + 500_000_000),
            ),
            ("2023-11-14 17:13:20-05:00", Some(1_700_000_000 * s)),
            ("2023-02-29", None),
            ("2023-11-14T22:13:20", None),
            ("2023-11-14T24:13:20Z", None),
            ("2023-11-14T22:13:20.Z", Some(0).filter(|_| false)),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(rfc3339(text), expected, "{text}");
        }
        assert_eq!(ago("2h"), Some(7_200));
        assert_eq!((ago("h"), ago("-2h"), ago("2w")), (None, None, None));
        assert!(parse("now").is_ok() && parse("5m").unwrap().0 < Moment::now().0);
        assert!(parse("later").unwrap_err().contains("2026-11-28"));
    }
}
