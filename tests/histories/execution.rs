//! Executes one command of a history, and causes an event during its run.

use std::fmt::Write as _;
use std::process::Stdio;

use super::actions::{Command, ConcurrentEvent, FaultKind};
use super::checks::request_summary;
use super::input::Input;
use super::outages::{OUTAGE_RESULT, Outage, OutageEnd, OutageKind, leave_step_without_target};
use super::program::{Output, start_program};
use super::provider::LoggedRequest;
use super::runner::{CheckResult, HistoryRunner, broken_rule};
use super::setup::{Item, Setup};

/// An executed command.
pub(super) struct Execution {
    pub(super) command: Command,
    pub(super) class: Option<&'static str>,
    pub(super) output: Output,
    pub(super) requests: Vec<LoggedRequest>,
    /// The event during the run, if the run reached it.
    pub(super) event: Option<ConcurrentEvent>,
    pub(super) outages: Vec<Outage>,
    /// Whether the run waits for outages without limit.
    pub(super) waits_for_outages: bool,
    /// The input before the command.
    pub(super) input: Input,
    /// The items that were added to the input during the run.
    pub(super) added_items: Vec<Item>,
    /// Whether changes were accepted with `--accept-changes`.
    pub(super) changes_accepted: bool,
}

impl Execution {
    /// Returns every item that the run may have read.
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.input.items.iter().chain(&self.added_items)
    }

    /// Returns whether the run is complete.
    pub(super) fn has_completed(&self) -> bool {
        matches!(self.output.code, Some(0 | 1))
    }

    /// Returns whether there was nothing to do.
    pub(super) fn did_nothing(&self) -> bool {
        self.output.stderr.contains("there is nothing to retry")
    }

    /// Returns whether every answer of the provider is durable.
    pub(super) fn is_durable(&self) -> bool {
        let is_stopped =
            matches!(self.event, Some(ConcurrentEvent::Stop | ConcurrentEvent::Outage(.., OutageEnd::Stop)));
        let calls_were_cancelled =
            matches!(self.event, Some(ConcurrentEvent::StopTwice | ConcurrentEvent::Cancel));
        self.has_completed() || is_stopped || self.is_paused() && !calls_were_cancelled
    }

    pub(super) fn is_paused(&self) -> bool {
        self.output.code == Some(5)
    }

    /// Returns whether the run may pause: an outage has refused a request, leaves a step without a target,
    /// and the run does not wait for it. A run never waits for a key that is refused.
    pub(super) fn may_pause(&self, setup: &Setup) -> bool {
        let is_refused = self.requests.iter().any(|request| request.result == Some(Err(OUTAGE_RESULT)));
        let has_key = self.outages.iter().any(|outage| outage.kind == OutageKind::Key);
        is_refused && leave_step_without_target(&self.outages, setup) && (has_key || !self.waits_for_outages)
    }
}

/// Returns the outage that an event starts at that request, if it does.
fn event_outage(request: u8, event: ConcurrentEvent) -> Option<Outage> {
    let ConcurrentEvent::Outage(kind, affected, end) = event else { return None };
    let max_refusals = match end {
        OutageEnd::AfterRefusals(max_refusals) => Some(max_refusals.into()),
        OutageEnd::AfterRun | OutageEnd::Kill | OutageEnd::Stop => None,
    };
    Some(Outage { kind, affected, first_request: request.into(), max_refusals })
}

/// How a command is executed.
#[derive(Default)]
pub(super) struct StartOptions {
    pub(super) force_new: bool,
    pub(super) class: Option<FaultKind>,
    /// An event, and the number of requests before it.
    pub(super) event: Option<(u8, ConcurrentEvent)>,
    /// Passage of a failure point at which the process aborts.
    pub(super) crash_at: Option<String>,
}

impl HistoryRunner {
    pub(super) fn execute(&mut self, command: Command, start: &StartOptions, flags: &str) -> Execution {
        self.command_count += 1;
        let number = self.run.as_ref().map_or(0, |run| run.number);
        let class = start.class.map(|kind| match kind {
            FaultKind::Refusal => "content_filter",
            FaultKind::WrongAnswer | FaultKind::WrongAnswerOnce => "validation_error",
            FaultKind::TooLong | FaultKind::TooLongForFirstTarget => "too_long",
        });
        let new = if start.force_new { " --new" } else { "" };
        let new_outage = start.event.and_then(|(after_requests, event)| event_outage(after_requests, event));
        let outages: Vec<_> = self.outage.into_iter().chain(new_outage).collect();
        // The run waits for an outage that ends by itself, and for one during which it receives a signal.
        let waits_for_outages = match start.event {
            Some((_, ConcurrentEvent::Outage(.., OutageEnd::Kill | OutageEnd::Stop))) => true,
            Some((_, ConcurrentEvent::Outage(.., OutageEnd::AfterRefusals(_)))) => self.outage.is_none(),
            _ => false,
        };
        let flags = if waits_for_outages { format!("{flags} --wait") } else { flags.to_owned() };
        let line = match command {
            Command::Run => format!("{}{new}{flags}", self.options.run_arguments("pipeline.toml")),
            Command::Resume => format!("resume {number}{flags}"),
            Command::Retry => {
                let class = class.map(|class| format!(" --class {class}")).unwrap_or_default();
                format!("retry {number}{class}{flags}")
            }
        };
        let first_held = start
            .event
            .filter(|_| new_outage.is_none())
            .map(|(after_requests, _)| usize::from(after_requests));
        self.provider.begin_log(first_held, &self.faults, &outages);
        let mut program = self.command(&line);
        program
            .env("POINTSMAN_ABORT_AT", start.crash_at.as_deref().unwrap_or_default())
            .stdout(Stdio::null());
        let input = self.input();
        let mut added_items = vec![];
        let mut running = start_program(program);
        let mut event = None;
        if let Some((_, planned @ ConcurrentEvent::Outage(.., end))) = start.event {
            let signal = match end {
                OutageEnd::AfterRefusals(_) | OutageEnd::AfterRun => None,
                OutageEnd::Kill => Some("KILL"),
                OutageEnd::Stop => Some("INT"),
            };
            if let Some(signal) = signal.filter(|_| running.find_line("the run holds").is_some()) {
                event = Some(planned);
                running.signal(signal);
            }
        } else if self.provider.wait_for_held(|| running.child.try_wait().unwrap().is_some()) {
            let (_, planned) = start.event.unwrap();
            event = Some(planned);
            match planned {
                ConcurrentEvent::Kill => running.signal("KILL"),
                ConcurrentEvent::Stop | ConcurrentEvent::StopTwice => {
                    running.signal("INT");
                    running.wait_for_line("stopping: items in flight");
                    if planned == ConcurrentEvent::StopTwice {
                        running.signal("INT");
                        running.wait_for_line("stopping now");
                    }
                }
                ConcurrentEvent::Outage(..) => {}
                ConcurrentEvent::Cancel => drop(self.run_to_end(&format!("cancel {}", self.newest_run().0))),
                ConcurrentEvent::SecondProcess => {
                    let second = self.run_to_end(&self.options.run_arguments("pipeline.toml"));
                    assert_eq!(
                        second.code,
                        Some(4),
                        "a second process of the same run is refused: {}",
                        second.stderr
                    );
                    assert!(second.stderr.contains("is in use by"), "{}", second.stderr);
                }
                ConcurrentEvent::OtherRun => {
                    let other = self.run_to_end(&self.options.run_arguments("other.toml"));
                    assert_eq!(
                        other.code,
                        Some(4),
                        "a second run with the same output is refused: {}",
                        other.stderr
                    );
                    assert!(other.stderr.contains(self.options.output_file()), "{}", other.stderr);
                }
                ConcurrentEvent::Export => {
                    let (newest_run, _) = self.newest_run();
                    let arguments =
                        format!("results {newest_run} --out {} --overwrite", self.options.output_file());
                    let export = self.run_to_end(&arguments);
                    assert_eq!(
                        export.code,
                        Some(4),
                        "an output is not replaced while a run writes to it: {}",
                        export.stderr
                    );
                    assert!(export.stderr.contains("is writing to"), "{}", export.stderr);
                }
                ConcurrentEvent::AppendItem(number) => {
                    if self.items.iter().all(|item| item.number != number) {
                        added_items.push(Item::new(number, self.options));
                        self.append(Item::new(number, self.options));
                    }
                }
                ConcurrentEvent::ReplaceItem(item, text) => {
                    self.edit_item(item, |item| item.text = text);
                    self.write_items();
                    added_items = self.input().items;
                }
            }
            // The held requests get no response if the process ends at once.
            if !matches!(
                planned,
                ConcurrentEvent::Kill | ConcurrentEvent::StopTwice | ConcurrentEvent::Cancel
            ) {
                self.provider.release();
            }
        }
        let output = running.wait();
        let requests = self.provider.requests();
        writeln!(self.log, "  {line}: {:?}", output.code).unwrap();
        for request in &requests {
            writeln!(self.log, "    {}", request_summary(request)).unwrap();
        }
        self.provider.begin_log(None, &self.faults, &[]);
        Execution {
            command,
            class,
            output,
            requests,
            event,
            outages,
            waits_for_outages,
            input,
            added_items,
            changes_accepted: false,
        }
    }

    /// Appends an item to the input file.
    fn append(&mut self, item: Item) {
        let path = self.folder.path().join(self.options.items_file());
        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, item.line().as_bytes()).unwrap();
        self.keys.insert(item.name(), item.key());
        self.items.push(item);
    }

    /// Starts another run with the output of this one. It is refused and changes nothing.
    pub(super) fn check_other_run_is_refused(&mut self) -> CheckResult {
        self.write_items();
        self.setup.write(self.folder.path(), &self.provider);
        let path = self.folder.path().join(self.options.output_file());
        let before = std::fs::read(&path).unwrap_or_default();
        if before.is_empty() {
            return Ok(());
        }
        self.command_count += 1;
        self.provider.begin_log(None, &self.faults, &[]);
        let newest_run = self.newest_run();
        let output = self.run_to_end(&self.options.run_arguments("other.toml"));
        let is_refused = output.code == Some(4) && output.stderr.contains("was not written by this run");
        if !is_refused || !self.provider.requests().is_empty() || self.newest_run() != newest_run {
            return broken_rule(
                "a run does not replace the output of another run",
                format!("{:?}: {}", output.code, output.stderr),
            );
        }
        if std::fs::read(&path).unwrap_or_default() != before {
            return broken_rule("a refused run does not change the output", output.stderr);
        }
        Ok(())
    }
}
