//! HTTP routes of the vendors' APIs and of the simulator's control API. Reads request bodies.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::api_error::ApiError;
use super::body::{Body, ConnectionAborted};
use super::connection::ResetSwitch;
use super::embedding::EmbeddingApi;
use super::handler::embeddings::{EmbeddingCall, handle_embeddings};
use super::handler::response::{JSON, http_response};
use super::handler::{IncomingCall, check_key, handle};
use super::parsed_request::RequestHead;
use super::request_scope::Shared;
use super::vendor_format;
use super::wire_format::WireFormat;
use super::{Settings, Vendor, gemini};

/// Maximum size of a request body.
const MAX_BODY_BYTES: usize = 256 << 20;

/// The endpoint of a path.
#[derive(Debug, PartialEq)]
enum Endpoint<'a> {
    /// A model's completion. In Gemini's API the path contains the model and selects streaming.
    Completion {
        wire_format: WireFormat,
        model: Option<&'a str>,
        stream: bool,
    },
    /// Embeddings. In Gemini's API the path contains the model.
    Embeddings {
        api: EmbeddingApi,
        model: Option<&'a str>,
    },
    Models {
        gemini: bool,
    },
    Counts,
    Reset,
    Settings,
    Unknown,
}

fn endpoint(path: &str) -> Endpoint<'_> {
    let completion = |wire_format| Endpoint::Completion { wire_format, model: None, stream: false };
    let gemini =
        |model, stream| Endpoint::Completion { wire_format: WireFormat::Gemini, model: Some(model), stream };
    match path {
        "/v1/chat/completions" | "/chat/completions" => return completion(WireFormat::OpenAiChat),
        "/v1/responses" | "/responses" => return completion(WireFormat::OpenAiResponses),
        "/v1/messages" => return completion(WireFormat::Anthropic),
        "/v1/embeddings" | "/embeddings" => {
            return Endpoint::Embeddings { api: EmbeddingApi::OpenAi, model: None };
        }
        "/v1/models" | "/models" => return Endpoint::Models { gemini: false },
        "/v1beta/models" => return Endpoint::Models { gemini: true },
        "/simulator/counts" => return Endpoint::Counts,
        "/simulator/reset" => return Endpoint::Reset,
        "/simulator/settings" => return Endpoint::Settings,
        _ => {}
    }
    let action = path.strip_prefix("/v1beta/models/").or_else(|| path.strip_prefix("/v1/models/"));
    match action.and_then(|action| action.rsplit_once(':')) {
        Some((model, "generateContent")) => gemini(model, false),
        Some((model, "streamGenerateContent")) => gemini(model, true),
        Some((model, "embedContent")) => {
            Endpoint::Embeddings { api: EmbeddingApi::GeminiOne, model: Some(model) }
        }
        Some((model, "batchEmbedContents")) => {
            Endpoint::Embeddings { api: EmbeddingApi::GeminiBatch, model: Some(model) }
        }
        _ => Endpoint::Unknown,
    }
}

/// Returns the API key of a request, from one of three headers or the query.
fn api_key<'a>(headers: &'a HeaderMap, query: &'a str) -> Option<&'a str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION.as_str())
        .and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")));
    text("x-api-key")
        .or(bearer)
        .or_else(|| text("x-goog-api-key"))
        .or_else(|| gemini::query_parameter(query, "key"))
}

/// Handles one HTTP request.
pub(super) async fn serve(
    shared: Arc<Shared>,
    reset_switch: ResetSwitch,
    request: Request<Incoming>,
) -> Result<Response<Body>, ConnectionAborted> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let query = head.uri.query().unwrap_or_default();
    let limited = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let body = match limited {
        Ok(body) => Some(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => None,
        // The client disconnected while sending its request.
        Err(_) => return Err(ConnectionAborted),
    };
    match (endpoint(path), &head.method, body) {
        (Endpoint::Completion { wire_format, model, stream }, &Method::POST, Some(body)) => {
            let call = IncomingCall {
                wire_format,
                head: RequestHead { headers: &head.headers, query, model, stream },
                key: api_key(&head.headers, query),
                body: &body,
            };
            handle(&shared, &reset_switch, call).await
        }
        (Endpoint::Completion { wire_format, .. }, &Method::POST, None) => {
            Ok(error_response(&shared, wire_format.vendor(), &ApiError::RequestTooLarge))
        }
        (Endpoint::Embeddings { api, model }, &Method::POST, Some(body)) => {
            let key = api_key(&head.headers, query);
            handle_embeddings(&shared, &reset_switch, EmbeddingCall { api, model, key, body: &body }).await
        }
        (Endpoint::Embeddings { api, .. }, &Method::POST, None) => {
            Ok(error_response(&shared, api.vendor(), &ApiError::RequestTooLarge))
        }
        (Endpoint::Models { gemini }, &Method::GET, _) => {
            let vendor = infer_vendor(&head.headers, query, gemini);
            let settings = shared.settings.load();
            if let Err(api_error) = check_key(&settings, api_key(&head.headers, query)) {
                return Ok(error_response(&shared, vendor, &api_error));
            }
            Ok(json_response(200, vendor_format::render_models(vendor, &settings.models, query)))
        }
        (Endpoint::Counts, &Method::GET, _) => Ok(json_of(&shared.counts())),
        (Endpoint::Reset, &Method::POST, _) | (Endpoint::Settings, &Method::PUT, _)
            if !is_from_control_client(&head.headers) =>
        {
            Ok(refuse_control())
        }
        (Endpoint::Reset, &Method::POST, _) => {
            shared.reset();
            Ok(json_of(&shared.counts()))
        }
        (Endpoint::Settings, &Method::GET, _) => Ok(json_of(&**shared.settings.load())),
        (Endpoint::Settings, &Method::PUT, Some(body)) => Ok(put_settings(&shared, &body)),
        _ => {
            let vendor = infer_vendor(&head.headers, query, path.starts_with("/v1beta/"));
            let request = format!("{} {path}", head.method);
            Ok(error_response(&shared, vendor, &ApiError::RouteNotFound { request }))
        }
    }
}

/// Returns whether a request that changes the simulator may come from its user. A page in the user's browser may send
/// requests to this machine, too: they have an `Origin`, or they name the host of the page, whose name the page's
/// owner can map to this machine.
fn is_from_control_client(headers: &HeaderMap) -> bool {
    let is_local_name = |value: &HeaderValue| {
        let authority = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
        authority.is_some_and(|authority| {
            let host = authority.host();
            let ip = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            host.eq_ignore_ascii_case("localhost") || ip.parse::<IpAddr>().is_ok()
        })
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    !headers.contains_key(header::ORIGIN) && headers.contains_key(header::HOST) && hosts.all(is_local_name)
}

fn refuse_control() -> Response<Body> {
    let error =
        "this request is accepted only without `Origin`, and with an IP address or `localhost` as its `Host`";
    json_response(403, serde_json::json!({ "error": error }).to_string().into_bytes())
}

/// Infers the vendor from the headers, for paths that several vendors have.
fn infer_vendor(headers: &HeaderMap, query: &str, gemini: bool) -> Vendor {
    if gemini || headers.contains_key("x-goog-api-key") || gemini::query_parameter(query, "key").is_some() {
        Vendor::Gemini
    } else if headers.contains_key("anthropic-version") {
        Vendor::Anthropic
    } else {
        Vendor::OpenAi
    }
}

fn error_response(shared: &Shared, vendor: Vendor, api_error: &ApiError) -> Response<Body> {
    let (status, body) = vendor_format::render_error(vendor, api_error, shared.next_serial());
    json_response(status, body)
}

fn put_settings(shared: &Shared, body: &[u8]) -> Response<Body> {
    match serde_json::from_slice::<Settings>(body) {
        Ok(settings) => {
            shared.set(settings);
            json_of(&**shared.settings.load())
        }
        Err(error) => {
            json_response(400, serde_json::json!({ "error": error.to_string() }).to_string().into_bytes())
        }
    }
}

fn json_of(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => json_response(200, body),
        Err(error) => json_response(500, error.to_string().into_bytes()),
    }
}

fn json_response(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    http_response(status, JSON, HeaderMap::new(), Body::full(body, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_mapped_to_endpoints() {
        let gemini = |model, stream| Endpoint::Completion {
            wire_format: WireFormat::Gemini,
            model: Some(model),
            stream,
        };
        assert_eq!(
            endpoint("/v1beta/models/gemini-3.8-flash:generateContent"),
            gemini("gemini-3.8-flash", false)
        );
        for path in ["/v1/responses", "/responses"] {
            let wire_format = WireFormat::OpenAiResponses;
            assert_eq!(endpoint(path), Endpoint::Completion { wire_format, model: None, stream: false });
        }
        assert_eq!(endpoint("/v1/models/g:streamGenerateContent"), gemini("g", true));
        assert_eq!(endpoint("/v1/models/g:countTokens"), Endpoint::Unknown);
        let embeddings = |api, model| Endpoint::Embeddings { api, model };
        for path in ["/v1/embeddings", "/embeddings"] {
            assert_eq!(endpoint(path), embeddings(EmbeddingApi::OpenAi, None));
        }
        let one = embeddings(EmbeddingApi::GeminiOne, Some("g"));
        assert_eq!(endpoint("/v1beta/models/g:embedContent"), one);
        let batch = embeddings(EmbeddingApi::GeminiBatch, Some("g"));
        assert_eq!(endpoint("/v1beta/models/g:batchEmbedContents"), batch);
        assert_eq!(endpoint("/v1/models"), Endpoint::Models { gemini: false });
        assert_eq!(endpoint("/"), Endpoint::Unknown);
    }

    #[test]
    fn a_key_is_found_in_each_of_its_four_places() {
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static(value))])
        };
        assert_eq!(api_key(&headers("authorization", "Bearer k1"), ""), Some("k1"));
        assert_eq!(api_key(&headers("x-api-key", "k2"), ""), Some("k2"));
        assert_eq!(api_key(&headers("x-goog-api-key", "k3"), ""), Some("k3"));
        assert_eq!(api_key(&HeaderMap::new(), "alt=sse&key=k4"), Some("k4"));
        assert_eq!(api_key(&headers("authorization", "Basic k5"), ""), None);
    }
}
