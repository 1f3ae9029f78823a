//! Tests of the simulator over HTTP.

mod control;
mod embeddings;
mod exchange;
mod faults;
mod limits;
mod prompt_cache;
mod reasoning;
mod responses;
mod tools;
mod wire_formats;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{Settings, Simulator, Vendor};

fn start(settings: Settings) -> Simulator {
    Simulator::start(settings, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &Handle::current()).unwrap()
}

/// Starts a simulator with settings in TOML.
fn start_with(toml: &str) -> Simulator {
    start(toml::from_str(toml).unwrap())
}

fn client() -> reqwest::Client {
    // The client requires a crypto provider also for plain HTTP. An error means that another test has installed
    // it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

/// An API call.
#[derive(Clone)]
struct Call {
    vendor: Vendor,
    stream: bool,
    prompt: String,
    schema: Option<Value>,
    key: String,
}

fn call(vendor: Vendor, stream: bool) -> Call {
    let prompt = "Please tell me what stands in this letter.".to_owned();
    Call { vendor, stream, prompt, schema: None, key: "simulated-key".to_owned() }
}

impl Call {
    fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = prompt.into();
        self
    }

    fn schema(mut self, schema: Value) -> Self {
        self.schema = Some(schema);
        self
    }

    fn key(mut self, key: &str) -> Self {
        self.key = key.to_owned();
        self
    }

    fn path(&self) -> &'static str {
        match (self.vendor, self.stream) {
            (Vendor::OpenAi, _) => "/chat/completions",
            (Vendor::Anthropic, _) => "/v1/messages",
            (Vendor::Gemini, false) => "/v1beta/models/any:generateContent",
            (Vendor::Gemini, true) => "/v1beta/models/any:streamGenerateContent?alt=sse",
        }
    }

    fn body(&self) -> Value {
        let messages = json!([{ "role": "user", "content": self.prompt }]);
        let mut body = match self.vendor {
            Vendor::OpenAi => json!({ "model": "any", "messages": messages, "stream": self.stream }),
            Vendor::Anthropic => {
                json!({ "model": "any", "max_tokens": 400, "messages": messages, "stream": self.stream })
            }
            Vendor::Gemini => json!({ "contents": [{ "role": "user", "parts": [{ "text": self.prompt }] }] }),
        };
        if self.vendor == Vendor::OpenAi && self.stream {
            body["stream_options"] = json!({ "include_usage": true });
        }
        if let Some(schema) = &self.schema {
            match self.vendor {
                Vendor::OpenAi => {
                    body["response_format"] = json!({ "type": "json_schema",
                        "json_schema": { "name": "answer", "strict": true, "schema": schema } });
                }
                Vendor::Anthropic => {
                    body["output_config"] = json!({ "format": { "type": "json_schema", "schema": schema } });
                }
                Vendor::Gemini => {
                    body["generationConfig"] =
                        json!({ "responseMimeType": "application/json", "responseJsonSchema": schema });
                }
            }
        }
        body
    }

    fn request(&self, simulator: &Simulator) -> reqwest::RequestBuilder {
        let request = client().post(simulator.base_url(self.vendor) + self.path());
        let request = match self.vendor {
            Vendor::OpenAi => request.bearer_auth(&self.key),
            Vendor::Anthropic => {
                request.header("x-api-key", &self.key).header("anthropic-version", "2026-10-21")
            }
            Vendor::Gemini => request.header("x-goog-api-key", &self.key),
        };
        request.header("content-type", "application/json").body(self.body().to_string())
    }

    async fn send(&self, simulator: &Simulator) -> ReceivedResponse {
        let response = self.request(simulator).send().await.unwrap();
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        ReceivedResponse { vendor: self.vendor, status, headers, body: response.text().await.unwrap() }
    }
}

/// A complete response.
struct ReceivedResponse {
    vendor: Vendor,
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl ReceivedResponse {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Returns the text of the answer, with or without streaming.
    fn text(&self) -> String {
        let event_text = |event: &Value| {
            let text = match self.vendor {
                Vendor::OpenAi => {
                    let choice = &event["choices"][0];
                    [&choice["delta"]["content"], &choice["message"]["content"]]
                        .into_iter()
                        .find_map(Value::as_str)
                }
                Vendor::Anthropic => [&event["delta"]["text"], &event["content"][0]["text"]]
                    .into_iter()
                    .find_map(Value::as_str),
                Vendor::Gemini => event["candidates"][0]["content"]["parts"][0]["text"].as_str(),
            };
            text.unwrap_or_default().to_owned()
        };
        if self.body.starts_with('{') {
            event_text(&self.json())
        } else {
            events(&self.body).iter().map(event_text).collect()
        }
    }
}

/// Returns the JSON of each event, without `[DONE]`.
fn events(body: &str) -> Vec<Value> {
    body.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}")))
        .collect()
}

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/data/wire/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn fixture_json(name: &str) -> Value {
    serde_json::from_str(&fixture(name)).unwrap()
}

/// Returns the paths of all keys without their values, to compare the structure of two bodies.
fn shape(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, path: &str, keys: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    let path = format!("{path}.{key}");
                    walk(value, &path, keys);
                    keys.insert(path);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, &format!("{path}[]"), keys)),
            _ => {}
        }
    }
    let mut keys = BTreeSet::new();
    walk(value, "", &mut keys);
    keys
}
