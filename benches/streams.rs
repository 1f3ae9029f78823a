//! Streamed requests against the simulator, which runs as a process of its own.
//!
//! `cargo bench --features bench --bench streams -- [overhead|dropped|slow]`
//!
//! - `overhead`: time to the first piece, throughput and CPU of a stream, with this library and with the bare HTTP
//!   client, in turns. The bare client reads the body and decodes nothing.
//! - `dropped`: 10,000 streams, half of them dropped at random moments; when everything was given back.
//! - `slow`: 1,000 readers that do not read, beside 2,000 requests; memory per stream.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up fails")]
#![expect(clippy::print_stdout, reason = "it prints its figures")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use pointsman::{Config, Pointsman, Priority, Request, StreamEvent};
use tokio::time::{Instant, sleep, timeout};

/// Streams at once.
const CONCURRENCY: usize = 64;

/// Measurements of each kind; medians are printed.
const ROUNDS: usize = 5;

/// A prompt of real size, about 1,000 tokens.
fn prompt(number: usize) -> String {
    format!("Summarise the report of day {number}. {}", "The tide came in and went out again. ".repeat(108))
}

/// The simulator in its own process.
struct SimulatorProcess(Child, String);

impl SimulatorProcess {
    fn start(settings: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command.args(["simulate", "--listen", "127.0.0.1:0"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // The first address is that of the OpenAI format.
        let base_url = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("base_url = \"")?.1.split('"').next()?.to_owned()))
            .unwrap();
        Self(child, base_url)
    }
}

impl Drop for SimulatorProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the CPU time of this process. A tick of the kernel is 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Returns the resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

fn start(base_url: &str, concurrency: usize) -> Pointsman {
    let config = format!(
        "[provider.a]\nbase_url = \"{base_url}\"\nmodels.m = {{}}\nqueue = 20000\n\
         limits.concurrency = {{ start = {concurrency}, max = {concurrency} }}\n\
         timeouts = {{ first_token = \"60s\", idle = \"60s\", total = \"300s\" }}\n"
    );
    Pointsman::start_blocking(&Config::from_toml(&config).unwrap()).unwrap()
}

fn request(number: usize) -> Request {
    Request::new("default", prompt(number)).with_priority(Priority::Batch)
}

/// What one measurement found: time to the first piece of each stream, wall time and CPU time.
struct Measured {
    streams: usize,
    first: Vec<Duration>,
    wall: Duration,
    cpu: Duration,
}

async fn with_library(pointsman: &Pointsman, streams: usize) -> Measured {
    let began = Instant::now();
    let cpu_before = cpu();
    let one = |number| async move {
        let sent = Instant::now();
        let mut stream = pointsman.stream(request(number));
        let mut first = None;
        while let Some(event) = stream.next().await {
            if let StreamEvent::Text(_) = event.unwrap() {
                first.get_or_insert(sent.elapsed());
            }
        }
        first.unwrap()
    };
    let first = stream::iter(0..streams).map(one).buffer_unordered(CONCURRENCY).collect().await;
    Measured { streams, first, wall: began.elapsed(), cpu: cpu().checked_sub(cpu_before).unwrap() }
}

async fn with_bare_client(client: &reqwest::Client, base_url: &str, streams: usize) -> Measured {
    let began = Instant::now();
    let cpu_before = cpu();
    let one = |number| async move {
        let sent = Instant::now();
        let body = serde_json::json!({
            "model": "m",
            "messages": [{ "role": "user", "content": prompt(number) }],
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        let request = client.post(format!("{base_url}/chat/completions"));
        let response = request.header("content-type", "application/json").body(body.to_string()).send().await;
        let mut chunks = response.unwrap().bytes_stream();
        let mut first = None;
        while let Some(chunk) = chunks.next().await {
            first.get_or_insert(sent.elapsed());
            drop(chunk.unwrap());
        }
        first.unwrap()
    };
    let first = stream::iter(0..streams).map(one).buffer_unordered(CONCURRENCY).collect().await;
    Measured { streams, first, wall: began.elapsed(), cpu: cpu().checked_sub(cpu_before).unwrap() }
}

fn median<T: Ord + Copy>(mut all: Vec<T>) -> T {
    all.sort();
    all[all.len() / 2]
}

fn print(name: &str, rounds: &[Measured]) {
    let first = median(rounds.iter().map(|round| median(round.first.clone())).collect());
    let wall = median(rounds.iter().map(|round| round.wall).collect());
    let cpu = median(rounds.iter().map(|round| round.cpu).collect());
    let streams = rounds[0].streams as f64;
    println!(
        "{name:10} first piece {:>8.3} ms, {:>7.0} streams/s, {:>6.1} µs CPU a stream",
        first.as_secs_f64() * 1e3,
        streams / wall.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / streams
    );
}

fn overhead() {
    // The bare client has no cryptography of its own; it is needed only once it is built.
    rustls::crypto::ring::default_provider().install_default().unwrap();
    for (name, latency, chunks, streams) in
        [("at once", "0s", "20", 4_000), ("1 s in 100 pieces", "1s", "100", 512)]
    {
        let settings =
            [format!("latency=\"{latency}\""), format!("chunks={chunks}"), "answer_tokens=400".to_owned()];
        let simulator = SimulatorProcess::start(&settings.each_ref().map(String::as_str));
        let pointsman = start(&simulator.1, CONCURRENCY);
        let client = reqwest::Client::new();
        println!("answers of 400 tokens, {name}, {CONCURRENCY} at once, medians of {ROUNDS}:");
        let mut bare = Vec::new();
        let mut ours = Vec::new();
        pointsman.runtime().block_on(async {
            drop(with_library(&pointsman, streams).await);
            for _ in 0..ROUNDS {
                bare.push(with_bare_client(&client, &simulator.1, streams).await);
                ours.push(with_library(&pointsman, streams).await);
            }
        });
        print("bare", &bare);
        print("library", &ours);
    }
}

fn dropped() {
    const COUNT: usize = 10_000;
    let simulator = SimulatorProcess::start(&[
        "latency={median=\"200ms\", p95=\"600ms\"}",
        "chunks=20",
        "answer_tokens=300",
    ]);
    let pointsman = start(&simulator.1, 512);
    let began = Instant::now();
    pointsman.runtime().block_on(async {
        let one = |number: usize| {
            let pointsman = &pointsman;
            async move {
                let mut stream = pointsman.stream(request(number));
                let limit = Duration::from_micros(fastrand::u64(0..600_000));
                let read = async { while stream.next().await.is_some() {} };
                if number.is_multiple_of(2) {
                    read.await;
                } else {
                    let _ = timeout(limit, read).await;
                }
            }
        };
        stream::iter(0..COUNT).for_each_concurrent(1_000, one).await;
        let ended = Instant::now();
        let in_flight = || {
            let providers = pointsman.providers();
            let queued: usize =
                providers.iter().flat_map(|provider| &provider.targets).map(|target| target.queued).sum();
            (providers.iter().map(|provider| provider.in_flight).sum::<usize>(), queued)
        };
        while in_flight() != (0, 0) {
            sleep(Duration::from_millis(1)).await;
        }
        println!(
            "{COUNT} streams, half of them dropped, in {:?}; all counters are zero after {:?}",
            began.elapsed(),
            ended.elapsed()
        );
    });
}

fn slow() {
    const READERS: usize = 1_000;
    // Answers of 400 KB: more than a socket and the buffer of a stream hold.
    let simulator = SimulatorProcess::start(&["latency=\"0s\"", "chunks=200", "answer_tokens=100000"]);
    let fast = SimulatorProcess::start(&["latency=\"20ms\"", "answer_tokens=100"]);
    let slow = start(&simulator.1, READERS);
    let pointsman = start(&fast.1, CONCURRENCY);
    let measure = || {
        let began = Instant::now();
        pointsman.runtime().block_on(async {
            let one = |number| pointsman.send(request(number));
            stream::iter(0..2_000)
                .map(one)
                .buffer_unordered(CONCURRENCY)
                .for_each(|result| {
                    drop(result.unwrap());
                    std::future::ready(())
                })
                .await;
        });
        began.elapsed()
    };
    measure();
    let alone = measure();
    let before = resident();
    let streams: Vec<_> = (0..READERS).map(|number| slow.stream(request(number))).collect();
    slow.runtime().block_on(async { sleep(Duration::from_secs(5)).await });
    let per_stream = resident().saturating_sub(before) / READERS as u64;
    let beside = measure();
    println!("2,000 requests alone in {alone:?}, beside {READERS} readers that do not read in {beside:?}");
    println!("{} KiB of memory per stream", per_stream >> 10);
    drop(streams);
}

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with("--")).collect();
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    for (name, run) in [("overhead", overhead as fn()), ("dropped", dropped), ("slow", slow)] {
        if is_wanted(name) {
            run();
        }
    }
}
