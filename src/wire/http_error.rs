//! Converts an HTTP error response to a failure: the class of a status, and a short message.
//!
//! Shared by the formats, which classify their own error codes.

use std::time::SystemTime;

use crate::types::{Cause, Class, Failure, FailureScope};

use super::bounded_json::{self, MAX_LABEL_BYTES};
use super::limited_resource::limited_resource;
use super::{RateLimitHeaders, failure_scope, phrases, reset_time};

/// The maximum length of a message.
const MAX_MESSAGE_CHARS: usize = 500;

/// Returns the class of a status, used if the body is not more specific.
pub(super) fn class_of_status(status: u16) -> Class {
    match status {
        // Redirects are not followed: the base URL in the configuration is wrong.
        300..=399 | 404 | 405 | 410 => Class::NotFound,
        401 | 403 => Class::Auth,
        402 => Class::Quota,
        // From a proxy in front of the provider.
        407 => Class::NetworkError,
        408 => Class::Timeout,
        // The clients of the providers retry both.
        409 | 425 => Class::ServerError,
        // An upstream server failed.
        424 => Class::ServerError,
        // Groq: no capacity in this tier.
        498 => Class::Overloaded,
        // Another provider may accept more.
        413 | 414 => Class::TooLong,
        429 => Class::RateLimit,
        503 | 529 => Class::Overloaded,
        400..=499 => Class::ApiError,
        500..=599 => Class::ServerError,
        _ => Class::Unreadable,
    }
}

/// Creates the failure of a rejected call. It is possibly charged if work may have begun.
pub(super) fn failure(class: Class, status: Option<u16>, message: &str) -> Failure {
    let message = match (single_line(message), status) {
        (message, _) if !message.is_empty() => message,
        (_, Some(status)) => format!("status {status} without a message"),
        (_, None) => "an error without a message".to_owned(),
    };
    let failure = Failure { status, ..Failure::new(class, message) };
    match class {
        Class::NetworkError if status == Some(407) => failure.with_cause(Cause::ProxyAuthRequired),
        Class::ServerError | Class::NetworkError | Class::Timeout | Class::Unreadable | Class::Truncated => {
            failure.maybe_charged()
        }
        Class::RateLimit
        | Class::Quota
        | Class::Overloaded
        | Class::Auth
        | Class::NotFound
        | Class::TooLong
        | Class::ContentFilter
        | Class::ApiError
        | Class::ValidationError
        | Class::TemplateError
        | Class::Budget
        | Class::Deadline
        | Class::Cancelled
        | Class::Internal => failure,
    }
}

/// Adds the information of the headers: whether waiting helps at all, and for how long if the body does not state
/// it.
pub(super) fn apply_headers(mut failure: Failure, limits: &RateLimitHeaders, now: SystemTime) -> Failure {
    // A rate limit resets by itself, except one without a wait for which the provider advises against a retry.
    if failure.class == Class::RateLimit
        && failure.retry_after.is_none()
        && limits.should_retry == Some(false)
    {
        failure.class = Class::Quota;
    }
    if failure.class == Class::RateLimit {
        failure.limited_resource = limited_resource(&failure);
    }
    if matches!(failure.class, Class::RateLimit | Class::Quota) && failure.retry_after.is_none() {
        let named = reset_time::until_time_in_message(&failure.message, now);
        failure.retry_after = named.or_else(|| limits.wait_until_reset());
    }
    if failure.class == Class::NotFound && phrases::is_no_endpoint(&failure.message.to_ascii_lowercase()) {
        failure.cause = Some(Cause::EndpointNotFound);
    }
    failure = failure_scope::refine(failure);
    failure.code = failure.code.map(|code| {
        if code.len() > MAX_LABEL_BYTES { bounded_json::truncate_label(&code).into() } else { code }
    });
    failure
}

/// Returns the failure if the response is a web page instead of an API error: it comes from a firewall, a login
/// page or a proxy and is no evidence about the key. `None` for a status that is more specific.
pub(super) fn web_page_failure(status: u16, body: &[u8]) -> Option<Failure> {
    let is_page = is_web_page(body) || is_firewall_block(body);
    (matches!(status, 400 | 403 | 406 | 451) && is_page).then(|| {
        failure(Class::ApiError, Some(status), &web_page_message(body)).with_scope(FailureScope::Target)
    })
}

/// Detects the one-line response of Cloudflare's firewall to clients that are not browsers.
fn is_firewall_block(body: &[u8]) -> bool {
    body.starts_with(b"error code: 10")
}

/// Returns whether a body is a web page, as sent by a CDN or a login page.
pub(super) fn is_web_page(body: &[u8]) -> bool {
    looks_like_html(&String::from_utf8_lossy(&body[..body.len().min(64)]))
}

/// Returns the message about a body that is a web page.
pub(super) fn web_page_message(body: &[u8]) -> String {
    format!("received a web page instead of an answer: {}", plain_text(body))
}

/// Returns the text of a body that is not JSON; of an HTML page, its title.
pub(super) fn plain_text(body: &[u8]) -> String {
    // More than a message needs; a huge page is not copied.
    let text = String::from_utf8_lossy(&body[..body.len().min(64 << 10)]);
    if !looks_like_html(&text) {
        return single_line(&text);
    }
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|tag| {
        let start = tag + lower[tag..].find('>')? + 1;
        let end = start + lower[start..].find("</title")?;
        Some(single_line(&text[start..end]))
    });
    title.filter(|title| !title.is_empty()).unwrap_or_else(|| "an HTML page".to_owned())
}

/// Returns whether a text begins as HTML does.
fn looks_like_html(text: &str) -> bool {
    let start = text.trim_start_matches('\u{feff}').trim_start();
    ["<!doctype", "<html", "<head", "<body"]
        .iter()
        .any(|tag| start.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag)))
}

/// Returns the message on one line, truncated to [`MAX_MESSAGE_CHARS`] characters.
pub(super) fn single_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len().min(MAX_MESSAGE_CHARS));
    let mut remaining = MAX_MESSAGE_CHARS;
    for word in message
        .split(|letter: char| letter.is_whitespace() || letter.is_control())
        .filter(|word| !word.is_empty())
    {
        let gap = usize::from(!line.is_empty());
        if remaining <= gap {
            return line + "…";
        }
        line.extend((gap == 1).then_some(' '));
        remaining -= gap;
        let mut letters = word.chars();
        line.extend(letters.by_ref().take(remaining).inspect(|_| remaining -= 1));
        if letters.next().is_some() {
            return line + "…";
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use http::HeaderMap;

    use super::*;
    use crate::types::{Charged, Format, Prompt};
    use crate::wire::Dialect;

    #[test]
    fn a_web_page_is_reduced_to_its_title() {
        let page = include_bytes!("../../tests/data/wire/openai_error_502_html.html");
        assert_eq!(plain_text(page), "502 Bad Gateway");
        assert_eq!(plain_text(b"<!DOCTYPE html><p>x"), "an HTML page");
        assert_eq!(plain_text(b"<html><title>"), "an HTML page");
        assert_eq!(plain_text(b" upstream\r\n\tdied \xff"), "upstream died \u{fffd}");
    }

    #[test]
    fn a_long_message_is_truncated_between_characters() {
        assert_eq!(single_line(&"é".repeat(501)), "é".repeat(500) + "…");
        assert_eq!(single_line(&"é".repeat(500)), "é".repeat(500));
        assert_eq!(single_line(&format!("{} b", "a".repeat(499))), format!("{}…", "a".repeat(499)));
        assert_eq!(single_line("a\n\n  b\u{1b}[31m"), "a b [31m");
    }

    #[test]
    fn a_long_code_is_truncated_in_every_format() {
        use serde_json::json;

        let long = "é".repeat(30_000);
        let of_google = json!({ "error": { "status": "INVALID_ARGUMENT", "details": [{ "reason": long }] } });
        for format in Format::ALL {
            for body in [
                json!({ "error": { "message": "no", "code": long, "type": long } }),
                json!({ "error": { "message": "no", "type": long, "details": { "error_code": long } } }),
                of_google.clone(),
            ] {
                let body = body.to_string();
                let failure = format.read_error(400, &HeaderMap::new(), body.as_bytes(), SystemTime::now());
                let code = failure.code.as_deref().map_or(0, str::len);
                assert!(code <= MAX_LABEL_BYTES, "{format:?}: {code}");
                let mut decoder = format.decoder(&Prompt::text("x"), &Dialect::default());
                let failure = decoder.push_event(None, &body).unwrap_err();
                let failure = format.apply_headers(failure, &HeaderMap::new(), SystemTime::now());
                let code = failure.code.as_deref().map_or(0, str::len);
                assert!(code <= MAX_LABEL_BYTES, "{format:?}: {code}");
            }
        }
    }

    #[test]
    fn a_failure_without_a_message_has_a_default_message() {
        assert_eq!(&*failure(Class::ServerError, Some(500), " ").message, "status 500 without a message");
        assert_eq!(&*failure(Class::ServerError, None, "").message, "an error without a message");
    }

    #[test]
    fn only_calls_that_may_have_been_processed_are_possibly_charged() {
        for (status, charged) in [
            (400, Charged::No),
            (401, Charged::No),
            (408, Charged::Maybe),
            (429, Charged::No),
            (500, Charged::Maybe),
            (502, Charged::Maybe),
            (503, Charged::No),
            (504, Charged::Maybe),
            (529, Charged::No),
        ] {
            assert_eq!(failure(class_of_status(status), Some(status), "").charged, charged, "{status}");
        }
    }

    proptest! {
        #[test]
        fn every_body_yields_a_message(body: Vec<u8>, page in "<html>\\PC*(<title>\\PC*</title>)?") {
            prop_assert!(plain_text(&body).chars().count() <= MAX_MESSAGE_CHARS + 1);
            prop_assert!(!plain_text(page.as_bytes()).is_empty());
        }
    }
}
