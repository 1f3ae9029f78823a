//! `pointsman ask`: one request, whose answer goes to stdout.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::guard::SharedBudget;
use crate::pipeline::attached_file;
use crate::runtime::request_spending::RequestSpending;
use crate::runtime::{Error, Pointsman, Question, QuestionAnswer, QuestionError};
use crate::types::{Attribution, FinishReason, Part, RequestError, ScopeName, Usage};

use super::args::Ask;
use super::config::load_for;
use super::exit::Exit;
use super::log;
use super::open_store::store_url;
use super::print::{StdoutError, print_answer, print_json, print_piece, stdout_is_terminal};
use super::progress::{Mode, eprint_line};
use super::progress_text::money;
use super::saved_args::is_dash;
use super::signals::StopSignals;
use super::step_args::StepArgs;

/// How long actors may take to stop.
const MAX_ACTOR_SHUTDOWN: Duration = Duration::from_secs(1);

/// How often a wait for an answer is reported.
const WAITING_INTERVAL: Duration = Duration::from_secs(15);

/// The longest text on standard input, in bytes.
const MAX_STDIN_BYTES: u64 = 16 << 20;

/// The largest attached file, and the most bytes of all.
const MAX_FILE_BYTES: u64 = 50 << 20;
const MAX_ATTACHED_BYTES: u64 = 100 << 20;

/// The answer as JSON.
#[derive(Serialize)]
struct JsonAnswer<'a> {
    answer: &'a Value,
    target: String,
    /// As the provider names it.
    model: &'a str,
    simulated: bool,
    finish_reason: FinishReason,
    /// Those of the response with the answer.
    usage: Option<&'a Usage>,
    /// Of all responses.
    cost_usd: Option<f64>,
    calls: usize,
}

/// Sends one request.
pub(super) fn ask(args: &Ask) -> Exit {
    let mode = Mode::Lines;
    let (text, attachments) = match read_question(args) {
        Ok(read) => read,
        Err(error) => {
            let exit = if error.is::<NothingAsked>() { Exit::Usage } else { Exit::IoError };
            return mode.fail(&error, exit);
        }
    };
    let step = StepArgs { answer: args.answer.clone(), ..StepArgs::default() };
    let config = match load_for(&step, None, args.config.as_deref(), args.simulate) {
        Ok(config) => config,
        Err(diagnostics) => return mode.report_diagnostics(&diagnostics),
    };
    log::start_without_display(args.log);
    let pointsman = match Pointsman::start_blocking(&config) {
        Ok(pointsman) => pointsman,
        Err(Error::Diagnostics(diagnostics)) => return mode.report_diagnostics(&diagnostics),
        Err(error) => return mode.fail(&anyhow::Error::new(error), Exit::Configuration),
    };
    pointsman.notes().iter().for_each(|note| mode.note(note));
    let mut question = Question::new(text);
    question.system.clone_from(&args.answer.system);
    question.attachments = attachments;
    question.settings = step.overrides(&config);
    question.deadline = args.deadline;
    let exit = pointsman.runtime().block_on(answer(&pointsman, &config, question, args));
    pointsman.runtime().block_on(pointsman.drain(MAX_ACTOR_SHUTDOWN));
    exit
}

/// Asks, and writes the answer, until a signal.
async fn answer(pointsman: &Pointsman, config: &Config, mut question: Question, args: &Ask) -> Exit {
    let mode = Mode::Lines;
    let mut stops = StopSignals::new();
    let spending = match DailySpending::open(pointsman, config).await {
        Ok(spending) => spending,
        Err(error) => return mode.fail(&error, Exit::IoError),
    };
    question.budget = spending.as_ref().map(DailySpending::budget);
    let mut output = Output::new(args);
    let begun = AtomicBool::new(false);
    let asking = pointsman.ask(question, |piece| {
        begun.store(true, Relaxed);
        output.write_piece(piece);
    });
    let asked = tokio::select! {
        biased;
        _ = stops.next() => None,
        asked = asking => Some(asked),
        never = report_waiting(&begun) => match never {},
    };
    if let Some(spending) = spending
        && let Err(error) = spending.record().await
    {
        eprint_line(&format!("what the request cost is not recorded: {error:#}"));
    }
    match asked {
        None => {
            output.end_line();
            mode.end("stopped: the answer is incomplete", Exit::Interrupted)
        }
        Some(Ok(answer)) => match output.write_answer(&answer, args) {
            Ok(()) => Exit::Success,
            Err(error) if error.is_broken_pipe() => Exit::BrokenPipe,
            Err(error) => mode.fail(&error.into(), Exit::IoError),
        },
        Some(Err(QuestionError::Diagnostics(diagnostics))) => mode.report_diagnostics(&diagnostics),
        Some(Err(QuestionError::Request(error))) => {
            let has_begun = output.end_line();
            if output.is_closed {
                return Exit::BrokenPipe;
            }
            mode.fail(&anyhow::Error::msg(failure_text(&error, has_begun)), Exit::of_class(error.class()))
        }
    }
}

/// Says from time to time that there is no answer yet.
async fn report_waiting(begun: &AtomicBool) -> Infallible {
    let started = Instant::now();
    loop {
        sleep(WAITING_INTERVAL).await;
        if !begun.load(Relaxed) {
            let seconds = started.elapsed().as_secs();
            eprint_line(&format!("no answer after {seconds} s; -v shows the calls that fail, Ctrl-C stops"));
        }
    }
}

/// Returns why a request failed, after how many attempts, and when to try again.
fn failure_text(error: &RequestError, has_begun: bool) -> String {
    let mut text = String::new();
    if has_begun {
        text.push_str("the answer is incomplete: ");
    }
    text.push_str(&error.failure.to_string());
    if let Some(target) = &error.target {
        text.push_str(&format!(" ({target})"));
    }
    if error.attempts.calls() > 1 {
        text.push_str(&format!("; {} attempts", error.attempts.calls()));
    }
    // Waiting does not mend a key or an account.
    let may_pass = match error.class().attribution() {
        Attribution::Attempt | Attribution::Limit => true,
        Attribution::Account | Attribution::Request | Attribution::Router => false,
    };
    if may_pass && let Some(wait) = error.expected_wait.filter(|wait| *wait >= Duration::from_secs(1)) {
        text.push_str(&format!("; try again in {} s", wait.as_secs()));
    }
    text
}

/// Where the answer goes.
struct Output {
    /// Whether each piece is written when it arrives.
    streams: bool,
    /// Whether anything was written.
    has_begun: bool,
    /// Whether the last character was a line end.
    ends_line: bool,
    /// Whether the reader has closed it.
    is_closed: bool,
}

impl Output {
    /// An answer to a pipe or a file is written when it is complete: half an answer must not be used.
    fn new(args: &Ask) -> Self {
        let streams = stdout_is_terminal() && !args.no_stream && !args.json;
        Self { streams, has_begun: false, ends_line: true, is_closed: false }
    }

    fn write_piece(&mut self, piece: &str) {
        if !self.streams || self.is_closed {
            return;
        }
        // What comes before the first word of an answer is not part of it.
        let piece = if self.has_begun { piece } else { piece.trim_start() };
        if piece.is_empty() {
            return;
        }
        self.has_begun = true;
        self.ends_line = piece.ends_with('\n');
        self.is_closed = print_piece(piece).is_err();
    }

    /// Ends the line that was begun. Returns whether anything was written.
    fn end_line(&mut self) -> bool {
        if !self.ends_line && !self.is_closed {
            self.is_closed = print_piece("\n").is_err();
            self.ends_line = true;
        }
        self.has_begun
    }

    fn write_answer(&mut self, answer: &QuestionAnswer, args: &Ask) -> Result<(), StdoutError> {
        let QuestionAnswer { value, response, attempts, cost, .. } = answer;
        if args.json {
            let json = JsonAnswer {
                answer: value,
                target: response.target.to_string(),
                model: &response.completion.model,
                simulated: response.simulated,
                finish_reason: response.finish_reason(),
                usage: response.completion.usage.as_ref(),
                cost_usd: cost.map(|cost| cost.dollars()),
                calls: attempts.calls(),
            };
            print_json(&serde_json::to_string_pretty(&json).map_err(io::Error::from)?)?;
        } else if self.has_begun {
            self.end_line();
        } else {
            self.write_whole(value)?;
        }
        if args.usage {
            eprint_line(&usage_line(answer));
        }
        Ok(())
    }

    fn write_whole(&mut self, value: &Value) -> Result<(), StdoutError> {
        self.has_begun = true;
        match value {
            Value::String(text) => print_answer(text),
            _ if stdout_is_terminal() => {
                print_json(&serde_json::to_string_pretty(value).map_err(io::Error::from)?)
            }
            _ => print_json(&value.to_string()),
        }
    }
}

fn usage_line(answer: &QuestionAnswer) -> String {
    let QuestionAnswer { response, attempts, cost, .. } = answer;
    let tokens = match &response.completion.usage {
        Some(usage) => format!("{} tokens in, {} out", usage.input.0, usage.output.0),
        None => "tokens unknown".to_owned(),
    };
    let cost = match cost {
        Some(cost) => money(cost.dollars()),
        None => "cost unknown".to_owned(),
    };
    let simulated = if response.simulated { " [simulated]" } else { "" };
    let calls = match attempts.calls() {
        0 | 1 => String::new(),
        calls => format!(", {calls} calls"),
    };
    format!("{}{simulated}: {tokens}, {cost}{calls}", response.target)
}

/// There is no prompt.
#[derive(Debug, thiserror::Error)]
#[error("nothing is asked: write the prompt, as in `pointsman ask \"Say hello.\"`, or pipe it in")]
struct NothingAsked;

/// Returns the prompt and the attachments.
fn read_question(args: &Ask) -> anyhow::Result<(String, Vec<Part>)> {
    let attaches_stdin = args.attach.iter().filter(|path| is_dash(path)).count();
    ensure!(attaches_stdin < 2, "`--attach -` reads stdin, and is there twice");
    let mut stdin = io::stdin();
    let piped = if attaches_stdin == 1 || stdin.is_terminal() {
        String::new()
    } else {
        let mut text = Vec::new();
        stdin.by_ref().take(MAX_STDIN_BYTES + 1).read_to_end(&mut text).context("cannot read stdin")?;
        ensure!(text.len() as u64 <= MAX_STDIN_BYTES, "stdin has more than {} MiB", MAX_STDIN_BYTES >> 20);
        String::from_utf8(text).map_err(|_| {
            anyhow::anyhow!("stdin is no UTF-8 text; attach a file that is no text with `--attach -`")
        })?
    };
    let parts = [piped.trim_end(), args.prompt.as_deref().unwrap_or_default()];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.trim().is_empty()).collect();
    if parts.is_empty() {
        bail!(NothingAsked);
    }
    let mut left = MAX_ATTACHED_BYTES;
    let mut attachments = Vec::new();
    for path in &args.attach {
        let attached = read_attachment(path, &mut left);
        attachments.push(attached.with_context(|| format!("cannot attach {}", path.display()))?);
    }
    Ok((parts.join("\n\n"), attachments))
}

fn read_attachment(path: &Path, left: &mut u64) -> anyhow::Result<Part> {
    let mut content = Vec::new();
    let max = MAX_FILE_BYTES.min(*left);
    let read = if is_dash(path) {
        io::stdin().take(max + 1).read_to_end(&mut content)
    } else {
        ensure!(!path.is_dir(), "it is a folder");
        File::open(path)?.take(max + 1).read_to_end(&mut content)
    };
    let bytes = read? as u64;
    ensure!(
        bytes <= max,
        "it is too large: a file may have {} MiB, and all of them {} MiB",
        MAX_FILE_BYTES >> 20,
        MAX_ATTACHED_BYTES >> 20
    );
    *left -= bytes;
    let name = if is_dash(path) { "stdin".into() } else { path.to_string_lossy() };
    attached_file(&name, &content).map_err(anyhow::Error::msg)
}

/// The spend of a day, where a cap of the day is configured. It counts what runs have spent, and runs count it.
struct DailySpending(RequestSpending);

impl DailySpending {
    /// Opens it, if there is a cap that needs it and a store that has it.
    async fn open(pointsman: &Pointsman, config: &Config) -> anyhow::Result<Option<Self>> {
        if config.budget.day.is_none() && config.budget.provider.is_empty() || config.simulate {
            return Ok(None);
        }
        let Some(store) = store_url(None, config).open().await? else { return Ok(None) };
        pointsman.sync_budgets(&*store).await?;
        Ok(Some(Self(RequestSpending::new(store))))
    }

    fn budget(&self) -> Arc<SharedBudget> {
        self.0.budget_of(&ScopeName::default())
    }

    async fn record(&self) -> anyhow::Result<()> {
        Ok(self.0.record().await?)
    }
}
