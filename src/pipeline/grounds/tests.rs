//! What is told of a change, and what it reaches.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::pipeline::Defaults;
use crate::store::{Outline, RunNumber, RunState};

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

fn lane(name: &str, voice: &str, price: Option<f64>) -> LaneGround {
    LaneGround {
        lane: name.parse().unwrap(),
        voice: Fingerprint::of([voice.as_bytes()]),
        price: price.map(|input| Price { input, output: 5.0, cached: None, cache_write: None, long: None }),
        address: None,
    }
}

fn grounds(text: &str, lanes: &[LaneGround]) -> Grounds {
    let routes = ["default".into()];
    let pipeline = Pipeline::parse("p", text, Path::new(""), &Defaults::default(), &routes).unwrap();
    Grounds::of(&pipeline, |_| lanes.to_vec())
}

fn told(old: &Grounds, new: &Grounds) -> (String, bool) {
    let changes = old.changes(new);
    assert_eq!(changes.is_empty(), old == new);
    (changes.to_string(), changes.reach_items())
}

#[test]
fn a_changed_step_is_told_with_those_that_need_it() {
    let old = grounds(FILE, &[]);
    let new = grounds(&FILE.replace("What is it?", "What kind is it?"), &[]);
    assert_eq!(
        told(&old, &new),
        ("changed steps: category; steps that need their answers: reply".into(), true)
    );
    let later = grounds(&FILE.replace("Answer this", "Reply to this"), &[]);
    assert_eq!(told(&old, &later), ("changed steps: reply".into(), true));
    assert_eq!(told(&old, &grounds(FILE, &[])), (String::new(), false));
}

#[test]
fn what_does_not_shape_an_answer_is_no_change() {
    let old = grounds(FILE, &[]);
    let patient = FILE.replace("name = \"reply\"", "name = \"reply\"\ndeadline = \"1h\"\nreasks = 5");
    assert_eq!(told(&old, &grounds(&patient, &[])), (String::new(), false));
    for shaping in [
        "max_tokens = 7",
        "temperature = 0.5",
        "optional = true",
        "when = \"item.text\"",
        "choice = [\"A\", \"B\"]",
    ] {
        let new = grounds(&FILE.replace("name = \"reply\"", &format!("name = \"reply\"\n{shaping}")), &[]);
        assert_eq!(told(&old, &new).0, "changed steps: reply", "{shaping}");
    }
}

#[test]
fn steps_that_come_and_go_are_told() {
    let old = grounds(FILE, &[]);
    let new = grounds(&FILE.replace("urgent", "pressing"), &[]);
    assert_eq!(told(&old, &new), ("new steps: pressing; steps that are gone: urgent".into(), true));
}

#[test]
fn another_model_reaches_items_and_another_price_or_a_further_model_does_not() {
    let old = grounds(FILE, &[lane("claude/haiku", "haiku-4", Some(1.0))]);
    let dearer = grounds(FILE, &[lane("claude/haiku", "haiku-4", Some(2.0))]);
    assert_eq!(told(&old, &dearer), ("other prices: claude/haiku".into(), false));
    let more =
        grounds(FILE, &[lane("claude/haiku", "haiku-4", Some(1.0)), lane("gemini/flash", "flash", None)]);
    assert_eq!(told(&old, &more), ("new models: gemini/flash".into(), false));
    let newer = grounds(FILE, &[lane("claude/haiku", "haiku-5", Some(1.0))]);
    let said = "models that are asked no more: claude/haiku; new models: claude/haiku";
    assert_eq!(told(&old, &newer), (said.into(), true));
    let mut moved = lane("claude/haiku", "haiku-4", Some(1.0));
    moved.address = Some("http://127.0.0.1:8089".to_owned());
    assert_eq!(told(&old, &grounds(FILE, &[moved])), ("other addresses: claude/haiku".into(), false));
    let answers = BTreeMap::from([("category".into(), 7), ("reply".into(), 3)]);
    assert_eq!(old.changes(&newer).stay_valid(&answers, &old, &newer), 0);
    assert_eq!(old.changes(&dearer).stay_valid(&answers, &old, &dearer), 10);
    let renamed = grounds(FILE, &[lane("anthropic/small", "haiku-4", Some(1.0))]);
    assert_eq!(old.changes(&renamed).models_gone, []);
}

/// Two steps on a route each.
fn routed(first: &str, second: &str, fast: &[LaneGround], good: &[LaneGround]) -> Grounds {
    let step = |name: &str, route: &str| {
        format!("[[step]]\nname = \"{name}\"\nroute = \"{route}\"\nprompt = \"x\"\n")
    };
    let text = format!("name = \"two\"\n{}{}", step("first", first), step("second", second));
    let routes = ["fast".into(), "good".into()];
    let pipeline = Pipeline::parse("p", &text, Path::new(""), &Defaults::default(), &routes).unwrap();
    Grounds::of(&pipeline, |route| if route.as_str() == "fast" { fast.to_vec() } else { good.to_vec() })
}

#[test]
fn a_step_that_asks_other_models_is_noticed_although_other_steps_ask_the_old_ones() {
    let (small, large) = ([lane("a/small", "small", None)], [lane("b/large", "large", None)]);
    let old = routed("fast", "good", &small, &large);
    let said = "steps that ask other models: first, second";
    assert_eq!(told(&old, &routed("good", "fast", &small, &large)), (said.into(), true));
    let swapped = routed("fast", "good", &large, &small);
    assert_eq!(told(&old, &swapped), (said.into(), true));
    let gone = "models that are asked no more: a/small";
    assert_eq!(told(&old, &routed("good", "good", &small, &large)), (gone.into(), true));
    let answers = BTreeMap::from([("first".into(), 7), ("second".into(), 3)]);
    assert_eq!(old.changes(&swapped).stay_valid(&answers, &old, &swapped), 0);
}

#[test]
fn the_same_models_by_another_way_are_told_and_reach_nothing() {
    let both = [lane("a/small", "small", None), lane("b/large", "large", None)];
    let turned = [both[1].clone(), both[0].clone()];
    let old = routed("fast", "fast", &both, &both);
    let said = "steps with other targets: first, second";
    assert_eq!(told(&old, &routed("fast", "fast", &turned, &both)), (said.into(), false));
    let moved = "steps with other targets: second";
    assert_eq!(told(&old, &routed("fast", "good", &both, &both)), (moved.into(), false));
}

#[test]
fn only_changes_that_may_discard_answers_are_asked_about() {
    let first = [lane("claude/haiku", "haiku-4", Some(1.0))];
    let old = grounds(FILE, &first);
    let has = BTreeMap::from([("category".into(), 7), ("reply".into(), 3)]);
    let discards = |new: &Grounds, has: &BTreeMap<StepName, u64>| {
        let settled = has.values().copied().max().unwrap_or(0);
        old.changes(new).discard(has, settled, &old, new)
    };
    let more = format!("{FILE}[[step]]\nname = \"further\"\nprompt = \"And?\"\n");
    assert!(!discards(&grounds(&more, &first), &has), "a step that is added");
    assert!(!discards(&grounds(FILE, &[lane("claude/haiku", "haiku-4", Some(2.0))]), &has), "a price");
    let further = [first[0].clone(), lane("gemini/flash", "flash", None)];
    assert!(!discards(&grounds(FILE, &further), &has), "a further model");
    let urgent = grounds(&FILE.replace("Is it urgent?", "Is it really urgent?"), &first);
    assert!(!discards(&urgent, &has), "a step that has no answer yet");

    let changed = grounds(&FILE.replace("What is it?", "What kind is it?"), &first);
    assert!(discards(&changed, &has) && !discards(&changed, &BTreeMap::new()));
    assert!(discards(&grounds(FILE, &[lane("claude/haiku", "haiku-5", Some(1.0))]), &has), "a model");
    let schema = format!("{FILE}[input]\nschema = {{ type = \"object\" }}\n");
    assert!(discards(&grounds(&schema, &first), &has), "a schema that items may not fit");
}

#[test]
fn it_is_read_as_it_was_written() {
    let grounds = grounds(FILE, &[lane("claude/haiku", "haiku-4", Some(0.1))]);
    let text = serde_json::to_string(&grounds).unwrap();
    assert_eq!(serde_json::from_str::<Grounds>(&text).unwrap(), grounds);
}

#[test]
fn what_cannot_be_decoded_is_an_error_that_names_the_run_and_no_empty_result() {
    let outline = Outline {
        name: "email".to_owned(),
        places: Value::Null,
        pipeline: FILE.to_owned(),
        grounds: json!({ "steps": 3 }),
    };
    let run = KnownRun {
        number: RunNumber(7),
        identity: "email on emails.jsonl".to_owned(),
        outline,
        edition: 1,
        sessions: 1,
        state: RunState::Complete,
        begun: 0,
        touched: 0,
        outcome: Value::Null,
    };
    let error = Grounds::of_run(&run).unwrap_err();
    assert!(matches!(error, store::Error::Manifest { run: RunNumber(7), .. }), "{error:?}");
    assert!(error.to_string().starts_with("what the answers of run 7 depend on cannot be read: "), "{error}");
}
