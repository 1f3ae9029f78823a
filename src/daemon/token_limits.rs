//! Limits of a token, as a user writes them: `60/m`, `20/day` and `90d`.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use crate::config::parse_cap;
use crate::guard::ScopeSettings;
use crate::types::{NanoUsd, duration};

/// How to write a rate.
const RATE_HELP: &str = "write it as 60/m: requests per second (s), minute (m) or hour (h)";

/// The limits of the requests of a token. The default has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenLimits {
    /// Requests that may begin in a minute.
    pub requests_per_minute: Option<NonZeroU64>,
    /// Requests in progress at once.
    pub concurrency: Option<NonZeroU32>,
    /// What its requests may spend in a day, UTC.
    pub budget: Option<NanoUsd>,
}

impl TokenLimits {
    /// Creates limits that limit nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether there is any limit.
    pub(super) fn is_limited(&self) -> bool {
        *self != Self::default()
    }

    /// Returns the settings of the token's scope.
    pub(super) fn scope_settings(&self) -> ScopeSettings {
        let Self { requests_per_minute, concurrency, budget: _ } = *self;
        let mut settings = ScopeSettings::new();
        settings.requests_per_minute = requests_per_minute;
        settings.concurrency = concurrency;
        settings
    }
}

/// Reads a rate such as `60/m`, and returns the requests per minute.
///
/// # Errors
/// If the text is not a rate, or not a whole number of requests per minute.
pub fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    let wrong = || format!("{text:?} is not a rate; {RATE_HELP}");
    let (number, unit) = text.trim().split_once('/').ok_or_else(wrong)?;
    let number: u64 = number.trim().parse().map_err(|_| wrong())?;
    let per_minute = match unit.trim() {
        "s" | "sec" | "second" => number.checked_mul(60),
        "m" | "min" | "minute" => Some(number),
        "h" | "hour" if number.is_multiple_of(60) => Some(number / 60),
        "h" | "hour" => {
            return Err(format!("{text:?} is not a whole number of requests per minute; {RATE_HELP}"));
        }
        _ => None,
    };
    per_minute.and_then(NonZeroU64::new).ok_or_else(wrong)
}

/// Reads a budget such as `20/day`, in US dollars.
///
/// # Errors
/// If the text is not a budget of a day.
pub fn parse_daily_budget(text: &str) -> Result<NanoUsd, String> {
    let amount = match text.trim().split_once('/') {
        None => text,
        Some((amount, unit)) if matches!(unit.trim(), "day" | "d") => amount,
        Some((_, unit)) => {
            let unit = unit.trim();
            return Err(format!(
                "a budget is for a day (UTC), not for {unit:?}; write US dollars, such as 20/day"
            ));
        }
    };
    parse_cap(amount).map_err(|_| format!("{text:?} is not a budget; write US dollars, such as 20/day"))
}

/// Reads how long a token is valid, such as `90d`.
///
/// # Errors
/// If the text is not a duration, or is zero.
pub fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration::parse_of_any_length(text)
        .map_err(|_| format!("{text:?} is not a duration such as 90d or 12h"))?;
    if lifetime.is_zero() {
        return Err(format!("{text:?} is zero: the token would never be valid"));
    }
    Ok(lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_as_requests_per_minute() {
        for (text, per_minute) in
            [("60/m", 60), ("1/s", 60), ("120/h", 2), (" 5 / min ", 5), ("2/second", 120), ("60/hour", 1)]
        {
            assert_eq!(parse_rate(text).map(NonZeroU64::get), Ok(per_minute), "{text}");
        }
        let max = u64::MAX.to_string();
        for wrong in ["", "60", "0/m", "-1/m", "1.5/m", "60/d", "60/", "/m", "60/M", &format!("{max}/s")] {
            let error = parse_rate(wrong).unwrap_err();
            assert!(error.ends_with(RATE_HELP), "{wrong}: {error}");
        }
        let error = parse_rate("90/h").unwrap_err();
        assert!(error.contains("not a whole number of requests per minute"), "{error}");
    }

    #[test]
    fn a_budget_is_of_a_day() {
        for text in ["20/day", "20", "$20.00/day", "20 / d"] {
            assert_eq!(parse_daily_budget(text), Ok(NanoUsd(20_000_000_000)), "{text}");
        }
        for wrong in ["", "0", "-5/day", "much/day", "/day", "20/month", "20/day/day"] {
            let error = parse_daily_budget(wrong).unwrap_err();
            assert!(error.ends_with("write US dollars, such as 20/day"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_lifetime_may_be_in_days() {
        for (text, hours) in [("90d", 2_160), ("12h", 12), ("1h 60m", 2), (" 1 d ", 24)] {
            assert_eq!(parse_lifetime(text), Ok(Duration::from_hours(hours)), "{text}");
        }
        for (wrong, advice) in [("soon", "such as 90d or 12h"), ("", "such as 90d or 12h"), ("0d", "is zero")]
        {
            let error = parse_lifetime(wrong).unwrap_err();
            assert!(error.contains(advice), "{wrong}: {error}");
        }
    }

    #[test]
    fn only_what_was_set_is_limited() {
        assert!(!TokenLimits::new().is_limited() && !TokenLimits::new().scope_settings().is_limited());
        let limits = TokenLimits { concurrency: NonZeroU32::new(3), ..TokenLimits::new() };
        assert!(limits.is_limited());
        assert_eq!(limits.scope_settings().concurrency, NonZeroU32::new(3));
        let with_budget = TokenLimits { budget: Some(NanoUsd(1)), ..TokenLimits::new() };
        assert!(with_budget.is_limited() && !with_budget.scope_settings().is_limited());
    }
}
