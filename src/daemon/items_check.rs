//! Whether the items of a run can be read. Those in another format are refused before there is a run.

use crate::pipeline::Pipeline;
use crate::run::LastReport;
use crate::source::{Entry, Error as SourceError, Source, memory_of};
use crate::store::StoredRun;
use crate::types::{Remedy, error_chain};

use super::error::Error;
use super::run_command::RunCommand;

/// How many records are read at most.
const MAX_RECORDS: u64 = 1_000;

/// About how many bytes are read at most.
const MAX_BYTES: usize = 1 << 20;

/// Fails if the items cannot be read as a run of the pipeline would read them, if there are none, or if none of the first
/// records is an item. Later records are not read: those that are not items are among the rejects of the run.
pub(super) async fn check_head(source: Source, pipeline: &Pipeline) -> Result<(), Error> {
    let name = source.name().to_owned();
    let mut reader = source.read().map_err(of_source)?;
    let mut records = 0;
    let mut bytes = 0;
    let mut has_item = false;
    let mut first_reject = None;
    while records < MAX_RECORDS && bytes < MAX_BYTES {
        let Some(entry) = reader.next().await else { break };
        records += 1;
        let reject = match entry.map_err(of_source)? {
            Entry::Item(item) => {
                bytes += memory_of(&item.value);
                let checked = pipeline.validate_item(&item.value);
                checked.err().map(|reason| (item.line, reason))
            }
            Entry::Rejected(reject) => {
                bytes += reject.text.len();
                Some((reject.line, reject.reason))
            }
        };
        match reject {
            Some(reject) => first_reject = first_reject.or(Some(reject)),
            None => has_item = true,
        }
    }
    match first_reject {
        _ if has_item => Ok(()),
        None => Err(Error::invalid(format!("{name}: there is no item; send one item or more"))),
        Some((line, reason)) => Err(Error::invalid(format!(
            "{name}: none of the first records ({records}) is an item: line {line} {reason}; check the format, which is \
             jsonl, json, csv or tsv"
        ))),
    }
}

/// Returns whether the last session of a run ended because of its items. Those that came one at a time are written by the
/// daemon, so only the disk can have failed.
pub(super) fn has_faulty_items(run: &StoredRun) -> bool {
    let is_one_at_a_time = RunCommand::of(run).is_some_and(|command| command.one_at_a_time);
    !is_one_at_a_time && LastReport::of(run).input_error.is_some()
}

/// Items that cannot be read as what they are said to be are an error of who sent them.
fn of_source(error: SourceError) -> Error {
    match error {
        SourceError::Directory { .. }
        | SourceError::Encoding { .. }
        | SourceError::Changed { .. }
        | SourceError::Value { .. }
        | SourceError::Layout { .. }
        | SourceError::Compressed { .. }
        | SourceError::Unreadable { .. }
        | SourceError::NoFiles { .. }
        | SourceError::Syntax { .. } => Error::invalid(with_parameter(&error)),
        SourceError::Open { .. }
        | SourceError::Thread { .. }
        | SourceError::Read { .. }
        | SourceError::Panicked { .. } => Error::io("read the items")(std::io::Error::other(error)),
    }
}

/// Returns the message of an error, with the parameter that sets the format if that is the remedy.
fn with_parameter(error: &SourceError) -> String {
    let message = error_chain(error);
    let Some(advice) = error.advice() else { return message };
    let annotated = advice.annotated(|remedy| match remedy {
        Remedy::SetInputFormat(format) => Some(format!("format={format}")),
        Remedy::Simulate
        | Remedy::UseRealAnswers
        | Remedy::NameModel
        | Remedy::WriteConfiguration
        | Remedy::NameConfiguration
        | Remedy::AcceptChanges
        | Remedy::BeginNewRun
        | Remedy::Overwrite
        | Remedy::SetDelimiter
        | Remedy::SetItemsKey
        | Remedy::OpenCopy
        | Remedy::ListRuns
        | Remedy::MinimalColumns
        | Remedy::WriteToFile => None,
    });
    match message.strip_suffix(&advice.to_string()) {
        Some(start) => format!("{start}{annotated}"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::daemon::run_command::ItemsFile;
    use crate::store::{RunMetadata, RunNumber, RunState};

    fn failed_run(one_at_a_time: bool, report: Value) -> StoredRun {
        let command = RunCommand {
            pipeline: "one".to_owned(),
            version: None,
            directory: None,
            items: ItemsFile { id: "a".to_owned(), path: None, format: None },
            created_by: String::new(),
            one_at_a_time,
        };
        StoredRun {
            number: RunNumber(1),
            identity: "daemon:a".to_owned(),
            metadata: RunMetadata {
                name: "one".to_owned(),
                command: command.to_value(),
                pipeline: String::new(),
                manifest: Value::Null,
            },
            revision: 1,
            sessions: 1,
            state: RunState::IoFailed,
            created_at: 0,
            updated_at: 0,
            outcome: json!({ "session": 1, "report": report }),
        }
    }

    #[test]
    fn only_items_that_cannot_be_read_make_another_session_useless() {
        let of_input = json!({ "input_error": "the items, line 7: a value is missing" });
        assert!(has_faulty_items(&failed_run(false, of_input.clone())));
        assert!(!has_faulty_items(&failed_run(true, of_input)));
        for other in [json!({ "store_error": "full" }), json!({ "output_error": "full" }), Value::Null] {
            assert!(!has_faulty_items(&failed_run(false, other)));
        }
    }
}
