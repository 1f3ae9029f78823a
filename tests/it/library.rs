//! The library, as a program that embeds it sees it.

use pointsman::run::{Ended, Output};
use pointsman::sink::{Format, Sink, Target};
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
    let config = "[provider.simulated]\nbase_url = 'simulator'\n[run]\nwindow = 4";
    Pointsman::start(&Config::parse("config.toml", config, &|_| None).unwrap()).unwrap()
}

fn items(count: u64) -> Source {
    Source::values("items", (1..=count).map(|id| json!({ "id": id, "text": "points" })))
}

#[tokio::test]
async fn lines_and_rejects_come_through_channels() {
    let pointsman = start();
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let (lines_to, mut lines) = Sink::channel().unwrap();
    let (rejects_to, mut rejects) = Sink::channel().unwrap();
    let source = Source::values("items", [json!({ "id": 1, "text": "points" }), json!("no item")]);
    let output = Output { rejects: Some(rejects_to), ..Output::new(lines_to) };
    let mut run = pointsman.run(pipeline, source, output).await.unwrap();
    let line = lines.recv().await.unwrap();
    assert_eq!((line.key.as_str(), line.practice), ("1", true));
    assert!(matches!(&line.answers["answer"], Value::String(said) if said.contains("points")));
    assert_eq!(rejects.recv().await.unwrap().line, 2);
    assert!(lines.recv().await.is_none() && rejects.recv().await.is_none());
    let report = run.report().await.unwrap();
    assert_eq!((report.items.completed, report.items.rejected, report.items.unwritten), (1, 1, 0));
}

#[tokio::test]
async fn a_report_is_the_same_when_it_is_asked_for_again() {
    let pointsman = start();
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let sink = Sink::results(Target::none(), Format::Jsonl, &[]).unwrap();
    let mut run = pointsman.run(pipeline, items(3), Output::new(sink)).await.unwrap();
    let first = run.report().await.unwrap();
    assert_eq!((first.items.completed, first.ended), (3, Ended::Whole));
    assert_eq!(run.report().await.unwrap(), first);
}

#[tokio::test]
async fn a_run_stops_when_nobody_takes_its_lines_any_more() {
    let pointsman = start();
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let (sink, mut lines) = Sink::channel().unwrap();
    let mut run = pointsman.run(pipeline, items(1_000_000), Output::new(sink)).await.unwrap();
    assert!(lines.recv().await.is_some());
    drop(lines);
    let report = run.report().await.unwrap();
    assert!(report.reader_gone && report.items.settled() < 1_000_000, "{report:?}");
}

#[tokio::test]
async fn a_pipeline_that_is_no_file_is_refused_with_every_fault() {
    let faults = start().parse_pipeline("[[step]]\nname = 'a'\nroute = 'nowhere'").unwrap_err();
    let said = faults.to_string();
    for word in ["no name", "no prompt", "pipeline:3:9: unknown route `nowhere`"] {
        assert!(said.contains(word), "{said}");
    }
}

/// Waits as a program does that has no runtime at all.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let (mut future, mut context) = (std::pin::pin!(future), std::task::Context::from_waker(&waker));
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

#[test]
fn a_program_without_a_runtime_is_answered_after_a_failure_too() {
    let config = "
        [provider.bad]
        base_url = 'simulator'
        models.m = {}
        [provider.good]
        base_url = 'simulator'
        models.m = {}
        [route.default]
        lanes = ['bad/m', 'good/m']
        [simulator]
        faults = [{ kind = 'auth', times = 1 }]
        [run]
        window = 4";
    let pointsman = Pointsman::start(&Config::parse("config.toml", config, &|_| None).unwrap()).unwrap();
    let answer = wait(pointsman.ask("default", pointsman::types::Prompt::text("Anybody?"))).unwrap();
    assert_eq!((answer.lost, answer.trail.0.len()), (0, 2), "{:?}", answer.trail);
}
