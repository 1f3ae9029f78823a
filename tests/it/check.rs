//! `pointsman check`: every error, with its position and advice.

use super::program::Workspace;

#[test]
fn a_valid_configuration_and_its_pipelines_pass() {
    let workspace = Workspace::new("");
    workspace.write("other.toml", workspace.read("pipeline.toml"));
    workspace.run("check").expect_stderr(0, &["the configuration: no problems found"]);
    workspace
        .run("check pipeline.toml")
        .expect_stderr(0, &["the configuration and 1 pipeline: no problems found"]);
    workspace.run("check pipeline.toml other.toml").expect_stderr(0, &["and 2 pipelines: no problems found"]);
}

#[cfg(feature = "server")]
#[test]
fn the_files_of_a_daemon_are_checked_and_a_faulty_pipeline_prevents_its_start() {
    let serve = "[serve]\nlisten = \"127.0.0.1:0\"\npipelines = [\"p/*.toml\", \"gone.toml\"]\n";
    let workspace = Workspace::new(serve);
    std::fs::create_dir(workspace.path("p")).unwrap();
    let pipeline = workspace.read("pipeline.toml");
    workspace.write("p/a.toml", &pipeline);
    workspace.write("p/b.toml", &pipeline);
    workspace.write("p/c.toml", pipeline.replace("prompt", "promt").replace("one", "three"));
    let faults = [
        "two pipeline files have the name \"one\"",
        "unknown key `promt`",
        "cannot read the pipeline",
        "gone.toml",
    ];
    let output = workspace.run("check");
    output.expect_stderr(3, &faults);
    workspace.run("serve").expect_stderr(3, &faults);
    assert!(!workspace.path("pointsman.db").exists());
    // A file that is also named is reported once.
    let named = workspace.run("check p/c.toml");
    assert_eq!(named.stderr.matches("unknown key `promt`").count(), 1, "{}", named.stderr);
    let tls = "[serve.tls]\ncertificate = \"no.pem\"\nkey = \"no.key\"\n";
    workspace.write_config(format!("[serve]\npipelines = [\"p/a.toml\"]\n{tls}"));
    workspace.run("check").expect_stderr(3, &["[serve.tls]", "cannot read the certificate"]);
    workspace.write_config("[serve]\npipelines = [\"p/a.toml\"]\n");
    workspace.run("check").expect_stderr(0, &["no problems found"]);
}

#[test]
fn every_error_of_a_configuration_is_reported_at_once_with_its_position() {
    let workspace = Workspace::new(
        "[provider.p]\nbase_url = \"simulatr\"\ncolour = 1\n[provider.p.models.m]\nprice = \"x\"\n\
         [route.r]\ntargets = [\"p/n\", \"q/m\"]\n[retry]\nmax_rounds = 0\n",
    );
    let output = workspace.run("check");
    output.expect_stderr(
        3,
        &[
            "config.toml:2:12",
            "config.toml:3:1",
            "unknown key `colour`",
            "config.toml:5:9",
            "config.toml:7:12",
            "known models: m",
            "config.toml:7:19",
            "there is no provider `q`",
            "config.toml:9:14",
        ],
    );
    assert_eq!(output.stderr.matches("error: ").count(), 6, "{}", output.stderr);
}

#[test]
fn invalid_caps_are_refused_with_their_positions() {
    let workspace = Workspace::new(
        "[budget]\nrun = 0\nday = nan\nprovider = { cluade = 5, other = -1 }\n[provider.claude]\nbase_url = \"simulator\"\n[provider.other]\nbase_url = \"simulator\"\n",
    );
    let output = workspace.run("check");
    output.expect_stderr(
        3,
        &[
            "config.toml:2:7",
            "0 is not a cap\n",
            "write US dollars, above 0",
            "config.toml:3:7",
            "config.toml:4:",
        ],
    );
    output.expect_stderr(3, &["there is no provider `cluade`", "did you mean `claude`?", "-1 is not a cap"]);
}

#[test]
fn the_errors_of_several_pipelines_are_reported_together() {
    let workspace = Workspace::new("");
    workspace.write(
        "a.toml",
        "name = \"a\"\n[[step]]\nname = \"one\"\nroute = \"nowhere\"\nprompt = \"{{ two }}\"\n\
         [[step]]\nname = \"two\"\nprompt = \"{{ one }} {{ absent }}\"\n",
    );
    workspace.write(
        "b.toml",
        "name = \"b\"\n[input.schema]\nadditionalProperties = false\nproperties = { text = { type = \"string\" } }\n\
         [[step]]\nname = \"one\"\nprompt = \"{{ item.txt }}\"\n",
    );
    workspace.write("c.toml", "name = \"c\"\n[[step]]\nname = \"one\"\nprompt = \"{{ two }}\"\n[[step]]\nname = \"two\"\nprompt = \"{{ one }}\"\n");
    let output = workspace.run("check a.toml pipeline.toml b.toml c.toml");
    output.expect_stderr(
        3,
        &[
            "unknown route `nowhere`\n --> a.toml:4:9",
            "unknown name `absent`\n --> a.toml:8:24",
            "`item.txt` cannot exist",
            "--> b.toml:7:14",
            "did you mean `text`?",
            "steps wait for each other: one → two → one\n --> c.toml:3:8",
        ],
    );
    assert!(!output.stderr.contains("no problems found"));
    // A run is refused with the same message.
    workspace.write_items(1);
    let run = workspace.run("run c.toml --items items.jsonl --out o.jsonl");
    run.expect_stderr(3, &["steps wait for each other"]);
    assert!(!workspace.path("o.jsonl").exists());
}

#[test]
fn a_base_url_that_is_probably_wrong_gets_advice_and_is_not_an_error() {
    let models = |url: &str| format!("[provider.p]\nbase_url = \"{url}\"\n[provider.p.models.m]\n");
    let workspace = Workspace::new(&models("http://localhost:11434"));
    let advice = "write base_url = \"http://localhost:11434/v1\", unless this server answers without it";
    workspace
        .run("check")
        .expect_stderr(0, &["config.toml:2:12", "this address has no version", advice, "no problems found"]);
    let workspace = Workspace::new(&models("http://localhost:11434/v1/chat/completions"));
    let advice = "write base_url = \"http://localhost:11434/v1\"";
    workspace
        .run("check")
        .expect_stderr(0, &["each call adds its path to this address", advice, "no problems found"]);
    let workspace = Workspace::new(&models("http://localhost:11434/v1"));
    let output = workspace.run("check");
    output.expect_stderr(0, &["no problems found"]);
    assert!(!output.stderr.contains("base_url"), "{}", output.stderr);
}

#[test]
fn limits_of_scopes_are_noted_because_the_command_line_names_none() {
    let note = "the limits and budgets of scopes apply only to runs with a scope";
    for section in ["[scope.team-a]\nconcurrency = 4\n", "[budget]\nscope = { team-a = 5.00 }\n"] {
        let workspace = Workspace::new(section);
        workspace.run("check pipeline.toml").expect_stderr(0, &[note, "no problems found"]);
    }
    let without_limits = Workspace::new("[scope.team-a]\n").run("check pipeline.toml");
    without_limits.expect_stderr(0, &["no problems found"]);
    assert!(!without_limits.stderr.contains(note), "{}", without_limits.stderr);
}

#[test]
fn check_runs_no_key_command() {
    let workspace =
        Workspace::new("[provider.p]\nkeys = [\"command:touch ran; echo k\"]\n[provider.p.models.m]\n");
    workspace.run("check pipeline.toml").expect_code(0);
    assert!(!workspace.path("ran").exists());
}

#[test]
fn a_missing_key_is_a_note_that_names_its_variable() {
    let workspace = Workspace::new(
        "[provider.p]\nkeys = [\"env:P_KEY\"]\n[provider.p.models.m]\n[provider.s]\nbase_url = \"simulator\"\n\
         [route.default]\ntargets = [\"s/any\"]\n[route.real]\ntargets = [\"p/m\"]",
    );
    workspace.run("check").expect_stderr(
        0,
        &["p: skipped, P_KEY is not set", "simulated: answers on route default come from the simulator"],
    );
}

#[test]
fn check_fails_when_run_would_with_the_same_message() {
    let keyless = "[provider.p]\nkeys = [\"env:P_KEY\"]\n[provider.p.models.m]\n";
    let unpriced =
        "[provider.p]\nbase_url = \"http://127.0.0.1:9/v1\"\n[provider.p.models.m]\n[budget]\nrun = 1\n";
    let mixed = "[provider.p]\nbase_url = \"http://127.0.0.1:9/v1\"\n[provider.p.models.m]\n[provider.s]\n\
                 base_url = \"simulator\"\n[route.default]\ntargets = [\"p/m\", \"s/any\"]\n";
    for (config, words) in [
        (keyless, ["route `default` has no usable key", "set P_KEY, or simulate the answers (--simulate)"]),
        (unpriced, ["p/m has no price", "write price"]),
        (mixed, ["config.toml:7:19", "mixes real targets with the simulated `s/any`"]),
    ] {
        let workspace = Workspace::new(config);
        workspace.write_items(2);
        for command in ["check", "check pipeline.toml", "run pipeline.toml --items items.jsonl --out o.jsonl"]
        {
            let output = workspace.run(command);
            output.expect_stderr(3, &words);
            assert_eq!(output.stderr.matches("error: ").count(), 1, "{command}: {}", output.stderr);
        }
        assert!(!workspace.path("o.jsonl").exists() && !workspace.path("pointsman.db").exists());
    }
    Workspace::new(keyless).run("check pipeline.toml --simulate").expect_stderr(0, &["no problems found"]);
}

#[test]
fn a_missing_key_file_is_reported_with_its_position_and_without_secrets_beside_it() {
    let workspace = Workspace::new(
        "[provider.p]\nkeys = [\"file:/nowhere/key\"]\nheaders = { x-team = \"hush-hush-1\", x-more = \"file:/nowhere/more\" }\n\
         [provider.p.models.m]\n",
    );
    let output = workspace.run("check");
    output.expect_stderr(
        3,
        &[
            "cannot read the key file /nowhere/key",
            "config.toml:2:9",
            "write the key into this file",
            "config.toml:3:46",
        ],
    );
    assert!(!output.stderr.contains("hush-hush-1"), "{}", output.stderr);
}

#[test]
fn settings_without_effect_are_reported_with_their_positions_and_pass() {
    let workspace = Workspace::new(
        "[provider.p]\nbase_url = \"http://x\"\nlimits = { requests_per_minute = 10 }\n\
         [provider.p.models.m]\nlimits = { requests_per_minute = 50 }\n[retry]\nhedge_after = \"p95\"\n",
    );
    workspace.run("check").expect_stderr(
        0,
        &[
            "config.toml:5:34: requests_per_minute = 50 of this model is never reached: the limit of the account is 10",
            "config.toml:7:15: hedge_after does nothing: no route has a second target",
            "no problems found",
        ],
    );
}
