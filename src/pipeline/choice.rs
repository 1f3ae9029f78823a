//! Recognizes which choice a response means.
//!
//! Case, quotes, punctuation, a short label before the choice and a reason on another line are ignored. A choice
//! within prose is not recognized: "not urgent" contains "urgent" too.

use std::collections::HashMap;
use std::sync::Arc;

use icu_normalizer::ComposingNormalizerBorrowed;
use serde_json::Value;

use super::extract_json::without_fence;

/// Longest response that is parsed, in bytes. A choice with its reasons is far shorter.
pub(super) const MAX_ANSWER_BYTES: usize = 64 << 10;

/// The answers that a step allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choices {
    choices: Arc<[String]>,
    normalized: Vec<String>,
}

impl Choices {
    pub(super) fn new(given: Vec<String>) -> Self {
        let normalized = given.iter().map(|choice| normalize(choice)).collect();
        Self { choices: given.into(), normalized }
    }

    /// Returns the choices as they were configured.
    pub(super) fn choices(&self) -> &Arc<[String]> {
        &self.choices
    }

    /// Returns the indices of choices that are equal to an earlier one after normalization, each with that of the
    /// earlier.
    pub(super) fn duplicates(&self) -> Vec<(usize, usize)> {
        let mut first: HashMap<&str, usize> = HashMap::with_capacity(self.normalized.len());
        let mut duplicates = Vec::new();
        for (index, choice) in self.normalized.iter().enumerate() {
            let earlier = *first.entry(choice).or_insert(index);
            if earlier < index {
                duplicates.push((index, earlier));
            }
        }
        duplicates
    }

    /// Returns the choice that the response `answer` means, as it was configured.
    ///
    /// # Errors
    /// Why it means none, in words for the model.
    pub(super) fn find_choice(&self, answer: &str) -> Result<&str, String> {
        if answer.len() > MAX_ANSWER_BYTES {
            return Err(format!(
                "it is longer than {} KiB, where one of the allowed choices is enough: {}",
                MAX_ANSWER_BYTES >> 10,
                self.choices.join(", ")
            ));
        }
        let answer = without_fence(answer.trim());
        self.match_text(answer)
            .or_else(|| self.read_object(answer))
            .or_else(|| self.find_line(answer))
            .ok_or_else(|| {
                format!("it is not exactly one of the allowed choices: {}", self.choices.join(", "))
            })
    }

    fn match_text(&self, text: &str) -> Option<&str> {
        let exact = self.choices.iter().position(|choice| choice == text);
        let index = exact.or_else(|| {
            let wanted = normalize(text);
            self.normalized.iter().position(|normalized| *normalized == wanted)
        })?;
        Some(&self.choices[index])
    }

    /// Reads `{"answer": "URGENT"}`, or an object with one key of any name.
    fn read_object(&self, text: &str) -> Option<&str> {
        if !text.starts_with('{') {
            return None;
        }
        let Ok(Value::Object(object)) = serde_json::from_str(text) else { return None };
        let value = if object.len() == 1 { object.values().next() } else { object.get("answer") };
        self.match_text(value?.as_str()?)
    }

    /// Reads a line that is a choice, or a short label and a choice. If two such lines have different choices, the
    /// result is `None`. The text must be trimmed.
    fn find_line(&self, text: &str) -> Option<&str> {
        let mut lines = text.lines().map(str::trim).peekable();
        let mut previous: Option<&str> = None;
        let mut is_after_blank = false;
        let mut found = None;
        while let Some(line) = lines.next() {
            if line.is_empty() {
                is_after_blank = true;
                continue;
            }
            let is_first = previous.is_none();
            let is_last = lines.peek().is_none();
            if let Some((choice, label)) = self.read_line(line) {
                let is_answer = match label {
                    // `Ruled out: A` is not an answer.
                    Some(label) => is_answer_label(label) || is_first && is_last && is_plain_label(label),
                    // The line before may be `Ruled out:`.
                    None => previous.is_none_or(|previous| match previous.strip_suffix([':', '：']) {
                        Some(label) => is_answer_label(label),
                        None => is_last || is_after_blank,
                    }),
                };
                if !is_answer || found.is_some_and(|other| other != choice) {
                    return None;
                }
                found = Some(choice);
            }
            previous = Some(line);
            is_after_blank = false;
        }
        found
    }

    /// Returns the choice on a line, and the label before it if there is one.
    fn read_line<'t>(&self, line: &'t str) -> Option<(&str, Option<&'t str>)> {
        if let Some(choice) = self.match_text(line) {
            return Some((choice, None));
        }
        let (label, rest) = line.split_once([':', '：'])?;
        Some((self.match_text(rest)?, Some(label)))
    }
}

/// Words of labels that introduce the answer.
const ANSWER_WORDS: [&str; 24] = [
    "answer",
    "assessment",
    "category",
    "choice",
    "class",
    "classification",
    "conclusion",
    "decision",
    "final",
    "label",
    "my",
    "option",
    "output",
    "priority",
    "rating",
    "reply",
    "response",
    "result",
    "score",
    "sentiment",
    "status",
    "the",
    "type",
    "verdict",
];

/// Words of labels that reject the choice that follows.
const REJECTING_WORDS: [&str; 10] =
    ["avoid", "discarded", "except", "excluded", "excluding", "never", "no", "not", "rejected", "without"];

/// Returns whether a label introduces the answer: it has one to three words, all of them in [`ANSWER_WORDS`].
fn is_answer_label(label: &str) -> bool {
    let label = normalize(label);
    let words = label.split(' ');
    words.clone().count() <= 3 && words.into_iter().all(|word| ANSWER_WORDS.contains(&word))
}

/// Returns whether a label is one word that does not reject the choice that follows.
fn is_plain_label(label: &str) -> bool {
    let label = normalize(label);
    !label.contains(' ') && !REJECTING_WORDS.contains(&label.as_str())
}

/// Characters around a choice that are ignored, besides white space: punctuation of Latin, Arabic, Hebrew,
/// Armenian, Indian and East Asian scripts.
const IGNORED_MARKS: &str =
    "\"'`“”‘’„‚‹›«»*_.,;:!?()[]{}¡¿…‥·・。、，．：；！？｡､「」『』【】〈〉《》〔〕（）［］｛｝؟،؛۔׃՝՞։।॥჻።";

/// Returns the form in which choices are compared: the words in lower case and NFC, without [`IGNORED_MARKS`]
/// around them.
fn normalize(text: &str) -> String {
    let text = ComposingNormalizerBorrowed::new_nfc().normalize(text);
    let is_mark = |mark: char| mark.is_whitespace() || IGNORED_MARKS.contains(mark);
    let trimmed = match text.trim_matches(is_mark) {
        "" => text.trim(),
        trimmed => trimmed,
    };
    let words =
        trimmed.split(|space: char| space.is_whitespace() || space == '_').filter(|word| !word.is_empty());
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
    fn a_choice_is_recognized_in_any_notation() {
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
            assert_eq!(choices().find_choice(answer), Ok("URGENT"), "{answer}");
        }
        assert_eq!(choices().find_choice("FOLLOW_UP"), Ok("Follow up"));
    }

    #[test]
    fn a_response_with_no_choice_or_several_is_refused_with_the_list_of_choices() {
        for answer in ["", "This is not urgent", "URGENT\nOTHER", "URGENT, OTHER", "{\"a\": 1}", "maybe"] {
            let reason = choices().find_choice(answer).unwrap_err();
            assert!(reason.ends_with("URGENT, Follow up, OTHER"), "{answer}: {reason}");
        }
    }

    #[test]
    fn a_choice_is_read_from_its_own_line_or_after_a_short_label_and_not_from_a_paragraph() {
        let choices = Choices::new(["A", "B"].map(str::to_owned).to_vec());
        for unclear in [
            "Ruled out: A\nBest fit is B",
            "Best fit is B\nRuled out: A",
            "Ruled out: A",
            "Not: A",
            "Ruled out:\nA",
            "I looked at both.\nRejected: A\nThe rest fits.",
            "Some text\nA\nmore text",
        ] {
            assert!(choices.find_choice(unclear).is_err(), "{unclear}");
        }
        for clear in
            ["It is B, I think.\n\nB", "**Final answer:** B", "B\nbecause of A", "Answer:\nB", "Kategorie: B"]
        {
            assert_eq!(choices.find_choice(clear), Ok("B"), "{clear}");
        }
    }

    #[test]
    fn a_response_longer_than_64_kib_is_refused_without_parsing() {
        let padded = |blanks: usize| format!("URGENT{}", "\n".repeat(blanks));
        assert_eq!(choices().find_choice(&padded(MAX_ANSWER_BYTES - 6)), Ok("URGENT"));
        let reason = choices().find_choice(&padded(MAX_ANSWER_BYTES - 5)).unwrap_err();
        assert!(
            reason.contains("longer than 64 KiB") && reason.ends_with("URGENT, Follow up, OTHER"),
            "{reason}"
        );
    }

    #[test]
    fn unicode_composition_and_punctuation_of_other_scripts_are_ignored() {
        let choices = Choices::new(["Überfällig", "緊急", "عاجل", "तत्काल"].map(str::to_owned).to_vec());
        assert_eq!(choices.find_choice("U\u{308}berfa\u{308}llig"), Ok("Überfällig"));
        assert_eq!(choices.find_choice("「緊急」。"), Ok("緊急"));
        assert_eq!(choices.find_choice("答え：緊急"), Ok("緊急"));
        assert_eq!(choices.find_choice("عاجل؟"), Ok("عاجل"));
        assert_eq!(choices.find_choice("तत्काल।"), Ok("तत्काल"));
    }

    #[test]
    fn choices_that_differ_only_in_ignored_marks_are_duplicates_and_numbers_are_not() {
        assert_eq!(Choices::new(["a", "b", "A."].map(str::to_owned).to_vec()).duplicates(), [(2, 0)]);
        let numbers = Choices::new(["-1", "1", "<1", "C", "C++", "?", "!"].map(str::to_owned).to_vec());
        assert_eq!(numbers.duplicates(), []);
        assert_eq!(numbers.find_choice("c++"), Ok("C++"));
    }

    #[test]
    fn each_duplicate_of_a_long_list_is_found_with_its_first_choice() {
        let words = (0..50_000).map(|number| format!("word {}", number % 30_000));
        let duplicates = Choices::new(words.collect()).duplicates();
        assert_eq!(duplicates.len(), 20_000);
        assert!(duplicates.iter().all(|(second, first)| second - first == 30_000));
        assert_eq!(Choices::new(vec!["a".to_owned(); 3]).duplicates(), [(1, 0), (2, 0)]);
    }

    proptest! {
        #[test]
        fn every_choice_is_recognized_as_itself(given in proptest::collection::vec("\\PC{1,12}", 1..6)) {
            let choices = Choices::new(given.clone());
            for choice in given.iter().filter(|choice| choice.trim() == *choice && !choice.starts_with("```")) {
                prop_assert_eq!(choices.find_choice(choice), Ok(choice.as_str()));
            }
        }
    }
}
