//! Checks that every tool call of a conversation has a result, and every result a call.
//!
//! A turn is all neighboring messages of one side. The turn after a call contains its result.

/// What is wrong with the calls and results of a conversation. `message` is the index of the message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PairingError {
    ResultWithoutCall { message: usize, key: String },
    CallsWithoutResult { message: usize, keys: Vec<String> },
}

/// The calls that have no result yet. A key is the id of a call, or the name of its tool.
#[derive(Debug, Default)]
pub(super) struct ToolPairing<'a> {
    unanswered: Vec<(usize, &'a str)>,
    is_model_turn: bool,
}

impl<'a> ToolPairing<'a> {
    /// Begins a message of the model or of the other side.
    pub(super) fn begin_message(&mut self, is_model: bool) -> Result<(), PairingError> {
        if is_model && !self.is_model_turn {
            self.check_answered()?;
        }
        self.is_model_turn = is_model;
        Ok(())
    }

    /// Adds a call of the message.
    pub(super) fn call(&mut self, message: usize, key: &'a str) {
        self.unanswered.push((message, key));
    }

    /// Adds a result of the message.
    pub(super) fn result(&mut self, message: usize, key: &str) -> Result<(), PairingError> {
        match self.unanswered.iter().position(|(_, call)| *call == key) {
            Some(position) => {
                self.unanswered.remove(position);
                Ok(())
            }
            None => Err(PairingError::ResultWithoutCall { message, key: key.to_owned() }),
        }
    }

    /// Ends the conversation.
    pub(super) fn finish(self) -> Result<(), PairingError> {
        self.check_answered()
    }

    fn check_answered(&self) -> Result<(), PairingError> {
        let Some((message, _)) = self.unanswered.first() else { return Ok(()) };
        let keys = self.unanswered.iter().map(|(_, key)| (*key).to_owned()).collect();
        Err(PairingError::CallsWithoutResult { message: *message, keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_its_result_in_the_next_turn() {
        let mut pairing = ToolPairing::default();
        pairing.begin_message(false).unwrap();
        pairing.begin_message(true).unwrap();
        pairing.call(1, "a");
        pairing.call(1, "b");
        pairing.begin_message(false).unwrap();
        pairing.result(2, "b").unwrap();
        let wrong = pairing.result(2, "c");
        assert_eq!(wrong, Err(PairingError::ResultWithoutCall { message: 2, key: "c".to_owned() }));
        let missing = PairingError::CallsWithoutResult { message: 1, keys: vec!["a".to_owned()] };
        assert_eq!(pairing.begin_message(true).unwrap_err(), missing);
        pairing.result(3, "a").unwrap();
        pairing.begin_message(true).unwrap();
        assert_eq!(pairing.finish(), Ok(()));
    }
}
