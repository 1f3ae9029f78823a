//! Differences between manifests, how they are reported, and what they affect.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::pipeline::Defaults;
use crate::store::{RunMetadata, RunNumber, RunState};

const FILE: &str = "
name = \"email\"
[[step]]
name = \"category\"
prompt = \"What is it? {{ item.text }}\"
[[step]]
name = \"urgent\"
prompt = \"Is it urgent? {{ item.text }}\"
[[step]]
name = \"reply\"
prompt = \"Answer this {{ category }}: {{ item.text }}\"
";

fn target(name: &str, identity: &str, price: Option<f64>) -> TargetManifest {
    TargetManifest {
        target: name.parse().unwrap(),
        model_identity: Fingerprint::of([identity.as_bytes()]),
        price: price.map(|input| Price {
            input,
            output: 5.0,
            cached: None,
            cache_write: None,
            cache_write_1h: None,
            long: None,
        }),
        address: None,
    }
}

fn manifest(text: &str, targets: &[TargetManifest]) -> RunManifest {
    let routes = ["default".into()];
    let pipeline = Pipeline::parse("p", text, Path::new(""), &Defaults::default(), &routes).unwrap();
    RunManifest::of(&pipeline, |_| targets.to_vec())
}

fn report(old: &RunManifest, new: &RunManifest) -> (String, bool) {
    let changes = old.diff(new);
    assert_eq!(changes.is_empty(), old == new);
    (changes.to_string(), changes.affects_finished_items())
}

#[test]
fn a_changed_step_is_reported_with_the_steps_that_need_it() {
    let old = manifest(FILE, &[]);
    let new = manifest(&FILE.replace("What is it?", "What kind is it?"), &[]);
    assert_eq!(
        report(&old, &new),
        ("changed steps: category; steps that need their answers: reply".into(), true)
    );
    let later = manifest(&FILE.replace("Answer this", "Reply to this"), &[]);
    assert_eq!(report(&old, &later), ("changed steps: reply".into(), true));
    assert_eq!(report(&old, &manifest(FILE, &[])), (String::new(), false));
}

#[test]
fn settings_that_do_not_affect_answers_are_not_a_change() {
    let old = manifest(FILE, &[]);
    let other_limits =
        FILE.replace("name = \"reply\"", "name = \"reply\"\ndeadline = \"1h\"\nmax_validation_retries = 5");
    assert_eq!(report(&old, &manifest(&other_limits, &[])), (String::new(), false));
    let defaults = FILE.replace("name = \"reply\"", "name = \"reply\"\nstop = []\nkeep_reasoning = false");
    assert_eq!(report(&old, &manifest(&defaults, &[])), (String::new(), false));
    for setting in ["auto", "off", "1h"] {
        let cached =
            FILE.replace("name = \"reply\"", &format!("name = \"reply\"\nprompt_cache = \"{setting}\""));
        assert_eq!(report(&old, &manifest(&cached, &[])), (String::new(), false), "{setting}");
        let by_default =
            FILE.replacen("[[step]]", &format!("[defaults]\nprompt_cache = \"{setting}\"\n[[step]]"), 1);
        assert_eq!(report(&old, &manifest(&by_default, &[])), (String::new(), false), "{setting}");
    }
    for setting in [
        "max_tokens = 7",
        "temperature = 0.5",
        "top_p = 0.5",
        "stop = \"END\"",
        "seed = 0",
        "reasoning_effort = \"low\"",
        "keep_reasoning = true",
        "optional = true",
        "when = \"item.text\"",
        "choice = [\"A\", \"B\"]",
    ] {
        let new = manifest(&FILE.replace("name = \"reply\"", &format!("name = \"reply\"\n{setting}")), &[]);
        assert_eq!(report(&old, &new).0, "changed steps: reply", "{setting}");
    }
}

#[test]
fn a_default_of_the_pipeline_changes_the_steps_that_do_not_set_it() {
    let file = |defaults: &str| {
        format!(
            "name = \"p\"\n[defaults]\n{defaults}\n[[step]]\nname = \"own\"\nprompt = \"x\"\nseed = 1\n\
             [[step]]\nname = \"inherits\"\nprompt = \"x\"\n"
        )
    };
    let old = manifest(&file("seed = 1"), &[]);
    assert_eq!(report(&old, &manifest(&file("seed = 2"), &[])).0, "changed steps: inherits");
    assert_eq!(report(&old, &manifest(&file(""), &[])).0, "changed steps: inherits");
}

#[test]
fn a_step_without_newer_settings_has_the_fingerprint_of_earlier_versions() {
    let text =
        "name = \"p\"\n[[step]]\nname = \"a\"\nprompt = \"What is it?\"\nmax_tokens = 7\ntemperature = 0.5\n";
    let parts = r#"["What is it?",null,null,null,[],7,0.5,false]"#;
    assert_eq!(manifest(text, &[]).steps["a"].text, Fingerprint::of([parts.as_bytes()]));
}

#[test]
fn added_and_removed_steps_are_reported() {
    let old = manifest(FILE, &[]);
    let new = manifest(&FILE.replace("urgent", "pressing"), &[]);
    assert_eq!(report(&old, &new), ("new steps: pressing; removed steps: urgent".into(), true));
}

#[test]
fn a_changed_model_affects_items_and_a_changed_price_or_an_added_model_does_not() {
    let old = manifest(FILE, &[target("claude/haiku", "haiku-4", Some(1.0))]);
    let dearer = manifest(FILE, &[target("claude/haiku", "haiku-4", Some(2.0))]);
    assert_eq!(report(&old, &dearer), ("other prices: claude/haiku".into(), false));
    let with_hour = |price: f64| {
        let mut target = target("claude/haiku", "haiku-4", Some(1.0));
        target.price.as_mut().unwrap().cache_write_1h = Some(price);
        manifest(FILE, &[target])
    };
    assert!(old.diff(&with_hour(2.0)).is_empty());
    assert_eq!(report(&with_hour(2.0), &with_hour(3.0)), ("other prices: claude/haiku".into(), false));
    assert_eq!(report(&with_hour(2.0), &old), ("other prices: claude/haiku".into(), false));
    let more = manifest(
        FILE,
        &[target("claude/haiku", "haiku-4", Some(1.0)), target("gemini/flash", "flash", None)],
    );
    assert_eq!(report(&old, &more), ("new models: gemini/flash".into(), false));
    let newer = manifest(FILE, &[target("claude/haiku", "haiku-5", Some(1.0))]);
    let expected = "models that are no longer used: claude/haiku; new models: claude/haiku";
    assert_eq!(report(&old, &newer), (expected.into(), true));
    let mut moved = target("claude/haiku", "haiku-4", Some(1.0));
    moved.address = Some("http://127.0.0.1:8089".to_owned());
    assert_eq!(report(&old, &manifest(FILE, &[moved])), ("other addresses: claude/haiku".into(), false));
    let answers = BTreeMap::from([("category".into(), 7), ("reply".into(), 3)]);
    assert_eq!(old.diff(&newer).count_valid_answers(&answers, &old, &newer), 0);
    assert_eq!(old.diff(&dearer).count_valid_answers(&answers, &old, &dearer), 10);
    let renamed = manifest(FILE, &[target("anthropic/small", "haiku-4", Some(1.0))]);
    assert_eq!(old.diff(&renamed).removed_models, []);
}

/// A pipeline of two steps, each with its own route.
fn routed(first: &str, second: &str, fast: &[TargetManifest], good: &[TargetManifest]) -> RunManifest {
    let step = |name: &str, route: &str| {
        format!("[[step]]\nname = \"{name}\"\nroute = \"{route}\"\nprompt = \"x\"\n")
    };
    let text = format!("name = \"two\"\n{}{}", step("first", first), step("second", second));
    let routes = ["fast".into(), "good".into()];
    let pipeline = Pipeline::parse("p", &text, Path::new(""), &Defaults::default(), &routes).unwrap();
    RunManifest::of(&pipeline, |route| if route.as_str() == "fast" { fast.to_vec() } else { good.to_vec() })
}

#[test]
fn a_step_with_other_models_is_reported_although_other_steps_still_use_the_old_models() {
    let small = [target("a/small", "small", None)];
    let large = [target("b/large", "large", None)];
    let old = routed("fast", "good", &small, &large);
    let expected = "steps that use other models: first, second";
    assert_eq!(report(&old, &routed("good", "fast", &small, &large)), (expected.into(), true));
    let swapped = routed("fast", "good", &large, &small);
    assert_eq!(report(&old, &swapped), (expected.into(), true));
    let removed = "models that are no longer used: a/small";
    assert_eq!(report(&old, &routed("good", "good", &small, &large)), (removed.into(), true));
    let answers = BTreeMap::from([("first".into(), 7), ("second".into(), 3)]);
    assert_eq!(old.diff(&swapped).count_valid_answers(&answers, &old, &swapped), 0);
}

#[test]
fn the_same_models_on_another_route_are_reported_and_affect_no_item() {
    let both = [target("a/small", "small", None), target("b/large", "large", None)];
    let reordered = [both[1].clone(), both[0].clone()];
    let old = routed("fast", "fast", &both, &both);
    let expected = "steps with other targets: first, second";
    assert_eq!(report(&old, &routed("fast", "fast", &reordered, &both)), (expected.into(), false));
    let moved = "steps with other targets: second";
    assert_eq!(report(&old, &routed("fast", "good", &both, &both)), (moved.into(), false));
}

#[test]
fn only_changes_that_may_discard_answers_need_confirmation() {
    let first = [target("claude/haiku", "haiku-4", Some(1.0))];
    let old = manifest(FILE, &first);
    let stored = BTreeMap::from([("category".into(), 7), ("reply".into(), 3)]);
    let discards = |new: &RunManifest, stored: &BTreeMap<StepName, u64>| {
        let finished = stored.values().copied().max().unwrap_or(0);
        old.diff(new).may_discard(stored, finished, &old, new)
    };
    let more = format!("{FILE}[[step]]\nname = \"further\"\nprompt = \"And?\"\n");
    assert!(!discards(&manifest(&more, &first), &stored), "an added step");
    assert!(!discards(&manifest(FILE, &[target("claude/haiku", "haiku-4", Some(2.0))]), &stored), "a price");
    let further = [first[0].clone(), target("gemini/flash", "flash", None)];
    assert!(!discards(&manifest(FILE, &further), &stored), "an added model");
    let urgent = manifest(&FILE.replace("Is it urgent?", "Is it really urgent?"), &first);
    assert!(!discards(&urgent, &stored), "a step without stored answers");

    let changed = manifest(&FILE.replace("What is it?", "What kind is it?"), &first);
    assert!(discards(&changed, &stored) && !discards(&changed, &BTreeMap::new()));
    let seed = manifest(&FILE.replace("name = \"reply\"", "name = \"reply\"\nseed = 1"), &first);
    assert!(discards(&seed, &stored), "a seed");
    assert!(discards(&manifest(FILE, &[target("claude/haiku", "haiku-5", Some(1.0))]), &stored), "a model");
    let schema = format!("{FILE}[input]\nschema = {{ type = \"object\" }}\n");
    assert!(discards(&manifest(&schema, &first), &stored), "a schema that items may not match");
}

#[test]
fn a_manifest_is_deserialized_as_it_was_serialized() {
    let original = manifest(FILE, &[target("claude/haiku", "haiku-4", Some(0.1))]);
    let text = serde_json::to_string(&original).unwrap();
    assert_eq!(serde_json::from_str::<RunManifest>(&text).unwrap(), original);
}

#[test]
fn a_manifest_that_cannot_be_decoded_is_an_error_that_names_the_run() {
    let outline = RunMetadata {
        name: "email".to_owned(),
        command: Value::Null,
        pipeline: FILE.to_owned(),
        manifest: json!({ "steps": 3 }),
    };
    let run = StoredRun {
        number: RunNumber(7),
        identity: "email on emails.jsonl".to_owned(),
        metadata: outline,
        revision: 1,
        sessions: 1,
        state: RunState::Completed,
        created_at: 0,
        updated_at: 0,
        outcome: Value::Null,
    };
    let error = RunManifest::of_run(&run).unwrap_err();
    assert!(matches!(error, store::Error::Manifest { run: RunNumber(7), .. }), "{error:?}");
    assert!(error.to_string().starts_with("the manifest of run 7 cannot be read: "), "{error}");
}
