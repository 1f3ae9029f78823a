//! Turns a provider's refusal into a failure: what a bare status means, and a message fit for people.
//!
//! The formats know their own error words and ask here only for what they have in common.

use std::time::SystemTime;

use crate::types::{Cause, Class, Failure, Scope};

use super::excerpt::{self, MAX_WORD_BYTES};
use super::limited::limited;
use super::{Hints, instants, phrases, scope};

/// Characters of a provider's message that are kept.
const LONGEST_MESSAGE: usize = 500;

/// Returns what a status means when the body says nothing better.
pub(super) fn class_of_status(status: u16) -> Class {
    match status {
        // Not followed: a moved address is one that the configuration has wrong.
        300..=399 | 404 | 405 | 410 => Class::NotFound,
        401 | 403 => Class::Auth,
        402 => Class::Quota,
        // A proxy before the provider.
        407 => Class::NetworkError,
        408 => Class::Timeout,
        // The providers' own clients ask again after both.
        409 | 425 => Class::ServerError,
        // A server behind this one failed.
        424 => Class::ServerError,
        // Groq: no capacity in this tier.
        498 => Class::Overloaded,
        // Another provider may take more.
        413 | 414 => Class::TooLong,
        429 => Class::RateLimit,
        503 | 529 => Class::Overloaded,
        400..=499 => Class::ApiError,
        500..=599 => Class::ServerError,
        _ => Class::Unreadable,
    }
}

/// Makes the failure of a refused call. It may have cost money where work may have begun.
pub(super) fn failure(class: Class, status: Option<u16>, message: &str) -> Failure {
    let message = match (short(message), status) {
        (message, _) if !message.is_empty() => message,
        (_, Some(status)) => format!("status {status} without a message"),
        (_, None) => "an error without a message".to_owned(),
    };
    let failure = Failure { status, ..Failure::new(class, message) };
    match class {
        Class::NetworkError if status == Some(407) => failure.because(Cause::ProxyLogin),
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

/// Adds to a refusal what the headers say: whether waiting helps at all, and for how long where the
/// body was silent.
pub(super) fn complete(mut failure: Failure, hints: &Hints, now: SystemTime) -> Failure {
    // A rate limit opens by itself. One that names no wait, and is not to be asked again, does not.
    if failure.class == Class::RateLimit && failure.retry_after.is_none() && hints.should_retry == Some(false)
    {
        failure.class = Class::Quota;
    }
    if failure.class == Class::RateLimit {
        failure.limited = limited(&failure);
    }
    if matches!(failure.class, Class::RateLimit | Class::Quota) && failure.retry_after.is_none() {
        let named = instants::until_in_words(&failure.message, now);
        failure.retry_after = named.or_else(|| hints.until_open());
    }
    if failure.class == Class::NotFound && phrases::is_no_endpoint(&failure.message.to_ascii_lowercase()) {
        failure.cause = Some(Cause::NoEndpoint);
    }
    failure = scope::refine(failure);
    failure.code =
        failure.code.map(|code| if code.len() > MAX_WORD_BYTES { excerpt::word(&code).into() } else { code });
    failure
}

/// Returns the failure of a request that a web page was sent for instead of an error of the API: a firewall, a
/// login or a proxy stands before it. It says nothing of the key. Where the status says more, that counts.
pub(super) fn page(status: u16, body: &[u8]) -> Option<Failure> {
    let start = String::from_utf8_lossy(&body[..body.len().min(64)]);
    let is_page = looks_like_html(&start) || is_firewalls(&start);
    (matches!(status, 400 | 403 | 406 | 451) && is_page).then(|| {
        let message = format!("a web page came instead of an answer: {}", plain_text(body));
        failure(Class::ApiError, Some(status), &message).reaching(Scope::Target)
    })
}

/// Tells the one line that Cloudflare's firewall sends to clients that are no browser.
fn is_firewalls(start: &str) -> bool {
    start.starts_with("error code: 10")
}

/// Returns the text of a body that is not JSON: an HTML page is reduced to its title.
pub(super) fn plain_text(body: &[u8]) -> String {
    // Far more than a message needs; keeps a huge page from being copied.
    let text = String::from_utf8_lossy(&body[..body.len().min(64 << 10)]);
    if !looks_like_html(&text) {
        return short(&text);
    }
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|tag| {
        let start = tag + lower[tag..].find('>')? + 1;
        let end = start + lower[start..].find("</title")?;
        Some(short(&text[start..end]))
    });
    title.filter(|title| !title.is_empty()).unwrap_or_else(|| "an HTML page".to_owned())
}

/// Tells whether a body is a web page, such as a content network or a login wall sends.
pub(super) fn looks_like_html(text: &str) -> bool {
    let start = text.trim_start_matches('\u{feff}').trim_start();
    ["<!doctype", "<html", "<head", "<body"]
        .iter()
        .any(|tag| start.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag)))
}

/// Returns the message on one line, cut at [`LONGEST_MESSAGE`] characters.
pub(super) fn short(message: &str) -> String {
    let mut line = String::with_capacity(message.len().min(LONGEST_MESSAGE));
    let mut left = LONGEST_MESSAGE;
    for word in message
        .split(|letter: char| letter.is_whitespace() || letter.is_control())
        .filter(|word| !word.is_empty())
    {
        let gap = usize::from(!line.is_empty());
        if left <= gap {
            return line + "…";
        }
        line.extend((gap == 1).then_some(' '));
        left -= gap;
        let mut letters = word.chars();
        line.extend(letters.by_ref().take(left).inspect(|_| left -= 1));
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
    use crate::types::{Charged, Prompt};
    use crate::wire::{Dialect, Format};

    #[test]
    fn a_page_is_reduced_to_its_title() {
        let page = include_bytes!("../../tests/data/wire/openai_error_502_html.html");
        assert_eq!(plain_text(page), "502 Bad Gateway");
        assert_eq!(plain_text(b"<!DOCTYPE html><p>x"), "an HTML page");
        assert_eq!(plain_text(b"<html><title>"), "an HTML page");
        assert_eq!(plain_text(b" upstream\r\n\tdied \xff"), "upstream died \u{fffd}");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(short(&"é".repeat(501)), "é".repeat(500) + "…");
        assert_eq!(short(&"é".repeat(500)), "é".repeat(500));
        assert_eq!(short(&format!("{} b", "a".repeat(499))), format!("{}…", "a".repeat(499)));
        assert_eq!(short("a\n\n  b\u{1b}[31m"), "a b [31m");
    }

    #[test]
    fn a_long_code_is_cut_in_every_format() {
        use serde_json::json;

        let long = "é".repeat(30_000);
        let of_google = json!({ "error": { "status": "INVALID_ARGUMENT", "details": [{ "reason": long }] } });
        for format in [Format::Openai, Format::Anthropic, Format::Gemini] {
            for body in [
                json!({ "error": { "message": "no", "code": long, "type": long } }),
                json!({ "error": { "message": "no", "type": long, "details": { "error_code": long } } }),
                of_google.clone(),
            ] {
                let body = body.to_string();
                let failure = format.read_error(400, &HeaderMap::new(), body.as_bytes(), SystemTime::now());
                let code = failure.code.as_deref().map_or(0, str::len);
                assert!(code <= MAX_WORD_BYTES, "{format:?}: {code}");
                let mut decoder = format.decoder(&Prompt::text("x"), &Dialect::default());
                let failure = decoder.event(None, &body).unwrap_err();
                let failure = format.complete(failure, &HeaderMap::new(), SystemTime::now());
                let code = failure.code.as_deref().map_or(0, str::len);
                assert!(code <= MAX_WORD_BYTES, "{format:?}: {code}");
            }
        }
    }

    #[test]
    fn a_failure_without_words_still_says_something() {
        assert_eq!(&*failure(Class::ServerError, Some(500), " ").message, "status 500 without a message");
        assert_eq!(&*failure(Class::ServerError, None, "").message, "an error without a message");
    }

    #[test]
    fn only_a_call_that_may_have_been_worked_on_may_have_cost() {
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
        fn no_body_is_too_odd_for_a_message(body: Vec<u8>, page in "<html>\\PC*(<title>\\PC*</title>)?") {
            prop_assert!(plain_text(&body).chars().count() <= LONGEST_MESSAGE + 1);
            prop_assert!(!plain_text(page.as_bytes()).is_empty());
        }
    }
}
