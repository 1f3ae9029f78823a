//! The rows of items and steps: what is in each column, and the seal over them.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::record::{ItemHead, ItemNumber, Record, SettledRecord, StepRecord, StepState};
use crate::types::{Fingerprint, ItemKey, ItemStatus, NanoUsd, Spent, StepName, Tokens, Usage};

/// The state of an item that is on its way.
const OPEN: &str = "open";

/// A row of `items`.
pub(super) struct ItemRow<'a> {
    pub(super) run: i64,
    pub(super) head: &'a ItemHead,
    pub(super) state: &'a str,
    pub(super) edition: i64,
    pub(super) step: Option<&'a str>,
    pub(super) failure: Option<Box<str>>,
    pub(super) took: i64,
    pub(super) lives: i64,
    pub(super) session: Option<i64>,
}

impl<'a> ItemRow<'a> {
    pub(super) fn of(record: &'a Record) -> Result<Self, serde_json::Error> {
        let (run, head, settled) = (record.run.0, &*record.item, record.settled.as_ref());
        let error = settled.and_then(|settled| settled.error.as_ref());
        Ok(Self {
            run,
            head,
            state: settled.map_or(OPEN, |settled| settled.status.as_str()),
            edition: settled.map_or(0, |settled| settled.edition),
            step: error.map(|(step, _)| step.as_str()),
            failure: error.map(|(_, failure)| as_json(failure)).transpose()?,
            took: settled.map_or(0, |settled| i64::try_from(settled.took.as_micros()).unwrap_or(i64::MAX)),
            lives: settled.map_or(0, |settled| settled.lives as i64),
            session: settled.and_then(|settled| settled.session),
        })
    }

    pub(super) fn seal(&self) -> i64 {
        let mut seal = Seal::default();
        seal.numbers(&[
            self.run,
            self.head.number.0,
            self.head.line as i64,
            self.edition,
            self.took,
            self.lives,
        ]);
        seal.text(Some(self.head.key.as_str()));
        seal.bytes(Some(&self.head.content.0));
        seal.text(self.head.input.as_deref());
        seal.text(Some(self.state));
        seal.text(self.step);
        seal.text(self.failure.as_deref());
        // Rows of versions before the third have none.
        if let Some(session) = self.session {
            seal.numbers(&[session]);
        }
        seal.close()
    }
}

/// A row of `steps`.
pub(super) struct StepRow<'a> {
    pub(super) run: i64,
    pub(super) item: ItemNumber,
    pub(super) session: i64,
    pub(super) step: &'a str,
    pub(super) state: StepState,
    pub(super) shaped: Option<Fingerprint>,
    pub(super) answer: Option<Box<str>>,
    pub(super) failure: Option<Box<str>>,
    pub(super) practice: bool,
    pub(super) trail: Box<str>,
    pub(super) spent: Spent,
    pub(super) recalled: Option<i64>,
    pub(super) files: Option<Box<str>>,
}

impl<'a> StepRow<'a> {
    pub(super) fn of(record: &Record, step: &'a StepRecord) -> Result<Self, serde_json::Error> {
        let answer = match (step.state, step.recalled) {
            (StepState::Answered, None) => Some(as_json(&step.answer)?),
            // It stands where the earlier session put it.
            (StepState::Answered, Some(_)) => None,
            (StepState::Failed | StepState::Skipped | StepState::Open, _) => None,
        };
        Ok(Self {
            run: record.run.0,
            item: record.item.number,
            session: record.session,
            step: step.step.as_str(),
            state: step.state,
            shaped: step.shaped,
            answer,
            failure: step.failure.as_ref().map(as_json).transpose()?,
            practice: step.practice,
            trail: as_json(&step.trail)?,
            spent: Spent::of(&step.trail),
            recalled: step.recalled,
            files: (!step.files.is_empty()).then(|| as_json(&step.files)).transpose()?,
        })
    }

    pub(super) fn numbers(&self) -> [i64; 9] {
        let Spent { calls, maybe_charged, tokens, cost, unknown } = self.spent;
        [
            calls,
            maybe_charged,
            tokens.input.0,
            tokens.cached.0,
            tokens.cache_write.0,
            tokens.output.0,
            tokens.reasoning.0,
            cost.0,
            unknown,
        ]
        .map(|number| i64::try_from(number).unwrap_or(i64::MAX))
    }

    pub(super) fn seal(&self) -> i64 {
        let mut seal = Seal::default();
        seal.numbers(&[self.run, self.item.0, self.session, i64::from(self.practice)]);
        seal.numbers(&self.numbers());
        seal.text(Some(self.step));
        seal.text(Some(self.state.as_str()));
        seal.bytes(self.shaped.as_ref().map(|shaped| shaped.0.as_slice()));
        seal.text(self.answer.as_deref());
        seal.text(self.failure.as_deref());
        seal.text(Some(&self.trail));
        // Rows of versions before the third have neither.
        if self.recalled.is_some() || self.files.is_some() {
            seal.numbers(&[self.recalled.unwrap_or(0)]);
            seal.text(self.files.as_deref());
        }
        seal.close()
    }
}

/// What a row holds that cannot be what was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Odd {
    /// A column is missing or of another kind.
    #[error(transparent)]
    Column(#[from] sqlx::Error),
    /// A text is no JSON of that kind.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The seal does not fit.
    #[error("the content of a row is not what was written")]
    Seal,
    /// A word is none of those that are written.
    #[error("an unknown word: {0}")]
    Word(Box<str>),
}

/// Reads a row of `items`; its steps come from elsewhere.
pub(super) fn item(row: &SqliteRow) -> Result<(ItemHead, Option<SettledRecord>), Odd> {
    let head = ItemHead {
        number: ItemNumber(row.try_get("item")?),
        key: ItemKey::from(row.try_get::<&str, _>("key")?),
        content: fingerprint(row.try_get("content")?)?,
        line: row.try_get::<i64, _>("line")? as u64,
        input: row.try_get::<Option<&str>, _>("input")?.map(Into::into),
    };
    let read = ItemRow {
        run: row.try_get("run")?,
        head: &head,
        state: row.try_get("state")?,
        edition: row.try_get("edition")?,
        step: row.try_get("step")?,
        failure: row.try_get::<Option<&str>, _>("failure")?.map(Into::into),
        took: row.try_get("took")?,
        lives: row.try_get("lives")?,
        session: row.try_get("session")?,
    };
    if read.seal() != row.try_get::<i64, _>("seal")? {
        return Err(Odd::Seal);
    }
    if read.state == OPEN {
        return Ok((head, None));
    }
    let all = [ItemStatus::Completed, ItemStatus::Failed, ItemStatus::Skipped];
    let status = all.into_iter().find(|status| status.as_str() == read.state);
    let error = read.step.zip(read.failure.as_deref());
    let error =
        error.map(|(step, failure)| from_json(failure).map(|failure| (StepName::from(step), failure)));
    let settled = SettledRecord {
        status: status.ok_or_else(|| Odd::Word(read.state.into()))?,
        error: error.transpose()?,
        took: Duration::from_micros(read.took as u64),
        lives: read.lives as u64,
        edition: read.edition,
        session: read.session,
    };
    Ok((head, Some(settled)))
}

/// Reads a row of `steps`, and whose it is.
pub(super) fn step(row: &SqliteRow) -> Result<(ItemNumber, StepRecord), Odd> {
    let state: &str = row.try_get("state")?;
    let spent = |column: &str| row.try_get::<i64, _>(column).map(|number| number as u64);
    let tokens = Usage {
        input: Tokens(spent("input")?),
        cached: Tokens(spent("cached")?),
        cache_write: Tokens(spent("written")?),
        output: Tokens(spent("output")?),
        reasoning: Tokens(spent("reasoned")?),
    };
    let spent = Spent {
        calls: spent("calls")?,
        maybe_charged: spent("maybe")?,
        tokens,
        cost: NanoUsd(spent("cost")?),
        unknown: spent("unknown")?,
    };
    let read = StepRow {
        run: row.try_get("run")?,
        item: ItemNumber(row.try_get("item")?),
        session: row.try_get("session")?,
        step: row.try_get("step")?,
        state: StepState::from_word(state).ok_or_else(|| Odd::Word(state.into()))?,
        shaped: row.try_get::<Option<&[u8]>, _>("shaped")?.map(fingerprint).transpose()?,
        answer: row.try_get::<Option<&str>, _>("answer")?.map(Into::into),
        failure: row.try_get::<Option<&str>, _>("failure")?.map(Into::into),
        practice: row.try_get("practice")?,
        trail: row.try_get::<&str, _>("trail")?.into(),
        spent,
        recalled: row.try_get("recalled")?,
        files: row.try_get::<Option<&str>, _>("files")?.map(Into::into),
    };
    if read.seal() != row.try_get::<i64, _>("seal")? {
        return Err(Odd::Seal);
    }
    let record = StepRecord {
        step: read.step.into(),
        state: read.state,
        shaped: read.shaped,
        answer: read.answer.as_deref().map_or(Ok(Value::Null), from_json)?,
        failure: read.failure.as_deref().map(from_json).transpose()?,
        practice: read.practice,
        trail: from_json(&read.trail)?,
        recalled: read.recalled,
        files: read.files.as_deref().map_or_else(|| Ok(Vec::new()), from_json)?,
    };
    Ok((read.item, record))
}

fn fingerprint(bytes: &[u8]) -> Result<Fingerprint, Odd> {
    bytes.try_into().map(Fingerprint).map_err(|_| Odd::Seal)
}

fn as_json<T: serde::Serialize>(value: &T) -> Result<Box<str>, serde_json::Error> {
    serde_json::to_string(value).map(Into::into)
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}

/// The first eight bytes of SHA-256 over what a row holds.
#[derive(Default)]
pub(super) struct Seal(Sha256);

impl Seal {
    pub(super) fn numbers(&mut self, numbers: &[i64]) {
        numbers.iter().for_each(|number| self.0.update(number.to_le_bytes()));
    }

    pub(super) fn text(&mut self, text: Option<&str>) {
        self.bytes(text.map(str::as_bytes));
    }

    /// Its length counts too, and whether there is anything.
    fn bytes(&mut self, bytes: Option<&[u8]>) {
        self.numbers(&[bytes.map_or(-1, |bytes| bytes.len() as i64)]);
        self.0.update(bytes.unwrap_or_default());
    }

    pub(super) fn close(self) -> i64 {
        let digest = self.0.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        i64::from_le_bytes(first)
    }
}
