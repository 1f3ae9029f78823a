//! The export of spans to a collector, which is a process of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use pointsman::TraceContext;
use tokio::time::Instant;

use super::PROMPT_WORD;
use crate::program::{Workspace, run_program};
use crate::scripted_server::{RESPONSE_STREAM, ScriptedServer, header, stream};

/// Passes the folder in which the process of the collector stores what it receives.
const FOLDER: &str = "POINTSMAN_TEST_COLLECTOR_FOLDER";

/// Stands before the port in the output of the process.
const PORT: &str = "collector-port=";

/// A key of a provider, which no span may contain.
const KEY: &str = "sk-live-9f27ab0cc1d34e55";

/// A value of a header for the collector.
const COLLECTOR_KEY: &str = "collector-key-551b";

/// The collector's process. It ends with this value.
struct Collector {
    process: Child,
    /// Open, so that the process can write.
    _output: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
    url: String,
}

impl Collector {
    /// Starts this test again as the collector.
    fn start(test: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", &format!("traces::collector::{test}"), "--nocapture"]);
        let mut process = program.env(FOLDER, folder.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let port = loop {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the collector does not start");
            // The test runner writes the name of the test before it, in the same line.
            if let Some((_, port)) = line.split_once(PORT) {
                break port.trim().to_owned();
            }
        };
        Self { process, _output: output, folder, url: format!("http://127.0.0.1:{port}") }
    }

    /// Returns the head and the body of each request that it has received.
    fn received(&self) -> Vec<(String, Vec<u8>)> {
        let body = |number: usize| self.folder.path().join(format!("{number}.body"));
        let requests = (0..).take_while(|number| body(*number).exists()).map(|number| {
            let head = fs::read_to_string(self.folder.path().join(format!("{number}.head"))).unwrap();
            (head, fs::read(body(number)).unwrap())
        });
        requests.collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes a file at once, so that no reader sees a part of it.
fn write_whole(path: &Path, contents: &[u8]) {
    let unfinished: PathBuf = path.with_extension("unfinished");
    fs::write(&unfinished, contents).unwrap();
    fs::rename(unfinished, path).unwrap();
}

/// Receives requests until the process is killed.
fn collect(folder: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut output = std::io::stdout();
    writeln!(output, "{PORT}{port}").unwrap();
    let number = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let number = number.clone();
        let folder = folder.to_owned();
        thread::spawn(move || serve(stream.unwrap(), &number, &folder));
    }
}

fn serve(mut stream: TcpStream, number: &AtomicUsize, folder: &Path) {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let head_end = read.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        if let Some(head_end) = head_end {
            let head = String::from_utf8(read[..head_end].to_vec()).unwrap();
            let length: usize = header(&head, "content-length").unwrap().parse().unwrap();
            if read.len() >= head_end + length {
                let number = number.fetch_add(1, SeqCst);
                write_whole(&folder.join(format!("{number}.head")), head.as_bytes());
                write_whole(&folder.join(format!("{number}.body")), &read[head_end..head_end + length]);
                read.drain(..head_end + length);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                continue;
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(count) => read.extend_from_slice(&piece[..count]),
        }
    }
}

/// A field of a protobuf message.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Returns the fields of a protobuf message by their numbers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut bytes)),
            1 => Value::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                Value::Bytes(take(&mut bytes, length))
            }
            5 => Value::Number(u64::from(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap()))),
            other => panic!("wire type {other}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (first, rest) = bytes.split_at(length);
    *bytes = rest;
    first
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// Returns the messages in a field.
fn messages(bytes: &[u8], number: u64) -> Vec<&[u8]> {
    let messages = fields(bytes).into_iter().filter_map(|(field, value)| match value {
        Value::Bytes(bytes) if field == number => Some(bytes),
        Value::Bytes(_) | Value::Number(_) => None,
    });
    messages.collect()
}

fn text(bytes: &[u8], number: u64) -> String {
    messages(bytes, number).first().map(|text| String::from_utf8(text.to_vec()).unwrap()).unwrap_or_default()
}

/// Returns the attributes of a message in a field, each value as text.
fn attributes(bytes: &[u8], number: u64) -> BTreeMap<String, String> {
    let attributes = messages(bytes, number).into_iter().map(|attribute| {
        let value = messages(attribute, 2).first().map(|value| any_value(value)).unwrap_or_default();
        (text(attribute, 1), value)
    });
    attributes.collect()
}

fn any_value(bytes: &[u8]) -> String {
    let Some((field, value)) = fields(bytes).into_iter().next() else { return String::new() };
    match (field, value) {
        (1, Value::Bytes(text)) => String::from_utf8(text.to_vec()).unwrap(),
        (2, Value::Number(flag)) => (flag != 0).to_string(),
        (3, Value::Number(number)) => number.to_string(),
        (4, Value::Number(bits)) => f64::from_bits(bits).to_string(),
        (5, Value::Bytes(list)) => {
            let values: Vec<_> = messages(list, 1).into_iter().map(any_value).collect();
            format!("[{}]", values.join(","))
        }
        (field, _) => panic!("a value of the kind {field}"),
    }
}

/// An exported span.
#[derive(Debug)]
struct Exported {
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    kind: u64,
    status: u64,
    attributes: BTreeMap<String, String>,
}

fn exported(span: &[u8]) -> Exported {
    let bytes = |number| messages(span, number).first().map(|bytes| bytes.to_vec()).unwrap_or_default();
    let number = |bytes: &[u8], number| {
        let found = fields(bytes).into_iter().find_map(|(field, value)| match value {
            Value::Number(value) if field == number => Some(value),
            Value::Number(_) | Value::Bytes(_) => None,
        });
        found.unwrap_or_default()
    };
    Exported {
        trace: bytes(1),
        id: bytes(2),
        parent: bytes(4),
        name: text(span, 5),
        kind: number(span, 6),
        status: messages(span, 15).first().map_or(0, |status| number(status, 3)),
        attributes: attributes(span, 9),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_exports_its_spans_without_secrets_and_text() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return collect(Path::new(&folder));
    }
    let collector = Collector::start("the_program_exports_its_spans_without_secrets_and_text");
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let recorded = heads.clone();
    let server = ScriptedServer::start(move |request| {
        recorded.lock().unwrap().push(request.split("\r\n\r\n").next().unwrap().to_owned());
        stream("", RESPONSE_STREAM, true)
    });
    let server = server.await;
    let workspace = Workspace::new(&format!(
        "[provider.a]\nbase_url = '{}'\ntraceparent = true\nkeys = ['env:KEY']\nmodels.m = {{}}\n",
        server.url()
    ));
    workspace.write_items(2);
    workspace.write(
        "pipeline.toml",
        format!("name = 'p'\n[[step]]\nname = 's'\nprompt = 'Say {PROMPT_WORD}: {{{{ item.text }}}}'\n"),
    );
    let mut command = workspace.command("run pipeline.toml --items items.jsonl --out out.jsonl");
    command.env("KEY", KEY);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    command.env("OTEL_EXPORTER_OTLP_HEADERS", format!("x-key={COLLECTOR_KEY}"));
    let output = tokio::task::spawn_blocking(move || run_program(command)).await.unwrap();
    output.expect_code(0);

    let received = collector.received();
    assert!(!received.is_empty(), "{}", output.stderr);
    let mut spans = Vec::new();
    for (head, body) in &received {
        assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
        assert_eq!(header(head, "content-type"), Some("application/x-protobuf"));
        assert_eq!(header(head, "x-key"), Some(COLLECTOR_KEY));
        let contents = String::from_utf8_lossy(body);
        for secret in [KEY, COLLECTOR_KEY, PROMPT_WORD, "thing 1", "Hello."] {
            assert!(!contents.contains(secret), "{secret}");
        }
        for resource_spans in messages(body, 1) {
            let resource = attributes(messages(resource_spans, 1)[0], 1);
            assert_eq!(resource["service.name"], "pointsman");
            assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
            let scopes = messages(resource_spans, 2);
            spans.extend(scopes.into_iter().flat_map(|scope| messages(scope, 2)).map(exported));
        }
    }
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let parent = |span: &Exported| spans.iter().find(|other| other.id == span.parent);
    for (name, count) in [("run", 1), ("item", 2), ("step", 2), ("request", 2), ("chat m", 2)] {
        assert_eq!(named(name).len(), count, "{name}: {spans:#?}");
    }
    let run = named("run")[0];
    assert!(run.parent.is_empty() && spans.iter().all(|span| span.trace == run.trace));
    for attempt in named("chat m") {
        let path: Vec<_> = std::iter::successors(Some(attempt), |span| parent(span)).collect();
        let names: Vec<_> = path.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["chat m", "request", "step", "item", "run"]);
        // A client's call, without an error.
        assert_eq!((attempt.kind, attempt.status), (3, 0));
        assert_eq!(attempt.attributes["gen_ai.response.finish_reasons"], "[stop]");
        assert_eq!(attempt.attributes["pointsman.attempt.outcome"], "answered");
        assert_eq!(attempt.attributes["pointsman.attempt.number"], "1");
        assert!(!attempt.attributes.keys().any(|name| name.starts_with("otel.") || name.contains("busy_ns")));
    }
    // The provider gets the context of the exported span.
    let heads = heads.lock().unwrap().clone();
    let sent = heads.iter().map(|head| TraceContext::parse(header(head, "traceparent").unwrap()).unwrap());
    let mut sent: Vec<_> = sent.map(|sent| (sent.trace_id().to_vec(), sent.span_id().to_vec())).collect();
    let mut attempts: Vec<_> =
        named("chat m").iter().map(|attempt| (attempt.trace.clone(), attempt.id.clone())).collect();
    sent.sort();
    attempts.sort();
    assert_eq!(sent, attempts);
}

#[test]
fn a_collector_that_is_away_delays_the_end_by_seconds_and_costs_only_the_spans() {
    // Nothing listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let workspace = Workspace::new("");
    workspace.write_items(3);
    let mut command = workspace.command("run pipeline.toml --items items.jsonl --out out.jsonl");
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
    let started = Instant::now();
    let output = run_program(command);
    output.expect_stderr(0, &["spans were not exported", "dropped=0"]);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(workspace.output_lines("out.jsonl").len(), 3);
}

#[test]
fn an_address_that_is_not_usable_is_reported_and_the_run_continues() {
    let workspace = Workspace::new("");
    workspace.write_items(1);
    let mut command = workspace.command("run pipeline.toml --items items.jsonl --out out.jsonl");
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://not a host");
    run_program(command).expect_stderr(0, &["traces are not exported"]);
    assert_eq!(workspace.output_lines("out.jsonl").len(), 1);
}
