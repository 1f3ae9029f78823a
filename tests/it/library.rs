//! The library as used by a program that embeds it.

use pointsman::run::{RunOutcome, RunOutput};
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use pointsman::{Config, Pointsman};
use serde_json::{Value, json};

const PIPELINE: &str = "
name = 'one'
[[step]]
name = 'answer'
prompt = 'Say something about {{ item.text }}'
";

fn start() -> Pointsman {
    let config = "[provider.simulated]\nbase_url = 'simulator'\n[run]\nmax_in_flight_items = 4";
    Pointsman::start(&Config::parse("config.toml", config, &|_| None).unwrap()).unwrap()
}

fn items(count: u64) -> Source {
    Source::values("items", (1..=count).map(|id| json!({ "id": id, "text": "points" })))
}

#[tokio::test]
async fn lines_and_rejects_are_received_through_channels() {
    let pointsman = start();
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let (lines_sink, mut lines) = Sink::channel().unwrap();
    let (rejects_sink, mut rejects) = Sink::channel().unwrap();
    let source = Source::values("items", [json!({ "id": 1, "text": "points" }), json!("no item")]);
    let output = RunOutput { rejects: Some(rejects_sink), ..RunOutput::new(lines_sink) };
    let mut run = pointsman.run(pipeline, source, output).await.unwrap();
    let line = lines.recv().await.unwrap();
    assert_eq!((line.key.as_str(), line.simulated), ("1", true));
    assert!(matches!(&line.answers["answer"], Value::String(answer) if answer.contains("points")));
    assert_eq!(rejects.recv().await.unwrap().line, 2);
    assert!(lines.recv().await.is_none() && rejects.recv().await.is_none());
    let report = run.report().await.unwrap();
    assert_eq!((report.items.completed, report.items.rejected, report.items.unwritten), (1, 1, 0));
}

#[tokio::test]
async fn a_second_call_of_report_returns_the_same_report() {
    let pointsman = start();
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let sink = Sink::results(Destination::none(), Format::Jsonl, &[]).unwrap();
    let mut run = pointsman.run(pipeline, items(3), RunOutput::new(sink)).await.unwrap();
    let first = run.report().await.unwrap();
    assert_eq!((first.items.completed, first.outcome), (3, RunOutcome::Completed));
    assert_eq!(run.report().await.unwrap(), first);
}

#[tokio::test]
async fn a_run_stops_when_the_receiver_of_its_lines_is_dropped() {
    let pointsman = start();
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let (sink, mut lines) = Sink::channel().unwrap();
    let mut run = pointsman.run(pipeline, items(1_000_000), RunOutput::new(sink)).await.unwrap();
    assert!(lines.recv().await.is_some());
    drop(lines);
    let report = run.report().await.unwrap();
    assert!(report.output_closed && report.items.finished() < 1_000_000, "{report:?}");
}

#[tokio::test]
async fn an_invalid_pipeline_text_is_refused_with_every_error() {
    let diagnostics = start().parse_pipeline("[[step]]\nname = 'a'\nroute = 'nowhere'").unwrap_err();
    let text = diagnostics.to_string();
    for word in ["no name", "no prompt", "pipeline:3:9: unknown route `nowhere`"] {
        assert!(text.contains(word), "{text}");
    }
}

/// Blocks on a future without a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

#[test]
fn a_program_without_a_runtime_receives_a_response_after_a_failover() {
    let config = "
        [provider.bad]
        base_url = 'simulator'
        models.m = {}
        [provider.good]
        base_url = 'simulator'
        models.m = {}
        [route.default]
        targets = ['bad/m', 'good/m']
        [simulator]
        faults = [{ kind = 'auth', times = 1 }]
        [run]
        max_in_flight_items = 4";
    let pointsman = Pointsman::start(&Config::parse("config.toml", config, &|_| None).unwrap()).unwrap();
    let response = block_on(pointsman.ask("default", pointsman::types::Prompt::text("Hello?"))).unwrap();
    assert_eq!((response.resends, response.attempts.0.len()), (0, 2), "{:?}", response.attempts);
}
