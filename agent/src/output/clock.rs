//! Times as people read them: in their own zone, which is named.

use pbjson_types::Timestamp;

/// A moment in the local zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Year, month, day.
    pub date: (i64, u32, u32),
    /// Hour, minute, second, millisecond.
    pub time: (u32, u32, u32, u32),
    /// Seconds east of UTC.
    pub offset: i64,
    /// As the zone calls itself at that moment: CET, UTC, +0545.
    pub zone: String,
}

impl Local {
    #[must_use]
    pub fn of(time: &Timestamp) -> Local {
        let millis = u32::try_from(time.nanos.clamp(0, 999_999_999) / 1_000_000).unwrap_or(0);
        let (offset, zone) = zone_at(time.seconds).unwrap_or_else(|| (0, "UTC".to_owned()));
        let seconds = time.seconds.saturating_add(offset);
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let rest = u32::try_from(rest).unwrap_or(0);
        Local {
            date: civil(days),
            time: (rest / 3600, rest / 60 % 60, rest % 60, millis),
            offset,
            zone,
        }
    }

    /// `2026-11-28`.
    #[must_use]
    pub fn day(&self) -> String {
        let (year, month, day) = self.date;
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// `21:03:04`.
    #[must_use]
    pub fn seconds(&self) -> String {
        let (hour, minute, second, _) = self.time;
        format!("{hour:02}:{minute:02}:{second:02}")
    }

    /// `21:03:04.123`.
    #[must_use]
    pub fn millis(&self) -> String {
        format!("{}.{:03}", self.seconds(), self.time.3)
    }

    /// `+01:00`, or `Z`.
    #[must_use]
    pub fn shift(&self) -> String {
        if self.offset == 0 {
            return "Z".to_owned();
        }
        let minutes = self.offset.unsigned_abs() / 60;
        let sign = if self.offset < 0 { '-' } else { '+' };
        format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }

    /// RFC 3339: `2026-11-28T21:03:04.123+01:00`.
    #[must_use]
    pub fn full(&self) -> String {
        format!("{}T{}{}", self.day(), self.millis(), self.shift())
    }

    /// `2026-11-28, CET (UTC+01:00)`: what stands above a day's lines.
    #[must_use]
    pub fn heading(&self) -> String {
        match self.offset {
            0 if self.zone == "UTC" => format!("{}, UTC", self.day()),
            0 => format!("{}, {} (UTC)", self.day(), self.zone),
            _ => format!("{}, {} (UTC{})", self.day(), self.zone, self.shift()),
        }
    }
}

/// RFC 3339 in UTC: `2026-11-28T20:03:04.123Z`.
#[must_use]
pub fn utc(time: &Timestamp) -> String {
    let (days, rest) = (
        time.seconds.div_euclid(86_400),
        time.seconds.rem_euclid(86_400),
    );
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        time.nanos.clamp(0, 999_999_999) / 1_000_000
    )
}

/// What the C library knows of the local zone (TZ, /etc/localtime) at a moment.
fn zone_at(seconds: i64) -> Option<(i64, String)> {
    let seconds = libc::time_t::from(seconds);
    // SAFETY: the struct is whole and ours; the zone's name is a string of the C library's that lives as long as the
    // process and is copied at once.
    unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&raw const seconds, &raw mut tm).is_null() {
            return None;
        }
        let zone = if tm.tm_zone.is_null() {
            String::new()
        } else {
            std::ffi::CStr::from_ptr(tm.tm_zone)
                .to_string_lossy()
                .into_owned()
        };
        Some((tm.tm_gmtoff, zone))
    }
}

/// Year, month and day of a day since 1970-01-01, in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, u32, u32) {
    // Counted from 0000-03-01, so that the leap day is the last of its year; eras have 400 years.
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (
        year,
        u32::try_from(month).unwrap_or(0),
        u32::try_from(day).unwrap_or(0),
    )
}

/// A text that is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time such as 2026-11-28T21:03:04+01:00 or 2026-11-28 21:03")]
pub struct TimeError(String);

/// Seconds since 1970 of RFC 3339, or of a date and time without a zone, which is then the local one.
///
/// # Errors
/// See [`TimeError`].
pub fn parse(text: &str) -> Result<i64, TimeError> {
    let wrong = || TimeError(text.to_owned());
    let (day, rest) = match text.split_once(['T', 't', ' ']) {
        Some((day, rest)) => (day, rest),
        None => (text, "00:00"),
    };
    let numbers = |text: &str, separator: char| -> Option<Vec<i64>> {
        text.split(separator)
            .map(|part| {
                let digits =
                    (2..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| part.parse().ok()).flatten()
            })
            .collect()
    };
    let Some([year, month, day]) = numbers(day, '-').and_then(|n| <[i64; 3]>::try_from(n).ok())
    else {
        return Err(wrong());
    };
    let (clock, shift) = match rest.find(['Z', 'z', '+', '-']) {
        Some(at) => (&rest[..at], Some(&rest[at..])),
        None => (rest, None),
    };
    let clock = clock.split_once('.').map_or(clock, |(whole, _)| whole);
    let (hour, minute, second) = match numbers(clock, ':').as_deref() {
        Some([hour, minute]) => (*hour, *minute, 0),
        Some([hour, minute, second]) => (*hour, *minute, *second),
        _ => return Err(wrong()),
    };
    let fits = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let days = days_of(year, month, day);
    if !fits || civil(days).2 != u32::try_from(day).unwrap_or(0) {
        return Err(wrong());
    }
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    match shift {
        Some("Z" | "z") => Ok(seconds),
        Some(shift) => {
            let Some([hours, minutes]) =
                numbers(&shift[1..], ':').and_then(|n| <[i64; 2]>::try_from(n).ok())
            else {
                return Err(wrong());
            };
            let offset = hours * 3600 + minutes * 60;
            Ok(seconds
                - if shift.starts_with('-') {
                    -offset
                } else {
                    offset
                })
        }
        None => {
            // The zone at about that moment; twice, for the days on which it changes.
            let first = seconds - zone_at(seconds).map_or(0, |z| z.0);
            Ok(seconds - zone_at(first).map_or(0, |z| z.0))
        }
    }
}

/// The reverse of [`civil`].
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (19_675, (2023, 11, 14)),
            (-719_468, (0, 3, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date);
            assert_eq!(
                days_of(date.0, date.1.into(), date.2.into()),
                days,
                "{date:?}"
            );
        }
        let moment = Timestamp {
            seconds: 1_700_000_000,
            nanos: 5_999_999,
        };
        assert_eq!(utc(&moment), "2023-11-14T22:13:20.005Z");
    }

    #[test]
    fn zones_are_written_as_rfc_3339_has_them() {
        let at = |offset, zone: &str| Local {
            date: (2026, 1, 2),
            time: (3, 4, 5, 6),
            offset,
            zone: zone.to_owned(),
        };
        assert_eq!(at(3600, "CET").full(), "2026-01-02T03:04:05.006+01:00");
        assert_eq!(at(3600, "CET").heading(), "2026-01-02, CET (UTC+01:00)");
        assert_eq!(at(-12_600, "NST").shift(), "-03:30");
        assert_eq!(at(0, "UTC").full(), "2026-01-02T03:04:05.006Z");
        assert_eq!(at(0, "UTC").heading(), "2026-01-02, UTC");
        assert_eq!(at(0, "GMT").heading(), "2026-01-02, GMT (UTC)");
    }

    #[test]
    fn times_are_understood() {
        for (text, seconds) in [
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("2023-11-14t22:13:20.999z", 1_700_000_000),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000),
            ("2023-11-14 17:43:20-04:30", 1_700_000_000),
            ("1970-01-01T00:00Z", 0),
        ] {
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
        for text in [
            "",
            "now",
            "2023",
            "2023-11",
            "2023-13-01",
            "2023-02-29",
            "2023-11-14T25:00Z",
            "2023-11-14T10Z",
            "2023-11-14T10:00+1",
            "-1-1-1",
            "2023-11-14T10:00:00:00",
            "2023-11-14 é",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        // Without a zone: the local one, and back again.
        let seconds = parse("2023-06-14 10:20:30").unwrap();
        let local = Local::of(&Timestamp { seconds, nanos: 0 });
        assert_eq!(
            (local.day().as_str(), local.seconds().as_str()),
            ("2023-06-14", "10:20:30")
        );
    }
}
