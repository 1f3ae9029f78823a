//! Untrusted data: items and responses that would exhaust memory, and files and hosts that an item must not name.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;

use super::program::Workspace;

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl --store none";

/// Starts a server that sends these bytes to every request and closes the connection. It runs until the process
/// ends.
fn start_server(response: Vec<u8>) -> SocketAddr {
    start_measuring_server(response, mpsc::channel().0)
}

/// Like [`start_server`], and sends the size of each request body to `sizes`.
fn start_measuring_server(response: Vec<u8>, sizes: mpsc::Sender<u64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let response = Arc::new(response);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let response = response.clone();
            let sizes = sizes.clone();
            thread::spawn(move || {
                // The client may close the connection during a response that is too large.
                if let Ok(size) = read_request(&mut stream) {
                    // Most tests drop the receiver.
                    let _ = sizes.send(size);
                    let _ = stream.write_all(&response);
                }
            });
        }
    });
    address
}

/// Reads a request to its end, because closing a connection with unread bytes resets it. Returns the size of the
/// body.
fn read_request(stream: &mut TcpStream) -> io::Result<u64> {
    let mut stream = BufReader::new(stream);
    let mut bytes = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            bytes = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            io::copy(&mut stream.take(bytes), &mut io::sink())?;
            return Ok(bytes);
        }
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let gzip = Command::new("gzip").arg("-9").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut gzip = gzip.unwrap();
    let mut stdin = gzip.stdin.take().unwrap();
    let text = text.to_owned();
    let writer = thread::spawn(move || stdin.write_all(&text).unwrap());
    let compressed = gzip.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    compressed
}

fn response(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn completion(content: &str) -> String {
    serde_json::json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": content }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
    })
    .to_string()
}

/// Returns the configuration of one provider at this address, without retries.
fn config(address: SocketAddr) -> String {
    format!(
        "[provider.p]\nbase_url = \"http://{address}/v1\"\n[provider.p.models.m]\n[retry]\nattempts_per_target = 1\nmax_rounds = 1\n"
    )
}

#[test]
fn a_response_of_40_mib_after_decompression_is_not_read_to_its_end() {
    let bomb = gzip(completion(&"a".repeat(40 << 20)).as_bytes());
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    let address = start_server(response("content-type: application/json\r\ncontent-encoding: gzip", &bomb));
    let workspace = Workspace::new(&config(address));
    workspace.write_items(3);
    workspace
        .run(RUN)
        .expect_stderr(5, &["paused: unreadable", "the response is larger than 16 MiB, decompressed"]);
}

#[test]
fn a_validation_retry_after_an_answer_of_megabytes_is_a_small_request() {
    let body = completion(&"\n- maybe".repeat(1 << 18));
    let (sizes, received_sizes) = mpsc::channel();
    let address = start_measuring_server(response("content-type: application/json", body.as_bytes()), sizes);
    let workspace = Workspace::new(&config(address));
    let step = "name = \"p\"\n[[step]]\nname = \"answer\"\nprompt = \"Say {{ item.text }}\"\nmax_validation_retries = 2\n";
    for check in ["schema = { type = \"array\" }", "choice = [\"yes\", \"no\"]"] {
        workspace.write("pipeline.toml", format!("{step}{check}\n"));
        workspace.write_items(1);
        workspace.run(&format!("{RUN} --overwrite")).expect_stderr(1, &["1 validation_error"]);
        let sizes: Vec<u64> = received_sizes.try_iter().collect();
        assert_eq!(sizes.len(), 3, "{sizes:?}");
        assert!(sizes.iter().all(|size| *size < 20_000), "{sizes:?}");
    }
}

#[test]
fn an_event_without_an_end_is_not_read_forever() {
    let event = format!("data: {}", "a".repeat(20 << 20));
    let address = start_server(response("content-type: text/event-stream", event.as_bytes()));
    let workspace = Workspace::new(&config(address));
    workspace.write_items(1);
    workspace.run(RUN).expect_stderr(
        5,
        &["paused: unreadable", "an event of the response is larger than 4 MiB, decompressed"],
    );
}

#[test]
fn a_response_of_millions_of_tiny_events_after_decompression_is_not_read_to_its_end() {
    let start = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let bomb = gzip(format!("{start}{}", "data:{}\n\n".repeat(6_000_000)).as_bytes());
    assert!(bomb.len() < 200_000, "{}", bomb.len());
    let address = start_server(response("content-type: text/event-stream\r\ncontent-encoding: gzip", &bomb));
    let workspace = Workspace::new(&config(address));
    workspace.write_items(2);
    workspace.run(RUN).expect_stderr(
        5,
        &["paused: unreadable", "more than 100000 events came without a part of the answer, unpacked"],
    );
}

#[test]
fn an_invalid_answer_to_a_recursive_schema_fails_its_item_and_not_the_run() {
    // Each level fails three alternatives, so a list of all errors would have 3^90 entries.
    let deep = format!("{}1{}", "[".repeat(90), "]".repeat(90));
    let body = completion(&deep);
    let address = start_server(response("content-type: application/json", body.as_bytes()));
    let workspace = Workspace::new(&config(address));
    workspace.write(
        "pipeline.toml",
        r##"
name = "tree"
[[step]]
name = "answer"
prompt = "Say {{ item.text }}"
max_validation_retries = 0
[step.schema]
"$ref" = "#/$defs/node"
[step.schema."$defs".node]
anyOf = [
  { type = "string" },
  { type = "array", items = { "$ref" = "#/$defs/node" } },
  { type = "array", items = { "$ref" = "#/$defs/node" } },
  { type = "array", items = { "$ref" = "#/$defs/node" } },
]
"##,
    );
    workspace.write_items(3);
    workspace.run(RUN).expect_stderr(1, &["3 validation_error", "it does not match the schema"]);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 3);
}

#[test]
fn a_deeply_nested_item_or_answer_fails_without_affecting_other_items() {
    let body = completion(&"[".repeat(500_000));
    let address = start_server(response("content-type: application/json", body.as_bytes()));
    let workspace = Workspace::new(&config(address));
    workspace.write(
        "pipeline.toml",
        "name = \"p\"\n[[step]]\nname = \"answer\"\nprompt = \"Say {{ item.text }}\"\nmax_validation_retries = 0\nschema = { type = \"array\" }\n",
    );
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
    workspace
        .write("items.jsonl", format!("{{\"id\":\"a\",\"text\":{deep}}}\n{{\"id\":\"b\",\"text\":\"x\"}}\n"));
    workspace.run(RUN).expect_stderr(
        1,
        &[
            "1 failed, 1 rejected",
            "such as line 1: is nested deeper than 100 levels",
            "1 validation_error",
            "its JSON is nested deeper than 100 levels",
        ],
    );
}

#[test]
fn items_larger_than_the_memory_limit_are_processed_one_at_a_time() {
    let address = start_server(response("content-type: application/json", completion("fine").as_bytes()));
    for ordered in ["", " --ordered"] {
        let workspace = Workspace::new(&format!("{}[run]\nmax_memory = \"1MiB\"\n", config(address)));
        let line =
            |number: usize| format!("{{\"id\":\"i{number}\",\"text\":\"{}\"}}\n", "x".repeat(2_000_000));
        workspace.write("items.jsonl", (0..6).map(line).collect::<String>());
        workspace.run(&format!("{RUN}{ordered}")).expect_stderr(0, &["6 completed"]);
        assert_eq!(workspace.output_lines("o.jsonl").len(), 6);
    }
}

#[test]
fn an_item_cannot_attach_a_file_outside_the_allowed_folders() {
    let address = start_server(response("content-type: application/json", completion("a cat").as_bytes()));
    let workspace = Workspace::empty();
    for folder in ["photos", "shared"] {
        fs::create_dir(workspace.path(folder)).unwrap();
        fs::write(workspace.path(folder).join("cat.png"), "cat").unwrap();
    }
    workspace.write("cred.json", "secret");
    workspace.write("config.toml", format!("{}[files]\nallow = [\"shared\"]\n", config(address)));
    workspace.write(
        "photos/pipeline.toml",
        "name = \"p\"\n[[step]]\nname = \"answer\"\nprompt = \"What is it?\"\nattach = [\"{{ item.file }}\"]\n",
    );
    let absolute = workspace.path("cred.json");
    let files = ["cat.png", "../shared/cat.png", "../cred.json", absolute.to_str().unwrap()];
    let items = files.iter().map(|file| format!("{}\n", serde_json::json!({ "id": file, "file": file })));
    workspace.write("items.jsonl", items.collect::<String>());
    let output = workspace.run("run photos/pipeline.toml --items items.jsonl --out o.jsonl --store none");
    output.expect_stderr(1, &["2 completed, 2 failed", "2 template_error", "[files]"]);
    for line in workspace.output_lines("o.jsonl") {
        let is_outside = line["key"].as_str().unwrap().contains("cred.json");
        assert_eq!(line["status"], if is_outside { "failed" } else { "completed" }, "{line}");
    }
}

#[test]
fn an_item_cannot_choose_a_host_that_is_not_allowed() {
    let address = start_server(response("content-type: application/json", completion("a cat").as_bytes()));
    let workspace = Workspace::empty();
    workspace
        .write("config.toml", format!("{}[files]\nallow_hosts = [\"cdn.example.com\"]\n", config(address)));
    workspace.write(
        "pipeline.toml",
        "name = \"p\"\n[[step]]\nname = \"answer\"\nprompt = \"What is it?\"\n\
         attach = [\"https://photos.example.com/{{ item.file }}\", \"{{ item.url }}\"]\n",
    );
    let urls = [
        "https://cdn.example.com/a.png",
        "https://photos.example.com/b.png",
        "http://cdn.example.com/a.png",
        "https://cdn.example.com@other.example/a.png",
        "http://169.254.169.254/a.png",
    ];
    let items =
        urls.iter().map(|url| format!("{}\n", serde_json::json!({ "id": url, "file": "c.png", "url": url })));
    workspace.write("items.jsonl", items.collect::<String>());
    workspace.run(RUN).expect_stderr(1, &["2 completed, 3 failed", "3 template_error", "allow_hosts"]);
    for line in workspace.output_lines("o.jsonl") {
        let is_allowed = urls[..2].contains(&line["key"].as_str().unwrap());
        assert_eq!(line["status"], if is_allowed { "completed" } else { "failed" }, "{line}");
    }
}

#[test]
fn an_item_cannot_attach_a_file_that_the_program_uses() {
    let address = start_server(response("content-type: application/json", completion("a cat").as_bytes()));
    let workspace = Workspace::empty();
    let provider = format!("[provider.a]\nbase_url = \"http://{address}\"\nmodels.m = {{}}\n");
    workspace.write(
        "config.json",
        format!(
            "{provider}keys = [\"file:key.txt\"]\nheaders = {{ X-Org-Token = \"file:org.txt\" }}\n\
             [provider.b]\nmodels.n = {{}}\nkeys = [\"env:NOT_SET\", \"file:other.txt\"]\n\
             [route.default]\ntargets = [\"a/m\"]\n[store]\nurl = \"sqlite:runs.json\"\n"
        ),
    );
    workspace.write(
        "pipeline.md",
        "name = \"p\"\n[[step]]\nname = \"answer\"\nprompt = \"What is it?\"\nattach = [\"{{ item.file }}\"]\n\
         [[step]]\nname = \"note\"\nprompt = \"And?\"\nschema = \"schema.json\"\noptional = true\n",
    );
    workspace.write("schema.json", "{\"type\": \"object\"}");
    for secret in ["key.txt", "org.txt", "other.txt"] {
        workspace.write(secret, "sk-live-0123456789\n");
    }
    workspace.write("cat.txt", "a cat");
    fs::hard_link(workspace.path("key.txt"), workspace.path("photo.png")).unwrap();
    std::os::unix::fs::symlink("runs.json-wal", workspace.path("journal.txt")).unwrap();
    std::os::unix::fs::symlink("runs.json-run1.lock", workspace.path("lock.txt")).unwrap();
    let protected = [
        ("key.txt", "a file of a key or a header"),
        ("photo.png", "a file of a key or a header"),
        ("org.txt", "a file of a key or a header"),
        ("other.txt", "a file of a key or a header"),
        ("runs.json", "a file of the store"),
        ("journal.txt", "a file of the store"),
        ("lock.txt", "a file of the store"),
        ("config.json", "the configuration"),
        ("pipeline.md", "a file of the pipeline"),
        ("schema.json", "a file of the pipeline"),
        ("items.json", "the input of the run"),
        ("o.json", "an output of the run"),
        ("r.json", "an output of the run"),
        ("report.json", "an output of the run"),
    ];
    let files = protected.iter().map(|(file, _)| *file).chain(["cat.txt"]);
    let items: Vec<_> = files.map(|file| serde_json::json!({ "id": file, "file": file })).collect();
    workspace.write("items.json", serde_json::json!(items).to_string());
    let command = "run pipeline.md --items items.json --out o.json --rejects r.json --report report.json \
                   --config config.json";
    workspace.run(command).expect_stderr(1, &["1 completed, 14 failed", "14 template_error"]);
    for line in workspace.output_lines("o.json") {
        let key = line["key"].as_str().unwrap();
        let message = line["error"]["message"].to_string();
        match protected.iter().find(|(file, _)| *file == key) {
            Some((_, file_use)) => {
                let expected = format!("it is {file_use}, which no item may attach");
                assert!(message.contains(&expected) && message.contains(key), "{key}: {message}");
            }
            None => assert_eq!(line["status"], "completed", "{line}"),
        }
    }
}

#[test]
fn a_literal_path_of_the_pipeline_attaches_a_file_beside_it_but_not_a_key_file() {
    let address = start_server(response("content-type: application/json", completion("a cat").as_bytes()));
    let workspace = Workspace::empty();
    let config = format!(
        "[provider.a]\nbase_url = \"http://{address}\"\nmodels.m = {{}}\nkeys = [\"file:key.txt\"]\n"
    );
    workspace.write("config.toml", config);
    workspace.write("key.txt", "sk-live-0123456789\n");
    workspace.write("items.jsonl", "{\"id\":1}\n");
    for (file, code, expected) in [
        ("schema.json", 0, "1 completed"),
        ("key.txt", 1, "it is a file of a key or a header, which is never attached"),
    ] {
        workspace.write(
            "pipeline.toml",
            format!(
                "name = \"p\"\n[[step]]\nname = \"answer\"\nprompt = \"What is it?\"\nattach = [\"{file}\"]\n\
                 [[step]]\nname = \"note\"\nprompt = \"And?\"\nschema = \"schema.json\"\noptional = true\n"
            ),
        );
        workspace.write("schema.json", "{\"type\": \"object\"}");
        workspace.run(&format!("{RUN} --overwrite")).expect_stderr(code, &[expected]);
    }
}
