//! The rows of items and steps: the columns, and the checksum over them.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::record::{ItemHead, ItemNumber, OutcomeRecord, Record, StepRecord, StepState};
use crate::types::{Fingerprint, ItemKey, ItemStatus, NanoUsd, StepName, Tokens, Usage, UsageTotals};

/// The state of an item that has not finished.
const UNFINISHED: &str = "open";

/// A row of `items`.
pub(super) struct ItemRow<'a> {
    pub(super) run: i64,
    pub(super) head: &'a ItemHead,
    pub(super) state: &'a str,
    pub(super) revision: i64,
    pub(super) step: Option<&'a str>,
    pub(super) failure: Option<Box<str>>,
    pub(super) duration_us: i64,
    pub(super) incarnations: i64,
    pub(super) session: Option<i64>,
}

impl<'a> ItemRow<'a> {
    pub(super) fn of(record: &'a Record) -> Result<Self, serde_json::Error> {
        let run = record.run.0;
        let head = &*record.item;
        let outcome = record.outcome.as_ref();
        let error = outcome.and_then(|outcome| outcome.error.as_ref());
        Ok(Self {
            run,
            head,
            state: outcome.map_or(UNFINISHED, |outcome| outcome.status.as_str()),
            revision: outcome.map_or(0, |outcome| outcome.revision),
            step: error.map(|(step, _)| step.as_str()),
            failure: error.map(|(_, failure)| as_json(failure)).transpose()?,
            duration_us: outcome
                .map_or(0, |outcome| i64::try_from(outcome.duration.as_micros()).unwrap_or(i64::MAX)),
            incarnations: outcome.map_or(0, |outcome| outcome.incarnations as i64),
            session: outcome.and_then(|outcome| outcome.session),
        })
    }

    pub(super) fn checksum(&self) -> i64 {
        let mut checksum = RowChecksum::default();
        checksum.numbers(&[
            self.run,
            self.head.number.0,
            self.head.line as i64,
            self.revision,
            self.duration_us,
            self.incarnations,
        ]);
        checksum.text(Some(self.head.key.as_str()));
        checksum.bytes(Some(&self.head.content.0));
        checksum.text(self.head.input.as_deref());
        checksum.text(Some(self.state));
        checksum.text(self.step);
        checksum.text(self.failure.as_deref());
        // Rows before version 3 have none.
        if let Some(session) = self.session {
            checksum.numbers(&[session]);
        }
        checksum.finish()
    }
}

/// A row of `steps`.
pub(super) struct StepRow<'a> {
    pub(super) run: i64,
    pub(super) item: ItemNumber,
    pub(super) session: i64,
    pub(super) step: &'a str,
    pub(super) state: StepState,
    pub(super) answer_key: Option<Fingerprint>,
    pub(super) answer: Option<Box<str>>,
    pub(super) failure: Option<Box<str>>,
    pub(super) simulated: bool,
    pub(super) attempts: Box<str>,
    pub(super) usage: UsageTotals,
    pub(super) restored_from: Option<i64>,
    pub(super) files: Option<Box<str>>,
    pub(super) reused: Option<Box<str>>,
}

impl<'a> StepRow<'a> {
    pub(super) fn of(record: &Record, step: &'a StepRecord) -> Result<Self, serde_json::Error> {
        let answer = match (step.state, step.restored_from) {
            (StepState::Answered, None) => Some(as_json(&step.answer)?),
            // The record of the earlier session has it.
            (StepState::Answered, Some(_)) => None,
            (StepState::Failed | StepState::Skipped | StepState::Open, _) => None,
        };
        Ok(Self {
            run: record.run.0,
            item: record.item.number,
            session: record.session,
            step: step.step.as_str(),
            state: step.state,
            answer_key: step.answer_key,
            answer,
            failure: step.failure.as_ref().map(as_json).transpose()?,
            simulated: step.simulated,
            attempts: as_json(&step.attempts)?,
            usage: UsageTotals::of(&step.attempts),
            restored_from: step.restored_from,
            files: (!step.files.is_empty()).then(|| as_json(&step.files)).transpose()?,
            reused: step.reused.as_ref().map(as_json).transpose()?,
        })
    }

    pub(super) fn numbers(&self) -> [i64; 9] {
        let UsageTotals { calls, possibly_charged, tokens, cost, calls_of_unknown_cost } = self.usage;
        [
            calls,
            possibly_charged,
            tokens.input.0,
            tokens.cached.0,
            tokens.cache_write.0,
            tokens.output.0,
            tokens.reasoning.0,
            cost.0,
            calls_of_unknown_cost,
        ]
        .map(|number| i64::try_from(number).unwrap_or(i64::MAX))
    }

    pub(super) fn checksum(&self) -> i64 {
        let mut checksum = RowChecksum::default();
        checksum.numbers(&[self.run, self.item.0, self.session, i64::from(self.simulated)]);
        checksum.numbers(&self.numbers());
        checksum.text(Some(self.step));
        checksum.text(Some(self.state.as_str()));
        checksum.bytes(self.answer_key.as_ref().map(|key| key.0.as_slice()));
        checksum.text(self.answer.as_deref());
        checksum.text(self.failure.as_deref());
        checksum.text(Some(&self.attempts));
        // Rows before version 3 have neither.
        if self.restored_from.is_some() || self.files.is_some() {
            checksum.numbers(&[self.restored_from.unwrap_or(0)]);
            checksum.text(self.files.as_deref());
        }
        // Rows before version 5 do not have it.
        if self.reused.is_some() {
            checksum.text(self.reused.as_deref());
        }
        checksum.finish()
    }
}

/// An error of a row that differs from what was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    /// A column is missing or has another type.
    #[error(transparent)]
    Column(#[from] sqlx::Error),
    /// A text is not the expected JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The checksum does not match.
    #[error("the checksum of a row does not match its content")]
    Checksum,
    /// An unknown state.
    #[error("an unknown word: {0}")]
    Word(Box<str>),
}

/// Reads a row of `items` without its steps.
pub(super) fn item(row: &SqliteRow) -> Result<(ItemHead, Option<OutcomeRecord>), RowError> {
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
        revision: row.try_get("revision")?,
        step: row.try_get("step")?,
        failure: row.try_get::<Option<&str>, _>("failure")?.map(Into::into),
        duration_us: row.try_get("duration_us")?,
        incarnations: row.try_get("incarnations")?,
        session: row.try_get("session")?,
    };
    if read.checksum() != row.try_get::<i64, _>("checksum")? {
        return Err(RowError::Checksum);
    }
    if read.state == UNFINISHED {
        return Ok((head, None));
    }
    let all = [ItemStatus::Completed, ItemStatus::Failed, ItemStatus::Skipped];
    let status = all.into_iter().find(|status| status.as_str() == read.state);
    let error = read.step.zip(read.failure.as_deref());
    let error =
        error.map(|(step, failure)| from_json(failure).map(|failure| (StepName::from(step), failure)));
    let outcome = OutcomeRecord {
        status: status.ok_or_else(|| RowError::Word(read.state.into()))?,
        error: error.transpose()?,
        duration: Duration::from_micros(read.duration_us as u64),
        incarnations: read.incarnations as u64,
        revision: read.revision,
        session: read.session,
    };
    Ok((head, Some(outcome)))
}

/// Reads a row of `steps` and the number of its item.
pub(super) fn step(row: &SqliteRow) -> Result<(ItemNumber, StepRecord), RowError> {
    let state: &str = row.try_get("state")?;
    let spent = |column: &str| row.try_get::<i64, _>(column).map(|number| number as u64);
    let tokens = Usage {
        input: Tokens(spent("input")?),
        cached: Tokens(spent("cached")?),
        cache_write: Tokens(spent("cache_write")?),
        // The columns do not distinguish it; the attempts do.
        cache_write_1h: Tokens(0),
        output: Tokens(spent("output")?),
        reasoning: Tokens(spent("reasoning")?),
    };
    let spent = UsageTotals {
        calls: spent("calls")?,
        possibly_charged: spent("possibly_charged")?,
        tokens,
        cost: NanoUsd(spent("cost")?),
        calls_of_unknown_cost: spent("unknown_cost")?,
    };
    let read = StepRow {
        run: row.try_get("run")?,
        item: ItemNumber(row.try_get("item")?),
        session: row.try_get("session")?,
        step: row.try_get("step")?,
        state: StepState::parse(state).ok_or_else(|| RowError::Word(state.into()))?,
        answer_key: row.try_get::<Option<&[u8]>, _>("answer_key")?.map(fingerprint).transpose()?,
        answer: row.try_get::<Option<&str>, _>("answer")?.map(Into::into),
        failure: row.try_get::<Option<&str>, _>("failure")?.map(Into::into),
        simulated: row.try_get("simulated")?,
        attempts: row.try_get::<&str, _>("attempts")?.into(),
        usage: spent,
        restored_from: row.try_get("restored_from")?,
        files: row.try_get::<Option<&str>, _>("files")?.map(Into::into),
        reused: row.try_get::<Option<&str>, _>("reused")?.map(Into::into),
    };
    if read.checksum() != row.try_get::<i64, _>("checksum")? {
        return Err(RowError::Checksum);
    }
    let record = StepRecord {
        step: read.step.into(),
        state: read.state,
        answer_key: read.answer_key,
        answer: read.answer.as_deref().map_or(Ok(Value::Null), from_json)?,
        failure: read.failure.as_deref().map(from_json).transpose()?,
        simulated: read.simulated,
        attempts: from_json(&read.attempts)?,
        restored_from: read.restored_from,
        files: read.files.as_deref().map_or_else(|| Ok(Vec::new()), from_json)?,
        reused: read.reused.as_deref().map(from_json).transpose()?,
        cache_key: None,
    };
    Ok((read.item, record))
}

pub(super) fn fingerprint(bytes: &[u8]) -> Result<Fingerprint, RowError> {
    bytes.try_into().map(Fingerprint).map_err(|_| RowError::Checksum)
}

pub(super) fn as_json<T: serde::Serialize>(value: &T) -> Result<Box<str>, serde_json::Error> {
    serde_json::to_string(value).map(Into::into)
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}

/// The first eight bytes of the SHA-256 of a row.
#[derive(Default)]
pub(super) struct RowChecksum(Sha256);

impl RowChecksum {
    pub(super) fn numbers(&mut self, numbers: &[i64]) {
        numbers.iter().for_each(|number| self.0.update(number.to_le_bytes()));
    }

    pub(super) fn text(&mut self, text: Option<&str>) {
        self.bytes(text.map(str::as_bytes));
    }

    /// Includes the length, and whether there is a value.
    pub(super) fn bytes(&mut self, bytes: Option<&[u8]>) {
        self.numbers(&[bytes.map_or(-1, |bytes| bytes.len() as i64)]);
        self.0.update(bytes.unwrap_or_default());
    }

    pub(super) fn finish(self) -> i64 {
        let digest = self.0.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        i64::from_le_bytes(first)
    }
}
