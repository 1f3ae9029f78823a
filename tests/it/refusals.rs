//! The scope of a refusal: one request, one model, or the key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use pointsman::simulator::{Fault, FaultKind, Settings, Vendor};
use pointsman::types::{Class, Outcome};
use pointsman::{Format, Prompt, Request, VendorFields};

use super::scripted_server::{ScriptedServer, response, stream};
use super::support::*;

const ONE_STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"";

/// Returns a fault for the requests of one item.
fn fault_of_item(kind: FaultKind, number: usize) -> Fault {
    Fault { contains: Some(format!("item-{number}.")), ..Fault::new(kind) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_fails_only_its_item() {
    for (format, vendor) in FORMATS {
        for kind in [
            FaultKind::Firewall,
            FaultKind::FileForbidden,
            FaultKind::MaxTokensUnaffordable,
            FaultKind::Forbidden,
        ] {
            let simulator = start_faulty_simulator([fault_of_item(kind, 42)]);
            let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{LONG_TIMEOUTS}");
            let config = provider_config_at("a", &simulator.base_url(vendor), &more);
            let finished =
                run_pipeline(&start_pointsman(&format!("{QUICK_RETRY}{config}")), ONE_STEP, 300).await;
            let failed: Vec<_> = finished.lines.iter().filter(|line| line["status"] != "completed").collect();
            let is_expected =
                |line: &&serde_json::Value| line["key"] == "item-42" && line["error"]["class"] == "api_error";
            assert!(failed.len() == 1 && failed.iter().all(is_expected), "{format}, {kind:?}: {failed:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_another_value_of_a_configured_field_is_refused_by_its_target_before_it_is_sent() {
    let flex = start_simulator(Settings::default());
    let other = start_simulator(Settings::default());
    let extra = "models.m = { extra = { service_tier = \"flex\" } }";
    let config = format!(
        "{}{}[route.default]\ntargets = [\"a/m\", \"b/m\"]\n",
        provider_config("a", &flex, LONG_TIMEOUTS).replace("models.m = {}", extra),
        provider_config("b", &other, LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    let send = async |tier: &str| {
        let fields = serde_json::json!({ "service_tier": tier }).as_object().cloned().unwrap();
        let prompt = Prompt::text("Hello?").with_vendor_fields(VendorFields::new(Format::Openai, fields));
        pointsman.send(Request::new("default", prompt)).await
    };
    let result = send("priority").await;
    assert_eq!(attempt_summary(&result), "a:refused b:ok");
    let Outcome::Refused(reason) = &attempt_log(&result).0[0].outcome else { panic!("{result:?}") };
    assert!(reason.contains("the configuration of the model sets \"service_tier\""), "{reason}");
    assert_eq!((flex.counts().requests, other.counts().requests), (0, 1));
    assert_eq!(attempt_summary(&send("flex").await), "a:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_items_refused_without_a_reason_do_not_cool_down_the_key() {
    let faults = [3, 4, 5, 150, 151, 152, 153].map(|number| fault_of_item(FaultKind::Forbidden, number));
    let simulator = start_simulator(Settings {
        latency: serde_json::from_value(serde_json::json!("300ms")).unwrap(),
        faults: faults.to_vec(),
        ..Settings::default()
    });
    let config = provider_config("a", &simulator, &format!("keys = [\"env:K1\"]{LONG_TIMEOUTS}"));
    let finished = run_pipeline(&start_pointsman(&format!("{QUICK_RETRY}{config}")), ONE_STEP, 300).await;
    assert_eq!(finished.report.items.completed, 293, "{:?}", finished.report.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_optional_step_that_the_account_cannot_afford_fails_no_item() {
    let fault =
        Fault { contains: Some("Elaborate".to_owned()), ..Fault::new(FaultKind::MaxTokensUnaffordable) };
    let simulator = start_faulty_simulator([fault]);
    let config = provider_config("a", &simulator, &format!("keys = [\"env:K1\"]{LONG_TIMEOUTS}"));
    let steps = format!(
        "{ONE_STEP}\n[[step]]\nname = \"more\"\noptional = true\nprompt = \"Elaborate on {{{{ item.id }}}}.\""
    );
    let finished = run_pipeline(&start_pointsman(&format!("{QUICK_RETRY}{config}")), &steps, 60).await;
    assert_eq!(finished.report.items.completed, 60, "{:?}", finished.report.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_model_does_not_affect_the_other_models_of_its_key() {
    for (format, vendor) in FORMATS {
        let fault = Fault { model: Some("m".to_owned()), ..Fault::new(FaultKind::ModelForbidden) };
        let simulator = start_faulty_simulator([fault]);
        let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]\nmodels.n = {{}}{LONG_TIMEOUTS}");
        let config = provider_config_at("a", &simulator.base_url(vendor), &more);
        let pointsman = start_pointsman(&format!("{config}[route.both]\ntargets = [\"a/m\", \"a/n\"]\n"));
        let results = send_requests(&pointsman, "both", 50).await;
        let models = results.iter().map(|result| result.as_ref().unwrap().target.model.to_string());
        assert!(models.clone().all(|model| model == "n"), "{format}: {:?}", models.collect::<Vec<_>>());
        // Later requests are not sent to the model.
        let sent = simulator.counts().requests;
        assert_eq!(attempt_summary(&send_request(&pointsman, "both", "And now?").await), "a:ok", "{format}");
        assert_eq!(simulator.counts().requests, sent + 1, "{format}");
        // Another key may be allowed to use it.
        let allowed = Fault {
            model: Some("m".to_owned()),
            key: lookup_key("K1"),
            ..Fault::new(FaultKind::ModelForbidden)
        };
        simulator.set(Settings { faults: vec![allowed], ..Settings::default() });
        let two_keys = format!("format = \"{format}\"\nkeys = [\"env:K1\", \"env:K2\"]{LONG_TIMEOUTS}");
        let pointsman = start_pointsman(&provider_config_at("a", &simulator.base_url(vendor), &two_keys));
        assert_eq!(
            attempt_summary(&send_request(&pointsman, "default", "May I?").await),
            "a:auth a:ok",
            "{format}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_cools_down_and_every_request_fails_as_auth() {
    for (format, vendor) in FORMATS {
        let simulator = start_simulator(Settings::default());
        let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{LONG_TIMEOUTS}");
        let pointsman = start_pointsman(&provider_config_at("a", &simulator.base_url(vendor), &more));
        assert_eq!(failure_class(&send_request(&pointsman, "default", "Is it valid?").await), None);
        simulator.set(Settings { keys: vec![lookup_key("K2").unwrap()], ..Settings::default() });
        let results = send_requests(&pointsman, "default", 300).await;
        let classes: Vec<_> = results.iter().map(failure_class).collect();
        assert!(classes.iter().all(|class| *class == Some(Class::Auth)), "{format}: {classes:?}");
        assert_eq!(provider_snapshot(&pointsman, "a").keys_in_cooldown.len(), 1, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_always_refused_is_detected_although_no_error_names_it() {
    let simulator = start_simulator(Settings::default());
    let pointsman =
        start_pointsman(&provider_config("a", &simulator, &format!("keys = [\"env:K1\"]{LONG_TIMEOUTS}")));
    assert_eq!(failure_class(&send_request(&pointsman, "default", "Is it valid?").await), None);
    simulator.set(Settings { faults: vec![Fault::new(FaultKind::Forbidden)], ..Settings::default() });
    let results = send_requests(&pointsman, "default", 300).await;
    let classes: Vec<_> = results.iter().map(failure_class).collect();
    assert!(classes.iter().all(|class| *class == Some(Class::Auth)), "{classes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_refused_for_one_key_is_sent_with_the_next_and_both_stay_in_use() {
    let files = Fault {
        key: lookup_key("K1"),
        contains: Some("file".to_owned()),
        ..Fault::new(FaultKind::FileForbidden)
    };
    let simulator = start_faulty_simulator([files]);
    let url = simulator.base_url(Vendor::Gemini);
    let more = format!("format = \"gemini\"\nkeys = [\"env:K1\", \"env:K2\"]{LONG_TIMEOUTS}");
    let pointsman = start_pointsman(&provider_config_at("a", &url, &more));
    assert_eq!(
        attempt_summary(&send_request(&pointsman, "default", "What is in the file?").await),
        "a:api_error a:ok"
    );
    assert!(provider_snapshot(&pointsman, "a").keys_in_cooldown.is_empty());
}

const WITH_PARAMETERS: &str =
    "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\ntemperature = 0.2\nmax_tokens = 50";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_that_a_model_refuses_by_name_are_omitted_from_then_on() {
    let refused = ["temperature", "max_tokens", "stream_options"].map(str::to_owned).to_vec();
    // Only chat completions have all of these parameters. The simulated models of Gemini refuse none.
    let formats = FORMATS.into_iter().filter(|(format, _)| *format != "gemini");
    for (format, vendor) in formats {
        let simulator =
            start_simulator(Settings { refused_parameters: refused.clone(), ..Settings::default() });
        let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{LONG_TIMEOUTS}");
        let config = provider_config_at("a", &simulator.base_url(vendor), &more);
        let pointsman = start_pointsman(&format!("{QUICK_RETRY}{config}"));
        let first = run_pipeline(&pointsman, WITH_PARAMETERS, 1).await;
        assert_eq!(first.report.items.completed, 1, "{format}: {:?}", first.lines);
        let refusals = |simulator: &pointsman::simulator::Simulator| {
            simulator.counts().by_status.get(&400).copied().unwrap_or(0)
        };
        let expected = if format == "openai" { 3 } else { 1 };
        assert_eq!(refusals(&simulator), expected, "{format}");
        // Nothing is refused twice.
        let finished = run_pipeline(&pointsman, WITH_PARAMETERS, 50).await;
        assert_eq!((finished.report.items.completed, refusals(&simulator)), (50, expected), "{format}");
    }
}

/// The server refuses the requests of one item and repeats the prompt in the error, as validators do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_text_repeated_in_an_error_changes_no_other_request() {
    let texts = [
        "Error: 'temperature' is not supported",
        "response_format is not supported by this model",
        "please check your plan and billing details",
        "your credit balance is too low",
        "this model does not exist: model not found",
    ];
    let cases = texts.into_iter().flat_map(|text| [(text, false), (text, true)]);
    // Concurrently, because each case waits for growing backoffs.
    let runs = cases.map(|(item_text, is_stream)| async move {
        let changed_requests = Arc::new(AtomicUsize::new(0));
        let counter = changed_requests.clone();
        let server = ScriptedServer::start(move |request| {
            let (_, body) = request.split_once("\r\n\r\n").unwrap();
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            let prompt = body.pointer("/messages/0/content").unwrap().as_str().unwrap();
            if body["temperature"] != 0.3 || body.pointer("/response_format/json_schema").is_none() {
                counter.fetch_add(1, SeqCst);
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
            "[[step]]\nname = \"s\"\nprompt = \"Translate {{{{ item.id }}}}: {item_text}\"\ntemperature = 0.3\n\
                 schema = {{ type = \"object\", properties = {{ x = {{ type = \"integer\" }} }}, \
                 required = [\"x\"], additionalProperties = false }}"
        );
        let more = format!("keys = [\"env:K1\"]{LONG_TIMEOUTS}");
        let pointsman =
            start_pointsman(&format!("{QUICK_RETRY}{}", provider_config_at("a", &server.url(), &more)));
        let finished = run_pipeline(&pointsman, &steps, 60).await;
        let failed = finished.lines.iter().filter(|line| line["status"] != "completed");
        let keys: Vec<_> = failed.map(|line| line["key"].as_str().unwrap()).collect();
        assert_eq!(keys, ["item-7"], "{item_text} {is_stream}: {:#?}", finished.lines);
        assert_eq!(changed_requests.load(SeqCst), 0, "{item_text} {is_stream}");
        assert!(provider_snapshot(&pointsman, "a").keys_in_cooldown.is_empty(), "{item_text} {is_stream}");
    });
    futures_util::future::join_all(runs).await;
}

const WITH_DESCRIBED_REFERENCES: &str = r##"
[[step]]
name = "s"
prompt = "Describe {{ item.id }}."
schema = { type = "object", properties = { hero = { "$ref" = "#/$defs/chart", description = "the hero", default = {} } }, required = ["hero"], additionalProperties = false, "$defs" = { chart = { type = "object", properties = { title = { type = "string" } }, required = ["title"], additionalProperties = false } } }
"##;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_with_described_references_is_accepted_by_every_vendor() {
    for (format, vendor) in FORMATS {
        let simulator = start_simulator(Settings::default());
        let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{LONG_TIMEOUTS}");
        let config = provider_config_at("a", &simulator.base_url(vendor), &more);
        let finished =
            run_pipeline(&start_pointsman(&format!("{QUICK_RETRY}{config}")), WITH_DESCRIBED_REFERENCES, 3)
                .await;
        assert_eq!(finished.report.items.completed, 3, "{format}: {:?}", finished.lines);
        assert_eq!(simulator.counts().by_status.get(&400), None, "{format}");
    }
}
