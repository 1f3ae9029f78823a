//! Plays a history with the built program, and compares with the reference after each command.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::{Command as Program, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::actions::{Action, Command, FaultKind};
use super::form::Form;
use super::input::{Extra, Input};
use super::outages::Outage;
use super::output::{Rows, csv_lines, json_lines};
use super::program::{Ended, finish};
use super::provider::{Fault, Provider};
use super::reference::{Run, says};
use super::session::Start;
use super::world::{Item, STEPS, Setup};

/// What differs from the reference.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    /// Which rule is broken; the same for every history that breaks it.
    pub(crate) rule: &'static str,
    pub(crate) detail: String,
}

pub(super) type Checked = Result<(), Violation>;

pub(super) fn violated(rule: &'static str, detail: impl Into<String>) -> Checked {
    Err(Violation { rule, detail: detail.into() })
}

pub(crate) struct Player {
    pub(super) form: Form,
    pub(super) folder: TempDir,
    pub(super) provider: Provider,
    pub(super) items: Vec<Item>,
    /// What is in the input beside the items, and where.
    extras: Vec<(u8, Extra)>,
    pub(super) setup: Setup,
    pub(super) faults: BTreeMap<(String, String), Fault>,
    /// The outage that lasts, if one does.
    pub(super) outage: Option<Outage>,
    /// The present run, unless it was cancelled.
    pub(super) run: Option<Run>,
    /// The number of the latest run.
    pub(super) latest: u64,
    /// The keys of all items that there ever were, by name.
    pub(super) keys: BTreeMap<String, String>,
    /// What every line said that was right at its time: an output stands until its run is complete again.
    pub(super) written: BTreeSet<String>,
    /// What every line was as a row of CSV.
    pub(super) rows: Rows,
    /// The rejects that were right at their time: the line, the key and the reason.
    pub(super) rejected: BTreeSet<String>,
    /// What is booked for the present run, in billionths of a US dollar.
    pub(super) booked: u64,
    pub(crate) commands: u64,
    /// What was done so far, in short.
    pub(super) log: String,
}

impl Player {
    pub(crate) fn new(form: Form) -> Self {
        let items = (0..4).map(|number| Item::new(number, form)).collect();
        let extras = if form.bad_records { vec![(1, Extra::Bad(0)), (4, Extra::Twin(0, 1))] } else { vec![] };
        Self {
            form,
            folder: tempfile::tempdir().unwrap(),
            provider: Provider::start(),
            items,
            extras,
            setup: Setup::new(form),
            faults: BTreeMap::new(),
            outage: None,
            run: None,
            latest: 0,
            keys: BTreeMap::new(),
            written: BTreeSet::new(),
            rows: Rows::new(),
            rejected: BTreeSet::new(),
            booked: 0,
            commands: 0,
            log: String::new(),
        }
    }

    /// Does one action, and checks what a command has done.
    pub(crate) fn play(&mut self, action: &Action) -> Checked {
        writeln!(self.log, "{action:?}").unwrap();
        let setup = &mut self.setup;
        match *action {
            Action::Text(item, text) => self.item(item, |item| item.text = text),
            Action::Tag(item, tag) => self.item(item, |item| item.tag = tag),
            Action::Picture(item, picture) => self.item(item, |item| item.picture = picture % 2),
            Action::Add(number) => {
                if self.items.iter().all(|item| item.number != number) {
                    self.items.push(Item::new(number, self.form));
                }
            }
            Action::Bad(..) | Action::Twin(..) if !self.form.bad_records => {}
            Action::Bad(place, kind) => self.extras.push((place, Extra::Bad(kind))),
            Action::Twin(place, of, text) => self.extras.push((place, Extra::Twin(of, text))),
            Action::Mend => self.extras.clear(),
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
            Action::PhotoIsOptional(is) => setup.photo_is_optional = is,
            Action::HasPhoto(has) => setup.has_photo = has,
            Action::HasLast(has) => setup.has_last = has,
            Action::HasFacts(has) => setup.has_facts = has && self.form.facts,
            Action::Move(step, route) => {
                setup.route_of[usize::from(step) % STEPS.len()] = usize::from(route % 2);
            }
            Action::Route(route, targets) => {
                let (first, second) = (usize::from(targets % 4), usize::from(targets / 4));
                let targets = if first == second { vec![first] } else { vec![first, second] };
                setup.routes[usize::from(route % 2)] = targets;
            }
            Action::SwapRoutes => setup.routes.swap(0, 1),
            Action::Models(swap) => {
                let [one, other] = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)][usize::from(swap)].into();
                setup.models.swap(one, other);
            }
            Action::Price(target, price) => setup.prices[usize::from(target % 4)] = price + 1,
            Action::Replace(picture, variant) => setup.pictures[usize::from(picture % 2)] = variant,
            Action::Fault(item, step, kind) => {
                let step = usize::from(step);
                let fault = match kind {
                    FaultKind::Refusal => Fault::Refusal,
                    FaultKind::Wrong => Fault::Wrong,
                    FaultKind::WrongOnce => Fault::WrongOnce,
                    FaultKind::TooLong => Fault::TooLong,
                    FaultKind::TooLongForFirst => Fault::TooLongFor(setup.model(setup.targets(step)[0])),
                };
                self.faults.insert((format!("i{item}"), STEPS[step].to_owned()), fault);
            }
            Action::Heal(item) => self.faults.retain(|(name, _), _| *name != format!("i{item}")),
            Action::Outage(kind, which) => self.outage = Some(Outage::lasting(kind, which)),
            Action::Restore => self.outage = None,
            Action::LoseOutput(whole) => self.lose_output(whole),
            Action::Other => return self.other_run(),
            Action::Run => return self.work(Command::Run, Start::default()),
            Action::New => return self.work(Command::Run, Start { new: true, ..Start::default() }),
            Action::Resume => return self.work(Command::Resume, Start::default()),
            Action::Retry(class) => return self.work(Command::Retry, Start { class, ..Start::default() }),
            Action::Cancel => return self.cancel(),
            Action::AtWork(command, requests, meanwhile) => {
                return self.work(command, Start { hold: Some((requests, meanwhile)), ..Start::default() });
            }
            #[cfg(feature = "chaos")]
            Action::Dies(command, point, passage) => {
                let points = super::actions::POINTS;
                let point = points[usize::from(point) % points.len()];
                let dies_at = Some(format!("{point}:{passage}"));
                return self.work(command, Start { dies_at, ..Start::default() });
            }
        }
        Ok(())
    }

    pub(super) fn item(&mut self, item: u8, edit: impl FnOnce(&mut Item)) {
        let at = usize::from(item) % self.items.len();
        edit(&mut self.items[at]);
    }

    fn lose_output(&self, whole: bool) {
        let path = self.folder.path().join(self.form.out_file());
        let Ok(text) = std::fs::read(&path) else { return };
        if whole {
            std::fs::remove_file(path).unwrap();
        } else {
            std::fs::write(path, &text[..text.len() / 2]).unwrap();
        }
    }

    /// The input as it is to be read.
    pub(super) fn input(&self) -> Input {
        Input::new(self.form, &self.items, &self.extras)
    }

    pub(super) fn write_items(&mut self) {
        let input = self.input();
        let beside = self.folder.path().join("items.new");
        std::fs::write(&beside, input.text).unwrap();
        std::fs::rename(beside, self.folder.path().join(self.form.items_file())).unwrap();
        self.keys.extend(input.items.iter().map(|item| (item.name(), item.key())));
    }

    pub(super) fn program(&self, arguments: &str) -> Program {
        let built = std::env::var_os("POINTSMAN_PROGRAM").unwrap_or(env!("CARGO_BIN_EXE_pointsman").into());
        let mut program = Program::new(built);
        program.env_clear().args(arguments.split_whitespace()).stdin(Stdio::null());
        program.current_dir(self.folder.path());
        program
    }

    pub(super) fn say(&self, arguments: &str) -> Ended {
        finish(self.program(arguments))
    }

    pub(super) fn output(&self) -> Vec<Value> {
        let path = self.folder.path().join(self.form.out_file());
        if self.form.csv_out { csv_lines(&path, &self.rows) } else { json_lines(&path) }
    }

    /// Carries out a command, with `--accept-changes` once it asks for that, and judges it.
    fn work(&mut self, command: Command, start: Start) -> Checked {
        self.write_items();
        self.setup.write(self.folder.path(), &self.provider);
        let command = if self.run.is_none() { Command::Run } else { command };
        let mut options = String::new();
        let mut session = self.session(command, &start, &options);
        for option in [" --accept-changes", " --overwrite", " --accept-changes"] {
            if !matches!(session.ended.code, Some(2..=5)) || !session.ended.err.contains(option.trim()) {
                continue;
            }
            if !session.calls.is_empty() {
                return violated("a refused command asks nothing", format!("{:?}", session.calls));
            }
            let as_accepted = self.run.as_ref().is_some_and(|run| run.accepted == [self.setup.clone()]);
            if option == " --accept-changes" && as_accepted {
                return violated("changes are accepted only where there are any", session.ended.err);
            }
            options.push_str(option);
            session = self.session(command, &start, &options);
        }
        session.accepted = options.contains("--accept");
        let run_before = self.run.clone();
        self.judge(&session, start.new).map_err(|violation| {
            let before = run_before.map(|run| run.settled.into_values().map(|settled| says(&settled.line)));
            let before: Vec<_> = before.into_iter().flatten().collect();
            let detail = format!(
                "{}\n{}\nit said:\n{}\nsettled before:\n{}\noutput:\n{}\n",
                violation.detail,
                self.log,
                session.ended.err,
                before.join("\n"),
                self.output().iter().map(says).collect::<Vec<_>>().join("\n"),
            );
            Violation { detail, ..violation }
        })
    }

    /// Returns the number of the newest run, and its row in the list.
    pub(super) fn newest(&self) -> (u64, Value) {
        let listed = self.say("runs --json").out;
        let rows = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let rows = rows.map(|row| (row["run"].as_u64().unwrap(), row));
        rows.max_by_key(|(number, _)| *number).unwrap_or_default()
    }

    fn cancel(&mut self) -> Checked {
        let Some(run) = &self.run else { return Ok(()) };
        let ended = self.say(&format!("cancel {}", run.number));
        let (_, row) = self.newest();
        match (ended.code, row["state"].as_str()) {
            (Some(0), Some("cancelled")) => self.run = None,
            (Some(4), Some("complete")) => {}
            other => return violated("a run that is not complete can be cancelled", format!("{other:?}")),
        }
        Ok(())
    }
}
