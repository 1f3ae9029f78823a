//! Secrets show nowhere: not on the terminal, in logs, in the database, nor in any file that the program writes.

use pointsman::config::Config;
use pointsman::runtime::Pointsman;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::program::{Ended, Room, finish};
use super::scripted::{Scripted, header, response, stream};
use super::stage::{PATIENT, ask, snapshot};

const KEY: &str = "sk-live-5kQ0x7Zr2WmN4tVb";
const ARGUMENT: &str = "argument-8812734650";
const ASSIGNED: &str = "hvs.CAESIJassigned991";
const ORG: &str = "header-secret-77120934";
const PASSWORD: &str = "hunter2-in-an-address";

const SECRETS: [&str; 5] = [KEY, ARGUMENT, ASSIGNED, ORG, PASSWORD];

/// Most characters in a row that may show of a secret.
const MAY_SHOW: usize = 8;

#[track_caller]
fn shows_nothing(what: &str, bytes: &[u8]) {
    for secret in SECRETS {
        for part in secret.as_bytes().windows(MAY_SHOW + 1) {
            let found = bytes.windows(part.len()).position(|window| window == part);
            assert!(found.is_none(), "{what} shows a part of {secret}: {}", String::from_utf8_lossy(bytes));
        }
    }
}

/// Checks both streams, and every file in the room but those that the test wrote; returns how many there are.
#[track_caller]
fn room_shows_nothing(room: &Room, ended: &Ended) -> usize {
    shows_nothing("stdout", ended.out.as_bytes());
    shows_nothing("stderr", ended.err.as_bytes());
    let written = ["config.toml", "pipeline.toml", "items.jsonl", "key"];
    let mut files = 0;
    for entry in std::fs::read_dir(room.path("")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !written.contains(&&*name) && entry.file_type().unwrap().is_file() {
            shows_nothing(&name, &std::fs::read(entry.path()).unwrap());
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

/// Writes a chunk of an answer of OpenAI's.
fn chunk(content: &str, finish: Option<&str>) -> String {
    let choice =
        json!({ "index": 0, "delta": { "content": content, "reasoning": content }, "finish_reason": finish });
    format!("data: {}\n\n", json!({ "id": "c", "model": "m", "choices": [choice] }))
}

/// Writes an answer that repeats a key and a header, each split over two chunks and once escaped.
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
         headers = {{ X-Org = \"env:ORG\" }}\n{PATIENT}",
        command()
    )
}

fn room(config: &str) -> Room {
    let room = Room::new(config);
    room.write("pipeline.toml", PIPELINE);
    room.write("key", KEY);
    room.items(2);
    room
}

async fn run(room: Room, arguments: &'static str, env: &'static [(&str, &str)]) -> (Room, Ended) {
    spawn_blocking(move || {
        let mut program = room.program(arguments);
        program.env("ORG", ORG).env("RUST_LOG", "trace").envs(env.iter().copied());
        let ended = finish(program);
        (room, ended)
    })
    .await
    .unwrap()
}

const RUN: &str =
    "run pipeline.toml --items items.jsonl --out out.jsonl --rejects rejects.jsonl --report report.json -vv";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_that_a_successful_answer_repeats_in_pieces_show_nowhere() {
    let scripted = Scripted::start(echo).await;
    let (room, ended) = run(room(&config(&scripted.url())), RUN, &[]).await;
    ended.expect(0);
    // The output, the report and the database at least.
    assert!(room_shows_nothing(&room, &ended) >= 3);
    let line = &room.lines("out.jsonl")[0];
    let covered = "your key is ***, your organisation is ***, and once more ***";
    assert_eq!(line["answers"]["record"]["note"], covered, "{line}");
    assert!(line.to_string().contains("command:printf"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_that_an_error_repeats_show_nowhere() {
    let scripted = Scripted::start(|head| {
        let said = format!("no key {}", head.replace(['\r', '\n'], " "));
        response("400 Bad Request", "", &said[..said.len().min(400)])
    })
    .await;
    let (room, ended) = run(room(&config(&scripted.url())), RUN, &[]).await;
    assert_ne!(ended.code, Some(3), "{}", ended.err);
    room_shows_nothing(&room, &ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_of_a_broken_configuration_show_nowhere() {
    let whole = config("http://127.0.0.1:9");
    for broken in [
        format!("{whole}\nqueue = = 1\n"),
        format!("{whole}\nbase_url = \"https://me:{PASSWORD}@host/v1\"\n"),
        format!("proxy = https://me:{PASSWORD}@host\n{whole}"),
        format!("[provider.a.headers]\nX-Team = \"{ORG}\nX-Other = \"{ORG}\"\n"),
        format!("pw = \"{PASSWORD}\n"),
        format!("bearer = '''\n{PASSWORD}\n'' oops\n"),
        format!("[provider.a]\nkeys = [\n\"{KEY}\",\n\"{ARGUMENT}\" oops\n]\n"),
        whole.replace("printf", "exit 3; printf"),
        whole.replace("\"env:ORG\"", &format!("\"{KEY}\"")),
        whole.replace("X-Org = \"env:ORG\"", &format!("Authorization = \"{PASSWORD}\"")),
        whole.replace("\"env:ORG\"", "\"env:MY-ORG\""),
    ] {
        let (room, ended) = run(room(&broken), RUN, &[]).await;
        assert_eq!(ended.code, Some(3), "{broken}\n{}", ended.err);
        room_shows_nothing(&room, &ended);
        let (room, ended) = run(room, "check pipeline.toml", &[]).await;
        room_shows_nothing(&room, &ended);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_proxy_variable_is_refused_by_name_without_its_password() {
    let value = "http://me:hunter2-in-an-address@proxy:none";
    for arguments in [RUN, "check pipeline.toml"] {
        let room = room(&config("https://192.0.2.1:9"));
        let (room, ended) = spawn_blocking(move || {
            let mut program = room.program(arguments);
            program.env("ORG", ORG).env("HTTPS_PROXY", value);
            let ended = finish(program);
            (room, ended)
        })
        .await
        .unwrap();
        ended.says(3, &["HTTPS_PROXY is malformed", "write it like http://proxy.example.com:3128"]);
        room_shows_nothing(&room, &ended);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debug_output_of_the_public_types_shows_no_secret() {
    let scripted = Scripted::start(echo).await;
    let env = |name: &str| (name == "ORG").then(|| ORG.to_owned());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), KEY).unwrap();
    let text =
        config(&scripted.url()).replace("file:key", &format!("file:{}", folder.path().join("key").display()));
    let config = Config::parse("c", &text, &env).unwrap();
    let usable = config.usable(&env).unwrap();
    let pointsman = Pointsman::start_with(&config, &env).unwrap();
    let answer = ask(&pointsman, "default", "What is your key?").await.unwrap();
    let seen = format!("{config:?} {usable:?} {pointsman:?} {answer:#?} {:?}", snapshot(&pointsman, "a"));
    shows_nothing("Debug", seen.as_bytes());
    assert!(seen.contains("command:printf"), "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_commands_of_one_program_have_labels_of_their_own() {
    let text = format!(
        "[provider.a]\nbase_url = \"http://127.0.0.1:9\"\nmodels.m = {{}}\n\
         keys = [\"command:A={ASSIGNED} echo {KEY}\", \"command:echo {ARGUMENT}\"]\n"
    );
    let config = Config::parse("c", &text, &|_| None).unwrap();
    let usable = config.usable(&|_| None).unwrap();
    let labels: Vec<_> = usable.providers["a"].keys.iter().map(|key| key.label.to_string()).collect();
    assert_eq!(labels, ["command:echo", "command:echo#2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_sent_in_the_clear_is_warned_of_at_check_and_start() {
    let remote = room(&config("http://192.0.2.1:9"));
    let (remote, ended) = run(remote, "check pipeline.toml", &[]).await;
    let warning = "a: its key is sent to 192.0.2.1 over plain http";
    ended.says(0, &[warning, "write https://"]);
    let (remote, ended) = run(remote, "plan pipeline.toml --items items.jsonl", &[]).await;
    ended.says(0, &[warning]);
    room_shows_nothing(&remote, &ended);
    let (_, ended) = run(room(&config("http://127.0.0.1:9")), "check pipeline.toml", &[]).await;
    assert!(!ended.expect(0).contains("plain http"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_without_a_sample_runs_no_key_command() {
    let text = "[provider.a]\nbase_url = \"http://127.0.0.1:9\"\nmodels.m = {}\n\
                keys = [\"command:touch ran; echo sk-1\"]\nheaders = { X-Org = \"command:touch ran; echo org\" }\n";
    let (room, ended) = run(room(text), "plan pipeline.toml --items items.jsonl", &[]).await;
    ended.expect(0);
    assert!(!room.path("ran").exists(), "a command was run");
}

/// Repeats what stands behind the scheme of a header alone, and what a `Basic` one decodes to.
fn echo_bare(head: &str) -> String {
    let bearer = header(head, "x-org").unwrap().strip_prefix("Bearer ").unwrap();
    let basic = header(head, "proxy-authorization").unwrap().strip_prefix("Basic ").unwrap();
    let said = format!("bad token {bearer}, {basic}, me:{BASIC_PASSWORD}, {BASIC_PASSWORD}");
    response("400 Bad Request", "", &json!({ "error": { "message": said } }).to_string())
}

const BEARER: &str = "9Zx-7Qw";
const BASIC: &str = "bWU6aHVudGVyMg==";
const BASIC_PASSWORD: &str = "hunter2";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_a_provider_repeats_without_its_scheme_shows_nowhere() {
    let scripted = Scripted::start(echo_bare).await;
    let headers = "headers = { X-Org = \"env:BEARER\", Proxy-Authorization = \"env:BASIC\" }";
    let text = config(&scripted.url()).replace("headers = { X-Org = \"env:ORG\" }", headers);
    const ENV: &[(&str, &str)] = &[("BEARER", "Bearer 9Zx-7Qw"), ("BASIC", "Basic bWU6aHVudGVyMg==")];
    let (room, ended) = run(room(&text), RUN, ENV).await;
    ended.says(1, &["2 failed"]);
    let line = room.read("out.jsonl");
    assert!(line.contains("bad token ***, ***, ***, ***"), "{line}");
    for name in ["out.jsonl", "report.json", "pointsman.db"] {
        let bytes = std::fs::read(room.path(name)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for secret in [BEARER, BASIC, BASIC_PASSWORD] {
            assert!(!text.contains(secret) && !ended.err.contains(secret), "{name} shows {secret}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_stands_where_a_variables_name_belongs_shows_nowhere() {
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
            let (_, ended) = run(room(&text), arguments, &[]).await;
            let said = format!("{}{}", ended.out, ended.err);
            assert!(!said.contains(&name[..9]), "{said}");
            assert_eq!(ended.code, Some(3), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_variable_that_cannot_be_used_stops_no_run_that_uses_no_proxy() {
    use std::os::unix::ffi::OsStrExt;
    let latin = std::ffi::OsStr::from_bytes(b"http://proxy\xe9:3128");
    for value in ["socks5://proxy:1080".as_ref(), latin] {
        for simulate in ["", " --simulate"] {
            let scripted = Scripted::start(echo).await;
            let room = room(&config(&scripted.url()));
            let ended = spawn_blocking(move || {
                let mut program = room.program(&format!("{RUN}{simulate}"));
                let names = ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"];
                program.env("ORG", ORG).envs(names.map(|name| (name, value)));
                finish(program)
            });
            ended.await.unwrap().expect(0);
        }
        let ended = spawn_blocking(move || {
            let room = room(&config("https://192.0.2.1:9"));
            let mut program = room.program(RUN);
            program.env("ORG", ORG).env("HTTPS_PROXY", value);
            finish(program)
        });
        ended.await.unwrap().says(3, &["HTTPS_PROXY is malformed"]);
    }
}
