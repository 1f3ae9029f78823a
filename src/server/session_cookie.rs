//! The cookie with the session of a browser.

use actix_web::HttpRequest;
use actix_web::http::header::COOKIE;

use crate::daemon::BrowserLogin;

/// The name of the cookie.
const NAME: &str = "pointsman_session";

/// Returns the text of the session that a request names.
pub(super) fn session(request: &HttpRequest) -> Option<&str> {
    let headers = request.headers().get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let mut pairs =
        headers.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == NAME).map(|(_, text)| text).filter(|text| !text.is_empty())
}

/// Returns the header that begins a session. Pages of other sites cannot make a browser send the cookie, and no script can
/// read it.
pub(super) fn begin(request: &HttpRequest, prefix: &str, login: &BrowserLogin) -> String {
    cookie(request.app_config().secure(), prefix, login.session.expose(), login.lifetime_seconds)
}

/// Returns the header that ends a session.
pub(super) fn end(request: &HttpRequest, prefix: &str) -> String {
    cookie(request.app_config().secure(), prefix, "", 0)
}

/// `is_tls` is whether this server itself speaks TLS. Any caller can write the headers by which a proxy says that it does.
fn cookie(is_tls: bool, prefix: &str, text: &str, seconds: u64) -> String {
    // The browser would not send a secure cookie over a connection without TLS.
    let secure = if is_tls { "; Secure" } else { "" };
    let path = if prefix.is_empty() { "/" } else { prefix };
    format!("{NAME}={text}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_session_is_found_among_other_cookies() {
        let of = |cookies: &str| {
            let request = TestRequest::default().insert_header((COOKIE, cookies)).to_http_request();
            session(&request).map(str::to_owned)
        };
        assert_eq!(of("a=b; pointsman_session=x-1_y; c=d").as_deref(), Some("x-1_y"));
        assert_eq!(of("pointsman_session="), None);
        assert_eq!(of("other_pointsman_session=x"), None);
        assert_eq!(of("pointsman_session"), None);
    }

    #[test]
    fn the_cookie_is_for_this_site_only_and_not_for_scripts() {
        let plain = TestRequest::default().to_http_request();
        assert_eq!(
            end(&plain, "/llm"),
            "pointsman_session=; Path=/llm; Max-Age=0; HttpOnly; SameSite=Strict"
        );
        assert!(cookie(true, "", "", 0).ends_with("; Path=/; Max-Age=0; HttpOnly; SameSite=Strict; Secure"));
        for header in [("x-forwarded-proto", "https"), ("forwarded", "proto=https")] {
            let claimed = TestRequest::default().insert_header(header).to_http_request();
            assert!(!end(&claimed, "").contains("Secure"), "{header:?}");
        }
    }
}
