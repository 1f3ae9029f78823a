//! Baseline for benchmarks: a reqwest loop with the same calls, without Pointsman.
//!
//! ```sh
//! cargo run --release -- simulate --listen 127.0.0.1:8089 --set 'latency="0s"'
//! cargo run --release --example yardstick -- http://127.0.0.1:8089/v1 100000 64
//! ```
//!
//! Sends the same streaming requests as a pipeline with one step, reads each response to its end, and checks its
//! end marker. There are no retries, limits, validation or output. Prints the calls per second and the CPU time
//! per call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, ensure};
use tokio::time::Instant;

#[expect(clippy::print_stdout, reason = "prints its result")]
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let base_url = args.next().context("missing base URL, such as http://127.0.0.1:8089/v1")?;
    let calls: u64 = args.next().context("missing number of calls")?.parse()?;
    let concurrency: u64 = args.next().context("missing number of concurrent calls")?.parse()?;
    // reqwest requires a crypto provider also for plain HTTP. It can only fail if one is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let next = Arc::new(AtomicU64::new(0));
    let url: Arc<str> = format!("{base_url}/chat/completions").into();
    let started = Instant::now();
    let cpu_at_start = cpu_seconds()?;
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..concurrency {
        let client = client.clone();
        let next = next.clone();
        let url = url.clone();
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= calls {
                    return anyhow::Ok(());
                }
                call(&client, &url, number).await?;
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    let took = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds()? - cpu_at_start;
    println!(
        "{calls} calls in {took:.2} s: {:.0} calls/s, {:.1} µs of CPU per call",
        calls as f64 / took,
        cpu * 1e6 / calls as f64
    );
    Ok(())
}

async fn call(client: &reqwest::Client, url: &str, number: u64) -> anyhow::Result<()> {
    let body = serde_json::json!({
        "model": "any",
        "messages": [{ "role": "user", "content": format!("Say something about item {number}.") }],
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    let request = client.post(url).header("content-type", "application/json").body(body.to_string());
    let text = request.send().await?.error_for_status()?.text().await?;
    ensure!(text.trim_end().ends_with("[DONE]"), "a response without its end marker");
    Ok(())
}

/// Returns the CPU time of this process, from `/proc`, in seconds.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("reading CPU time needs /proc")?;
    let after_name = stat.rsplit_once(')').context("unknown format of /proc/self/stat")?.1;
    // utime and stime are fields 14 and 15. The first field after the name is field 3. A second has 100 ticks.
    let ticks: Vec<f64> =
        after_name.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}
