//! The order in which queued requests are sent. The test server responds to one request at a time, when the test
//! allows it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use pointsman::Pointsman;
use pointsman::run::{Progress, RunOutput};
use pointsman::runtime::RunHandle;
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::scripted_server::{RESPONSE_STREAM, header, stream};
use super::support::{
    LONG_TIMEOUTS, provider_config_at, provider_snapshot, spawn, start_pointsman, wait_until,
};

/// A server that does not respond to a request until the test adds a permit.
#[derive(Clone)]
struct GatedServer {
    address: SocketAddr,
    /// The prompts, in the order of arrival.
    prompts: Arc<Mutex<Vec<String>>>,
    permits: Arc<Semaphore>,
}

impl GatedServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, prompts: Arc::default(), permits: Arc::new(Semaphore::new(0)) };
        let shared = server.clone();
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn(shared.clone().serve(stream));
            }
        });
        server
    }

    async fn serve(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if !matches!(stream.read_line(&mut head).await, Ok(1..)) {
                    return;
                }
            }
            let mut body = vec![0; header(&head, "content-length").unwrap().parse().unwrap()];
            stream.read_exact(&mut body).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let prompt = body["messages"].as_array().unwrap().last().unwrap()["content"].clone();
            self.prompts.lock().unwrap().push(prompt.as_str().unwrap().to_owned());
            self.permits.acquire().await.unwrap().forget();
            if stream.write_all(self::stream("", RESPONSE_STREAM, true).as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn prompts(&self) -> Vec<String> {
        self.prompts.lock().unwrap().clone()
    }

    /// Starts the library with this server as the only provider, and this concurrency limit.
    fn start_pointsman(&self, concurrency: usize) -> Pointsman {
        let more = format!(
            "limits.concurrency = {concurrency}{}",
            LONG_TIMEOUTS.replace("2s", "60s").replace("5s", "60s")
        );
        start_pointsman(&provider_config_at("a", &format!("http://{}", self.address), &more))
    }
}

/// Starts a run of `items` items, whose IDs begin with `name`.
async fn start_run(pointsman: &Pointsman, name: &str, steps: &str, items: usize) -> RunHandle {
    let pipeline = pointsman.parse_pipeline(&format!("name = \"{name}\"\n{steps}")).unwrap();
    let sink = Sink::results(Destination::none(), Format::Jsonl, &[]).unwrap();
    let items: Vec<_> = (0..items).map(|number| json!({ "id": format!("{name}{number}") })).collect();
    pointsman.run(pipeline, Source::values("items", items), RunOutput::new(sink)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_steps_of_started_items_are_sent_before_first_steps_of_other_items() {
    const ITEMS: usize = 4;
    let server = GatedServer::start().await;
    let pointsman = server.start_pointsman(1);
    let steps = "[[step]]\nname = \"one\"\nprompt = \"one {{ item.id }}\"\n\
                 [[step]]\nname = \"two\"\nprompt = \"two {{ item.id }} {{ one }}\"\n";
    let mut run = start_run(&pointsman, "i", steps, ITEMS).await;
    let count = |step: &str| server.prompts().iter().filter(|prompt| prompt.starts_with(step)).count();
    for answered in 0..2 * ITEMS {
        let started = answered.min(count("one"));
        let sent = answered + 1;
        // Each item that has not ended has one request, which is queued or in flight.
        wait_until("each item has a request", || {
            let provider = provider_snapshot(&pointsman, "a");
            let ended = count("two")
                - usize::from(server.prompts().last().is_some_and(|prompt| prompt.starts_with("two")));
            provider.queued + provider.in_flight == ITEMS - ended && server.prompts().len() == sent
        })
        .await;
        let half_finished = count("one") - count("two");
        assert!(
            half_finished <= 2,
            "{half_finished} of {started} items are half finished: {:?}",
            server.prompts()
        );
        server.permits.add_permits(1);
    }
    assert_eq!(run.report().await.unwrap().items.completed, ITEMS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_of_one_process_get_half_of_the_capacity_of_their_provider_each() {
    const CONCURRENCY: usize = 8;
    let server = GatedServer::start().await;
    let pointsman = server.start_pointsman(CONCURRENCY);
    let steps = "[[step]]\nname = \"one\"\nprompt = \"{{ item.id }}\"\n";
    let first = start_run(&pointsman, "first", steps, 10_000).await;
    wait_until("the first run uses the whole capacity", || server.prompts().len() == CONCURRENCY).await;
    // Progress is computed only while a receiver exists.
    let first_progress = first.watch_progress();
    let window = |progress: &watch::Receiver<Progress>| progress.borrow().max_in_flight;
    wait_until("the window of the first run is known", || window(&first_progress) >= CONCURRENCY).await;
    let whole = window(&first_progress);
    let mut second = start_run(&pointsman, "second", steps, 10_000).await;
    let both = [first_progress.clone(), second.watch_progress()];
    wait_until("each run has half of the window", || both.each_ref().map(window) == [whole.div_ceil(2); 2])
        .await;
    for answered in 0..4 * CONCURRENCY {
        wait_until("a request is in flight", || server.prompts().len() > answered).await;
        server.permits.add_permits(1);
    }
    wait_until("all requests have arrived", || server.prompts().len() > 4 * CONCURRENCY).await;
    let prompts = server.prompts();
    let second_count = prompts[CONCURRENCY..].iter().filter(|prompt| prompt.starts_with("second")).count();
    // Half of the requests that were sent since the second run started, within one window.
    let max = prompts.len() / 2;
    let min = max - CONCURRENCY;
    assert!((min..=max).contains(&second_count), "{second_count} of {}", prompts.len() - CONCURRENCY);
    let half = window(&first_progress);
    second.cancel();
    second.report().await.unwrap();
    wait_until("the first run has the whole window again", || window(&first_progress) > half).await;
}
