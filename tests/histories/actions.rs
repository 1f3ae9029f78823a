//! What a user does: edits, and commands. Numbers are taken modulo what is there, so that every action is possible in
//! every state, and a history can be shortened by leaving actions out.

use fastrand::Rng;

use super::outages::{Ending, Kind, Which};

/// One action of a history.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Items: other fields.
    Text(u8, u8),
    Tag(u8, u8),
    Picture(u8, u8),
    /// Items: added, removed, in another order.
    Add(u8),
    Remove(u8),
    Shuffle(u64),
    /// The input: records that are no items, or have the key of another; and without any.
    Bad(u8, u8),
    Twin(u8, u8, u8),
    Mend,
    /// The pipeline.
    Prompt(u8, u8),
    System(u8),
    Limit(u8),
    Choices(u8),
    Schema(u8),
    HasFacts(bool),
    Condition(u8),
    PhotoIsOptional(bool),
    HasPhoto(bool),
    HasLast(bool),
    Move(u8, u8),
    /// The configuration.
    Route(u8, u8),
    SwapRoutes,
    Models(u8),
    Price(u8, u8),
    /// A picture is replaced under its name.
    Replace(u8, u8),
    /// What the provider fails.
    Fault(u8, u8, FaultKind),
    Heal(u8),
    /// Providers refuse everything, from now on until they are restored.
    Outage(Kind, Which),
    Restore,
    /// The output is lost.
    LoseOutput(bool),
    /// Another run is to write to the same output.
    Other,
    /// Commands.
    Run,
    New,
    Resume,
    Retry(Option<FaultKind>),
    Cancel,
    /// Commands that end before the run does, or meet something while it is at work: after this many requests.
    AtWork(Command, u8, Meanwhile),
    /// The process dies at a point of the program.
    #[cfg(feature = "chaos")]
    Dies(Command, u8, u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    Refusal,
    Wrong,
    WrongOnce,
    TooLong,
    TooLongForFirst,
}

/// A command that works on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Run,
    Resume,
    Retry,
}

/// What happens while a run is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    Kill,
    Stop,
    StopTwice,
    Cancel,
    /// A second process begins the same run.
    Second,
    /// Another run begins to write to the same output.
    Other,
    /// Its results are written to the same output by another command.
    Export,
    /// An item is appended to the input.
    Append(u8),
    /// The input is replaced by one in which an item is another.
    Replace(u8, u8),
    /// Providers begin to refuse everything.
    Outage(Kind, Which, Ending),
}

/// The points of the program at which it can be made to die.
#[cfg(feature = "chaos")]
pub(crate) const POINTS: [&str; 8] = [
    "item.started",
    "call.headers",
    "item.answered",
    "ledger.commit",
    "store.commit",
    "ledger.committed",
    "sink.line",
    "run.ends",
];

/// Makes a history; it ends with a whole run.
pub(crate) fn history(seed: u64) -> Vec<Action> {
    let mut random = Rng::with_seed(seed);
    let mut actions = vec![];
    let commands = random.u8(3..8);
    for _ in 0..commands {
        for _ in 0..random.u8(0..4) {
            actions.push(edit(&mut random));
        }
        actions.push(command(&mut random));
    }
    if random.bool() {
        actions.push(edit(&mut random));
    }
    actions.push(Action::Restore);
    actions.push(Action::Run);
    actions
}

fn edit(random: &mut Rng) -> Action {
    let (one, two) = (random.u8(0..8), random.u8(0..3));
    match random.u8(0..54) {
        0..8 => Action::Text(one, two),
        8..10 => Action::Tag(one, two),
        10..12 => Action::Picture(one, two),
        12..15 => Action::Add(one),
        15..17 => Action::Remove(one),
        17 => Action::Shuffle(random.u64(..)),
        18..22 => Action::Prompt(one, two),
        22 => Action::System(two),
        23 => Action::Choices(two),
        24 => Action::Condition(two),
        25 => Action::PhotoIsOptional(random.bool()),
        26 => {
            let is_there = random.bool();
            [Action::HasPhoto, Action::HasLast, Action::HasFacts][random.usize(0..3)](is_there)
        }
        27 => Action::Move(one, two),
        28 | 29 => Action::Route(one, random.u8(0..16)),
        30 => Action::SwapRoutes,
        31 => Action::Models(random.u8(0..6)),
        32 => {
            if random.bool() {
                Action::Price(one, two)
            } else {
                Action::Limit(two)
            }
        }
        33 | 34 => Action::Replace(one, two),
        35..38 => Action::Fault(one, random.u8(0..5), fault(random)),
        40 | 41 => Action::Bad(one, two),
        42 | 43 => Action::Twin(one, random.u8(0..8), two),
        44 => Action::Mend,
        45 => Action::Schema(two),
        46 => Action::Fault(one, [1, 4][random.usize(0..2)], FaultKind::WrongOnce),
        38 => Action::Heal(one),
        47..50 => Action::Outage(kind(random), which(random)),
        50..54 => Action::Restore,
        _ => Action::LoseOutput(random.bool()),
    }
}

fn kind(random: &mut Rng) -> Kind {
    [Kind::Unavailable, Kind::Quota, Kind::Key, Kind::BrokenOff][random.usize(0..4)]
}

fn which(random: &mut Rng) -> Which {
    [Which::Both, Which::Both, Which::One("a"), Which::One("b")][random.usize(0..4)]
}

fn outage(random: &mut Rng) -> Meanwhile {
    let kind = kind(random);
    // A spent quota is tried again after seconds only, and later each time.
    let refusals = if kind == Kind::Quota { 1 } else { random.u8(1..8) };
    let ending = [Ending::Passes(refusals), Ending::Lasts, Ending::Kill, Ending::Stop][random.usize(0..4)];
    Meanwhile::Outage(kind, which(random), ending)
}

fn fault(random: &mut Rng) -> FaultKind {
    use FaultKind::{Refusal, TooLong, TooLongForFirst, Wrong, WrongOnce};
    [Refusal, Wrong, WrongOnce, TooLong, TooLongForFirst][random.usize(0..5)]
}

fn command(random: &mut Rng) -> Action {
    let which = [Command::Run, Command::Run, Command::Resume, Command::Retry][random.usize(0..4)];
    match random.u8(0..21) {
        20 => Action::Other,
        0..6 => Action::Run,
        6 => Action::New,
        7 | 8 => Action::Resume,
        9 | 10 => Action::Retry(None),
        11 => Action::Retry(Some(fault(random))),
        12 => Action::Cancel,
        #[cfg(feature = "chaos")]
        13..16 => Action::Dies(which, random.u8(..), random.u8(1..6)),
        _ => Action::AtWork(which, random.u8(0..8), meanwhile(random)),
    }
}

fn meanwhile(random: &mut Rng) -> Meanwhile {
    match random.u8(0..15) {
        11..15 => outage(random),
        0 | 1 => Meanwhile::Kill,
        2 => Meanwhile::Stop,
        3 => Meanwhile::StopTwice,
        4 => Meanwhile::Cancel,
        5 => Meanwhile::Second,
        9 => Meanwhile::Other,
        10 => Meanwhile::Export,
        6 => Meanwhile::Append(random.u8(0..8)),
        _ => Meanwhile::Replace(random.u8(0..8), random.u8(0..3)),
    }
}
