//! Plays a history with the built program, and compares with the reference after each command.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::{Command as Program, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::actions::{Action, Command, FaultKind, Meanwhile};
use super::judge::call_in_short;
use super::program::{Ended, finish, start};
use super::provider::{Call, Fault, Provider};
use super::reference::{Run, says};
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

/// A command as it was carried out.
pub(super) struct Session {
    pub(super) command: Command,
    pub(super) class: Option<&'static str>,
    pub(super) ended: Ended,
    pub(super) calls: Vec<Call>,
    /// What happened while it was at work, if it came to that.
    pub(super) meanwhile: Option<Meanwhile>,
    /// The input before it.
    pub(super) items: Vec<Item>,
    /// Whether the changes were accepted by option.
    pub(super) accepted: bool,
}

impl Session {
    /// Whether it ended by itself, so that the run is complete.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.ended.code, Some(0 | 1))
    }

    /// Whether it began nothing.
    pub(super) fn had_nothing_to_do(&self) -> bool {
        self.ended.err.contains("nothing has failed of that")
    }

    /// Whether every answer that was given is durable.
    pub(super) fn is_certain(&self) -> bool {
        self.is_whole() || self.meanwhile == Some(Meanwhile::Stop)
    }
}

/// How to start a command.
#[derive(Default)]
struct Start {
    new: bool,
    class: Option<FaultKind>,
    hold: Option<(u8, Meanwhile)>,
    dies_at: Option<String>,
}

pub(crate) struct Player {
    folder: TempDir,
    provider: Provider,
    pub(super) items: Vec<Item>,
    pub(super) setup: Setup,
    faults: BTreeMap<(String, String), Fault>,
    /// The present run, unless it was cancelled.
    pub(super) run: Option<Run>,
    /// The number of the latest run.
    pub(super) latest: u64,
    /// The keys of all items that there ever were, by name.
    pub(super) keys: BTreeMap<String, String>,
    /// What every line said that was right at its time: an output stands until its run is complete again.
    pub(super) written: BTreeSet<String>,
    /// What the present run may have cost, in thousandths of a micro-dollar.
    pub(super) paid: (u64, u64),
    pub(crate) commands: u64,
    /// What was done so far, in short.
    log: String,
}

impl Player {
    pub(crate) fn new() -> Self {
        let items = (0..4).map(Item::new).collect();
        Self {
            folder: tempfile::tempdir().unwrap(),
            provider: Provider::start(),
            items,
            setup: Setup::default(),
            faults: BTreeMap::new(),
            run: None,
            latest: 0,
            keys: BTreeMap::new(),
            written: BTreeSet::new(),
            paid: (0, 0),
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
                    self.items.push(Item::new(number));
                }
            }
            Action::Remove(item) => {
                if self.items.len() > 1 {
                    self.items.remove(usize::from(item) % self.items.len());
                }
            }
            Action::Shuffle(seed) => fastrand::Rng::with_seed(seed).shuffle(&mut self.items),
            Action::Prompt(step, variant) => setup.prompts[usize::from(step % 4)] = variant,
            Action::System(variant) => setup.system = variant,
            Action::Limit(variant) => setup.limit = variant,
            Action::Choices(variant) => setup.choices = variant % 2,
            Action::Condition(variant) => setup.condition = variant,
            Action::PhotoIsOptional(is) => setup.photo_is_optional = is,
            Action::HasPhoto(has) => setup.has_photo = has,
            Action::HasLast(has) => setup.has_last = has,
            Action::Move(step, route) => setup.route_of[usize::from(step % 4)] = usize::from(route % 2),
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
                    FaultKind::Unreadable => Fault::Unreadable,
                    FaultKind::UnreadableByFirst => Fault::UnreadableBy(setup.model(setup.targets(step)[0])),
                };
                self.faults.insert((format!("i{item}"), STEPS[step].to_owned()), fault);
            }
            Action::Heal(item) => self.faults.retain(|(name, _), _| *name != format!("i{item}")),
            Action::LoseOutput(whole) => self.lose_output(whole),
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

    fn item(&mut self, item: u8, edit: impl FnOnce(&mut Item)) {
        let at = usize::from(item) % self.items.len();
        edit(&mut self.items[at]);
    }

    fn lose_output(&self, whole: bool) {
        let path = self.folder.path().join("o.jsonl");
        let Ok(text) = std::fs::read(&path) else { return };
        if whole {
            std::fs::remove_file(path).unwrap();
        } else {
            std::fs::write(path, &text[..text.len() / 2]).unwrap();
        }
    }

    fn write_items(&mut self) {
        let text: String = self.items.iter().map(Item::line).collect();
        let beside = self.folder.path().join("items.new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.folder.path().join("items.jsonl")).unwrap();
        self.keys.extend(self.items.iter().map(|item| (item.name(), item.key())));
    }

    fn program(&self, arguments: &str) -> Program {
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
        let text = std::fs::read_to_string(self.folder.path().join("o.jsonl")).unwrap_or_default();
        // A line that was being written when the process died has no end.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or(Value::Null)).collect()
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

    fn session(&mut self, command: Command, how: &Start, options: &str) -> Session {
        self.commands += 1;
        let number = self.run.as_ref().map_or(0, |run| run.number);
        let class = how.class.map(|kind| match kind {
            FaultKind::Refusal => "content_filter",
            FaultKind::Wrong => "validation_error",
            FaultKind::Unreadable | FaultKind::UnreadableByFirst => "unreadable",
        });
        let new = if how.new { " --new" } else { "" };
        let line = match command {
            Command::Run => format!("run pipeline.toml --items items.jsonl --out o.jsonl{new}{options}"),
            Command::Resume => format!("resume {number}{options}"),
            Command::Retry => {
                let class = class.map(|class| format!(" --class {class}")).unwrap_or_default();
                format!("retry {number}{class}{options}")
            }
        };
        let hold = how.hold.map(|(requests, _)| usize::from(requests));
        self.provider.begin(hold, &self.faults);
        let mut program = self.program(&line);
        program.env("POINTSMAN_DIES_AT", how.dies_at.as_deref().unwrap_or_default()).stdout(Stdio::null());
        let items = self.items.clone();
        let mut running = start(program);
        let mut meanwhile = None;
        if self.provider.wait_for_held(|| running.child.try_wait().unwrap().is_some()) {
            let (_, what) = how.hold.unwrap();
            meanwhile = Some(what);
            match what {
                Meanwhile::Kill => running.signal("KILL"),
                Meanwhile::Stop | Meanwhile::StopTwice => {
                    running.signal("INT");
                    running.wait_for("stopping: items in flight");
                    if what == Meanwhile::StopTwice {
                        running.signal("INT");
                        running.wait_for("stopping now");
                    }
                }
                Meanwhile::Cancel => drop(self.say(&format!("cancel {}", self.newest().0))),
                Meanwhile::Second => {
                    let second = self.say("run pipeline.toml --items items.jsonl --out o.jsonl");
                    assert_eq!(second.code, Some(4), "a second process is refused: {}", second.err);
                    assert!(second.err.contains("is being worked on"), "{}", second.err);
                }
                Meanwhile::Append(number) => {
                    if self.items.iter().all(|item| item.number != number) {
                        self.items.push(Item::new(number));
                        let path = self.folder.path().join("items.jsonl");
                        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
                        std::io::Write::write_all(&mut file, Item::new(number).line().as_bytes()).unwrap();
                        self.keys.insert(Item::new(number).name(), Item::new(number).key());
                    }
                }
                Meanwhile::Replace(item, text) => {
                    self.item(item, |item| item.text = text);
                    self.write_items();
                }
            }
            // What is held back is broken off, not answered, where the process is to end at once.
            if !matches!(what, Meanwhile::Kill | Meanwhile::StopTwice | Meanwhile::Cancel) {
                self.provider.release();
            }
        }
        let ended = running.end();
        let calls = self.provider.calls();
        writeln!(self.log, "  {line}: {:?}", ended.code).unwrap();
        for call in &calls {
            writeln!(self.log, "    {}", call_in_short(call)).unwrap();
        }
        self.provider.begin(None, &self.faults);
        Session { command, class, ended, calls, meanwhile, items, accepted: false }
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
