//! `pointsman plan` and `pointsman prices`: what is foretold, held to what then comes.

use serde_json::Value;

use super::program::*;

const CONFIG: &str = "
[provider.p]
base_url = \"simulator\"
limits   = { requests_per_minute = 60_000, concurrency = 20 }
[provider.p.models.any]
price = { input = 1, output = 5 }
limits = { requests_per_minute = 600 }
[provider.p.models.dear]
price = { input = 10, output = 50 }
[route.default]
lanes = [\"p/any\", \"p/dear\"]
[simulator]
answer_tokens = { median = 100, p95 = 300 }
";

const PIPELINE: &str = "
name = \"two\"
[[step]]
name = \"kind\"
prompt = \"What kind is {{ item.text }}?\"
choice = [\"A\", \"B\"]
[[step]]
name = \"more\"
prompt = \"More of {{ item.text }}, a {{ kind }}.\"
when = \"kind == 'A'\"
";

fn room(items: usize) -> Room {
    let room = Room::new(CONFIG);
    room.write("pipeline.toml", PIPELINE);
    room.items(items);
    room
}

fn plan(room: &Room, more: &str) -> Value {
    let planned = room.run(&format!("plan pipeline.toml --items items.jsonl --json {more}"));
    planned.expect(0);
    serde_json::from_str(&planned.out).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn without_a_sample_nothing_is_asked_and_guesses_are_wide() {
    let room = room(50);
    room.write("items.jsonl", format!("{}no json\n", room.read("items.jsonl")));
    let plan = plan(&room, "");
    assert_eq!((&plan["items"], &plan["rejected"], &plan["sampled"]), (&50.into(), &1.into(), &0.into()));
    assert_eq!(number(&plan["steps"]["kind"]["calls"]["low"]), 50.0);
    // Of a choice of two each is taken to come as often.
    let more = &plan["steps"]["more"]["calls"];
    assert_eq!((number(&more["low"]), number(&more["likely"]), number(&more["high"])), (0.0, 25.0, 50.0));
    assert!(number(&plan["cost_usd"]["high"]) > 3.0 * number(&plan["cost_usd"]["low"]));
    let lanes = &plan["routes"]["default"];
    let ratio = number(&lanes[1]["cost_usd"]["likely"]) / number(&lanes[0]["cost_usd"]["likely"]);
    assert!((ratio - 10.0).abs() < 0.01, "side by side: {ratio}");
    let bound = &plan["bounds"][0];
    assert_eq!(
        (&bound["of"], &bound["limit"]),
        (&"p/any".into(), &"600 requests/min".into()),
        "{}",
        plan["bounds"]
    );
    assert!((number(&bound["seconds"]["likely"]) - 7.5).abs() < 0.01);
    assert_eq!(plan["bounds"][1]["limit"], "60000 requests/min");
    assert!(!room.path("pointsman.db").exists());

    let words = room.run("plan pipeline.toml --items items.jsonl");
    words.says(0, &["how long answers are is a guess", "--sample 20"]);
    for word in
        ["two: 50 items, 1 piece of the input are none", "calls 75 (50 to 100)", "time at least", "p/dear"]
    {
        assert!(words.out.contains(word), "{word}: {}", words.out);
    }
}

#[test]
fn a_sample_is_a_part_of_the_run_and_foretells_what_it_costs() {
    let room = room(400);
    room.write("config.toml", CONFIG.replace("limits = { requests_per_minute = 600 }\n", ""));
    let plan = plan(&room, "--sample 60");
    assert_eq!((&plan["items"], &plan["sampled"]), (&400.into(), &60.into()));
    let again = room.run("plan pipeline.toml --items items.jsonl --sample 60");
    again.says(0, &["60 items asked for this are a part of the run"]);

    room.run("run pipeline.toml --items items.jsonl --out o.jsonl --report r.json")
        .says(0, &["run 1 goes on: 60 items settled before", "400 completed"]);
    room.write("none", "");
    room.nothing_is_lost(400, "o.jsonl", "none");
    let whole: Value = serde_json::from_str(&room.run("report 1 --json").out).unwrap();
    for (what, is) in [("cost_usd", &whole["cost_usd"]), ("calls", &whole["calls"]["made"])] {
        let (range, is) = (&plan[what], number(is));
        assert!(number(&range["low"]) < is && is < number(&range["high"]), "{what}: {is} is not in {range}");
    }
    let made = room.json("r.json")["calls"]["made"].as_u64().unwrap();
    assert!(made < whole["calls"]["made"].as_u64().unwrap(), "the sample is not asked again");
}

#[test]
fn a_plan_without_calls_says_why_none_is_foreseen() {
    let room = Room::new("");
    let planned = |pipeline: &str, items: &str| {
        room.write("pipeline.toml", format!("name = \"none\"\n{pipeline}"));
        room.write("items.jsonl", items);
        let words = room.run("plan pipeline.toml --items items.jsonl");
        words.expect(0);
        let json = room.run("plan pipeline.toml --items items.jsonl --json");
        (words.out, serde_json::from_str::<Value>(&json.out).unwrap()["no_calls"].clone())
    };
    let step = "[[step]]\nname = \"a\"\nprompt = \"{{ item.text }}\"\n";
    let (one, none) = ("{\"id\":\"1\",\"text\":\"x\"}\n", "{\"id\":\"1\"}\n");
    let (words, json) = planned(step, "");
    assert!(words.contains("no call is foreseen: the input has no items"), "{words}");
    assert_eq!(json, "no_items");
    let (words, _) = planned(step, "no json\n");
    assert!(words.contains("the whole input is rejected; the first piece because: line 1: "), "{words}");
    let (words, json) = planned(step, none);
    assert!(words.contains("every item fails before it asks anything; the first at step a: "), "{words}");
    assert_eq!(json["all_fail"]["step"], "a");
    let (words, json) = planned(&format!("{step}when = \"item.text == 'y'\"\n"), one);
    assert!(words.contains("no step is due for any item: every condition (`when`) is false"), "{words}");
    assert_eq!(json, "all_skipped");
    assert_eq!(planned(step, one).1, Value::Null);
}

#[test]
fn a_sample_that_would_be_paid_for_twice_is_refused() {
    let room = room(5);
    let refused = room.run("plan pipeline.toml --items items.jsonl --sample 2 --store none");
    refused.says(4, &["a sample that is not kept would be paid for twice"]);
}

#[test]
fn prices_say_where_they_are_known_from() {
    let room = Room::new(
        "[provider.claude]\nformat = \"anthropic\"\nkeys = [\"env:NONE\"]\n[provider.claude.models]\n\
         claude-haiku-4-5 = {}\nsmall = { name = \"claude-sonnet-4-5-20250929\" }\nold = { name = \"claude-1\" }\n\
         own = { name = \"claude-haiku-4-5\", price = { input = 7, output = 9 } }\n\
         [provider.mine]\nbase_url = \"http://localhost:1/v1\"\nmodels.gpt-4o = {}\n",
    );
    let shown = room.run("prices");
    shown.says(0, &["The built-in list is of 20"]);
    let row = |name: &str| shown.out.lines().find(|line| line.contains(name)).unwrap();
    assert!(row("claude/claude-haiku-4-5").contains("built-in list"));
    assert!(row("claude/small").contains(" 3 ") && row("claude/small").contains("built-in list"));
    assert!(row("claude/own").contains(" 7 ") && row("claude/own").contains("configuration"));
    for unknown in ["claude/old", "mine/gpt-4o"] {
        assert!(row(unknown).contains("not known: set price under its model"), "{}", shown.out);
    }
    assert!(room.run("prices --all").out.contains("gpt-4o-mini"));
}
