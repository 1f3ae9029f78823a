//! `pointsman plan` and `pointsman prices`: estimates, compared with the run.

use serde_json::Value;

use super::program::*;

const CONFIG: &str = "
[provider.p]
base_url = \"simulator\"
limits   = { requests_per_minute = 60_000, concurrency = 20 }
[provider.p.models.any]
price = { input = 1, output = 5 }
limits = { requests_per_minute = 600 }
[provider.p.models.expensive]
price = { input = 10, output = 50 }
[route.default]
targets = [\"p/any\", \"p/expensive\"]
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

fn new_workspace(items: usize) -> Workspace {
    let workspace = Workspace::new(CONFIG);
    workspace.write("pipeline.toml", PIPELINE);
    workspace.write_items(items);
    workspace
}

fn plan(workspace: &Workspace, more: &str) -> Value {
    let planned = workspace.run(&format!("plan pipeline.toml --items items.jsonl --json {more}"));
    planned.expect_code(0);
    serde_json::from_str(&planned.stdout).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn without_a_sample_no_request_is_sent_and_the_ranges_are_wide() {
    let workspace = new_workspace(50);
    workspace.write("items.jsonl", format!("{}no json\n", workspace.read("items.jsonl")));
    let plan = plan(&workspace, "");
    assert_eq!((&plan["items"], &plan["rejected"], &plan["sampled"]), (&50.into(), &1.into(), &0.into()));
    assert_eq!(number(&plan["steps"]["kind"]["calls"]["low"]), 50.0);
    // Both options of a choice count as equally likely.
    let more = &plan["steps"]["more"]["calls"];
    assert_eq!((number(&more["low"]), number(&more["likely"]), number(&more["high"])), (0.0, 25.0, 50.0));
    assert!(number(&plan["cost_usd"]["high"]) > 3.0 * number(&plan["cost_usd"]["low"]));
    let targets = &plan["routes"]["default"];
    let ratio = number(&targets[1]["cost_usd"]["likely"]) / number(&targets[0]["cost_usd"]["likely"]);
    assert!((ratio - 10.0).abs() < 0.01, "price ratio: {ratio}");
    let bound = &plan["bounds"][0];
    assert_eq!(
        (&bound["limit_of"], &bound["limit"]),
        (&"p/any".into(), &"600 requests/min".into()),
        "{}",
        plan["bounds"]
    );
    assert!((number(&bound["seconds"]["likely"]) - 7.5).abs() < 0.01);
    assert_eq!(plan["bounds"][1]["limit"], "60000 requests/min");
    assert!(!workspace.path("pointsman.db").exists());

    let text = workspace.run("plan pipeline.toml --items items.jsonl");
    text.expect_stderr(0, &["the length of the answers is a guess", "--sample 20"]);
    for word in [
        "two: 50 items, 1 record of the input rejected",
        "calls 75 (50 to 100)",
        "time at least",
        "p/expensive",
    ] {
        assert!(text.stdout.contains(word), "{word}: {}", text.stdout);
    }
}

#[test]
fn a_target_without_a_key_is_not_the_one_that_is_estimated() {
    let workspace = new_workspace(50);
    let skipped = "[provider.dear]\nkeys = [\"env:NO_SUCH_KEY_OF_PLAN\"]\nlimits = { requests_per_minute = 1 }\n\
                   [provider.dear.models.x]\nprice = { input = 1000, output = 5000 }\n[route.default]";
    // A route with a simulated target has no others.
    let server = "base_url = \"http://localhost:1/v1\"";
    let without_skipped = CONFIG.replace("base_url = \"simulator\"", server);
    workspace.write("config.toml", &without_skipped);
    let usable = plan(&workspace, "");
    let config = without_skipped.replace("[route.default]", skipped);
    let config = config.replace("[\"p/any\", \"p/expensive\"]", "[\"dear/x\", \"p/any\"]");
    workspace.write("config.toml", &config);
    let planned = plan(&workspace, "");
    assert_eq!(planned["cost_usd"], usable["cost_usd"], "{planned}");
    assert_eq!(planned["steps"]["kind"]["estimated_at"], "p/any");
    assert_eq!(planned["bounds"], usable["bounds"], "a skipped target limits nothing");
    let checked = workspace.run("check pipeline.toml --items items.jsonl --json");
    let checked: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!(checked["items"]["plan"]["cost_usd"], usable["cost_usd"], "{checked}");

    // The price of the target that answers is not known, although that of the skipped one is.
    let unknown = config.replace("price = { input = 1, output = 5 }\n", "");
    workspace.write("config.toml", &unknown);
    let planned = plan(&workspace, "");
    assert_eq!(planned["cost_usd"], Value::Null, "{planned}");
    let text = workspace.run("plan pipeline.toml --items items.jsonl").stdout;
    assert!(text.contains("cost unknown") && text.contains("dear/x [no key]"), "{text}");
}

#[test]
fn a_sample_is_part_of_the_run_and_predicts_its_cost() {
    let workspace = new_workspace(400);
    workspace.write("config.toml", CONFIG.replace("limits = { requests_per_minute = 600 }\n", ""));
    let plan = plan(&workspace, "--sample 60");
    assert_eq!((&plan["items"], &plan["sampled"]), (&400.into(), &60.into()));
    let second_plan = workspace.run("plan pipeline.toml --items items.jsonl --sample 60");
    second_plan.expect_stderr(0, &["60 items of the sample are part of the run"]);

    workspace
        .run("run pipeline.toml --items items.jsonl --out o.jsonl --report r.json")
        .expect_stderr(0, &["resuming run 1: 60 items finished before", "400 completed"]);
    workspace.write("none", "");
    workspace.assert_nothing_is_lost(400, "o.jsonl", "none");
    let report: Value = serde_json::from_str(&workspace.run("report 1 --json").stdout).unwrap();
    for (name, actual) in [("cost_usd", &report["cost_usd"]), ("calls", &report["calls"]["sent"])] {
        let range = &plan[name];
        let actual = number(actual);
        assert!(
            number(&range["low"]) < actual && actual < number(&range["high"]),
            "{name}: {actual} is not in {range}"
        );
    }
    let sent = workspace.read_json("r.json")["calls"]["sent"].as_u64().unwrap();
    assert!(sent < report["calls"]["sent"].as_u64().unwrap(), "requests of the sample are not sent again");
}

#[test]
fn a_plan_shows_what_requests_share_and_what_the_cache_saves() {
    let workspace = new_workspace(50);
    let config = CONFIG
        .replace("price = { input = 1, output = 5 }", "price = { input = 1, output = 5, cached = 0.1 }");
    let shared = "Sort the message of a customer. ".repeat(215);
    let pipeline = format!(
        "name = \"two\"\n[[step]]\nname = \"kind\"\nprompt = \"{shared}{{{{ item.text }}}}\"\nchoice = [\"A\", \"B\"]\n\
         [[step]]\nname = \"more\"\nprompt = \"More of {{{{ item.text }}}}.\"\n"
    );
    workspace.write("config.toml", &config);
    workspace.write("pipeline.toml", &pipeline);
    let shown = || workspace.run("plan pipeline.toml --items items.jsonl").stdout;
    let planned = plan(&workspace, "");
    let cache = &planned["steps"]["kind"]["cache"];
    let tokens = number(&cache["shared_tokens"]);
    assert!((1_500.0..1_800.0).contains(&tokens), "{cache}");
    assert_eq!((&cache["min_tokens"], &cache["cached"]), (&1024.into(), &true.into()));
    let cost = number(&planned["steps"]["kind"]["cost_usd"]["likely"]);
    let uncached = number(&cache["uncached_cost_usd"]["likely"]);
    // All requests but the first read the tokens for a tenth of the price.
    assert!((uncached - cost - 49.0 * tokens * 0.9e-6).abs() < 1e-6, "{uncached} {cost} {tokens}");
    assert_eq!(planned["steps"]["more"]["cache"], Value::Null);
    let text = shown();
    assert!(text.contains("the requests of step kind share ") && text.contains(" instead of $"), "{text}");

    workspace
        .write("config.toml", config.replace("cached = 0.1 }", "cached = 0.1 }\nmin_cache_tokens = 4096"));
    let planned = plan(&workspace, "");
    let cache = &planned["steps"]["kind"]["cache"];
    assert_eq!((&cache["cached"], &cache["uncached_cost_usd"]), (&false.into(), &Value::Null));
    assert!((number(&planned["steps"]["kind"]["cost_usd"]["likely"]) - uncached).abs() < 1e-9);
    let text = shown();
    assert!(text.contains("which are not cached: the provider needs 4096"), "{text}");

    workspace.write("config.toml", format!("{config}\n[defaults]\nprompt_cache = \"off\"\n"));
    assert_eq!(plan(&workspace, "")["steps"]["kind"]["cache"], Value::Null);
}

#[test]
fn a_plan_without_calls_states_the_reason() {
    let workspace = Workspace::new("");
    let planned = |pipeline: &str, items: &str| {
        workspace.write("pipeline.toml", format!("name = \"none\"\n{pipeline}"));
        workspace.write("items.jsonl", items);
        let text = workspace.run("plan pipeline.toml --items items.jsonl");
        text.expect_code(0);
        let json = workspace.run("plan pipeline.toml --items items.jsonl --json");
        (text.stdout, serde_json::from_str::<Value>(&json.stdout).unwrap()["no_calls"].clone())
    };
    let step = "[[step]]\nname = \"a\"\nprompt = \"{{ item.text }}\"\n";
    let one = "{\"id\":\"1\",\"text\":\"x\"}\n";
    let none = "{\"id\":\"1\"}\n";
    let (text, json) = planned(step, "");
    assert!(text.contains("no call is expected: the input has no items"), "{text}");
    assert_eq!(json, "no_items");
    let (text, _) = planned(step, "no json\n");
    assert!(text.contains("all of the input is rejected; the first rejection: line 1: "), "{text}");
    let (text, json) = planned(step, none);
    assert!(text.contains("every item fails before its first request; the first at step a: "), "{text}");
    assert_eq!(json["all_fail"]["step"], "a");
    let (text, json) = planned(&format!("{step}when = \"item.text == 'y'\"\n"), one);
    assert!(text.contains("no item has a step to run: every condition (`when`) is false"), "{text}");
    assert_eq!(json, "all_skipped");
    assert_eq!(planned(step, one).1, Value::Null);
}

#[test]
fn a_sample_that_reaches_its_cap_advises_a_higher_one() {
    let workspace = new_workspace(200);
    let stopped = workspace.run("plan pipeline.toml --items items.jsonl --sample 200 --max-cost 0.01");
    stopped.expect_stderr(
        5,
        &["paused: budget: ", "the same command with a higher cap (--max-cost) processes the rest"],
    );
}

#[test]
fn a_sample_that_would_be_paid_for_twice_is_refused() {
    let workspace = new_workspace(5);
    let refused = workspace.run("plan pipeline.toml --items items.jsonl --sample 2 --store none");
    refused.expect_stderr(4, &["a sample that is not stored would be paid for twice"]);
}

#[test]
fn prices_are_listed_with_their_source() {
    let workspace = Workspace::new(
        "[provider.claude]\nformat = \"anthropic\"\nkeys = [\"env:NONE\"]\n[provider.claude.models]\n\
         claude-haiku-4-5 = {}\nsmall = { name = \"claude-sonnet-4-5-20250929\" }\nold = { name = \"claude-1\" }\n\
         own = { name = \"claude-haiku-4-5\", price = { input = 7, output = 9 } }\n\
         [provider.mine]\nbase_url = \"http://localhost:1/v1\"\nmodels.gpt-4o = {}\n",
    );
    let shown = workspace.run("prices");
    shown.expect_stderr(0, &["The built-in list is of 20"]);
    let row = |name: &str| shown.stdout.lines().find(|line| line.contains(name)).unwrap();
    assert!(row("claude/claude-haiku-4-5").contains("built-in list"));
    assert!(row("claude/small").contains(" 3 ") && row("claude/small").contains("built-in list"));
    assert!(row("claude/own").contains(" 7 ") && row("claude/own").contains("configuration"));
    for unknown in ["claude/old", "mine/gpt-4o"] {
        assert!(row(unknown).contains("unknown: set price under its model"), "{}", shown.stdout);
    }
    assert!(workspace.run("prices --all").stdout.contains("gpt-4o-mini"));
}
