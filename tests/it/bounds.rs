//! Floods: items, answers and replies that would take all memory, and files that an item must not name.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;

use super::program::Room;

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl --store none";

/// Answers every request with these bytes, and closes the connection; lives as long as the test's process.
fn answering(response: Vec<u8>) -> SocketAddr {
    answering_and_noting(response, mpsc::channel().0)
}

/// Does the same, and sends the size of every request's body to `sizes`.
fn answering_and_noting(response: Vec<u8>, sizes: mpsc::Sender<u64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let response = Arc::new(response);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let response = response.clone();
            let sizes = sizes.clone();
            thread::spawn(move || {
                // The client may hang up in the middle of a reply that is too large.
                if let Ok(size) = read_request(&mut stream) {
                    // Most tests do not look.
                    let _ = sizes.send(size);
                    let _ = stream.write_all(&response);
                }
            });
        }
    });
    address
}

/// Reads a request to its end, since a connection that is closed on unread bytes is reset. Returns the size of its body.
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
    let (mut stdin, text) = (gzip.stdin.take().unwrap(), text.to_owned());
    let writes = thread::spawn(move || stdin.write_all(&text).unwrap());
    let packed = gzip.wait_with_output().unwrap().stdout;
    writes.join().unwrap();
    packed
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

/// One provider at this address, whose calls are tried once.
fn config(address: SocketAddr) -> String {
    format!(
        "[provider.p]\nbase_url = \"http://{address}/v1\"\n[provider.p.models.m]\n[retry]\nattempts_per_lane = 1\nrounds = 1\n"
    )
}

#[test]
fn a_reply_that_unpacks_to_forty_megabytes_is_not_read_to_its_end() {
    let bomb = gzip(completion(&"a".repeat(40 << 20)).as_bytes());
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    let address = answering(response("content-type: application/json\r\ncontent-encoding: gzip", &bomb));
    let room = Room::new(&config(address));
    room.items(3);
    room.run(RUN).says(5, &["paused: unreadable", "the reply is larger than 16 MiB, unpacked"]);
}

#[test]
fn a_reask_after_an_answer_of_megabytes_is_a_small_request() {
    let body = completion(&"\n- maybe".repeat(1 << 18));
    let (sizes, noted) = mpsc::channel();
    let address = answering_and_noting(response("content-type: application/json", body.as_bytes()), sizes);
    let room = Room::new(&config(address));
    let step = "name = \"p\"\n[[step]]\nname = \"answer\"\nprompt = \"Say {{ item.text }}\"\nreasks = 2\n";
    for check in ["schema = { type = \"array\" }", "choice = [\"yes\", \"no\"]"] {
        room.write("pipeline.toml", format!("{step}{check}\n"));
        room.items(1);
        room.run(&format!("{RUN} --overwrite")).says(1, &["1 validation_error"]);
        let sizes: Vec<u64> = noted.try_iter().collect();
        assert_eq!(sizes.len(), 3, "{sizes:?}");
        assert!(sizes.iter().all(|size| *size < 20_000), "{sizes:?}");
    }
}

#[test]
fn an_event_without_an_end_is_not_read_for_ever() {
    let event = format!("data: {}", "a".repeat(20 << 20));
    let address = answering(response("content-type: text/event-stream", event.as_bytes()));
    let room = Room::new(&config(address));
    room.items(1);
    room.run(RUN).says(5, &["paused: unreadable", "an event of the reply is larger than 4 MiB, unpacked"]);
}

#[test]
fn a_reply_that_unpacks_to_millions_of_tiny_events_is_not_read_to_its_end() {
    let start = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let bomb = gzip(format!("{start}{}", "data:{}\n\n".repeat(6_000_000)).as_bytes());
    assert!(bomb.len() < 200_000, "{}", bomb.len());
    let address = answering(response("content-type: text/event-stream\r\ncontent-encoding: gzip", &bomb));
    let room = Room::new(&config(address));
    room.items(2);
    room.run(RUN).says(
        5,
        &["paused: unreadable", "more than 100000 events came without a part of the answer, unpacked"],
    );
}

#[test]
fn an_answer_to_a_recursive_schema_is_refused_and_the_next_item_goes_on() {
    // Every level has three ways to be wrong: their errors would be 3^90.
    let deep = format!("{}1{}", "[".repeat(90), "]".repeat(90));
    let body = completion(&deep);
    let address = answering(response("content-type: application/json", body.as_bytes()));
    let room = Room::new(&config(address));
    room.write(
        "pipeline.toml",
        r##"
name = "tree"
[[step]]
name = "answer"
prompt = "Say {{ item.text }}"
reasks = 0
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
    room.items(3);
    room.run(RUN).says(1, &["3 validation_error", "it does not match the schema"]);
    assert_eq!(room.lines("o.jsonl").len(), 3);
}

#[test]
fn a_deeply_nested_item_or_answer_fails_alone() {
    let body = completion(&"[".repeat(500_000));
    let address = answering(response("content-type: application/json", body.as_bytes()));
    let room = Room::new(&config(address));
    room.write(
        "pipeline.toml",
        "name = \"p\"\n[[step]]\nname = \"answer\"\nprompt = \"Say {{ item.text }}\"\nreasks = 0\nschema = { type = \"array\" }\n",
    );
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
    room.write("items.jsonl", format!("{{\"id\":\"a\",\"text\":{deep}}}\n{{\"id\":\"b\",\"text\":\"x\"}}\n"));
    room.run(RUN).says(
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
fn large_items_go_through_one_by_one_where_memory_allows_no_more() {
    let address = answering(response("content-type: application/json", completion("fine").as_bytes()));
    for ordered in ["", " --ordered"] {
        let room = Room::new(&format!("{}[run]\nmax_memory = \"1MiB\"\n", config(address)));
        let line =
            |number: usize| format!("{{\"id\":\"i{number}\",\"text\":\"{}\"}}\n", "x".repeat(2_000_000));
        room.write("items.jsonl", (0..6).map(line).collect::<String>());
        room.run(&format!("{RUN}{ordered}")).says(0, &["6 completed"]);
        assert_eq!(room.lines("o.jsonl").len(), 6);
    }
}

#[test]
fn an_item_cannot_attach_a_file_outside_the_allowed_folders() {
    let address = answering(response("content-type: application/json", completion("a cat").as_bytes()));
    let room = Room::empty();
    for folder in ["photos", "shared"] {
        fs::create_dir(room.path(folder)).unwrap();
        fs::write(room.path(folder).join("cat.png"), "cat").unwrap();
    }
    room.write("cred.json", "secret");
    room.write("config.toml", format!("{}[files]\nallow = [\"shared\"]\n", config(address)));
    room.write(
        "photos/pipeline.toml",
        "name = \"p\"\n[[step]]\nname = \"answer\"\nprompt = \"What is it?\"\nattach = [\"{{ item.file }}\"]\n",
    );
    let absolute = room.path("cred.json");
    let files = ["cat.png", "../shared/cat.png", "../cred.json", absolute.to_str().unwrap()];
    let items = files.iter().map(|file| format!("{}\n", serde_json::json!({ "id": file, "file": file })));
    room.write("items.jsonl", items.collect::<String>());
    let ended = room.run("run photos/pipeline.toml --items items.jsonl --out o.jsonl --store none");
    ended.says(1, &["2 completed, 2 failed", "2 template_error", "[files]"]);
    for line in room.lines("o.jsonl") {
        let is_outside = line["key"].as_str().unwrap().contains("cred.json");
        assert_eq!(line["status"], if is_outside { "failed" } else { "completed" }, "{line}");
    }
}

#[test]
fn an_item_cannot_choose_the_host_that_a_provider_fetches_from() {
    let address = answering(response("content-type: application/json", completion("a cat").as_bytes()));
    let room = Room::empty();
    room.write("config.toml", format!("{}[files]\nallow_hosts = [\"cdn.example.com\"]\n", config(address)));
    room.write(
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
    room.write("items.jsonl", items.collect::<String>());
    room.run(RUN).says(1, &["2 completed, 3 failed", "3 template_error", "allow_hosts"]);
    for line in room.lines("o.jsonl") {
        let is_allowed = urls[..2].contains(&line["key"].as_str().unwrap());
        assert_eq!(line["status"], if is_allowed { "completed" } else { "failed" }, "{line}");
    }
}

#[test]
fn an_item_attaches_no_file_that_the_program_itself_uses() {
    let address = answering(response("content-type: application/json", completion("a cat").as_bytes()));
    let room = Room::empty();
    let provider = format!("[provider.a]\nbase_url = \"http://{address}\"\nmodels.m = {{}}\n");
    room.write(
        "config.json",
        format!(
            "{provider}keys = [\"file:key.txt\"]\nheaders = {{ X-Org-Token = \"file:org.txt\" }}\n\
             [provider.b]\nmodels.n = {{}}\nkeys = [\"env:NOT_SET\", \"file:other.txt\"]\n\
             [route.default]\nlanes = [\"a/m\"]\n[store]\nurl = \"sqlite:runs.json\"\n"
        ),
    );
    room.write(
        "pipeline.md",
        "name = \"p\"\n[[step]]\nname = \"answer\"\nprompt = \"What is it?\"\nattach = [\"{{ item.file }}\"]\n\
         [[step]]\nname = \"note\"\nprompt = \"And?\"\nschema = \"schema.json\"\noptional = true\n",
    );
    room.write("schema.json", "{\"type\": \"object\"}");
    for secret in ["key.txt", "org.txt", "other.txt"] {
        room.write(secret, "sk-live-0123456789\n");
    }
    room.write("cat.txt", "a cat");
    fs::hard_link(room.path("key.txt"), room.path("photo.png")).unwrap();
    std::os::unix::fs::symlink("runs.json-wal", room.path("journal.txt")).unwrap();
    std::os::unix::fs::symlink("runs.json-run1.lock", room.path("lock.txt")).unwrap();
    let refused = [
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
    let files = refused.iter().map(|(file, _)| *file).chain(["cat.txt"]);
    let items: Vec<_> = files.map(|file| serde_json::json!({ "id": file, "file": file })).collect();
    room.write("items.json", serde_json::json!(items).to_string());
    let command = "run pipeline.md --items items.json --out o.json --rejects r.json --report report.json \
                   --config config.json";
    room.run(command).says(1, &["1 completed, 14 failed", "14 template_error"]);
    for line in room.lines("o.json") {
        let (key, message) = (line["key"].as_str().unwrap(), line["error"]["message"].to_string());
        match refused.iter().find(|(file, _)| *file == key) {
            Some((_, what)) => {
                let said = format!("it is {what}, which no item may attach");
                assert!(message.contains(&said) && message.contains(key), "{key}: {message}");
            }
            None => assert_eq!(line["status"], "completed", "{line}"),
        }
    }
}

#[test]
fn a_path_that_the_pipeline_writes_out_attaches_what_is_beside_it_but_no_key() {
    let address = answering(response("content-type: application/json", completion("a cat").as_bytes()));
    let room = Room::empty();
    let config = format!(
        "[provider.a]\nbase_url = \"http://{address}\"\nmodels.m = {{}}\nkeys = [\"file:key.txt\"]\n"
    );
    room.write("config.toml", config);
    room.write("key.txt", "sk-live-0123456789\n");
    room.write("items.jsonl", "{\"id\":1}\n");
    for (file, code, said) in [
        ("schema.json", 0, "1 completed"),
        ("key.txt", 1, "it is a file of a key or a header, which is never attached"),
    ] {
        room.write(
            "pipeline.toml",
            format!(
                "name = \"p\"\n[[step]]\nname = \"answer\"\nprompt = \"What is it?\"\nattach = [\"{file}\"]\n\
                 [[step]]\nname = \"note\"\nprompt = \"And?\"\nschema = \"schema.json\"\noptional = true\n"
            ),
        );
        room.write("schema.json", "{\"type\": \"object\"}");
        room.run(&format!("{RUN} --overwrite")).says(code, &[said]);
    }
}
