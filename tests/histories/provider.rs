//! A provider whose answer depends only on the request: model, system text, prompt, choices or schema, token
//! limit and attachments. It logs every request, and it holds back requests on demand.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::outages::{self, OUTAGE_RESULT, Outage};

/// How a request fails. Faults are set by item number and step; each prompt contains both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The model refuses.
    Refusal,
    /// The answer is not one of the choices, or does not match the schema.
    WrongAnswer,
    /// The same, but not for a validation retry.
    WrongAnswerOnce,
    /// The prompt is too long.
    TooLong,
    /// The prompt is too long for this model only.
    TooLongForModel(String),
}

impl Fault {
    /// Returns the class of the failure.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Refusal => "content_filter",
            Self::WrongAnswer | Self::WrongAnswerOnce => "validation_error",
            Self::TooLong | Self::TooLongForModel(_) => "too_long",
        }
    }

    fn applies_to(&self, request: &LoggedRequest) -> bool {
        let is_checked = !choices(&request.content).is_empty();
        let model = &request.model;
        match self {
            Self::Refusal | Self::TooLong => true,
            Self::WrongAnswer => is_checked,
            Self::WrongAnswerOnce => is_checked && !request.is_validation_retry,
            Self::TooLongForModel(limited) => limited == model,
        }
    }
}

/// A request as the provider received it.
#[derive(Debug, Clone)]
pub(crate) struct LoggedRequest {
    pub(crate) provider: String,
    pub(crate) model: String,
    /// The name of the item.
    pub(crate) item: String,
    pub(crate) step: String,
    /// Everything that determines the answer, except the model.
    pub(crate) content: String,
    /// Whether it is a retry after an invalid answer.
    pub(crate) is_validation_retry: bool,
    /// The answer, or the class of the failure; `None` if no response was sent.
    pub(crate) result: Option<Result<String, &'static str>>,
}

/// Returns the answer of `model` to `content`.
pub(crate) fn answer_text(model: &str, content: &str) -> String {
    let digest = digest(model, content);
    let choices: Vec<&str> = choices(content).split(", ").collect();
    match choices.as_slice() {
        [""] => format!("{model}~{:08x}", digest & 0xffff_ffff),
        [property] => json!({ *property: digest % 1_000 }).to_string(),
        choices => choices[usize::try_from(digest % choices.len() as u64).unwrap()].to_owned(),
    }
}

/// Returns the same answer as in a result line: JSON if the step has a schema.
pub(crate) fn answer_value(model: &str, content: &str) -> Value {
    let text = answer_text(model, content);
    if text.starts_with('{') { serde_json::from_str(&text).unwrap() } else { text.into() }
}

/// Returns the choices in a request content, or the only property of its schema.
fn choices(content: &str) -> &str {
    content.split('|').nth(2).unwrap_or_default()
}

/// Returns the token counts of the prompt and of the answer.
pub(crate) fn token_counts(model: &str, content: &str) -> (u64, u64) {
    let digest = digest(model, content);
    (10 + digest % 7, 3 + digest % 5)
}

fn digest(model: &str, content: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (model, content).hash(&mut hasher);
    hasher.finish()
}

#[derive(Default)]
struct State {
    requests: Vec<LoggedRequest>,
    faults: BTreeMap<(String, String), Fault>,
    /// Requests from this number on are held back.
    first_held: Option<usize>,
    held_count: usize,
    outages: Vec<Outage>,
    /// Number of requests that outages have refused.
    outage_refusals: usize,
    /// Counts the logs. A request of an earlier log gets no response.
    generation: u64,
}

/// A running provider.
pub(crate) struct Provider {
    address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

fn lock(state: &(Mutex<State>, Condvar)) -> MutexGuard<'_, State> {
    state.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Provider {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let shared = state.clone();
        // The thread ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                thread::spawn(move || serve_connection(&stream, &state));
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self, provider: &str) -> String {
        format!("http://{}/{provider}/v1", self.address)
    }

    /// Starts a new log. Requests from number `first_held` on are held back.
    pub(crate) fn begin_log(
        &self,
        first_held: Option<usize>,
        faults: &BTreeMap<(String, String), Fault>,
        outages: &[Outage],
    ) {
        let mut state = lock(&self.state);
        let generation = state.generation + 1;
        let faults = faults.clone();
        let outages = outages.to_vec();
        *state = State { faults, outages, first_held, generation, ..State::default() };
        self.state.1.notify_all();
    }

    /// Waits until a request is held back. Returns false if `has_ended` returns true first.
    pub(crate) fn wait_for_held(&self, mut has_ended: impl FnMut() -> bool) -> bool {
        let mut state = lock(&self.state);
        loop {
            if state.held_count > 0 {
                return true;
            }
            if has_ended() {
                return false;
            }
            let wait = self.state.1.wait_timeout(state, Duration::from_millis(5));
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Responds to the requests that are held back, and holds back no more.
    pub(crate) fn release(&self) {
        lock(&self.state).first_held = None;
        self.state.1.notify_all();
    }

    /// Returns the log.
    pub(crate) fn requests(&self) -> Vec<LoggedRequest> {
        lock(&self.state).requests.clone()
    }
}

fn serve_connection(stream: &TcpStream, state: &(Mutex<State>, Condvar)) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream);
    while let Some((path, body)) = read_request(&mut reader) {
        let Some(response) = respond(&path, &body, state) else { return };
        let mut writer = stream;
        if writer.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<(String, Value)> {
    let mut length = 0;
    let mut path = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().ok()?
            }
            _ => path = path.or_else(|| line.split(' ').nth(1).map(str::to_owned)),
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path?, serde_json::from_slice(&body).ok()?))
}

/// Logs a request, waits while it is held back, and returns the response. Returns `None` if a new log was
/// started.
fn respond(path: &str, body: &Value, shared: &(Mutex<State>, Condvar)) -> Option<String> {
    let provider = path.split('/').nth(1)?.to_owned();
    let model = body["model"].as_str()?.to_owned();
    let content = request_content(body);
    let mut names = content.rsplit_once('<')?.1.split('/');
    let item = names.next()?.to_owned();
    let step = names.next()?.to_owned();
    let mut state = lock(shared);
    let generation = state.generation;
    let number = state.requests.len();
    let is_validation_retry =
        body["messages"].as_array()?.iter().any(|message| message["role"] == "assistant");
    state.requests.push(LoggedRequest {
        provider,
        model,
        item,
        step,
        content,
        is_validation_retry,
        result: None,
    });
    while state.first_held.is_some_and(|first| number >= first) && state.generation == generation {
        state.held_count += 1;
        shared.1.notify_all();
        state = shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    if state.generation != generation {
        return None;
    }
    let refuses =
        |outage: &&Outage| outage.refuses(&state.requests[number].provider, number, state.outage_refusals);
    if let Some(kind) = state.outages.iter().find(refuses).map(|outage| outage.kind) {
        state.outage_refusals += 1;
        state.requests[number].result = Some(Err(OUTAGE_RESULT));
        return outages::error_response(kind);
    }
    let faults = &state.faults;
    let request = &state.requests[number];
    let item_number = request.item.split('.').next().unwrap_or_default();
    let fault = faults.get(&(item_number.to_owned(), request.step.clone())).cloned();
    let fault = fault.filter(|fault| fault.applies_to(request));
    let tokens = token_counts(&request.model, &request.content);
    let text = answer_text(&request.model, &request.content);
    let (result, response) = match fault {
        None => (Ok(text.clone()), event_stream(&text, "stop", tokens)),
        Some(fault) => {
            let response = match fault {
                Fault::Refusal => event_stream("No.", "content_filter", tokens),
                Fault::WrongAnswer | Fault::WrongAnswerOnce => event_stream("none of these", "stop", tokens),
                Fault::TooLong | Fault::TooLongForModel(_) => {
                    let error = json!({
                        "message": "This model's maximum context length is 9 tokens.",
                        "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded",
                    });
                    let body = json!({ "error": error }).to_string();
                    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n";
                    format!("{head}content-length: {}\r\n\r\n{body}", body.len())
                }
            };
            (Err(fault.class()), response)
        }
    };
    state.requests[number].result = Some(result);
    Some(response)
}

/// Returns everything in a request that determines its answer, as `system|limit|choices|attachments|prompt`.
fn request_content(body: &Value) -> String {
    let mut system = String::new();
    let mut choices = String::new();
    let mut prompt = String::new();
    let mut attachments = String::new();
    for message in body["messages"].as_array().into_iter().flatten() {
        let content = &message["content"];
        let single_part = json!([{ "text": content }]);
        let parts = if content.is_string() { &single_part } else { content };
        for part in parts.as_array().into_iter().flatten() {
            let text = part["text"].as_str().unwrap_or_default();
            if message["role"] == "system" {
                system.extend(text.split_whitespace().find(|word| word.starts_with("sys")));
                choices.extend(text.split_once("exactly one of: ").map(|(_, list)| list));
                choices.extend(text.split_once("JSON Schema:").and_then(|(_, schema)| property(schema)));
            } else if let Some((_, rest)) = text.split_once('<').filter(|_| prompt.is_empty()) {
                prompt = rest.split('>').next().unwrap_or_default().to_owned();
            }
            let url = part["image_url"]["url"].as_str().and_then(|url| url.split_once(','));
            attachments.extend(url.map(|(_, data)| data));
        }
    }
    choices.extend(property(&body["response_format"].to_string()));
    format!("{system}|{}|{choices}|{attachments}|<{prompt}", body["max_tokens"])
}

/// Returns the only property of a schema.
fn property(schema: &str) -> Option<&'static str> {
    ["n", "m"].into_iter().find(|name| schema.contains(&format!("\"{name}\"")))
}

fn event_stream(text: &str, finish: &str, (input, output): (u64, u64)) -> String {
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({
            "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, "usage": usage,
        });
        format!("data: {chunk}\n\n")
    };
    let content =
        json!([{ "index": 0, "delta": { "role": "assistant", "content": text }, "finish_reason": null }]);
    let end = json!([{ "index": 0, "delta": {}, "finish_reason": finish }]);
    let usage =
        json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output });
    let events = [chunk(content, Value::Null), chunk(end, Value::Null), chunk(json!([]), usage)].concat();
    let body = format!("{events}data: [DONE]\n\n");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len())
}
