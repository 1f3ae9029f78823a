//! Recognises which choice an answer means.
//!
//! Forgives how it is written: case, quotes, a label before it, a reason on another line. Never
//! guesses from prose, where "not urgent" holds "urgent" too.

use std::sync::Arc;

use serde_json::Value;

use super::json::without_fence;

/// The answers that a step allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choices {
    given: Arc<[String]>,
    forms: Vec<String>,
}

impl Choices {
    pub(super) fn new(given: Vec<String>) -> Self {
        let forms = given.iter().map(|choice| form(choice)).collect();
        Self { given: given.into(), forms }
    }

    /// Returns the choices as they were configured.
    pub(super) fn given(&self) -> &Arc<[String]> {
        &self.given
    }

    /// Returns the places of choices that cannot be told from an earlier one, each with that one.
    pub(super) fn twins(&self) -> Vec<(usize, usize)> {
        let earlier = |at: usize| self.forms[..at].iter().position(|form| *form == self.forms[at]);
        (0..self.forms.len()).filter_map(|at| Some((at, earlier(at)?))).collect()
    }

    /// Returns the choice that `answer` means, as it was configured.
    ///
    /// # Errors
    /// Why it means none, in words for the model.
    pub(super) fn pick(&self, answer: &str) -> Result<&str, String> {
        let answer = without_fence(answer.trim());
        self.whole(answer)
            .or_else(|| self.in_object(answer))
            .or_else(|| self.on_a_line(answer))
            .ok_or_else(|| format!("it is not exactly one of the allowed choices: {}", self.given.join(", ")))
    }

    fn whole(&self, text: &str) -> Option<&str> {
        let exact = self.given.iter().position(|choice| choice == text);
        let at = exact.or_else(|| {
            let wanted = form(text);
            self.forms.iter().position(|form| *form == wanted)
        })?;
        Some(&self.given[at])
    }

    /// Reads `{"answer": "URGENT"}`, whatever its one key is called.
    fn in_object(&self, text: &str) -> Option<&str> {
        if !text.starts_with('{') {
            return None;
        }
        let Ok(Value::Object(object)) = serde_json::from_str(text) else { return None };
        let only = if object.len() == 1 { object.values().next() } else { object.get("answer") };
        self.whole(only?.as_str()?)
    }

    /// Reads the one line that is a choice, or a label and a choice.
    fn on_a_line(&self, text: &str) -> Option<&str> {
        let mut found = None;
        for line in text.lines() {
            let labelled = || self.whole(line.split_once(':')?.1);
            if let Some(choice) = self.whole(line).or_else(labelled) {
                if found.is_some_and(|other| other != choice) {
                    return None;
                }
                found = Some(choice);
            }
        }
        found
    }
}

/// Returns what makes a choice itself: its words in lower case, without marks around them.
fn form(text: &str) -> String {
    let is_mark = |mark: char| mark.is_whitespace() || "\"'`“”‘’„«»*_.,;:!?()[]{}".contains(mark);
    let bare = match text.trim_matches(is_mark) {
        "" => text.trim(),
        bare => bare,
    };
    let words =
        bare.split(|space: char| space.is_whitespace() || space == '_').filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn choices() -> Choices {
        Choices::new(["URGENT", "Follow up", "OTHER"].map(str::to_owned).to_vec())
    }

    #[test]
    fn a_choice_is_recognised_however_it_is_written() {
        for answer in [
            "URGENT",
            " urgent.\n",
            "**Urgent**",
            "\"URGENT\"",
            "`urgent`",
            "Category: URGENT",
            "**Category:** Urgent",
            "{\"answer\": \"urgent\"}",
            "```json\n{\"category\": \"URGENT\"}\n```",
            "URGENT\n\nThe sender needs it today.",
            "Let me think.\n\nAnswer: urgent",
        ] {
            assert_eq!(choices().pick(answer), Ok("URGENT"), "{answer}");
        }
        assert_eq!(choices().pick("FOLLOW_UP"), Ok("Follow up"));
    }

    #[test]
    fn what_is_none_or_several_is_refused_with_the_choices() {
        for answer in ["", "This is not urgent", "URGENT\nOTHER", "URGENT, OTHER", "{\"a\": 1}", "maybe"] {
            let reason = choices().pick(answer).unwrap_err();
            assert!(reason.ends_with("URGENT, Follow up, OTHER"), "{answer}: {reason}");
        }
    }

    #[test]
    fn choices_that_read_the_same_are_twins_and_numbers_are_not() {
        assert_eq!(Choices::new(["a", "b", "A."].map(str::to_owned).to_vec()).twins(), [(2, 0)]);
        let numbers = Choices::new(["-1", "1", "<1", "C", "C++", "?", "!"].map(str::to_owned).to_vec());
        assert_eq!(numbers.twins(), []);
        assert_eq!(numbers.pick("c++"), Ok("C++"));
    }

    proptest! {
        #[test]
        fn every_choice_is_its_own_answer(given in proptest::collection::vec("\\PC{1,12}", 1..6)) {
            let choices = Choices::new(given.clone());
            for choice in given.iter().filter(|choice| choice.trim() == *choice && !choice.starts_with("```")) {
                prop_assert_eq!(choices.pick(choice), Ok(choice.as_str()));
            }
        }
    }
}
