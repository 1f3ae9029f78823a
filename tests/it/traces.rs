//! Spans and trace contexts, as a subscriber, a provider and a collector see them.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pointsman::{Class, Request, TraceContext};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Instrument, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, SpanRef};
use tracing_subscriber::util::SubscriberInitExt;

use super::program::Workspace;
use super::scripted_server::{RESPONSE_STREAM, ScriptedServer, header, response, stream};
use super::support::{
    QUICK_RETRY, provider_config_at, run_pipeline, send_request, start_pointsman, wait_until,
};

#[cfg(feature = "otel")]
mod collector;

/// Set in the process in which a test runs alone.
const ALONE: &str = "POINTSMAN_TEST_TRACES_ALONE";

/// A word of every prompt, which no span may contain.
const PROMPT_WORD: &str = "zanzibar";

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// One attempt at each target.
const ONE_ATTEMPT: &str =
    "[retry]\nattempts_per_target = 1\nmax_rounds = 1\ninitial_backoff = \"10ms\"\nmax_backoff = \"10ms\"\n";

/// Runs a test in a process of its own, because a subscriber receives the spans of the whole process. Returns whether
/// this is that process.
fn is_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let test = format!("traces::{test}");
    let mut program = Command::new(program);
    let output = program.args(["--exact", &test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
    false
}

/// A span as the subscriber has seen it.
#[derive(Debug, Clone, Default)]
struct SeenSpan {
    name: &'static str,
    /// The number of its parent.
    parent: Option<usize>,
    fields: BTreeMap<&'static str, String>,
    is_closed: bool,
}

impl SeenSpan {
    #[track_caller]
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("{name} is missing: {self:?}"))
    }
}

impl Visit for SeenSpan {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

/// Collects the spans of the process.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<SeenSpan>>>);

/// The number of a span among those that were seen.
struct Number(usize);

impl Spans {
    /// Installs a subscriber that collects the spans of this level and of more important ones.
    fn collect(level: LevelFilter) -> Self {
        let spans = Self::default();
        let wanted = Targets::new().with_target("pointsman::trace", level).with_target("host", level);
        tracing_subscriber::registry().with(spans.clone().with_filter(wanted)).init();
        spans
    }

    /// Waits until all spans have ended, and returns them.
    async fn ended(&self) -> Vec<SeenSpan> {
        let all_ended = || self.0.lock().unwrap().iter().all(|span| span.is_closed);
        wait_until("all spans end", all_ended).await;
        self.0.lock().unwrap().clone()
    }
}

fn number_of<S: Subscriber + for<'span> LookupSpan<'span>>(span: &SpanRef<'_, S>) -> Option<usize> {
    span.extensions().get::<Number>().map(|number| number.0)
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let parent = span.parent().and_then(|parent| number_of(&parent));
        let mut seen = SeenSpan { name: span.name(), parent, ..SeenSpan::default() };
        attributes.record(&mut seen);
        let mut spans = self.0.lock().unwrap();
        span.extensions_mut().insert(Number(spans.len()));
        spans.push(seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let number = number_of(&span).unwrap();
        values.record(&mut self.0.lock().unwrap()[number]);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let number = number_of(&span).unwrap();
        self.0.lock().unwrap()[number].is_closed = true;
    }
}

fn named<'a>(spans: &'a [SeenSpan], name: &str) -> Vec<&'a SeenSpan> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// Returns the names of a span and of the spans around it, the innermost first.
fn path(spans: &[SeenSpan], span: &SeenSpan) -> Vec<&'static str> {
    let parent = |span: &SeenSpan| span.parent.map(|parent| spans[parent].clone());
    std::iter::successors(Some(span.clone()), parent).map(|span| span.name).collect()
}

#[track_caller]
fn assert_no_text(spans: &[SeenSpan], texts: &[&str]) {
    for span in spans {
        for (name, value) in &span.fields {
            for text in texts {
                assert!(!value.contains(text), "{name} of {} contains {text:?}: {value}", span.name);
            }
        }
    }
}

fn pipeline() -> String {
    format!("[[step]]\nname = 'answer'\nprompt = 'Say {PROMPT_WORD} about {{{{ item.id }}}}'\n")
}

const SIMULATED: &str = "[provider.simulated]\nbase_url = 'simulator'\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spans_of_a_run_are_nested_and_contain_no_text() {
    if !is_alone("the_spans_of_a_run_are_nested_and_contain_no_text") {
        return;
    }
    let spans = Spans::collect(LevelFilter::DEBUG);
    let pointsman = start_pointsman(SIMULATED);
    let run = run_pipeline(&pointsman, &pipeline(), 2).await;
    assert_eq!(run.report.items.completed, 2);
    drop(pointsman);
    let spans = spans.ended().await;
    for (name, count) in [("run", 1), ("item", 2), ("step", 2), ("request", 2), ("attempt", 2)] {
        assert_eq!(named(&spans, name).len(), count, "{name}: {spans:#?}");
    }
    for attempt in named(&spans, "attempt") {
        assert_eq!(path(&spans, attempt), ["attempt", "request", "step", "item", "run"]);
        assert_eq!(attempt.field("otel.kind"), "client");
        assert_eq!(attempt.field("otel.name"), "chat any");
        assert_eq!(attempt.field("gen_ai.operation.name"), "chat");
        assert_eq!(attempt.field("gen_ai.provider.name"), "openai");
        assert_eq!(attempt.field("gen_ai.request.model"), "any");
        assert_eq!(attempt.field("gen_ai.response.finish_reasons"), "stop");
        assert!(attempt.field("gen_ai.usage.input_tokens").parse::<u64>().unwrap() > 0);
        assert!(attempt.field("gen_ai.usage.output_tokens").parse::<u64>().unwrap() > 0);
        assert!(attempt.field("pointsman.queue_seconds").parse::<f64>().unwrap() >= 0.0);
        assert_eq!(attempt.field("server.address"), "127.0.0.1");
        assert_eq!(attempt.field("pointsman.target"), "simulated/any");
        assert_eq!(attempt.field("pointsman.attempt.number"), "1");
        assert_eq!(attempt.field("pointsman.attempt.outcome"), "answered");
        assert_eq!(attempt.field("pointsman.simulated"), "true");
        assert!(!attempt.fields.contains_key("error.type"));
    }
    for request in named(&spans, "request") {
        assert_eq!(request.field("pointsman.route"), "default");
        assert_eq!(request.field("pointsman.target"), "simulated/any");
        assert_eq!(request.field("pointsman.attempts"), "1");
    }
    for step in named(&spans, "step") {
        assert_eq!((step.field("pointsman.step"), step.field("pointsman.route")), ("answer", "default"));
    }
    let items = named(&spans, "item");
    let mut keys: Vec<_> = items.iter().map(|item| item.field("pointsman.item.key")).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["item-0", "item-1"]);
    assert!(items.iter().all(|item| item.field("pointsman.item.status") == "completed"));
    let run_span = named(&spans, "run")[0];
    assert_eq!(run_span.field("pointsman.pipeline"), "test");
    assert_eq!(run_span.field("pointsman.run.outcome"), "completed");
    assert_eq!(run_span.field("pointsman.run.items"), "2");
    let answer = run.lines[0]["answers"]["answer"].as_str().unwrap();
    assert_no_text(&spans, &[PROMPT_WORD, answer]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_spans_of_items_a_request_is_under_its_run() {
    if !is_alone("without_the_spans_of_items_a_request_is_under_its_run") {
        return;
    }
    let spans = Spans::collect(LevelFilter::INFO);
    let pointsman = start_pointsman(SIMULATED);
    run_pipeline(&pointsman, &pipeline(), 1).await;
    drop(pointsman);
    let spans = spans.ended().await;
    assert_eq!(path(&spans, named(&spans, "attempt")[0]), ["attempt", "request", "run"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_two_attempts_under_one_request_of_the_callers_span() {
    if !is_alone("a_failover_is_two_attempts_under_one_request_of_the_callers_span") {
        return;
    }
    let spans = Spans::collect(LevelFilter::DEBUG);
    // A server may repeat the prompt in its error.
    let body = format!(r#"{{"error":{{"message":"failed at {PROMPT_WORD}","type":"server_error"}}}}"#);
    let down =
        move |_: &str| response("500 Internal Server Error", "content-type: application/json\r\n", &body);
    let down = ScriptedServer::start(down).await;
    let up = ScriptedServer::start(|_| stream("", RESPONSE_STREAM, true)).await;
    let config = format!(
        "[route.r]\ntargets = ['down/m', 'up/m']\n[route.d]\ntargets = ['down/m']\n{ONE_ATTEMPT}{}{}",
        provider_config_at("down", &down.url(), ""),
        provider_config_at("up", &up.url(), ""),
    );
    let pointsman = start_pointsman(&config);
    let host = tracing::info_span!(target: "host", "host");
    let response = send_request(&pointsman, "r", PROMPT_WORD).instrument(host).await.unwrap();
    assert_eq!(response.attempts.calls(), 2);
    let failed = send_request(&pointsman, "d", PROMPT_WORD).await.unwrap_err();
    assert_eq!(failed.class(), Class::ServerError);
    drop(pointsman);
    let spans = spans.ended().await;
    let requests = named(&spans, "request");
    assert_eq!((requests.len(), path(&spans, requests[0])), (2, vec!["request", "host"]));
    assert_eq!(requests[0].field("pointsman.attempts"), "2");
    assert_eq!(requests[0].field("pointsman.target"), "up/m");
    assert!(!requests[0].fields.contains_key("error.type"));
    assert_eq!(path(&spans, requests[1]), ["request"]);
    assert_eq!(requests[1].field("error.type"), "server_error");
    assert_eq!(requests[1].field("otel.status_code"), "error");
    let attempts = named(&spans, "attempt");
    let parents: Vec<_> = attempts.iter().map(|attempt| attempt.parent).collect();
    assert_eq!((attempts.len(), parents[0], parents[0] == parents[2]), (3, parents[1], false));
    let described = |attempt: &SeenSpan| {
        ["pointsman.target", "pointsman.attempt.number", "pointsman.attempt.outcome"]
            .map(|name| attempt.field(name).to_owned())
    };
    assert_eq!(described(attempts[0]), ["down/m", "1", "server_error"]);
    assert_eq!(attempts[0].field("error.type"), "server_error");
    assert_eq!(described(attempts[1]), ["up/m", "2", "answered"]);
    assert_no_text(&spans, &[PROMPT_WORD, "Hello."]);
}

/// Starts a server that answers, after `failures` errors. Returns the heads of its requests, too.
async fn start_recording_server(failures: usize) -> (ScriptedServer, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let recorded = heads.clone();
    let server = ScriptedServer::start(move |request| {
        let mut heads = recorded.lock().unwrap();
        heads.push(request.split("\r\n\r\n").next().unwrap().to_owned());
        if heads.len() <= failures {
            return response("500 Internal Server Error", "", "");
        }
        stream("", RESPONSE_STREAM, true)
    });
    (server.await, heads)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_provider_that_is_configured_for_it_gets_the_trace_of_the_caller() {
    let (open, open_heads) = start_recording_server(1).await;
    let (closed, closed_heads) = start_recording_server(0).await;
    let config = format!(
        "[route.r]\ntargets = ['open/m']\n[route.c]\ntargets = ['closed/m']\n{QUICK_RETRY}{}{}",
        provider_config_at("open", &open.url(), "traceparent = true"),
        provider_config_at("closed", &closed.url(), ""),
    );
    let pointsman = start_pointsman(&config);
    let trace = TraceContext::parse(TRACEPARENT).unwrap().with_state("vendor=1,other=2");
    let request = |route: &str| Request::new(route, "Hello").with_deadline(Duration::from_secs(20));
    pointsman.send(request("r").with_trace(trace.clone())).await.unwrap();
    pointsman.send(request("c").with_trace(trace.clone())).await.unwrap();
    pointsman.send(request("r")).await.unwrap();

    let closed_heads = closed_heads.lock().unwrap().clone();
    assert_eq!(closed_heads.len(), 1);
    assert_eq!(header(&closed_heads[0], "traceparent").or(header(&closed_heads[0], "tracestate")), None);

    let open_heads = open_heads.lock().unwrap().clone();
    let sent = |head: &String| TraceContext::parse(header(head, "traceparent").unwrap()).unwrap();
    let sent: Vec<_> = open_heads.iter().map(sent).collect();
    assert_eq!(sent.len(), 3, "two attempts of the first request, and one of the last");
    for attempt in &sent[..2] {
        assert_eq!((attempt.trace_id(), attempt.is_sampled()), (trace.trace_id(), true));
        assert_ne!(attempt.span_id(), trace.span_id());
    }
    assert_ne!(sent[0].span_id(), sent[1].span_id());
    assert!(open_heads[..2].iter().all(|head| header(head, "tracestate") == Some("vendor=1,other=2")));
    // The last request has no caller with a trace, so it begins a trace of its own.
    assert_ne!(sent[2].trace_id(), trace.trace_id());
    assert_eq!(header(&open_heads[2], "tracestate"), None);
}

#[test]
fn the_log_of_the_program_shows_no_spans() {
    let workspace = Workspace::new("");
    workspace.write_items(3);
    let output = workspace.run("run pipeline.toml --items items.jsonl --out out.jsonl -vv");
    let stderr = output.expect_code(0);
    for word in ["pointsman.item.key", "pointsman.step", "gen_ai.", "attempt{", "request{"] {
        assert!(!stderr.contains(word), "{word:?} is in:\n{stderr}");
    }
}
