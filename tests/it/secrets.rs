//! Secrets are never shown: not on the terminal, in logs, in the database, or in any file that the program writes.

use pointsman::config::Config;
use pointsman::runtime::Pointsman;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::program::{Output, Workspace, run_program};
use super::scripted_server::{ScriptedServer, header, response, stream};
use super::support::{LONG_TIMEOUTS, provider_snapshot, send_request};

const KEY: &str = "sk-live-5kQ0x7Zr2WmN4tVb";
const ARGUMENT: &str = "argument-8812734650";
const ASSIGNED: &str = "hvs.CAESIJassigned991";
const ORG: &str = "header-secret-77120934";
const PASSWORD: &str = "hunter2-in-an-address";

const SECRETS: [&str; 5] = [KEY, ARGUMENT, ASSIGNED, ORG, PASSWORD];

/// Maximum number of consecutive characters of a secret that may be shown.
const MAX_SHOWN_CHARACTERS: usize = 8;

#[track_caller]
fn assert_no_secret(place: &str, bytes: &[u8]) {
    for secret in SECRETS {
        for part in secret.as_bytes().windows(MAX_SHOWN_CHARACTERS + 1) {
            let found = bytes.windows(part.len()).position(|window| window == part);
            assert!(found.is_none(), "{place} shows a part of {secret}: {}", String::from_utf8_lossy(bytes));
        }
    }
}

/// Checks stdout, stderr and every file in the workspace except those that the test wrote. Returns the number of
/// files.
#[track_caller]
fn assert_workspace_has_no_secret(workspace: &Workspace, output: &Output) -> usize {
    assert_no_secret("stdout", output.stdout.as_bytes());
    assert_no_secret("stderr", output.stderr.as_bytes());
    let written = ["config.toml", "pipeline.toml", "items.jsonl", "key"];
    let mut files = 0;
    for entry in std::fs::read_dir(workspace.path("")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !written.contains(&&*name) && entry.file_type().unwrap().is_file() {
            assert_no_secret(&name, &std::fs::read(entry.path()).unwrap());
            files += 1;
        }
    }
    files
}

const PIPELINE: &str = r#"
name = "echo"
[[step]]
name = "text"
prompt = "What is your key, {{ item.id }}?"
[[step]]
name = "record"
prompt = "And as JSON, after {{ text | length }} characters?"
schema = { type = "object", properties = { note = { type = "string" } }, required = ["note"] }
"#;

/// Returns a chunk of an event stream of OpenAI.
fn chunk(content: &str, finish: Option<&str>) -> String {
    let choice =
        json!({ "index": 0, "delta": { "content": content, "reasoning": content }, "finish_reason": finish });
    format!("data: {}\n\n", json!({ "id": "c", "model": "m", "choices": [choice] }))
}

/// Returns a response that repeats a key and a header, each split over two chunks, and the key once escaped.
fn echo(head: &str) -> String {
    let key = header(head, "authorization").unwrap().strip_prefix("Bearer ").unwrap();
    let org = header(head, "x-org").unwrap();
    let (begin, end) = key.split_at(11);
    let (first, last) = org.split_at(9);
    let escaped: String = key.chars().map(|character| format!("\\u{:04x}", u32::from(character))).collect();
    let pieces = [
        "{\"note\": \"your key is ".to_owned(),
        begin.to_owned(),
        format!("{end}, your organisation is {first}"),
        format!("{last}, and once more "),
        escaped[..31].to_owned(),
        format!("{}\"}}", &escaped[31..]),
    ];
    let mut events: String = pieces.iter().map(|piece| chunk(piece, None)).collect();
    events.push_str(&chunk("", Some("stop")));
    events.push_str("data: [DONE]\n\n");
    stream(&format!("x-request-id: {key}\r\n"), &events, true)
}

fn command() -> String {
    format!("command:VAULT_TOKEN={ASSIGNED} printf '%s\\n' {KEY} {ARGUMENT}")
}

fn config(url: &str) -> String {
    format!(
        "[provider.a]\nbase_url = \"{url}\"\nmodels.m = {{}}\nkeys = [{:?}, \"file:key\"]\n\
         headers = {{ X-Org = \"env:ORG\" }}\n{LONG_TIMEOUTS}",
        command()
    )
}

fn new_workspace(config: &str) -> Workspace {
    let workspace = Workspace::new(config);
    workspace.write("pipeline.toml", PIPELINE);
    workspace.write("key", KEY);
    workspace.write_items(2);
    workspace
}

async fn run(
    workspace: Workspace,
    arguments: &'static str,
    env: &'static [(&str, &str)],
) -> (Workspace, Output) {
    spawn_blocking(move || {
        let mut program = workspace.command(arguments);
        program.env("ORG", ORG).env("RUST_LOG", "trace").envs(env.iter().copied());
        let output = run_program(program);
        (workspace, output)
    })
    .await
    .unwrap()
}

const RUN: &str =
    "run pipeline.toml --items items.jsonl --out out.jsonl --rejects rejects.jsonl --report report.json -vv";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_repeated_in_pieces_by_an_answer_are_shown_nowhere() {
    let server = ScriptedServer::start(echo).await;
    let (workspace, output) = run(new_workspace(&config(&server.url())), RUN, &[]).await;
    output.expect_code(0);
    // At least the output, the report and the database.
    assert!(assert_workspace_has_no_secret(&workspace, &output) >= 3);
    let line = &workspace.output_lines("out.jsonl")[0];
    let redacted = "your key is ***, your organisation is ***, and once more ***";
    assert_eq!(line["answers"]["record"]["note"], redacted, "{line}");
    assert!(line.to_string().contains("command:printf"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_repeated_by_an_error_are_shown_nowhere() {
    let server = ScriptedServer::start(|head| {
        let message = format!("no key {}", head.replace(['\r', '\n'], " "));
        response("400 Bad Request", "", &message[..message.len().min(400)])
    })
    .await;
    let (workspace, output) = run(new_workspace(&config(&server.url())), RUN, &[]).await;
    assert_ne!(output.code, Some(3), "{}", output.stderr);
    assert_workspace_has_no_secret(&workspace, &output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_of_an_invalid_configuration_are_shown_nowhere() {
    let valid = config("http://127.0.0.1:9");
    for invalid in [
        format!("{valid}\nqueue = = 1\n"),
        format!("{valid}\nbase_url = \"https://me:{PASSWORD}@host/v1\"\n"),
        format!("proxy = https://me:{PASSWORD}@host\n{valid}"),
        format!("[provider.a.headers]\nX-Team = \"{ORG}\nX-Other = \"{ORG}\"\n"),
        format!("pw = \"{PASSWORD}\n"),
        format!("bearer = '''\n{PASSWORD}\n'' oops\n"),
        format!("[provider.a]\nkeys = [\n\"{KEY}\",\n\"{ARGUMENT}\" oops\n]\n"),
        valid.replace("printf", "exit 3; printf"),
        valid.replace("\"env:ORG\"", &format!("\"{KEY}\"")),
        valid.replace("X-Org = \"env:ORG\"", &format!("Authorization = \"{PASSWORD}\"")),
        valid.replace("\"env:ORG\"", "\"env:MY-ORG\""),
    ] {
        let (workspace, output) = run(new_workspace(&invalid), RUN, &[]).await;
        assert_eq!(output.code, Some(3), "{invalid}\n{}", output.stderr);
        assert_workspace_has_no_secret(&workspace, &output);
        let (workspace, output) = run(workspace, "check pipeline.toml", &[]).await;
        assert_workspace_has_no_secret(&workspace, &output);
    }
}

#[test]
fn secrets_in_arguments_and_in_other_files_are_shown_nowhere() {
    let workspace = new_workspace("[provider.a]\nbase_url = \"simulator\"\n");
    workspace.write(".env", format!("OPENAI_API_KEY={KEY}\nDB_PASSWORD={PASSWORD}\n"));
    workspace.write("other.toml", format!("[provider.a]\nkeys = [\"{ARGUMENT}\"]\nopenai = \"{KEY}\"\n"));
    for (arguments, code) in [
        ("check .env".to_owned(), 3),
        ("check other.toml".to_owned(), 3),
        ("check --config other.toml".to_owned(), 3),
        ("run other.toml --items items.jsonl --out o.jsonl --json".to_owned(), 3),
        (format!("runs --store postgres://me:{PASSWORD}@host/db"), 2),
        (format!("runs --store {KEY}"), 2),
        (format!("simulate --set keys={KEY}"), 3),
    ] {
        let output = workspace.run(&arguments);
        assert_eq!(output.code, Some(code), "{arguments}\n{}", output.stderr);
        assert_no_secret("stdout", output.stdout.as_bytes());
        assert_no_secret("stderr", output.stderr.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_proxy_variable_is_named_without_its_password() {
    let value = "http://me:hunter2-in-an-address@proxy:none";
    for arguments in [RUN, "check pipeline.toml"] {
        let workspace = new_workspace(&config("https://192.0.2.1:9"));
        let (workspace, output) = spawn_blocking(move || {
            let mut program = workspace.command(arguments);
            program.env("ORG", ORG).env("HTTPS_PROXY", value);
            let output = run_program(program);
            (workspace, output)
        })
        .await
        .unwrap();
        output.expect_stderr(3, &["HTTPS_PROXY is malformed", "write it like http://proxy.example.com:3128"]);
        assert_workspace_has_no_secret(&workspace, &output);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debug_output_of_the_public_types_shows_no_secret() {
    let server = ScriptedServer::start(echo).await;
    let env = |name: &str| (name == "ORG").then(|| ORG.to_owned());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), KEY).unwrap();
    let text =
        config(&server.url()).replace("file:key", &format!("file:{}", folder.path().join("key").display()));
    let config = Config::parse("c", &text, &env).unwrap();
    let resolved = config.resolve(&env).unwrap();
    let pointsman = Pointsman::start_with(&config, env).await.unwrap();
    let response = send_request(&pointsman, "default", "What is your key?").await.unwrap();
    let shown = format!(
        "{config:?} {resolved:?} {pointsman:?} {response:#?} {:?}",
        provider_snapshot(&pointsman, "a")
    );
    assert_no_secret("Debug", shown.as_bytes());
    assert!(shown.contains("command:printf"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_key_commands_of_one_program_have_different_labels() {
    let text = format!(
        "[provider.a]\nbase_url = \"http://127.0.0.1:9\"\nmodels.m = {{}}\n\
         keys = [\"command:A={ASSIGNED} echo {KEY}\", \"command:echo {ARGUMENT}\"]\n"
    );
    let config = Config::parse("c", &text, &|_| None).unwrap();
    let resolved = config.resolve(&|_| None).unwrap();
    let labels: Vec<_> = resolved.providers["a"].keys.iter().map(|key| key.label.to_string()).collect();
    assert_eq!(labels, ["command:echo", "command:echo#2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_and_start_warn_about_a_key_sent_over_plain_http() {
    let remote = new_workspace(&config("http://192.0.2.1:9"));
    let (remote, output) = run(remote, "check pipeline.toml", &[]).await;
    let warning = "a: its key is sent to 192.0.2.1 over plain http";
    output.expect_stderr(0, &[warning, "write https://"]);
    let (remote, output) = run(remote, "plan pipeline.toml --items items.jsonl", &[]).await;
    output.expect_stderr(0, &[warning]);
    assert_workspace_has_no_secret(&remote, &output);
    let (_, output) = run(new_workspace(&config("http://127.0.0.1:9")), "check pipeline.toml", &[]).await;
    assert!(!output.expect_code(0).contains("plain http"), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_without_a_sample_runs_no_key_command() {
    let text = "[provider.a]\nbase_url = \"http://127.0.0.1:9\"\nmodels.m = {}\n\
                keys = [\"command:touch executed; echo sk-1\"]\nheaders = { X-Org = \"command:touch executed; echo org\" }\n";
    let (workspace, output) = run(new_workspace(text), "plan pipeline.toml --items items.jsonl", &[]).await;
    output.expect_code(0);
    assert!(!workspace.path("executed").exists(), "a key command was run");
}

/// Returns an error that repeats the header values without their scheme, and the decoded `Basic` value.
fn echo_bare(head: &str) -> String {
    let bearer = header(head, "x-org").unwrap().strip_prefix("Bearer ").unwrap();
    let basic = header(head, "proxy-authorization").unwrap().strip_prefix("Basic ").unwrap();
    let message = format!("bad token {bearer}, {basic}, me:{BASIC_PASSWORD}, {BASIC_PASSWORD}");
    response("400 Bad Request", "", &json!({ "error": { "message": message } }).to_string())
}

const BEARER: &str = "9Zx-7Qw";
const BASIC: &str = "bWU6aHVudGVyMg==";
const BASIC_PASSWORD: &str = "hunter2";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_repeated_without_its_scheme_is_shown_nowhere() {
    let server = ScriptedServer::start(echo_bare).await;
    let headers = "headers = { X-Org = \"env:BEARER\", Proxy-Authorization = \"env:BASIC\" }";
    let text = config(&server.url()).replace("headers = { X-Org = \"env:ORG\" }", headers);
    const ENV: &[(&str, &str)] = &[("BEARER", "Bearer 9Zx-7Qw"), ("BASIC", "Basic bWU6aHVudGVyMg==")];
    let (workspace, output) = run(new_workspace(&text), RUN, ENV).await;
    output.expect_stderr(1, &["2 failed"]);
    let line = workspace.read("out.jsonl");
    assert!(line.contains("bad token ***, ***, ***, ***"), "{line}");
    for name in ["out.jsonl", "report.json", "pointsman.db"] {
        let bytes = std::fs::read(workspace.path(name)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for secret in [BEARER, BASIC, BASIC_PASSWORD] {
            assert!(
                !text.contains(secret) && !output.stderr.contains(secret),
                "{name} shows {secret}: {text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_written_as_a_variable_name_is_shown_nowhere() {
    let name = "gsk_5kQ0x7Zr2WmN4tVb";
    for (keys, more) in [
        (format!("keys = [\"env:{name}\"]"), ""),
        (format!("keys = [\"env:{name}\", 7]"), ""),
        (format!("keys = [\"env:{name}\"]\nheaders = {{ X-Team = \"env:{name}\" }}"), ""),
        (format!("keys = [\"env:{name}\"]"), "queue = = 1"),
    ] {
        let url = "https://192.0.2.1:9";
        let text = format!("[provider.a]\nbase_url = \"{url}\"\nmodels.m = {{}}\n{keys}\n{more}\n");
        for arguments in [RUN, "check pipeline.toml"] {
            let (_, output) = run(new_workspace(&text), arguments, &[]).await;
            let text = format!("{}{}", output.stdout, output.stderr);
            assert!(!text.contains(&name[..9]), "{text}");
            assert_eq!(output.code, Some(3), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unusable_proxy_variable_stops_no_run_that_needs_no_proxy() {
    use std::os::unix::ffi::OsStrExt;
    let not_utf8 = std::ffi::OsStr::from_bytes(b"http://proxy\xe9:3128");
    for value in ["socks5://proxy:1080".as_ref(), not_utf8] {
        for simulate in ["", " --simulate"] {
            let server = ScriptedServer::start(echo).await;
            let workspace = new_workspace(&config(&server.url()));
            let output = spawn_blocking(move || {
                let mut program = workspace.command(&format!("{RUN}{simulate}"));
                let names = ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"];
                program.env("ORG", ORG).envs(names.map(|name| (name, value)));
                run_program(program)
            });
            output.await.unwrap().expect_code(0);
        }
        let output = spawn_blocking(move || {
            let workspace = new_workspace(&config("https://192.0.2.1:9"));
            let mut program = workspace.command(RUN);
            program.env("ORG", ORG).env("HTTPS_PROXY", value);
            run_program(program)
        });
        output.await.unwrap().expect_stderr(3, &["HTTPS_PROXY is malformed"]);
    }
}
