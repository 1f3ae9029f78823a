//! Conditional requests: `ETag`, `If-Match` and `If-None-Match` (RFC 9110).

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};

use crate::daemon::Expected;

use super::problem::Problem;

/// Returns the value of `ETag`.
pub(super) fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// Returns whether the caller has this version already, so that the answer is 304.
pub(super) fn is_known(request: &HttpRequest, etag: &str) -> bool {
    let Some(given) = value(request, &IF_NONE_MATCH) else { return false };
    let is_same = |one: &str| one.strip_prefix("W/").unwrap_or(one) == quoted(etag);
    given == "*" || given.split(',').map(str::trim).any(is_same)
}

/// Returns what a change expects to find.
///
/// # Errors
/// 400 if the headers contradict each other, or name several versions.
pub(super) fn expected(request: &HttpRequest) -> Result<Expected, Problem> {
    match (value(request, &IF_MATCH), value(request, &IF_NONE_MATCH)) {
        (None, None) => Ok(Expected::Any),
        (Some("*"), None) => Ok(Expected::Existing),
        (Some(etag), None) => one(etag).map(Expected::Etag),
        (None, Some("*")) => Ok(Expected::New),
        (None, Some(_)) => {
            Err(Problem::bad_request("If-None-Match of a change is `*`: only if there is none"))
        }
        (Some(_), Some(_)) => {
            Err(Problem::bad_request("the request has If-Match and If-None-Match; send one"))
        }
    }
}

/// Returns the etag in quotes. A weak one is equal to none, so no change follows it.
fn one(text: &str) -> Result<String, Problem> {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner.filter(|etag| !etag.contains('"')) {
        Some(etag) => Ok(etag.to_owned()),
        None => {
            Err(Problem::bad_request("If-Match is one etag in quotes, as in the ETag of the answer, or `*`"))
        }
    }
}

fn value<'r>(request: &'r HttpRequest, name: &HeaderName) -> Option<&'r str> {
    Some(request.headers().get(name)?.to_str().ok()?.trim())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn request(header: HeaderName, value: &str) -> HttpRequest {
        TestRequest::default().insert_header((header, value)).to_http_request()
    }

    #[test]
    fn a_reader_knows_a_version_that_it_names() {
        for (given, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ] {
            assert_eq!(is_known(&request(IF_NONE_MATCH, given), "a"), expected, "{given}");
        }
        assert!(!is_known(&TestRequest::default().to_http_request(), "a"));
    }

    #[test]
    fn a_change_expects_what_its_headers_say() {
        let none = TestRequest::default().to_http_request();
        assert_eq!(expected(&none).unwrap(), Expected::Any);
        assert_eq!(expected(&request(IF_MATCH, "\"a\"")).unwrap(), Expected::Etag("a".to_owned()));
        assert_eq!(expected(&request(IF_MATCH, "*")).unwrap(), Expected::Existing);
        assert_eq!(expected(&request(IF_NONE_MATCH, "*")).unwrap(), Expected::New);
        for (header, wrong) in
            [(IF_MATCH, "a"), (IF_MATCH, "\"a\", \"b\""), (IF_MATCH, "W/\"a\""), (IF_NONE_MATCH, "\"a\"")]
        {
            let problem = expected(&request(header, wrong)).unwrap_err();
            assert_eq!(problem.status, 400, "{wrong}");
        }
    }
}
