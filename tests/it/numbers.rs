//! Whole numbers of any length go through the program as they are written.

use pointsman::simulator::{Settings, Simulator, Vendor};
use serde_json::Value;

use super::program::Room;
use super::scripted::{Scripted, stream};
use super::stage::play;

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl --ordered";
const ITEM: &str = "123456789012345678901234567890";
const OTHER_ITEM: &str = "123456789012345678901234567891";
const ANSWER: &str = "98765432109876543210987654321098765432109876543210";

/// The first step has numbers in its answer, the second one has them in its prompt, which the simulator repeats.
const PIPELINE: &str = r#"
name = "numbers"
[[step]]
name = "facts"
route = "scripted"
prompt = "Read {{ item.account }}"
[step.schema]
type = "object"
required = ["account", "share"]
properties.account = { type = "integer", minimum = 5 }
properties.share = { type = "number", maximum = 1 }
[[step]]
name = "said"
route = "played"
prompt = "Repeat: account {{ item.account }} and {{ facts.account }} with {{ facts.share }}"
"#;

/// A room, and the simulator that it asks.
async fn room() -> (Room, Simulator) {
    let content = format!("{{\\\"account\\\": {ANSWER}, \\\"share\\\": 0.25}}");
    let events = format!(
        "data: {{\"id\":\"c\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}},\"finish_reason\":\"stop\"}}]}}\n\ndata: [DONE]\n\n"
    );
    let scripted = Scripted::start(move |_| stream("", &events, true)).await;
    let simulator = play(Settings::default());
    let (scripted, played) = (scripted.url(), simulator.base_url(Vendor::OpenAi));
    let room = Room::new(&format!(
        "[provider.a]\nbase_url = \"{scripted}/v1\"\nmodels.m = {{}}\n[provider.b]\nbase_url = \"{played}\"\nmodels.m = {{}}\n\
         [route.scripted]\nlanes = [\"a/m\"]\n[route.played]\nlanes = [\"b/m\"]\n"
    ));
    room.write("pipeline.toml", PIPELINE);
    room.write("items.jsonl", [ITEM, OTHER_ITEM].map(|item| format!("{{\"account\":{item}}}\n")).concat());
    (room, simulator)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_number_of_any_length_reaches_prompts_and_outputs_as_it_is_written() {
    let (room, _simulator) = room().await;
    room.run(RUN).says(0, &["2 completed"]);
    let written = room.read("o.jsonl");
    assert_eq!(written.matches(&format!("\"account\":{ANSWER},\"share\":0.25")).count(), 2, "{written}");
    for item in [ITEM, OTHER_ITEM] {
        let said = format!("account {item} and {ANSWER} with 0.25");
        assert_eq!(written.matches(&said).count(), 1, "{said:?} in {written}");
    }
    // What is kept has them too, and items that differ in the last digit alone are two.
    let again = room.run("results 1");
    again.expect(0);
    assert_eq!(again.out, written);
    std::fs::remove_file(room.path("o.jsonl")).unwrap();
    room.run(RUN).says(0, &["2 completed", "0 calls"]);
    assert_eq!(room.read("o.jsonl").matches(ANSWER).count(), 4);
    let table = room.run("results 1 --format csv");
    table.expect(0);
    assert_eq!(table.out.matches(&format!("\"\"account\"\":{ANSWER}")).count(), 2, "{}", table.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_is_too_long_or_out_of_range_is_rejected_by_name() {
    let (room, _simulator) = room().await;
    let long = "9".repeat(5_000);
    room.write(
        "items.jsonl",
        format!("{{\"account\":1e999999999}}\n{{\"account\":{long}}}\n{{\"account\":{ITEM}}}\n"),
    );
    room.run(&format!("{RUN} --rejects r.jsonl")).says(1, &["1 completed, 2 rejected"]);
    let reasons: Vec<Value> = room.lines("r.jsonl");
    let reason = |at: usize| reasons[at]["reason"].as_str().unwrap();
    assert!(reason(0).contains("out of range, such as 1e999; write it as text"), "{}", reason(0));
    assert!(reason(1).contains("a number of more than 4300 characters"), "{}", reason(1));
}
