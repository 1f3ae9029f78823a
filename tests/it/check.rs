//! `pointsman check`: every fault, with its place and advice.

use super::program::Room;

#[test]
fn a_good_configuration_and_its_pipelines_pass() {
    let room = Room::new("");
    room.write("other.toml", room.read("pipeline.toml"));
    room.run("check").says(0, &["the configuration: no fault found"]);
    room.run("check pipeline.toml").says(0, &["the configuration and 1 pipeline: no fault found"]);
    room.run("check pipeline.toml other.toml").says(0, &["and 2 pipelines: no fault found"]);
}

#[test]
fn every_fault_of_a_configuration_is_told_at_once_with_its_place() {
    let room = Room::new(
        "[provider.p]\nbase_url = \"simulatr\"\ncolour = 1\n[provider.p.models.m]\nprice = \"x\"\n\
         [route.r]\nlanes = [\"p/n\", \"q/m\"]\n[retry]\nrounds = 0\n",
    );
    let ended = room.run("check");
    ended.says(
        3,
        &[
            "config.toml:2:12",
            "config.toml:3:1",
            "unknown key `colour`",
            "config.toml:5:9",
            "config.toml:7:10",
            "known models: m",
            "config.toml:7:17",
            "there is no provider `q`",
            "config.toml:9:10",
        ],
    );
    assert_eq!(ended.err.matches("error: ").count(), 6, "{}", ended.err);
}

#[test]
fn caps_that_cannot_be_meant_are_refused_with_their_place() {
    let room = Room::new(
        "[budget]\nrun = 0\nday = nan\nprovider = { cluade = 5, other = -1 }\n[provider.claude]\nbase_url = \"simulator\"\n[provider.other]\nbase_url = \"simulator\"\n",
    );
    let ended = room.run("check");
    ended.says(
        3,
        &[
            "config.toml:2:7",
            "0 is no cap\n",
            "write US dollars, above 0",
            "config.toml:3:7",
            "config.toml:4:",
        ],
    );
    ended.says(3, &["there is no provider `cluade`", "did you mean `claude`?", "-1 is no cap"]);
}

#[test]
fn the_faults_of_several_pipelines_are_told_together() {
    let room = Room::new("");
    room.write(
        "a.toml",
        "name = \"a\"\n[[step]]\nname = \"one\"\nroute = \"nowhere\"\nprompt = \"{{ two }}\"\n\
         [[step]]\nname = \"two\"\nprompt = \"{{ one }} {{ nobody }}\"\n",
    );
    room.write(
        "b.toml",
        "name = \"b\"\n[input.schema]\nadditionalProperties = false\nproperties = { text = { type = \"string\" } }\n\
         [[step]]\nname = \"one\"\nprompt = \"{{ item.txt }}\"\n",
    );
    room.write("c.toml", "name = \"c\"\n[[step]]\nname = \"one\"\nprompt = \"{{ two }}\"\n[[step]]\nname = \"two\"\nprompt = \"{{ one }}\"\n");
    let ended = room.run("check a.toml pipeline.toml b.toml c.toml");
    ended.says(
        3,
        &[
            "unknown route `nowhere`\n --> a.toml:4:9",
            "unknown name `nobody`\n --> a.toml:8:24",
            "`item.txt` cannot exist",
            "--> b.toml:7:14",
            "did you mean `text`?",
            "steps wait for each other: one → two → one\n --> c.toml:3:8",
        ],
    );
    assert!(!ended.err.contains("no fault found"));
    // And a run is refused with the same words.
    room.items(1);
    let run = room.run("run c.toml --items items.jsonl --out o.jsonl");
    run.says(3, &["steps wait for each other"]);
    assert!(!room.path("o.jsonl").exists());
}

#[test]
fn an_address_that_is_probably_wrong_is_advised_and_no_fault() {
    let models = |url: &str| format!("[provider.p]\nbase_url = \"{url}\"\n[provider.p.models.m]\n");
    let room = Room::new(&models("http://localhost:11434"));
    let advice = "write base_url = \"http://localhost:11434/v1\", unless this server answers without it";
    room.run("check").says(0, &["config.toml:2:12", "this address has no version", advice, "no fault found"]);
    let room = Room::new(&models("http://localhost:11434/v1/chat/completions"));
    let advice = "write base_url = \"http://localhost:11434/v1\"";
    room.run("check").says(0, &["each call adds its path to this address", advice, "no fault found"]);
    let room = Room::new(&models("http://localhost:11434/v1"));
    let ended = room.run("check");
    ended.says(0, &["no fault found"]);
    assert!(!ended.err.contains("base_url"), "{}", ended.err);
}

#[test]
fn checking_runs_no_key_command() {
    let room = Room::new("[provider.p]\nkeys = [\"command:touch ran; echo k\"]\n[provider.p.models.m]\n");
    room.run("check pipeline.toml").expect(0);
    assert!(!room.path("ran").exists());
}

#[test]
fn a_missing_key_is_a_note_that_names_its_variable() {
    let room = Room::new(
        "[provider.p]\nkeys = [\"env:P_KEY\"]\n[provider.p.models.m]\n[provider.s]\nbase_url = \"simulator\"\n\
         [route.default]\nlanes = [\"s/any\"]\n[route.real]\nlanes = [\"p/m\"]",
    );
    room.run("check").says(
        0,
        &["p: skipped, P_KEY is not set", "simulated: answers on route default come from the simulator"],
    );
}

#[test]
fn check_fails_when_run_would_with_the_same_words() {
    let keyless = "[provider.p]\nkeys = [\"env:P_KEY\"]\n[provider.p.models.m]\n";
    let unpriced =
        "[provider.p]\nbase_url = \"http://127.0.0.1:9/v1\"\n[provider.p.models.m]\n[budget]\nrun = 1\n";
    let mixed = "[provider.p]\nbase_url = \"http://127.0.0.1:9/v1\"\n[provider.p.models.m]\n[provider.s]\n\
                 base_url = \"simulator\"\n[route.default]\nlanes = [\"p/m\", \"s/any\"]\n";
    for (config, words) in [
        (keyless, ["route `default` has no usable key", "set P_KEY, or add --simulate"]),
        (unpriced, ["nobody knows what p/m costs", "write price"]),
        (mixed, ["config.toml:7:17", "mixes real targets with the simulated `s/any`"]),
    ] {
        let room = Room::new(config);
        room.items(2);
        for command in ["check", "check pipeline.toml", "run pipeline.toml --items items.jsonl --out o.jsonl"]
        {
            let ended = room.run(command);
            ended.says(3, &words);
            assert_eq!(ended.err.matches("error: ").count(), 1, "{command}: {}", ended.err);
        }
        assert!(!room.path("o.jsonl").exists() && !room.path("pointsman.db").exists());
    }
    Room::new(keyless).run("check pipeline.toml --simulate").says(0, &["no fault found"]);
}

#[test]
fn a_key_file_that_is_not_there_is_told_with_its_place_and_no_secret_beside_it() {
    let room = Room::new(
        "[provider.p]\nkeys = [\"file:/nowhere/key\"]\nheaders = { x-team = \"hush-hush-1\", x-more = \"file:/nowhere/more\" }\n\
         [provider.p.models.m]\n",
    );
    let ended = room.run("check");
    ended.says(
        3,
        &[
            "cannot read the key file /nowhere/key",
            "config.toml:2:9",
            "put the key into this file",
            "config.toml:3:46",
        ],
    );
    assert!(!ended.err.contains("hush-hush-1"), "{}", ended.err);
}

#[test]
fn what_changes_nothing_is_noted_with_its_place_and_passes() {
    let room = Room::new(
        "[provider.p]\nbase_url = \"http://x\"\nlimits = { requests_per_minute = 10 }\n\
         [provider.p.models.m]\nlimits = { requests_per_minute = 50 }\n[retry]\nhedge_after = \"p95\"\n",
    );
    room.run("check").says(
        0,
        &[
            "config.toml:5:34: requests_per_minute = 50 of this model is never reached: the account's is 10",
            "config.toml:7:15: hedge_after does nothing: no route has a second lane to ask",
            "no fault found",
        ],
    );
}
