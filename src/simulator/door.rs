//! Finds out who is asked: a vendor, or the simulator itself.
//!
//! Routes and reads bodies; decides nothing about an answer.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::body::{Body, Broken};
use super::line::ResetSwitch;
use super::play::{Call, play, response};
use super::reply::{self, Head};
use super::trouble::Trouble;
use super::visit::Shared;
use super::{Settings, Vendor, gemini};

/// The largest body that is read.
const LARGEST: usize = 256 << 20;
const JSON: &str = "application/json";

/// What a path asks for.
#[derive(Debug, PartialEq)]
enum Route<'a> {
    /// An answer of a model. Gemini names the model, and the wish for a stream, in the path.
    Answer {
        vendor: Vendor,
        model: Option<&'a str>,
        stream: bool,
    },
    Models {
        gemini: bool,
    },
    Counts,
    Reset,
    Settings,
    Unknown,
}

fn route(path: &str) -> Route<'_> {
    let answer = |vendor| Route::Answer { vendor, model: None, stream: false };
    match path {
        "/v1/chat/completions" | "/chat/completions" => return answer(Vendor::OpenAi),
        "/v1/messages" => return answer(Vendor::Anthropic),
        "/v1/models" | "/models" => return Route::Models { gemini: false },
        "/v1beta/models" => return Route::Models { gemini: true },
        "/simulator/counts" => return Route::Counts,
        "/simulator/reset" => return Route::Reset,
        "/simulator/settings" => return Route::Settings,
        _ => {}
    }
    let action = path.strip_prefix("/v1beta/models/").or_else(|| path.strip_prefix("/v1/models/"));
    match action.and_then(|action| action.rsplit_once(':')) {
        Some((model, "generateContent")) => {
            Route::Answer { vendor: Vendor::Gemini, model: Some(model), stream: false }
        }
        Some((model, "streamGenerateContent")) => {
            Route::Answer { vendor: Vendor::Gemini, model: Some(model), stream: true }
        }
        _ => Route::Unknown,
    }
}

/// Returns the key that a request carries, by whichever of the four ways.
fn key<'a>(headers: &'a HeaderMap, query: &'a str) -> Option<&'a str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION.as_str())
        .and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")));
    text("x-api-key").or(bearer).or_else(|| text("x-goog-api-key")).or_else(|| gemini::query(query, "key"))
}

/// Answers one request.
pub(super) async fn serve(
    shared: Arc<Shared>,
    switch: ResetSwitch,
    request: Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    let (head, body) = request.into_parts();
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let limited = Limited::new(body, LARGEST).collect().await;
    let body = match limited {
        Ok(body) => Some(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => None,
        // The client left in the middle of its request.
        Err(_) => return Err(Broken),
    };
    match (route(path), &head.method, body) {
        (Route::Answer { vendor, model, stream }, &Method::POST, Some(body)) => {
            let call = Call {
                vendor,
                head: Head { headers: &head.headers, query, model, stream },
                key: key(&head.headers, query),
                body: &body,
            };
            play(&shared, &switch, call).await
        }
        (Route::Answer { vendor, .. }, &Method::POST, None) => {
            Ok(refusal(&shared, vendor, &Trouble::TooLarge))
        }
        (Route::Models { gemini }, &Method::GET, _) => {
            let vendor = asked(&head.headers, query, gemini);
            Ok(json(200, reply::models(vendor, &shared.settings.load().models)))
        }
        (Route::Counts, &Method::GET, _) => Ok(shown(&shared.counts())),
        (Route::Reset, &Method::POST, _) => {
            shared.reset();
            Ok(shown(&shared.counts()))
        }
        (Route::Settings, &Method::GET, _) => Ok(shown(&**shared.settings.load())),
        (Route::Settings, &Method::PUT, Some(body)) => Ok(change(&shared, &body)),
        _ => {
            let vendor = asked(&head.headers, query, path.starts_with("/v1beta/"));
            let what = format!("{} {path}", head.method);
            Ok(refusal(&shared, vendor, &Trouble::NoAddress { what }))
        }
    }
}

/// Guesses which vendor an address is meant for that all of them have.
fn asked(headers: &HeaderMap, query: &str, gemini: bool) -> Vendor {
    if gemini || headers.contains_key("x-goog-api-key") || gemini::query(query, "key").is_some() {
        Vendor::Gemini
    } else if headers.contains_key("anthropic-version") {
        Vendor::Anthropic
    } else {
        Vendor::OpenAi
    }
}

fn refusal(shared: &Shared, vendor: Vendor, trouble: &Trouble) -> Response<Body> {
    let (status, body) = reply::error(vendor, trouble, shared.serial());
    json(status, body)
}

fn change(shared: &Shared, body: &[u8]) -> Response<Body> {
    match serde_json::from_slice::<Settings>(body) {
        Ok(settings) => {
            shared.set(settings);
            shown(&**shared.settings.load())
        }
        Err(error) => json(400, serde_json::json!({ "error": error.to_string() }).to_string().into_bytes()),
    }
}

fn shown(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => json(200, body),
        Err(error) => json(500, error.to_string().into_bytes()),
    }
}

fn json(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    response(status, JSON, HeaderMap::new(), Body::whole(body, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_vendor_is_known() {
        let gemini = |model, stream| Route::Answer { vendor: Vendor::Gemini, model: Some(model), stream };
        assert_eq!(
            route("/v1beta/models/gemini-3.8-flash:generateContent"),
            gemini("gemini-3.8-flash", false)
        );
        assert_eq!(route("/v1/models/g:streamGenerateContent"), gemini("g", true));
        assert_eq!(route("/v1/models/g:countTokens"), Route::Unknown);
        assert_eq!(route("/v1/models"), Route::Models { gemini: false });
        assert_eq!(route("/"), Route::Unknown);
    }

    #[test]
    fn a_key_is_found_by_each_of_the_four_ways() {
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            )])
        };
        assert_eq!(key(&headers("authorization", "Bearer k1"), ""), Some("k1"));
        assert_eq!(key(&headers("x-api-key", "k2"), ""), Some("k2"));
        assert_eq!(key(&headers("x-goog-api-key", "k3"), ""), Some("k3"));
        assert_eq!(key(&HeaderMap::new(), "alt=sse&key=k4"), Some("k4"));
        assert_eq!(key(&headers("authorization", "Basic k5"), ""), None);
    }
}
