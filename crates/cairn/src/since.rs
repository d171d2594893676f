//! A time as a person gives it to `--since`: so long ago, or RFC 3339.

use cairn_clock::Clock;

const FORM: &str = "write 90s, 10m, 2h or 1d, or a time such as 2026-11-24T09:00:00Z";

/// Milliseconds since 1970.
pub(crate) fn millis(text: &str) -> Result<i64, String> {
    let ago = text.strip_suffix(['s', 'm', 'h', 'd']).and_then(|number| number.parse::<i64>().ok());
    if let Some(ago) = ago {
        let unit_ms = match text.as_bytes()[text.len() - 1] {
            b's' => 1_000,
            b'm' => 60_000,
            b'h' => 3_600_000,
            _ => 86_400_000,
        };
        return Ok((Clock::system().now().as_millis() - ago.saturating_mul(unit_ms)).max(0));
    }
    rfc3339(text).ok_or_else(|| FORM.to_owned())
}

/// A time to come, as milliseconds since 1970: in so long, or RFC 3339.
pub(crate) fn until(text: &str) -> Result<i64, String> {
    let now = Clock::system().now().as_millis();
    let is_span = text.ends_with(['s', 'm', 'h', 'd']);
    // So long ago, turned about.
    let at = millis(text).map(|at| if is_span { now.saturating_mul(2).saturating_sub(at) } else { at })?;
    if at <= now { Err("that is over already".to_owned()) } else { Ok(at) }
}

/// `YYYY-MM-DDTHH:MM:SS`, a fraction or none, then `Z` or an offset.
fn rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let fraction_ms: i64 = if fraction.is_empty() { 0 } else { format!("{fraction:0<3}").get(..3)?.parse().ok()? };
    let offset_minutes = match zone.split_at(1) {
        ("Z" | "z", "") => 0,
        (sign, rest) => {
            let (hours, minutes) = rest.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if sign == "-" { -minutes } else { minutes }
        }
    };
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    if !in_range {
        return None;
    }
    // Days of the proleptic Gregorian calendar, years beginning on 1 March so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute - offset_minutes) * 60 + second) * 1_000 + fraction_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(millis("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(millis("2000-02-29T12:34:56.5Z"), Ok(951_827_696_500));
        assert_eq!(millis("2026-11-24T11:08:23+02:00"), millis("2026-11-24T09:08:23Z"));
        let now = Clock::system().now().as_millis();
        assert!((now - millis("2h").expect("a time") - 7_200_000).abs() < 60_000);
        for wrong in ["", "h", "10", "yesterday", "2026-13-01T00:00:00Z", "2026-11-24", "2026-11-24T09:00:00"] {
            assert!(millis(wrong).is_err(), "{wrong}");
        }
    }
}
