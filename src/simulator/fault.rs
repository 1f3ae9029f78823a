//! Says which requests go wrong, how, and when.
//!
//! Shares are exact: of `share = 0.05` and `share = 0.02` the first takes 5% of the requests and the
//! second another 2%. A fault never looks at a clock; it is told how long the simulator has run.

mod kind;
mod retry_after;

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use kind::FaultKind;
pub use retry_after::RetryAfter;

use crate::types::duration;

use super::Vendor;

/// A fault, and which requests it befalls: those for which every condition holds, by `share`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// The share of the requests it befalls, 0 to 1; 1 when it is not given.
    pub share: f64,
    /// The HTTP status, for `server_error`, `unavailable`, `overloaded` and `html`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How late the first piece is, for `slow_first_token`; 30 s when it is not given.
    #[serde(serialize_with = "write_time", skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// What the 429 says, for `rate_limited`; as the setting of that name when it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<RetryAfter>,
    /// Not before the simulator has run this long.
    #[serde(serialize_with = "write_time", skip_serializing_if = "Option::is_none")]
    pub from: Option<Duration>,
    /// Only until the simulator has run this long.
    #[serde(serialize_with = "write_time", skip_serializing_if = "Option::is_none")]
    pub until: Option<Duration>,
    /// Only calls to this vendor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Vendor>,
    /// Only calls for this model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Only calls with this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Only calls whose prompt holds this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// Only the first so many times that one and the same request comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Only calls that come while so many others are being answered: what a provider does beyond its capacity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above: Option<u64>,
}

/// A [`Fault`] before its check.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    kind: FaultKind,
    #[serde(default, deserialize_with = "share")]
    share: Option<f64>,
    status: Option<u16>,
    #[serde(default, deserialize_with = "time")]
    delay: Option<Duration>,
    retry_after: Option<RetryAfter>,
    #[serde(default, deserialize_with = "time")]
    from: Option<Duration>,
    #[serde(default, deserialize_with = "time")]
    until: Option<Duration>,
    vendor: Option<Vendor>,
    model: Option<String>,
    key: Option<String>,
    contains: Option<String>,
    times: Option<u32>,
    above: Option<u64>,
}

fn share<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let share = f64::deserialize(from)?;
    if (0.0..=1.0).contains(&share) {
        return Ok(Some(share));
    }
    let wrong = format!("{share} is no share of the requests; write a number from 0 to 1, such as 0.05");
    Err(serde::de::Error::custom(wrong))
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration::deserialize_from_zero(from).map(Some)
}

fn write_time<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => duration::serialize(time, to),
        None => to.serialize_none(),
    }
}

impl TryFrom<Written> for Fault {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written {
            kind,
            share,
            status,
            delay,
            retry_after,
            from,
            until,
            vendor,
            model,
            key,
            contains,
            times,
            above,
        } = written;
        let share = share.unwrap_or(1.0);
        if let Some(status) = status {
            if !kind.takes_status() {
                return Err("this kind of fault has no `status`; take it out: it goes with server_error, unavailable, overloaded and html".to_owned());
            }
            let lowest = if kind == FaultKind::Html { 200 } else { 400 };
            if !(lowest..600).contains(&status) {
                return Err(format!("{status} is no status of this fault; write one from {lowest} to 599"));
            }
        }
        if delay.is_some() && kind != FaultKind::SlowFirstToken {
            return Err(
                "this kind of fault has no `delay`; take it out: it goes with slow_first_token".to_owned()
            );
        }
        if retry_after.is_some() && !matches!(kind, FaultKind::RateLimited | FaultKind::Quota) {
            return Err(
                "this kind of fault has no `retry_after`; take it out: it goes with rate_limited and quota"
                    .to_owned(),
            );
        }
        if let (Some(from), Some(until)) = (from, until)
            && until <= from
        {
            return Err(
                "`until` is not later than `from`; make it later, or leave it out for no end".to_owned()
            );
        }
        Ok(Self {
            kind,
            share,
            status,
            delay,
            retry_after,
            from,
            until,
            vendor,
            model,
            key,
            contains,
            times,
            above,
        })
    }
}

/// What a fault may ask about a request.
pub(super) struct Case<'a> {
    pub(super) elapsed: Duration,
    pub(super) vendor: Vendor,
    pub(super) model: &'a str,
    pub(super) key: Option<&'a str>,
    pub(super) stream: bool,
    /// Whether a schema or a choice was asked for.
    pub(super) structured: bool,
    /// How often this same request came before.
    pub(super) occurrence: u32,
    /// How many other calls are being answered.
    pub(super) in_flight: u64,
    /// Whether the prompt holds a text.
    pub(super) contains: &'a dyn Fn(&str) -> bool,
}

impl Fault {
    /// Makes a fault that befalls every request.
    pub fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            share: 1.0,
            status: None,
            delay: None,
            retry_after: None,
            from: None,
            until: None,
            vendor: None,
            model: None,
            key: None,
            contains: None,
            times: None,
            above: None,
        }
    }

    /// Limits it to this share of the requests, 0 to 1.
    #[must_use]
    pub fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    fn concerns(&self, case: &Case<'_>) -> bool {
        let playable = match self.kind {
            FaultKind::NoEnd => case.stream,
            FaultKind::TruncatedJson => case.structured || !case.stream,
            FaultKind::WrongContent => case.structured,
            _ => true,
        };
        playable
            && self.from.is_none_or(|from| case.elapsed >= from)
            && self.until.is_none_or(|until| case.elapsed < until)
            && self.vendor.is_none_or(|vendor| case.vendor == vendor)
            && self.times.is_none_or(|times| case.occurrence < times)
            && self.above.is_none_or(|above| case.in_flight >= above)
            && self.model.as_deref().is_none_or(|model| case.model == model)
            && self.key.as_deref().is_none_or(|key| case.key == Some(key))
            && self.contains.as_deref().is_none_or(|text| (case.contains)(text))
    }
}

/// Returns the fault that befalls this request, by one draw between 0 and 1 over all faults that concern it.
pub(super) fn pick<'a>(faults: &'a [Fault], case: &Case<'_>, draw: f64) -> Option<&'a Fault> {
    let mut below = 0.0;
    faults.iter().filter(|fault| fault.concerns(case)).find(|fault| {
        below += fault.share;
        draw < below
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(elapsed: u64) -> Case<'static> {
        Case {
            elapsed: Duration::from_secs(elapsed),
            vendor: Vendor::OpenAi,
            model: "any",
            key: None,
            stream: true,
            structured: false,
            occurrence: 0,
            in_flight: 3,
            contains: &|text| "please translate".contains(text),
        }
    }

    #[test]
    fn shares_add_up_as_they_are_written() {
        let faults =
            [Fault::new(FaultKind::ServerError).share(0.05), Fault::new(FaultKind::Silent).share(0.02)];
        let hit = |draw| pick(&faults, &case(0), draw).map(|fault| fault.kind);
        assert_eq!(hit(0.0), Some(FaultKind::ServerError));
        assert_eq!(hit(0.049), Some(FaultKind::ServerError));
        assert_eq!(hit(0.051), Some(FaultKind::Silent));
        assert_eq!(hit(0.071), None);
    }

    #[test]
    fn an_outage_lasts_from_its_beginning_to_its_end() {
        let outage = Fault {
            from: Some(Duration::from_secs(10)),
            until: Some(Duration::from_secs(30)),
            ..Fault::new(FaultKind::Reset)
        };
        let dark = |elapsed| pick(std::slice::from_ref(&outage), &case(elapsed), 0.5).is_some();
        assert_eq!([9, 10, 29, 30].map(dark), [false, true, true, false]);
    }

    #[test]
    fn a_fault_befalls_only_what_its_conditions_name() {
        let hit = |fault: &Fault| pick(std::slice::from_ref(fault), &case(0), 0.5).is_some();
        let plain = Fault::new(FaultKind::Empty);
        assert!(hit(&plain));
        assert!(hit(&Fault { contains: Some("translate".to_owned()), ..plain.clone() }));
        assert!(!hit(&Fault { contains: Some("summary".to_owned()), ..plain.clone() }));
        assert!(!hit(&Fault { vendor: Some(Vendor::Gemini), ..plain.clone() }));
        assert!(!hit(&Fault { model: Some("other".to_owned()), ..plain.clone() }));
        assert!(!hit(&Fault { key: Some("k".to_owned()), ..plain.clone() }));
        assert!(hit(&Fault { above: Some(3), ..plain.clone() }));
        assert!(!hit(&Fault { above: Some(4), ..plain.clone() }));
        assert!(!hit(&Fault { times: Some(0), ..plain }));
        assert!(!hit(&Fault::new(FaultKind::WrongContent)));
    }

    #[test]
    fn a_fault_that_could_not_do_what_it_says_is_refused() {
        for (written, reason) in [
            (r#"{"kind":"cut","share":1.5}"#, "is no share of the requests; write"),
            (r#"{"kind":"cut","status":500}"#, "has no `status`; take it out"),
            (
                r#"{"kind":"server_error","status":200}"#,
                "is no status of this fault; write one from 400 to 599",
            ),
            (r#"{"kind":"cut","delay":"3s"}"#, "has no `delay`; take it out"),
            (r#"{"kind":"cut","retry_after":true}"#, "has no `retry_after`; take it out"),
            (r#"{"kind":"cut","from":"3s","until":"2s"}"#, "not later than `from`; make it later"),
            (r#"{"kind":"explode"}"#, "unknown variant"),
            (r#"{"kind":"cut","chance":0.5}"#, "unknown field"),
            (r#"{"kind":"rate_limited","retry_after":"later"}"#, "write true, false,"),
        ] {
            let error = serde_json::from_str::<Fault>(written).unwrap_err().to_string();
            assert!(error.contains(reason), "{written}: {error}");
        }
    }

    #[test]
    fn a_fault_survives_writing() {
        let fault: Fault = serde_json::from_str(
            r#"{"kind":"rate_limited","share":0.5,"retry_after":"absurd","until":"90s"}"#,
        )
        .unwrap();
        assert_eq!(fault.retry_after, Some(RetryAfter::Absurd));
        let again: Fault = serde_json::from_str(&serde_json::to_string(&fault).unwrap()).unwrap();
        assert_eq!(again, fault);
    }
}
