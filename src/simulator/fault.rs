//! Fault injection: which requests fail, how, and when.
//!
//! Shares add up: with `share = 0.05` and `share = 0.02` the first fault applies to 5% of the requests and the
//! second to another 2%. Pure: the caller passes how long the simulator has run.

mod kind;
mod retry_after;

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use kind::FaultKind;
pub use retry_after::RetryAfter;

use crate::types::duration;

use super::Vendor;

/// A fault and its conditions. It applies to a `share` of the requests for which all conditions hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Fault {
    /// Kind of the fault.
    pub kind: FaultKind,
    /// Fraction of the requests to which the fault applies, 0 to 1. The default is 1.
    pub share: f64,
    /// The HTTP status, for `server_error`, `unavailable`, `overloaded` and `html`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Delay of the first chunk, for `slow_first_token`. The default is 30 s.
    #[serde(serialize_with = "write_time", skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// Retry delay in the response, for `rate_limited` and `quota`. The default for `rate_limited` is the setting
    /// of the same name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<RetryAfter>,
    /// Whether the answer also has text, for `unoffered_tool_call`. By default it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_text: Option<bool>,
    /// Applies only after the simulator has run this long.
    #[serde(serialize_with = "write_time", skip_serializing_if = "Option::is_none")]
    pub from: Option<Duration>,
    /// Applies only until the simulator has run this long.
    #[serde(serialize_with = "write_time", skip_serializing_if = "Option::is_none")]
    pub until: Option<Duration>,
    /// Applies only to calls to this vendor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Vendor>,
    /// Applies only to calls for this model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Applies only to calls with this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Applies only to calls whose prompt contains this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// Applies only to the first `times` occurrences of the same request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Applies only to calls that arrive with at least this many other calls in flight. Simulates a limited
    /// capacity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above: Option<u64>,
}

/// A [`Fault`] before its validation.
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
    with_text: Option<bool>,
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
    let message = format!("{share} is not a share of the requests; write a number from 0 to 1, such as 0.05");
    Err(serde::de::Error::custom(message))
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
            with_text,
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
                return Err("this kind of fault has no `status`; remove it: only server_error, unavailable, overloaded and html have one".to_owned());
            }
            let lowest = if kind == FaultKind::Html { 200 } else { 400 };
            if !(lowest..600).contains(&status) {
                return Err(format!(
                    "{status} is not a status of this fault; write one from {lowest} to 599"
                ));
            }
        }
        if delay.is_some() && kind != FaultKind::SlowFirstToken {
            return Err(
                "this kind of fault has no `delay`; remove it: only slow_first_token has one".to_owned()
            );
        }
        if retry_after.is_some() && !matches!(kind, FaultKind::RateLimited | FaultKind::Quota) {
            return Err(
                "this kind of fault has no `retry_after`; remove it: only rate_limited and quota have one"
                    .to_owned(),
            );
        }
        if with_text.is_some() && kind != FaultKind::UnofferedToolCall {
            return Err("this kind of fault has no `with_text`; remove it: only unoffered_tool_call has one"
                .to_owned());
        }
        if let (Some(from), Some(until)) = (from, until)
            && until <= from
        {
            return Err(
                "`until` is not later than `from`; write a later time, or remove it for no end".to_owned()
            );
        }
        Ok(Self {
            kind,
            share,
            status,
            delay,
            retry_after,
            with_text,
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

/// Properties of a request that the conditions of a fault use.
pub(super) struct FaultContext<'a> {
    pub(super) elapsed: Duration,
    pub(super) vendor: Vendor,
    pub(super) model: &'a str,
    pub(super) key: Option<&'a str>,
    pub(super) stream: bool,
    /// Whether a schema or a choice was requested.
    pub(super) structured: bool,
    /// Number of earlier occurrences of this request.
    pub(super) occurrence: u32,
    /// Number of other calls in flight.
    pub(super) in_flight: u64,
    /// Returns whether the prompt contains a text.
    pub(super) contains: &'a dyn Fn(&str) -> bool,
}

impl Fault {
    /// Creates a fault that applies to all requests.
    pub fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            share: 1.0,
            status: None,
            delay: None,
            retry_after: None,
            with_text: None,
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

    /// Limits the fault to this fraction of the requests, 0 to 1.
    #[must_use]
    pub fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    fn applies_to(&self, context: &FaultContext<'_>) -> bool {
        let is_possible = match self.kind {
            FaultKind::NoEnd => context.stream,
            FaultKind::TruncatedJson => context.structured || !context.stream,
            FaultKind::WrongContent => context.structured,
            _ => true,
        };
        is_possible
            && self.from.is_none_or(|from| context.elapsed >= from)
            && self.until.is_none_or(|until| context.elapsed < until)
            && self.vendor.is_none_or(|vendor| context.vendor == vendor)
            && self.times.is_none_or(|times| context.occurrence < times)
            && self.above.is_none_or(|above| context.in_flight >= above)
            && self.model.as_deref().is_none_or(|model| context.model == model)
            && self.key.as_deref().is_none_or(|key| context.key == Some(key))
            && self.contains.as_deref().is_none_or(|text| (context.contains)(text))
    }
}

/// Returns the fault of this request, if any. `draw` is a random number from 0 to 1, used for all faults whose
/// conditions hold.
pub(super) fn select_fault<'a>(
    faults: &'a [Fault],
    context: &FaultContext<'_>,
    draw: f64,
) -> Option<&'a Fault> {
    let mut threshold = 0.0;
    faults.iter().filter(|fault| fault.applies_to(context)).find(|fault| {
        threshold += fault.share;
        draw < threshold
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(elapsed: u64) -> FaultContext<'static> {
        FaultContext {
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
    fn the_shares_of_several_faults_add_up() {
        let faults =
            [Fault::new(FaultKind::ServerError).share(0.05), Fault::new(FaultKind::Silent).share(0.02)];
        let selects = |draw| select_fault(&faults, &context(0), draw).map(|fault| fault.kind);
        assert_eq!(selects(0.0), Some(FaultKind::ServerError));
        assert_eq!(selects(0.049), Some(FaultKind::ServerError));
        assert_eq!(selects(0.051), Some(FaultKind::Silent));
        assert_eq!(selects(0.071), None);
    }

    #[test]
    fn a_fault_applies_from_its_start_to_its_end() {
        let outage = Fault {
            from: Some(Duration::from_secs(10)),
            until: Some(Duration::from_secs(30)),
            ..Fault::new(FaultKind::Reset)
        };
        let is_active =
            |elapsed| select_fault(std::slice::from_ref(&outage), &context(elapsed), 0.5).is_some();
        assert_eq!([9, 10, 29, 30].map(is_active), [false, true, true, false]);
    }

    #[test]
    fn a_fault_applies_only_if_all_conditions_hold() {
        let selects = |fault: &Fault| select_fault(std::slice::from_ref(fault), &context(0), 0.5).is_some();
        let plain = Fault::new(FaultKind::Empty);
        assert!(selects(&plain));
        assert!(selects(&Fault { contains: Some("translate".to_owned()), ..plain.clone() }));
        assert!(!selects(&Fault { contains: Some("summary".to_owned()), ..plain.clone() }));
        assert!(!selects(&Fault { vendor: Some(Vendor::Gemini), ..plain.clone() }));
        assert!(!selects(&Fault { model: Some("other".to_owned()), ..plain.clone() }));
        assert!(!selects(&Fault { key: Some("k".to_owned()), ..plain.clone() }));
        assert!(selects(&Fault { above: Some(3), ..plain.clone() }));
        assert!(!selects(&Fault { above: Some(4), ..plain.clone() }));
        assert!(!selects(&Fault { times: Some(0), ..plain }));
        assert!(!selects(&Fault::new(FaultKind::WrongContent)));
    }

    #[test]
    fn an_invalid_fault_is_rejected() {
        for (written, reason) in [
            (r#"{"kind":"cut","share":1.5}"#, "is not a share of the requests; write"),
            (r#"{"kind":"cut","status":500}"#, "has no `status`; remove it"),
            (
                r#"{"kind":"server_error","status":200}"#,
                "is not a status of this fault; write one from 400 to 599",
            ),
            (r#"{"kind":"cut","delay":"3s"}"#, "has no `delay`; remove it"),
            (r#"{"kind":"cut","retry_after":true}"#, "has no `retry_after`; remove it"),
            (r#"{"kind":"cut","with_text":true}"#, "has no `with_text`; remove it"),
            (r#"{"kind":"cut","from":"3s","until":"2s"}"#, "not later than `from`; write a later time"),
            (r#"{"kind":"explode"}"#, "unknown variant"),
            (r#"{"kind":"cut","chance":0.5}"#, "unknown field"),
            (r#"{"kind":"rate_limited","retry_after":"later"}"#, "write true, false,"),
        ] {
            let error = serde_json::from_str::<Fault>(written).unwrap_err().to_string();
            assert!(error.contains(reason), "{written}: {error}");
        }
    }

    #[test]
    fn a_fault_can_be_serialized_and_parsed() {
        let fault: Fault = serde_json::from_str(
            r#"{"kind":"rate_limited","share":0.5,"retry_after":"absurd","until":"90s"}"#,
        )
        .unwrap();
        assert_eq!(fault.retry_after, Some(RetryAfter::Absurd));
        let again: Fault = serde_json::from_str(&serde_json::to_string(&fault).unwrap()).unwrap();
        assert_eq!(again, fault);
    }
}
