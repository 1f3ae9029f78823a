//! Which of many waiting requests leaves next: seen at a server that answers one at a time, when the test says so.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use pointsman::Pointsman;
use pointsman::run::{Output, Progress};
use pointsman::runtime::RunHandle;
use pointsman::sink::{Format, Sink, Target};
use pointsman::source::Source;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::scripted::{ANSWER, header, stream};
use super::stage::{PATIENT, provider_at, snapshot, spawn, start, until};

/// A server that answers no request before it is released.
#[derive(Clone)]
struct Gated {
    address: SocketAddr,
    /// The prompts, in the order in which they came.
    prompts: Arc<Mutex<Vec<String>>>,
    released: Arc<Semaphore>,
}

impl Gated {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gated = Self { address, prompts: Arc::default(), released: Arc::new(Semaphore::new(0)) };
        let shared = gated.clone();
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn(shared.clone().converse(stream));
            }
        });
        gated
    }

    async fn converse(self, stream: TcpStream) {
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
            self.released.acquire().await.unwrap().forget();
            if stream.write_all(self::stream("", ANSWER, true).as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn prompts(&self) -> Vec<String> {
        self.prompts.lock().unwrap().clone()
    }

    /// Starts with this server as the only provider, which takes so many requests at once.
    fn provider(&self, concurrency: usize) -> Pointsman {
        let more = format!(
            "limits.concurrency = {concurrency}{}",
            PATIENT.replace("2s", "60s").replace("5s", "60s")
        );
        start(&provider_at("a", &format!("http://{}", self.address), &more))
    }
}

/// Begins a run of so many items, whose names begin with `name`.
async fn begin(pointsman: &Pointsman, name: &str, steps: &str, items: usize) -> RunHandle {
    let pipeline = pointsman.parse_pipeline(&format!("name = \"{name}\"\n{steps}")).unwrap();
    let sink = Sink::results(Target::none(), Format::Jsonl, &[]).unwrap();
    let items: Vec<_> = (0..items).map(|number| json!({ "id": format!("{name}{number}") })).collect();
    pointsman.run(pipeline, Source::values("items", items), Output::new(sink)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_steps_of_older_items_are_asked_before_the_first_steps_of_others() {
    const ITEMS: usize = 4;
    let gated = Gated::start().await;
    let pointsman = gated.provider(1);
    let steps = "[[step]]\nname = \"one\"\nprompt = \"one {{ item.id }}\"\n\
                 [[step]]\nname = \"two\"\nprompt = \"two {{ item.id }} {{ one }}\"\n";
    let mut run = begin(&pointsman, "i", steps, ITEMS).await;
    let count = |step: &str| gated.prompts().iter().filter(|prompt| prompt.starts_with(step)).count();
    for answered in 0..2 * ITEMS {
        // One request of each item that has not ended waits, or is the one that is answered next.
        let (begun, asked) = (answered.min(count("one")), answered + 1);
        until("all items wait", || {
            let provider = snapshot(&pointsman, "a");
            let ended =
                count("two") - usize::from(gated.prompts().last().is_some_and(|it| it.starts_with("two")));
            provider.waiting + provider.in_flight == ITEMS - ended && gated.prompts().len() == asked
        })
        .await;
        let half = count("one") - count("two");
        assert!(half <= 2, "{half} of {begun} items are half finished: {:?}", gated.prompts());
        gated.released.add_permits(1);
    }
    assert_eq!(run.report().await.unwrap().items.completed, ITEMS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_of_one_process_share_the_capacity_of_their_provider() {
    const AT_ONCE: usize = 8;
    let gated = Gated::start().await;
    let pointsman = gated.provider(AT_ONCE);
    let steps = "[[step]]\nname = \"one\"\nprompt = \"{{ item.id }}\"\n";
    let first = begin(&pointsman, "first", steps, 10_000).await;
    until("the first run uses all of it", || gated.prompts().len() == AT_ONCE).await;
    // Progress is shown only to those who follow it.
    let followed = first.progress();
    let window = |progress: &watch::Receiver<Progress>| progress.borrow().window;
    until("its window is known", || window(&followed) >= AT_ONCE).await;
    let whole = window(&followed);
    let mut second = begin(&pointsman, "second", steps, 10_000).await;
    let of_both = [followed.clone(), second.progress()];
    until("each run has half of it", || of_both.each_ref().map(window) == [whole.div_ceil(2); 2]).await;
    for answered in 0..4 * AT_ONCE {
        until("a request waits for its answer", || gated.prompts().len() > answered).await;
        gated.released.add_permits(1);
    }
    until("all are answered", || gated.prompts().len() > 4 * AT_ONCE).await;
    let prompts = gated.prompts();
    let of_second = prompts[AT_ONCE..].iter().filter(|prompt| prompt.starts_with("second")).count();
    // Half of those that left since it began.
    let (least, most) = (prompts.len() / 2 - AT_ONCE, prompts.len() / 2);
    assert!((least..=most).contains(&of_second), "{of_second} of {}", prompts.len() - AT_ONCE);
    let half = window(&followed);
    second.cancel();
    second.report().await.unwrap();
    until("the first run has all of it again", || window(&followed) > half).await;
}
