//! Carries out one command of a history, and does what happens meanwhile.

use std::fmt::Write as _;
use std::process::Stdio;

use super::actions::{Command, FaultKind, Meanwhile};
use super::input::Input;
use super::judge::call_in_short;
use super::outages::{Ending, Kind, Outage, REFUSED, leave_no_target};
use super::player::{Checked, Player, violated};
use super::program::{Ended, start};
use super::provider::Call;
use super::world::{Item, Setup};

/// A command as it was carried out.
pub(super) struct Session {
    pub(super) command: Command,
    pub(super) class: Option<&'static str>,
    pub(super) ended: Ended,
    pub(super) calls: Vec<Call>,
    /// What happened while it was at work, if it came to that.
    pub(super) meanwhile: Option<Meanwhile>,
    /// The outages that there were, and whether it holds without an end.
    pub(super) outages: Vec<Outage>,
    pub(super) waits: bool,
    /// The input before it.
    pub(super) input: Input,
    /// What came into the input while it was at work.
    pub(super) came: Vec<Item>,
    /// Whether the changes were accepted by option.
    pub(super) accepted: bool,
}

impl Session {
    /// Every item that it may have read.
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.input.items.iter().chain(&self.came)
    }

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
        let is_stopped =
            matches!(self.meanwhile, Some(Meanwhile::Stop | Meanwhile::Outage(.., Ending::Stop)));
        let is_broken_off = matches!(self.meanwhile, Some(Meanwhile::StopTwice | Meanwhile::Cancel));
        self.is_whole() || is_stopped || self.is_paused() && !is_broken_off
    }

    pub(super) fn is_paused(&self) -> bool {
        self.ended.code == Some(5)
    }

    /// Whether a run may pause: an outage has refused it something, leaves a step no target, and is not waited for. A key
    /// that is refused is waited for in no case.
    pub(super) fn may_pause(&self, setup: &Setup) -> bool {
        let is_refused = self.calls.iter().any(|call| call.result == Some(Err(REFUSED)));
        let has_key = self.outages.iter().any(|outage| outage.kind == Kind::Key);
        is_refused && leave_no_target(&self.outages, setup) && (has_key || !self.waits)
    }
}

/// The outage that begins at that request, if one does.
fn outage_from(request: u8, meanwhile: Meanwhile) -> Option<Outage> {
    let Meanwhile::Outage(kind, which, ending) = meanwhile else { return None };
    let refusals = match ending {
        Ending::Passes(refusals) => Some(refusals.into()),
        Ending::Lasts | Ending::Kill | Ending::Stop => None,
    };
    Some(Outage { kind, which, from: request.into(), refusals })
}

/// How to start a command.
#[derive(Default)]
pub(super) struct Start {
    pub(super) new: bool,
    pub(super) class: Option<FaultKind>,
    pub(super) hold: Option<(u8, Meanwhile)>,
    pub(super) dies_at: Option<String>,
}

impl Player {
    pub(super) fn session(&mut self, command: Command, how: &Start, options: &str) -> Session {
        self.commands += 1;
        let number = self.run.as_ref().map_or(0, |run| run.number);
        let class = how.class.map(|kind| match kind {
            FaultKind::Refusal => "content_filter",
            FaultKind::Wrong | FaultKind::WrongOnce => "validation_error",
            FaultKind::TooLong | FaultKind::TooLongForFirst => "too_long",
        });
        let new = if how.new { " --new" } else { "" };
        let begins = how.hold.and_then(|(requests, meanwhile)| outage_from(requests, meanwhile));
        let outages: Vec<_> = self.outage.into_iter().chain(begins).collect();
        // What ends by itself is waited for, and so is what a signal is to meet.
        let waits = match how.hold {
            Some((_, Meanwhile::Outage(.., Ending::Kill | Ending::Stop))) => true,
            Some((_, Meanwhile::Outage(.., Ending::Passes(_)))) => self.outage.is_none(),
            _ => false,
        };
        let options = if waits { format!("{options} --wait") } else { options.to_owned() };
        let line = match command {
            Command::Run => format!("{}{new}{options}", self.form.run("pipeline.toml")),
            Command::Resume => format!("resume {number}{options}"),
            Command::Retry => {
                let class = class.map(|class| format!(" --class {class}")).unwrap_or_default();
                format!("retry {number}{class}{options}")
            }
        };
        let hold = how.hold.filter(|_| begins.is_none()).map(|(requests, _)| usize::from(requests));
        self.provider.begin(hold, &self.faults, &outages);
        let mut program = self.program(&line);
        program.env("POINTSMAN_DIES_AT", how.dies_at.as_deref().unwrap_or_default()).stdout(Stdio::null());
        let input = self.input();
        let mut came = vec![];
        let mut running = start(program);
        let mut meanwhile = None;
        if let Some((_, what @ Meanwhile::Outage(.., ending))) = how.hold {
            let signal = match ending {
                Ending::Passes(_) | Ending::Lasts => None,
                Ending::Kill => Some("KILL"),
                Ending::Stop => Some("INT"),
            };
            if let Some(signal) = signal.filter(|_| running.find("the run holds").is_some()) {
                meanwhile = Some(what);
                running.signal(signal);
            }
        } else if self.provider.wait_for_held(|| running.child.try_wait().unwrap().is_some()) {
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
                Meanwhile::Outage(..) => {}
                Meanwhile::Cancel => drop(self.say(&format!("cancel {}", self.newest().0))),
                Meanwhile::Second => {
                    let second = self.say(&self.form.run("pipeline.toml"));
                    assert_eq!(second.code, Some(4), "a second process is refused: {}", second.err);
                    assert!(second.err.contains("is being worked on"), "{}", second.err);
                }
                Meanwhile::Other => {
                    let other = self.say(&self.form.run("other.toml"));
                    assert_eq!(other.code, Some(4), "a second run at one output is refused: {}", other.err);
                    assert!(other.err.contains(self.form.out_file()), "{}", other.err);
                }
                Meanwhile::Export => {
                    let (newest, _) = self.newest();
                    let export = format!("results {newest} --out {} --overwrite", self.form.out_file());
                    let export = self.say(&export);
                    assert_eq!(
                        export.code,
                        Some(4),
                        "an output that is written is not replaced: {}",
                        export.err
                    );
                    assert!(export.err.contains("is writing to"), "{}", export.err);
                }
                Meanwhile::Append(number) => {
                    if self.items.iter().all(|item| item.number != number) {
                        came.push(Item::new(number, self.form));
                        self.append(Item::new(number, self.form));
                    }
                }
                Meanwhile::Replace(item, text) => {
                    self.item(item, |item| item.text = text);
                    self.write_items();
                    came = self.input().items;
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
        self.provider.begin(None, &self.faults, &[]);
        Session { command, class, ended, calls, meanwhile, outages, waits, input, came, accepted: false }
    }

    /// Appends an item to the input, behind everything that is in it.
    fn append(&mut self, item: Item) {
        let path = self.folder.path().join(self.form.items_file());
        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, item.line().as_bytes()).unwrap();
        self.keys.insert(item.name(), item.key());
        self.items.push(item);
    }

    /// Another run is to write to the output of this one: it is refused, and nothing is changed.
    pub(super) fn other_run(&mut self) -> Checked {
        self.write_items();
        self.setup.write(self.folder.path(), &self.provider);
        let path = self.folder.path().join(self.form.out_file());
        let before = std::fs::read(&path).unwrap_or_default();
        if before.is_empty() {
            return Ok(());
        }
        self.commands += 1;
        self.provider.begin(None, &self.faults, &[]);
        let newest = self.newest();
        let ended = self.say(&self.form.run("other.toml"));
        let is_refused = ended.code == Some(4) && ended.err.contains("holds what this run did not write");
        if !is_refused || !self.provider.calls().is_empty() || self.newest() != newest {
            return violated(
                "a run replaces no output of another",
                format!("{:?}: {}", ended.code, ended.err),
            );
        }
        if std::fs::read(&path).unwrap_or_default() != before {
            return violated("a refused run changes no output", ended.err);
        }
        Ok(())
    }
}
