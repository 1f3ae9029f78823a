//! Whose refusal it is: one request's, one model's, or the key's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use pointsman::simulator::{Fault, FaultKind, Settings, Vendor};
use pointsman::types::Class;

use super::scripted::{Scripted, response, stream};
use super::stage::*;

const ONE_STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"";

/// Items whose names say of which fault their prompt is to be.
fn of_item(kind: FaultKind, number: usize) -> Fault {
    Fault { contains: Some(format!("item-{number}.")), ..Fault::new(kind) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_one_items_request_fails_only_that_item() {
    for (format, vendor) in FORMATS {
        for kind in [
            FaultKind::Firewall,
            FaultKind::FileForbidden,
            FaultKind::MaxTokensUnaffordable,
            FaultKind::Forbidden,
        ] {
            let simulator = faulty([of_item(kind, 42)]);
            let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{PATIENT}");
            let config = provider_at("a", &simulator.base_url(vendor), &more);
            let ran = run(&start(&format!("{QUICK_RETRY}{config}")), ONE_STEP, 300).await;
            let failed: Vec<_> = ran.lines.iter().filter(|line| line["status"] != "completed").collect();
            let of_one =
                |line: &&serde_json::Value| line["key"] == "item-42" && line["error"]["class"] == "api_error";
            assert!(failed.len() == 1 && failed.iter().all(of_one), "{format}, {kind:?}: {failed:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_items_that_are_refused_for_no_reason_do_not_rest_the_key() {
    let poisoned = [3, 4, 5, 150, 151, 152, 153].map(|number| of_item(FaultKind::Forbidden, number));
    let simulator = play(Settings {
        latency: serde_json::from_value(serde_json::json!("300ms")).unwrap(),
        faults: poisoned.to_vec(),
        ..Settings::default()
    });
    let config = provider("a", &simulator, &format!("keys = [\"env:K1\"]{PATIENT}"));
    let ran = run(&start(&format!("{QUICK_RETRY}{config}")), ONE_STEP, 300).await;
    assert_eq!(ran.report.items.completed, 293, "{:?}", ran.report.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_optional_step_that_the_account_cannot_afford_costs_no_item() {
    let fault =
        Fault { contains: Some("Elaborate".to_owned()), ..Fault::new(FaultKind::MaxTokensUnaffordable) };
    let simulator = faulty([fault]);
    let config = provider("a", &simulator, &format!("keys = [\"env:K1\"]{PATIENT}"));
    let steps = format!(
        "{ONE_STEP}\n[[step]]\nname = \"more\"\noptional = true\nprompt = \"Elaborate on {{{{ item.id }}}}.\""
    );
    let ran = run(&start(&format!("{QUICK_RETRY}{config}")), &steps, 60).await;
    assert_eq!(ran.report.items.completed, 60, "{:?}", ran.report.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_the_account_may_not_use_leaves_the_others_of_its_key() {
    for (format, vendor) in FORMATS {
        let fault = Fault { model: Some("m".to_owned()), ..Fault::new(FaultKind::ModelForbidden) };
        let simulator = faulty([fault]);
        let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]\nmodels.n = {{}}{PATIENT}");
        let config = provider_at("a", &simulator.base_url(vendor), &more);
        let pointsman = start(&format!("{config}[route.both]\nlanes = [\"a/m\", \"a/n\"]\n"));
        let answers = ask_many(&pointsman, "both", 50).await;
        let lanes = answers.iter().map(|answer| answer.as_ref().unwrap().lane.model.to_string());
        assert!(lanes.clone().all(|model| model == "n"), "{format}: {:?}", lanes.collect::<Vec<_>>());
        // Later requests do not ask the model any more.
        let asked = simulator.counts().requests;
        assert_eq!(story(&ask(&pointsman, "both", "And now?").await), "a:ok", "{format}");
        assert_eq!(simulator.counts().requests, asked + 1, "{format}");
        // Another key may be allowed to use it.
        let allowed =
            Fault { model: Some("m".to_owned()), key: key("K1"), ..Fault::new(FaultKind::ModelForbidden) };
        simulator.set(Settings { faults: vec![allowed], ..Settings::default() });
        let two = format!("format = \"{format}\"\nkeys = [\"env:K1\", \"env:K2\"]{PATIENT}");
        let pointsman = start(&provider_at("a", &simulator.base_url(vendor), &two));
        assert_eq!(story(&ask(&pointsman, "default", "May I?").await), "a:auth a:ok", "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_revoked_rests_and_no_question_is_failed_for_its_own_reason() {
    for (format, vendor) in FORMATS {
        let simulator = play(Settings::default());
        let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{PATIENT}");
        let pointsman = start(&provider_at("a", &simulator.base_url(vendor), &more));
        assert_eq!(class(&ask(&pointsman, "default", "Is it valid?").await), None);
        simulator.set(Settings { keys: vec![key("K2").unwrap()], ..Settings::default() });
        let answers = ask_many(&pointsman, "default", 300).await;
        let classes: Vec<_> = answers.iter().map(class).collect();
        assert!(classes.iter().all(|class| *class == Some(Class::Auth)), "{format}: {classes:?}");
        assert_eq!(snapshot(&pointsman, "a").resting_keys.len(), 1, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_forbidden_everything_is_found_although_no_refusal_names_it() {
    let simulator = play(Settings::default());
    let pointsman = start(&provider("a", &simulator, &format!("keys = [\"env:K1\"]{PATIENT}")));
    assert_eq!(class(&ask(&pointsman, "default", "Is it valid?").await), None);
    simulator.set(Settings { faults: vec![Fault::new(FaultKind::Forbidden)], ..Settings::default() });
    let answers = ask_many(&pointsman, "default", 300).await;
    let classes: Vec<_> = answers.iter().map(class).collect();
    assert!(classes.iter().all(|class| *class == Some(Class::Auth)), "{classes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_one_key_is_refused_for_is_asked_with_the_next_and_both_stay_in_use() {
    let files =
        Fault { key: key("K1"), contains: Some("file".to_owned()), ..Fault::new(FaultKind::FileForbidden) };
    let simulator = faulty([files]);
    let url = simulator.base_url(Vendor::Gemini);
    let more = format!("format = \"gemini\"\nkeys = [\"env:K1\", \"env:K2\"]{PATIENT}");
    let pointsman = start(&provider_at("a", &url, &more));
    assert_eq!(story(&ask(&pointsman, "default", "What is in the file?").await), "a:api_error a:ok");
    assert!(snapshot(&pointsman, "a").resting_keys.is_empty());
}

const WITH_PARAMETERS: &str =
    "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\ntemperature = 0.2\nmax_tokens = 50";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_that_a_model_refuses_by_name_are_left_out_from_then_on() {
    let refused = ["temperature", "max_tokens", "stream_options"].map(str::to_owned).to_vec();
    for (format, vendor) in &FORMATS[..2] {
        let simulator = play(Settings { refused_parameters: refused.clone(), ..Settings::default() });
        let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{PATIENT}");
        let config = provider_at("a", &simulator.base_url(*vendor), &more);
        let pointsman = start(&format!("{QUICK_RETRY}{config}"));
        let first = run(&pointsman, WITH_PARAMETERS, 1).await;
        assert_eq!(first.report.items.completed, 1, "{format}: {:?}", first.lines);
        let refusals = |simulator: &pointsman::simulator::Simulator| {
            simulator.counts().by_status.get(&400).copied().unwrap_or(0)
        };
        let expected = if *format == "openai" { 3 } else { 1 };
        assert_eq!(refusals(&simulator), expected, "{format}");
        // Nothing is refused twice.
        let ran = run(&pointsman, WITH_PARAMETERS, 50).await;
        assert_eq!((ran.report.items.completed, refusals(&simulator)), (50, expected), "{format}");
    }
}

/// A server that refuses one item's requests and repeats what they say, as validators do, whatever it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_items_text_that_its_refusal_repeats_changes_no_other_request() {
    let texts = [
        "Error: 'temperature' is not supported",
        "response_format is not supported by this model",
        "please check your plan and billing details",
        "your credit balance is too low",
        "this model does not exist: model not found",
    ];
    let cases = texts.into_iter().flat_map(|said| [(said, false), (said, true)]);
    // Side by side, as each waits longer the more often the item was refused.
    let ran = cases.map(|(said, is_stream)| async move {
        let plain = Arc::new(AtomicUsize::new(0));
        let changed = plain.clone();
        let scripted = Scripted::start(move |request| {
            let (_, body) = request.split_once("\r\n\r\n").unwrap();
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            let prompt = body.pointer("/messages/0/content").unwrap().as_str().unwrap();
            if body["temperature"] != 0.3 || body.pointer("/response_format/json_schema").is_none() {
                changed.fetch_add(1, SeqCst);
            }
            if !prompt.contains("item-7:") {
                let text =
                    serde_json::json!({ "delta": { "content": "{\"x\":1}" }, "finish_reason": "stop" });
                let chunk = serde_json::json!({ "choices": [text] });
                return stream("", &format!("data: {chunk}\n\ndata: [DONE]\n\n"), true);
            }
            let error = serde_json::json!({ "message": format!("invalid content: {prompt:?}") });
            let error = serde_json::json!({ "error": error }).to_string();
            match is_stream {
                true => stream("", &format!("data: {error}\n\n"), true),
                false => response("400 Bad Request", "content-type: application/json\r\n", &error),
            }
        })
        .await;
        let steps = format!(
            "[[step]]\nname = \"s\"\nprompt = \"Translate {{{{ item.id }}}}: {said}\"\ntemperature = 0.3\n\
                 schema = {{ type = \"object\", properties = {{ x = {{ type = \"integer\" }} }}, \
                 required = [\"x\"], additionalProperties = false }}"
        );
        let more = format!("keys = [\"env:K1\"]{PATIENT}");
        let pointsman = start(&format!("{QUICK_RETRY}{}", provider_at("a", &scripted.url(), &more)));
        let ran = run(&pointsman, &steps, 60).await;
        let failed = ran.lines.iter().filter(|line| line["status"] != "completed");
        let keys: Vec<_> = failed.map(|line| line["key"].as_str().unwrap()).collect();
        assert_eq!(keys, ["item-7"], "{said} {is_stream}: {:#?}", ran.lines);
        assert_eq!(plain.load(SeqCst), 0, "{said} {is_stream}");
        assert!(snapshot(&pointsman, "a").resting_keys.is_empty(), "{said} {is_stream}");
    });
    futures_util::future::join_all(ran).await;
}

const WITH_DESCRIBED_REFERENCES: &str = r##"
[[step]]
name = "s"
prompt = "Describe {{ item.id }}."
schema = { type = "object", properties = { hero = { "$ref" = "#/$defs/chart", description = "the hero", default = {} } }, required = ["hero"], additionalProperties = false, "$defs" = { chart = { type = "object", properties = { title = { type = "string" } }, required = ["title"], additionalProperties = false } } }
"##;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_with_described_references_is_taken_by_every_vendor() {
    for (format, vendor) in FORMATS {
        let simulator = play(Settings::default());
        let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{PATIENT}");
        let config = provider_at("a", &simulator.base_url(vendor), &more);
        let ran = run(&start(&format!("{QUICK_RETRY}{config}")), WITH_DESCRIBED_REFERENCES, 3).await;
        assert_eq!(ran.report.items.completed, 3, "{format}: {:?}", ran.lines);
        assert_eq!(simulator.counts().by_status.get(&400), None, "{format}");
    }
}
