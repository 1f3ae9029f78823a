//! A provider whose answer is a function of the request alone: the model, the system text, the prompt, the schema's
//! choices, the limit and the attachments. It logs every request, and it holds requests back on demand.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::outages::{self, Outage, REFUSED};

/// How a request fails. Which one does is decided by the item's number and the step, which each prompt contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The model refuses.
    Refusal,
    /// The answer is none of the choices, or does not match the schema.
    Wrong,
    /// The same, until it is asked for again.
    WrongOnce,
    /// The prompt is too long.
    TooLong,
    /// The prompt is too long for this model; another one answers.
    TooLongFor(String),
}

impl Fault {
    /// The class of the failure.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Refusal => "content_filter",
            Self::Wrong | Self::WrongOnce => "validation_error",
            Self::TooLong | Self::TooLongFor(_) => "too_long",
        }
    }

    fn strikes(&self, call: &Call) -> bool {
        let is_checked = !choices(&call.question).is_empty();
        let model = &call.model;
        match self {
            Self::Refusal | Self::TooLong => true,
            Self::Wrong => is_checked,
            Self::WrongOnce => is_checked && !call.is_reask,
            Self::TooLongFor(one) => one == model,
        }
    }
}

/// A request as the provider saw it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) provider: String,
    pub(crate) model: String,
    /// The item's name.
    pub(crate) item: String,
    pub(crate) step: String,
    /// Everything that decides the answer, without the model.
    pub(crate) question: String,
    /// Whether it asks again after a wrong answer.
    pub(crate) is_reask: bool,
    /// The answer, or the class of the failure; `None` while nothing was sent.
    pub(crate) result: Option<Result<String, &'static str>>,
}

/// The answer of `model` to `question`.
pub(crate) fn answer(model: &str, question: &str) -> String {
    let digest = digest(model, question);
    let choices: Vec<&str> = choices(question).split(", ").collect();
    match choices.as_slice() {
        [""] => format!("{model}~{:08x}", digest & 0xffff_ffff),
        [property] => json!({ *property: digest % 1_000 }).to_string(),
        choices => choices[usize::try_from(digest % choices.len() as u64).unwrap()].to_owned(),
    }
}

/// The same as it is in a line: JSON where the step has a schema.
pub(crate) fn value(model: &str, question: &str) -> Value {
    let text = answer(model, question);
    if text.starts_with('{') { serde_json::from_str(&text).unwrap() } else { text.into() }
}

/// The choices that a question gives, or the one property of its schema.
fn choices(question: &str) -> &str {
    question.split('|').nth(2).unwrap_or_default()
}

/// Tokens of the prompt and of the answer.
pub(crate) fn tokens(model: &str, question: &str) -> (u64, u64) {
    let digest = digest(model, question);
    (10 + digest % 7, 3 + digest % 5)
}

fn digest(model: &str, question: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (model, question).hash(&mut hasher);
    hasher.finish()
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    faults: BTreeMap<(String, String), Fault>,
    /// Requests from this number on are held back.
    hold_from: Option<usize>,
    held: usize,
    outages: Vec<Outage>,
    /// Requests that outages have refused.
    refused: usize,
    session: u64,
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
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                thread::spawn(move || converse(&stream, &state));
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self, provider: &str) -> String {
        format!("http://{}/{provider}/v1", self.address)
    }

    /// Begins a new log; requests from number `hold_from` on are held back.
    pub(crate) fn begin(
        &self,
        hold_from: Option<usize>,
        faults: &BTreeMap<(String, String), Fault>,
        outages: &[Outage],
    ) {
        let mut state = lock(&self.state);
        let session = state.session + 1;
        let (faults, outages) = (faults.clone(), outages.to_vec());
        *state = State { faults, outages, hold_from, session, ..State::default() };
        self.state.1.notify_all();
    }

    /// Waits until a request is held back; returns false when `has_ended` says first that nobody will send one.
    pub(crate) fn wait_for_held(&self, mut has_ended: impl FnMut() -> bool) -> bool {
        let mut state = lock(&self.state);
        loop {
            if state.held > 0 {
                return true;
            }
            if has_ended() {
                return false;
            }
            let wait = self.state.1.wait_timeout(state, Duration::from_millis(5));
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Answers what is held back, and holds nothing back any more.
    pub(crate) fn release(&self) {
        lock(&self.state).hold_from = None;
        self.state.1.notify_all();
    }

    /// Takes the log.
    pub(crate) fn calls(&self) -> Vec<Call> {
        lock(&self.state).calls.clone()
    }
}

fn converse(stream: &TcpStream, state: &(Mutex<State>, Condvar)) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream);
    while let Some((path, body)) = read(&mut reader) {
        let Some(response) = respond(&path, &body, state) else { return };
        let mut writer = stream;
        if writer.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<(String, Value)> {
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

/// Logs a request, waits while it is held back, and answers it. `None` once the session is another one.
fn respond(path: &str, body: &Value, shared: &(Mutex<State>, Condvar)) -> Option<String> {
    let provider = path.split('/').nth(1)?.to_owned();
    let model = body["model"].as_str()?.to_owned();
    let question = question_of(body);
    let mut names = question.rsplit_once('<')?.1.split('/');
    let item = names.next()?.to_owned();
    let step = names.next()?.to_owned();
    let mut state = lock(shared);
    let session = state.session;
    let number = state.calls.len();
    let is_reask = body["messages"].as_array()?.iter().any(|message| message["role"] == "assistant");
    state.calls.push(Call { provider, model, item, step, question, is_reask, result: None });
    while state.hold_from.is_some_and(|from| number >= from) && state.session == session {
        state.held += 1;
        shared.1.notify_all();
        state = shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    if state.session != session {
        return None;
    }
    let by = |outage: &&Outage| outage.refuses(&state.calls[number].provider, number, state.refused);
    if let Some(kind) = state.outages.iter().find(by).map(|outage| outage.kind) {
        state.refused += 1;
        state.calls[number].result = Some(Err(REFUSED));
        return outages::response(kind);
    }
    let faults = &state.faults;
    let call = &state.calls[number];
    let number_of_item = call.item.split('.').next().unwrap_or_default();
    let fault = faults.get(&(number_of_item.to_owned(), call.step.clone())).cloned();
    let fault = fault.filter(|fault| fault.strikes(call));
    let tokens = tokens(&call.model, &call.question);
    let text = answer(&call.model, &call.question);
    let (result, response) = match fault {
        None => (Ok(text.clone()), stream(&text, "stop", tokens)),
        Some(fault) => {
            let response = match fault {
                Fault::Refusal => stream("No.", "content_filter", tokens),
                Fault::Wrong | Fault::WrongOnce => stream("none of these", "stop", tokens),
                Fault::TooLong | Fault::TooLongFor(_) => {
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
    state.calls[number].result = Some(result);
    Some(response)
}

/// Everything in a request that decides its answer, as `system|limit|choices|attachments|prompt`.
fn question_of(body: &Value) -> String {
    let mut system = String::new();
    let mut choices = String::new();
    let mut prompt = String::new();
    let mut attached = String::new();
    for message in body["messages"].as_array().into_iter().flatten() {
        let content = &message["content"];
        let whole = json!([{ "text": content }]);
        let parts = if content.is_string() { &whole } else { content };
        for part in parts.as_array().into_iter().flatten() {
            let text = part["text"].as_str().unwrap_or_default();
            if message["role"] == "system" {
                system.extend(text.split_whitespace().find(|word| word.starts_with("sys")));
                choices.extend(text.split_once("exactly one of: ").map(|(_, list)| list));
                choices.extend(text.split_once("JSON Schema:").and_then(|(_, schema)| property(schema)));
            } else if let Some((_, asked)) = text.split_once('<').filter(|_| prompt.is_empty()) {
                prompt = asked.split('>').next().unwrap_or_default().to_owned();
            }
            let url = part["image_url"]["url"].as_str().and_then(|url| url.split_once(','));
            attached.extend(url.map(|(_, data)| data));
        }
    }
    choices.extend(property(&body["response_format"].to_string()));
    format!("{system}|{}|{choices}|{attached}|<{prompt}", body["max_tokens"])
}

/// The one property of a schema.
fn property(schema: &str) -> Option<&'static str> {
    ["n", "m"].into_iter().find(|name| schema.contains(&format!("\"{name}\"")))
}

fn stream(text: &str, finish: &str, (input, output): (u64, u64)) -> String {
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
