//! The actions of the user: edits and commands. Numbers are taken modulo the number of existing things. So
//! every action is possible in every state, and a history can be shortened by leaving out actions.

use fastrand::Rng;

use super::outages::{AffectedProviders, OutageEnd, OutageKind};

/// One action of a history.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Edits a field of an item.
    Text(u8, u8),
    Tag(u8, u8),
    Picture(u8, u8),
    /// Adds, removes or shuffles items.
    Add(u8),
    Remove(u8),
    Shuffle(u64),
    /// Adds extra records to the input, or removes all of them.
    AddMalformedRecord(u8, u8),
    AddDuplicateKey(u8, u8, u8),
    RemoveExtraRecords,
    /// Edits the pipeline.
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
    StepRoute(u8, u8),
    /// Edits the configuration.
    Route(u8, u8),
    SwapRoutes,
    SwapModels(u8),
    Price(u8, u8),
    /// Replaces the content of a picture file.
    ReplacePicture(u8, u8),
    /// Adds or removes faults of the provider.
    Fault(u8, u8, FaultKind),
    RemoveFaults(u8),
    /// Providers refuse every request until they are restored.
    Outage(OutageKind, AffectedProviders),
    Restore,
    /// Deletes the output file (`true`) or cuts it in half.
    DamageOutput(bool),
    /// Starts another run with the same output file.
    OtherRun,
    /// Runs a command.
    Run,
    RunNew,
    Resume,
    Retry(Option<FaultKind>),
    Cancel,
    /// Runs a command and causes an event during the run, after this number of requests.
    RunWithEvent(Command, u8, ConcurrentEvent),
    /// Runs a command whose process aborts at a passage of a failure point.
    #[cfg(feature = "chaos")]
    CrashAt(Command, u8, u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    Refusal,
    WrongAnswer,
    WrongAnswerOnce,
    TooLong,
    TooLongForFirstTarget,
}

/// A command that processes items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Run,
    Resume,
    Retry,
}

/// An event during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConcurrentEvent {
    Kill,
    Stop,
    StopTwice,
    Cancel,
    /// A second process starts the same run.
    SecondProcess,
    /// Another run is started with the same output file.
    OtherRun,
    /// Another command exports the results to the same output file.
    Export,
    /// An item is appended to the input.
    AppendItem(u8),
    /// The input is replaced: an item has another text.
    ReplaceItem(u8, u8),
    /// Providers start to refuse every request.
    Outage(OutageKind, AffectedProviders, OutageEnd),
}

/// The failure points at which the process aborts.
#[cfg(feature = "chaos")]
pub(crate) const CRASH_POINTS: [&str; 8] = [
    "item.started",
    "call.headers",
    "item.answered",
    "ledger.commit",
    "store.commit",
    "ledger.committed",
    "sink.line",
    "run.ends",
];

/// Generates a history. Its last command is a complete run.
pub(crate) fn generate_history(seed: u64) -> Vec<Action> {
    let mut random = Rng::with_seed(seed);
    let mut actions = vec![];
    let commands = random.u8(3..8);
    for _ in 0..commands {
        for _ in 0..random.u8(0..4) {
            actions.push(random_edit(&mut random));
        }
        actions.push(random_command(&mut random));
    }
    if random.bool() {
        actions.push(random_edit(&mut random));
    }
    actions.push(Action::Restore);
    actions.push(Action::Run);
    actions
}

fn random_edit(random: &mut Rng) -> Action {
    let first = random.u8(0..8);
    let second = random.u8(0..3);
    match random.u8(0..54) {
        0..8 => Action::Text(first, second),
        8..10 => Action::Tag(first, second),
        10..12 => Action::Picture(first, second),
        12..15 => Action::Add(first),
        15..17 => Action::Remove(first),
        17 => Action::Shuffle(random.u64(..)),
        18..22 => Action::Prompt(first, second),
        22 => Action::System(second),
        23 => Action::Choices(second),
        24 => Action::Condition(second),
        25 => Action::PhotoIsOptional(random.bool()),
        26 => {
            let is_enabled = random.bool();
            [Action::HasPhoto, Action::HasLast, Action::HasFacts][random.usize(0..3)](is_enabled)
        }
        27 => Action::StepRoute(first, second),
        28 | 29 => Action::Route(first, random.u8(0..16)),
        30 => Action::SwapRoutes,
        31 => Action::SwapModels(random.u8(0..6)),
        32 => {
            if random.bool() {
                Action::Price(first, second)
            } else {
                Action::Limit(second)
            }
        }
        33 | 34 => Action::ReplacePicture(first, second),
        35..38 => Action::Fault(first, random.u8(0..5), random_fault(random)),
        40 | 41 => Action::AddMalformedRecord(first, second),
        42 | 43 => Action::AddDuplicateKey(first, random.u8(0..8), second),
        44 => Action::RemoveExtraRecords,
        45 => Action::Schema(second),
        46 => Action::Fault(first, [1, 4][random.usize(0..2)], FaultKind::WrongAnswerOnce),
        38 => Action::RemoveFaults(first),
        47..50 => Action::Outage(random_outage_kind(random), random_affected_providers(random)),
        50..54 => Action::Restore,
        _ => Action::DamageOutput(random.bool()),
    }
}

fn random_outage_kind(random: &mut Rng) -> OutageKind {
    [OutageKind::Unavailable, OutageKind::Quota, OutageKind::Key, OutageKind::ConnectionClosed]
        [random.usize(0..4)]
}

fn random_affected_providers(random: &mut Rng) -> AffectedProviders {
    [
        AffectedProviders::Both,
        AffectedProviders::Both,
        AffectedProviders::One("a"),
        AffectedProviders::One("b"),
    ][random.usize(0..4)]
}

fn random_outage(random: &mut Rng) -> ConcurrentEvent {
    let kind = random_outage_kind(random);
    // An exhausted quota is retried only after seconds, and later each time. So one refusal is enough.
    let refusals = if kind == OutageKind::Quota { 1 } else { random.u8(1..8) };
    let end = [OutageEnd::AfterRefusals(refusals), OutageEnd::AfterRun, OutageEnd::Kill, OutageEnd::Stop]
        [random.usize(0..4)];
    ConcurrentEvent::Outage(kind, random_affected_providers(random), end)
}

fn random_fault(random: &mut Rng) -> FaultKind {
    use FaultKind::{Refusal, TooLong, TooLongForFirstTarget, WrongAnswer, WrongAnswerOnce};
    [Refusal, WrongAnswer, WrongAnswerOnce, TooLong, TooLongForFirstTarget][random.usize(0..5)]
}

fn random_command(random: &mut Rng) -> Action {
    let command = [Command::Run, Command::Run, Command::Resume, Command::Retry][random.usize(0..4)];
    match random.u8(0..21) {
        20 => Action::OtherRun,
        0..6 => Action::Run,
        6 => Action::RunNew,
        7 | 8 => Action::Resume,
        9 | 10 => Action::Retry(None),
        11 => Action::Retry(Some(random_fault(random))),
        12 => Action::Cancel,
        #[cfg(feature = "chaos")]
        13..16 => Action::CrashAt(command, random.u8(..), random.u8(1..6)),
        _ => Action::RunWithEvent(command, random.u8(0..8), random_event(random)),
    }
}

fn random_event(random: &mut Rng) -> ConcurrentEvent {
    match random.u8(0..15) {
        11..15 => random_outage(random),
        0 | 1 => ConcurrentEvent::Kill,
        2 => ConcurrentEvent::Stop,
        3 => ConcurrentEvent::StopTwice,
        4 => ConcurrentEvent::Cancel,
        5 => ConcurrentEvent::SecondProcess,
        9 => ConcurrentEvent::OtherRun,
        10 => ConcurrentEvent::Export,
        6 => ConcurrentEvent::AppendItem(random.u8(0..8)),
        _ => ConcurrentEvent::ReplaceItem(random.u8(0..8), random.u8(0..3)),
    }
}
