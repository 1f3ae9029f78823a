//! Runs a history with the built program, and compares the result with the reference after each command.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::{Command as Program, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::actions::{Action, Command, FaultKind};
use super::execution::StartOptions;
use super::input::{ExtraRecord, Input};
use super::options::HistoryOptions;
use super::outages::Outage;
use super::output::{Rows, read_csv_lines, read_json_lines};
use super::program::{Output, run_program};
use super::provider::{Fault, Provider};
use super::reference::{ExpectedRun, SharedAnswers, line_summary};
use super::setup::{Item, STEPS, Setup};

/// A difference from the reference.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    /// The broken rule. The same text for every history that breaks it.
    pub(crate) rule: &'static str,
    pub(crate) detail: String,
}

pub(super) type CheckResult = Result<(), Violation>;

pub(super) fn broken_rule(rule: &'static str, detail: impl Into<String>) -> CheckResult {
    Err(Violation { rule, detail: detail.into() })
}

pub(crate) struct HistoryRunner {
    pub(super) options: HistoryOptions,
    pub(super) folder: TempDir,
    pub(super) provider: Provider,
    pub(super) items: Vec<Item>,
    /// The extra records of the input, and their positions.
    extras: Vec<(u8, ExtraRecord)>,
    pub(super) setup: Setup,
    pub(super) faults: BTreeMap<(String, String), Fault>,
    /// The permanent outage, if there is one.
    pub(super) outage: Option<Outage>,
    /// The current run, unless it was cancelled.
    pub(super) run: Option<ExpectedRun>,
    /// The number of the latest run.
    pub(super) latest_run: u64,
    /// The keys of all items that ever existed, by name.
    pub(super) keys: BTreeMap<String, String>,
    /// Summaries of all lines that were right when they were written. An output stays until its run is
    /// complete again.
    pub(super) past_lines: BTreeSet<String>,
    /// The result lines by CSV row.
    pub(super) csv_rows: Rows,
    /// The rejects that were right when they were written, as JSON.
    pub(super) past_rejects: BTreeSet<String>,
    /// The answers of all runs, if they share them.
    pub(super) shared: SharedAnswers,
    /// The booked cost of the current run, in billionths of a US dollar.
    pub(super) booked_nano_usd: u64,
    pub(crate) command_count: u64,
    /// A short log of the actions, commands and requests.
    pub(super) log: String,
}

impl HistoryRunner {
    pub(crate) fn new(options: HistoryOptions) -> Self {
        let items = (0..4).map(|number| Item::new(number, options)).collect();
        let extras = if options.bad_records {
            vec![(1, ExtraRecord::Malformed(0)), (4, ExtraRecord::DuplicateKey(0, 1))]
        } else {
            vec![]
        };
        Self {
            options,
            folder: tempfile::tempdir().unwrap(),
            provider: Provider::start(),
            items,
            extras,
            setup: Setup::new(options),
            faults: BTreeMap::new(),
            outage: None,
            run: None,
            latest_run: 0,
            keys: BTreeMap::new(),
            past_lines: BTreeSet::new(),
            csv_rows: Rows::new(),
            past_rejects: BTreeSet::new(),
            shared: SharedAnswers::new(),
            booked_nano_usd: 0,
            command_count: 0,
            log: String::new(),
        }
    }

    /// Runs one action, and checks the result of its command.
    pub(crate) fn run_action(&mut self, action: &Action) -> CheckResult {
        writeln!(self.log, "{action:?}").unwrap();
        let setup = &mut self.setup;
        match *action {
            Action::Text(item, text) => self.edit_item(item, |item| item.text = text),
            Action::Tag(item, tag) => self.edit_item(item, |item| item.tag = tag),
            Action::Picture(item, picture) => self.edit_item(item, |item| item.picture = picture % 2),
            Action::Add(number) => {
                if self.items.iter().all(|item| item.number != number) {
                    self.items.push(Item::new(number, self.options));
                }
            }
            Action::AddMalformedRecord(..) | Action::AddDuplicateKey(..) if !self.options.bad_records => {}
            Action::AddMalformedRecord(position, kind) => {
                self.extras.push((position, ExtraRecord::Malformed(kind)))
            }
            Action::AddDuplicateKey(position, original, text) => {
                self.extras.push((position, ExtraRecord::DuplicateKey(original, text)));
            }
            Action::RemoveExtraRecords => self.extras.clear(),
            Action::Remove(item) => {
                if self.items.len() > 1 {
                    self.items.remove(usize::from(item) % self.items.len());
                }
            }
            Action::Shuffle(seed) => fastrand::Rng::with_seed(seed).shuffle(&mut self.items),
            Action::Prompt(step, variant) => setup.prompts[usize::from(step) % STEPS.len()] = variant,
            Action::System(variant) => setup.system = variant,
            Action::Limit(variant) => setup.limit = variant,
            Action::Choices(variant) => setup.choices = variant % 2,
            Action::Schema(variant) => setup.schema = variant % 2,
            Action::Condition(variant) => setup.condition = variant,
            Action::PhotoIsOptional(is_optional) => setup.photo_is_optional = is_optional,
            Action::HasPhoto(has_photo) => setup.has_photo = has_photo,
            Action::HasLast(has_last) => setup.has_last = has_last,
            Action::HasFacts(has_facts) => setup.has_facts = has_facts && self.options.has_facts_step,
            Action::StepRoute(step, route) => {
                setup.route_of[usize::from(step) % STEPS.len()] = usize::from(route % 2);
            }
            Action::Route(route, targets) => {
                let first = usize::from(targets % 4);
                let second = usize::from(targets / 4);
                let targets = if first == second { vec![first] } else { vec![first, second] };
                setup.routes[usize::from(route % 2)] = targets;
            }
            Action::SwapRoutes => setup.routes.swap(0, 1),
            Action::SwapModels(pair) => {
                let [first, second] =
                    [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)][usize::from(pair)].into();
                setup.models.swap(first, second);
            }
            Action::Price(target, price) => setup.prices[usize::from(target % 4)] = price + 1,
            Action::ReplacePicture(picture, variant) => setup.pictures[usize::from(picture % 2)] = variant,
            Action::Fault(item, step, kind) => {
                let step = usize::from(step);
                let fault = match kind {
                    FaultKind::Refusal => Fault::Refusal,
                    FaultKind::WrongAnswer => Fault::WrongAnswer,
                    FaultKind::WrongAnswerOnce => Fault::WrongAnswerOnce,
                    FaultKind::TooLong => Fault::TooLong,
                    FaultKind::TooLongForFirstTarget => {
                        Fault::TooLongForModel(setup.model(setup.targets(step)[0]))
                    }
                };
                self.faults.insert((format!("i{item}"), STEPS[step].to_owned()), fault);
            }
            Action::RemoveFaults(item) => self.faults.retain(|(name, _), _| *name != format!("i{item}")),
            Action::Outage(kind, affected) => self.outage = Some(Outage::permanent(kind, affected)),
            Action::Restore => self.outage = None,
            Action::DamageOutput(delete) => self.damage_output(delete),
            Action::OtherRun => return self.check_other_run_is_refused(),
            Action::Run => return self.perform(Command::Run, StartOptions::default()),
            Action::RunNew => {
                return self
                    .perform(Command::Run, StartOptions { force_new: true, ..StartOptions::default() });
            }
            Action::Resume => return self.perform(Command::Resume, StartOptions::default()),
            Action::Retry(class) => {
                return self.perform(Command::Retry, StartOptions { class, ..StartOptions::default() });
            }
            Action::Cancel => return self.cancel(),
            Action::RunWithEvent(command, after_requests, event) => {
                return self.perform(
                    command,
                    StartOptions { event: Some((after_requests, event)), ..StartOptions::default() },
                );
            }
            #[cfg(feature = "chaos")]
            Action::CrashAt(command, point, passage) => {
                let points = super::actions::CRASH_POINTS;
                let point = points[usize::from(point) % points.len()];
                let crash_at = Some(format!("{point}:{passage}"));
                return self.perform(command, StartOptions { crash_at, ..StartOptions::default() });
            }
        }
        Ok(())
    }

    pub(super) fn edit_item(&mut self, item: u8, edit: impl FnOnce(&mut Item)) {
        let index = usize::from(item) % self.items.len();
        edit(&mut self.items[index]);
    }

    fn damage_output(&self, delete: bool) {
        let path = self.folder.path().join(self.options.output_file());
        let Ok(text) = std::fs::read(&path) else { return };
        if delete {
            std::fs::remove_file(path).unwrap();
        } else {
            std::fs::write(path, &text[..text.len() / 2]).unwrap();
        }
    }

    /// Returns the current input.
    pub(super) fn input(&self) -> Input {
        Input::new(self.options, &self.items, &self.extras)
    }

    pub(super) fn write_items(&mut self) {
        let input = self.input();
        let new_file = self.folder.path().join("items.new");
        std::fs::write(&new_file, input.text).unwrap();
        std::fs::rename(new_file, self.folder.path().join(self.options.items_file())).unwrap();
        self.keys.extend(input.items.iter().map(|item| (item.name(), item.key())));
    }

    pub(super) fn command(&self, arguments: &str) -> Program {
        let path = std::env::var_os("POINTSMAN_PROGRAM").unwrap_or(env!("CARGO_BIN_EXE_pointsman").into());
        let mut program = Program::new(path);
        program.env_clear().args(arguments.split_whitespace()).stdin(Stdio::null());
        program.current_dir(self.folder.path());
        program
    }

    pub(super) fn run_to_end(&self, arguments: &str) -> Output {
        run_program(self.command(arguments))
    }

    pub(super) fn read_output(&self) -> Vec<Value> {
        let path = self.folder.path().join(self.options.output_file());
        if self.options.csv_output { read_csv_lines(&path, &self.csv_rows) } else { read_json_lines(&path) }
    }

    /// Executes a command and checks it. Repeats it with `--accept-changes` or `--overwrite` if the program
    /// requires that.
    fn perform(&mut self, command: Command, start: StartOptions) -> CheckResult {
        self.write_items();
        self.setup.write(self.folder.path(), &self.provider);
        let command = if self.run.is_none() { Command::Run } else { command };
        let mut flags = String::new();
        let mut execution = self.execute(command, &start, &flags);
        for option in [" --accept-changes", " --overwrite", " --accept-changes"] {
            if !matches!(execution.output.code, Some(2..=5))
                || !execution.output.stderr.contains(option.trim())
            {
                continue;
            }
            if !execution.requests.is_empty() {
                return broken_rule(
                    "a refused command sends no request",
                    format!("{:?}", execution.requests),
                );
            }
            let is_unchanged = self.run.as_ref().is_some_and(|run| run.accepted == [self.setup.clone()]);
            if option == " --accept-changes" && is_unchanged {
                return broken_rule(
                    "--accept-changes is required only if something has changed",
                    execution.output.stderr,
                );
            }
            flags.push_str(option);
            execution = self.execute(command, &start, &flags);
        }
        execution.changes_accepted = flags.contains("--accept");
        let run_before = self.run.clone();
        self.check_execution(&execution, start.force_new).map_err(|violation| {
            let finished_before = run_before
                .map(|run| run.finished_items.into_values().map(|finished| line_summary(&finished.line)));
            let finished_before: Vec<_> = finished_before.into_iter().flatten().collect();
            let detail = format!(
                "{}\n{}\nstderr:\n{}\nfinished before:\n{}\noutput:\n{}\n",
                violation.detail,
                self.log,
                execution.output.stderr,
                finished_before.join("\n"),
                self.read_output().iter().map(line_summary).collect::<Vec<_>>().join("\n"),
            );
            Violation { detail, ..violation }
        })
    }

    /// Returns the number of the newest run, and its row in `pointsman runs`.
    pub(super) fn newest_run(&self) -> (u64, Value) {
        let list = self.run_to_end("runs --json").stdout;
        let rows = list.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let rows = rows.map(|row| (row["run"].as_u64().unwrap(), row));
        rows.max_by_key(|(number, _)| *number).unwrap_or_default()
    }

    fn cancel(&mut self) -> CheckResult {
        let Some(run) = &self.run else { return Ok(()) };
        let output = self.run_to_end(&format!("cancel {}", run.number));
        let (_, row) = self.newest_run();
        match (output.code, row["state"].as_str()) {
            (Some(0), Some("cancelled")) => self.run = None,
            (Some(4), Some("completed")) => {}
            other => {
                return broken_rule("a run that is not completed can be cancelled", format!("{other:?}"));
            }
        }
        Ok(())
    }
}
