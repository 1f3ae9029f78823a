//! Keys change when one is refused, and never show.

use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, Settings};
use pointsman::types::{Answer, Class, Unanswered};

use super::scripted::{ANSWER, Scripted, header, response, stream};
use super::stage::*;

const TWO_KEYS: &str = "keys = [\"env:K1\", \"env:K2\"]";

/// Everything that can be seen of an outcome, as text.
fn seen(answered: &Result<Answer, Box<Unanswered>>) -> String {
    let json = serde_json::to_string(trail(answered)).unwrap();
    let shown = answered.as_ref().err().map(ToString::to_string);
    format!("{answered:?} {answered:#?} {json} {shown:?}")
}

fn shows_a_key(text: &str) -> bool {
    ["K1", "K2"].into_iter().any(|name| text.contains(&key(name).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_key_rests_and_the_next_one_is_used() {
    for (format, vendor) in FORMATS {
        let simulator = play(Settings { keys: vec![key("K2").unwrap()], ..Settings::default() });
        let url = simulator.base_url(vendor);
        let more = format!("format = \"{format}\"\n{TWO_KEYS}{PATIENT}");
        let pointsman = start(&provider_at("a", &url, &more));
        let first = ask(&pointsman, "default", "Who am I?").await;
        assert_eq!(story(&first), "a:auth a:ok", "{format}");
        let labels: Vec<_> =
            trail(&first).0.iter().map(|attempt| attempt.key.clone().unwrap().to_string()).collect();
        assert_eq!(labels, ["env:K1", "env:K2"], "{format}");
        let second = ask(&pointsman, "default", "And now?").await;
        assert_eq!(story(&second), "a:ok", "{format}");
        let snapshot = snapshot(&pointsman, "a");
        assert_eq!(snapshot.resting_keys[0].key.as_str(), "env:K1", "{format}");
        let json = serde_json::to_string(&snapshot).unwrap();
        let everything = format!("{} {} {snapshot:?} {json} {pointsman:?}", seen(&first), seen(&second));
        assert!(!shows_a_key(&everything), "{everything}");
        assert_eq!((simulator.counts().requests, simulator.counts().answered), (3, 2), "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_whose_quota_is_spent_rests_and_when_none_is_left_the_reason_is_told() {
    for (format, vendor) in FORMATS {
        let spent = |name| Fault { key: key(name), ..Fault::new(FaultKind::Quota) };
        let simulator = faulty([spent("K1")]);
        let url = simulator.base_url(vendor);
        let more = format!("format = \"{format}\"\n{TWO_KEYS}{PATIENT}");
        let pointsman = start(&provider_at("a", &url, &more));
        assert_eq!(story(&ask(&pointsman, "default", "Am I rich?").await), "a:quota a:ok", "{format}");
        simulator.set(Settings { faults: vec![spent("K1"), spent("K2")], ..Settings::default() });
        let last = ask(&pointsman, "default", "Still?").await;
        assert_eq!((story(&last), class(&last)), ("a:quota".to_owned(), Some(Class::Quota)), "{format}");
        // Nothing is left to ask with, and nobody asks.
        let none = ask(&pointsman, "default", "Even now?").await;
        assert_eq!((story(&none), class(&none)), ("a:refused".to_owned(), Some(Class::Quota)), "{format}");
        assert_eq!(simulator.counts().requests, 3, "{format}");
        assert!(!shows_a_key(&(seen(&last) + &seen(&none))), "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_with_a_key_that_is_refused_all_go_on_with_the_next() {
    let simulator = play(Settings { keys: vec![key("K2").unwrap()], ..Settings::default() });
    let pointsman = start(&provider("a", &simulator, &format!("{TWO_KEYS}{PATIENT}")));
    let answers = ask_many(&pointsman, "default", 100).await;
    assert!(answers.iter().all(Result::is_ok));
    // At most those that were out together.
    assert!(simulator.counts().by_status[&401] <= 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_run_writes_a_key() {
    let simulator = play(Settings { keys: vec![key("K2").unwrap()], ..Settings::default() });
    let pointsman = start(&provider("a", &simulator, &format!("{TWO_KEYS}{PATIENT}")));
    let ran = run(&pointsman, "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"", 3).await;
    let report = serde_json::to_string(&ran.report).unwrap();
    assert_eq!(ran.report.items.completed, 3, "{report}");
    assert!(ran.lines.iter().any(|line| line.to_string().contains("env:K2")), "{:?}", ran.lines);
    assert!(!shows_a_key(&format!("{report} {:?} {:?}", ran.report, ran.lines)));
}

/// Returns the label of the key that answered.
fn used(answered: &Result<Answer, Box<Unanswered>>) -> String {
    trail(answered).0.last().unwrap().key.clone().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_take_turns_on_schedule_and_one_that_is_refused_is_passed_over() {
    let simulator = play(Settings::default());
    let more = format!("{TWO_KEYS}\nrotate_every = \"150ms\"\n{PATIENT}");
    let pointsman = start(&provider("a", &simulator, &more));
    let mut turns = Vec::new();
    for number in 0.. {
        let label = used(&ask(&pointsman, "default", &format!("{number}?")).await);
        if turns.last() != Some(&label) {
            turns.push(label);
        }
        if turns.len() == 4 {
            break;
        }
    }
    simulator.set(Settings { keys: vec![key("K2").unwrap()], ..Settings::default() });
    for number in 0.. {
        let answer = ask(&pointsman, "default", &format!("And now, {number}?")).await;
        assert_eq!(used(&answer), "env:K2");
        // It has answered before: three refusals in a row rest it.
        assert!(number < 10_000, "it does not rest");
        if !snapshot(&pointsman, "a").resting_keys.is_empty() {
            break;
        }
    }
    assert_eq!(simulator.counts().by_status[&401], 3);
}

/// Returns the key that a request carries, however it does.
fn sent_key(head: &str) -> String {
    let bearer = header(head, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.or(header(head, "x-api-key")).or(header(head, "x-goog-api-key")).unwrap().to_owned()
}

type Echo = fn(&str) -> String;

/// Ways in which a careless provider repeats what it was sent.
const ECHOES: [(&str, Echo); 7] = [
    ("a JSON error", |key| {
        let body =
            format!(r#"{{"error":{{"message":"Incorrect API key provided: {key}.","code":"{key}"}}}}"#);
        response("401 Unauthorized", "content-type: application/json\r\n", &body)
    }),
    ("plain words", |key| response("400 Bad Request", "", &format!("what is {key}? {key}!"))),
    ("a message that is cut", |key| {
        response("403 Forbidden", "", &format!("{}{key}", "x".repeat(500 - key.len() / 2)))
    }),
    ("a page with a 200", |key| {
        response("200 OK", "content-type: text/html\r\n", &format!("<html><p>{key}</p></html>"))
    }),
    ("a page with its title", |key| {
        let page = format!("<html><title>{key} is wrong</title></html>");
        response("502 Bad Gateway", "content-type: text/html\r\n", &page)
    }),
    ("JSON that is none", |key| {
        response("200 OK", "content-type: application/json\r\n", &format!("<html><title>{key}</title>"))
    }),
    ("an error in a stream", |key| {
        let event =
            format!("data: {{\"error\":{{\"message\":\"no such key {key}\",\"type\":\"{key}\"}}}}\n\n");
        stream("", &event, true)
    }),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_a_provider_repeats_is_covered() {
    for (what, echo) in ECHOES {
        let scripted = Scripted::start(move |head| echo(&sent_key(head))).await;
        for (format, _) in FORMATS {
            let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{PATIENT}");
            let pointsman = start(&format!("{QUICK_RETRY}{}", provider_at("a", &scripted.url(), &more)));
            let answer = ask(&pointsman, "default", "Who am I?").await;
            let everything = format!("{} {:?}", seen(&answer), snapshot(&pointsman, "a"));
            assert!(!everything.contains("0123456789"), "{what}, {format}: {everything}");
            assert!(class(&answer).is_some() && everything.contains("***"), "{what}, {format}: {everything}");
        }
        assert!(scripted.requests() >= 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed_and_takes_no_key_along() {
    let elsewhere = Scripted::start(|_| stream("", ANSWER, true)).await;
    let to = elsewhere.url();
    let here = Scripted::start(move |_| {
        response("307 Temporary Redirect", &format!("location: {to}/v1/chat/completions\r\n"), "")
    })
    .await;
    let more = format!("keys = [\"env:K1\"]{PATIENT}");
    let pointsman = start(&provider_at("a", &here.url(), &more));
    let answer = ask(&pointsman, "default", "Where are you?").await;
    assert_eq!(class(&answer), Some(Class::NotFound));
    assert_eq!((here.requests(), elsewhere.requests()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_id_of_the_request_is_the_one_that_the_header_says() {
    for (name, value) in [("x-request-id", "req_header"), ("request-id", "req_other")] {
        let scripted = Scripted::start(move |_| stream(&format!("{name}: {value}\r\n"), ANSWER, true)).await;
        let pointsman = start(&provider_at("a", &scripted.url(), PATIENT));
        let answer = ask(&pointsman, "default", "Which?").await.unwrap();
        assert_eq!(answer.reply.request_id.as_deref(), Some(value));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_one_after_the_other_share_a_connection() {
    let scripted = Scripted::start(|_| stream("", ANSWER, true)).await;
    let pointsman = start(&provider_at("a", &scripted.url(), PATIENT));
    for number in 0..30 {
        let answer = ask(&pointsman, "default", &format!("{number}?")).await.unwrap();
        assert_eq!(answer.reply.text, "Hello.");
    }
    assert_eq!(scripted.requests(), 30);
    // One, but on a machine that is so busy that the end of an answer comes after the next question.
    assert!(scripted.connections() <= 3, "{} connections", scripted.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_end_its_stream_delays_nobody() {
    let scripted = Scripted::start(|_| stream("", ANSWER, false)).await;
    let pointsman = start(&provider_at("a", &scripted.url(), PATIENT));
    let mut times = Vec::new();
    for number in 0..10 {
        let answer = ask(&pointsman, "default", &format!("{number}?")).await.unwrap();
        times.push(answer.trail.0[0].took);
    }
    // Waiting for the end would delay every one of them; a busy machine delays some.
    assert!(times.iter().any(|took| *took < Duration::from_millis(40)), "{times:?}");
}
