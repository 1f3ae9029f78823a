//! Recognises which choice an answer means.
//!
//! Case, quotes, punctuation, a short label before it and a reason on another line do not count. Prose decides
//! nothing: "not urgent" holds "urgent" too.

use std::sync::Arc;

use icu_normalizer::ComposingNormalizerBorrowed;
use serde_json::Value;

use super::json::without_fence;

/// Longest answer that is read, in bytes. A choice with its reasons is far shorter.
pub(super) const MAX_ANSWER: usize = 64 << 10;

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
        if answer.len() > MAX_ANSWER {
            return Err(format!(
                "it is longer than {} KiB, where one of the allowed choices is enough: {}",
                MAX_ANSWER >> 10,
                self.given.join(", ")
            ));
        }
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

    /// Reads a line of its own that is a choice, or a short label and a choice. Two such lines with different
    /// choices decide nothing. The text is trimmed.
    fn on_a_line(&self, text: &str) -> Option<&str> {
        let mut lines = text.lines().map(str::trim).peekable();
        let mut above: Option<&str> = None;
        let mut is_after_blank = false;
        let mut found = None;
        while let Some(line) = lines.next() {
            if line.is_empty() {
                is_after_blank = true;
                continue;
            }
            let is_first = above.is_none();
            let is_last = lines.peek().is_none();
            if let Some((choice, label)) = self.read_line(line) {
                let stands_out = match label {
                    // `Ruled out: A` is a line like any other of a paragraph.
                    Some(label) => is_answer_label(label) || is_first && is_last && is_plain_label(label),
                    // `Ruled out:` may stand on the line before.
                    None => above.is_none_or(|above| match above.strip_suffix([':', '：']) {
                        Some(label) => is_answer_label(label),
                        None => is_last || is_after_blank,
                    }),
                };
                if !stands_out || found.is_some_and(|other| other != choice) {
                    return None;
                }
                found = Some(choice);
            }
            above = Some(line);
            is_after_blank = false;
        }
        found
    }

    /// Returns the choice on a line, with the label before it if it has one.
    fn read_line<'t>(&self, line: &'t str) -> Option<(&str, Option<&'t str>)> {
        if let Some(choice) = self.whole(line) {
            return Some((choice, None));
        }
        let (label, rest) = line.split_once([':', '：'])?;
        Some((self.whole(rest)?, Some(label)))
    }
}

/// Words of labels that announce the answer.
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

/// Words of labels that reject what follows.
const REJECTING_WORDS: [&str; 10] =
    ["avoid", "discarded", "except", "excluded", "excluding", "never", "no", "not", "rejected", "without"];

/// Returns whether a label announces the answer: one to three words, all of them for that.
fn is_answer_label(label: &str) -> bool {
    let label = form(label);
    let words = label.split(' ');
    words.clone().count() <= 3 && words.into_iter().all(|word| ANSWER_WORDS.contains(&word))
}

/// Returns whether a label is one word that does not reject what follows.
fn is_plain_label(label: &str) -> bool {
    let label = form(label);
    !label.contains(' ') && !REJECTING_WORDS.contains(&label.as_str())
}

/// Marks around a choice that do not count, besides blanks: of Latin, Arabic, Hebrew, Armenian, Indian and East
/// Asian scripts.
const MARKS: &str =
    "\"'`“”‘’„‚‹›«»*_.,;:!?()[]{}¡¿…‥·・。、，．：；！？｡､「」『』【】〈〉《》〔〕（）［］｛｝؟،؛۔׃՝՞։।॥჻።";

/// Returns what makes a choice itself: its words in lower case and composed letters (NFC), without marks around them.
fn form(text: &str) -> String {
    let text = ComposingNormalizerBorrowed::new_nfc().normalize(text);
    let is_mark = |mark: char| mark.is_whitespace() || MARKS.contains(mark);
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
    fn a_choice_is_read_from_a_sole_line_or_a_short_label_and_not_from_a_paragraph() {
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
            assert!(choices.pick(unclear).is_err(), "{unclear}");
        }
        for clear in
            ["It is B, I think.\n\nB", "**Final answer:** B", "B\nbecause of A", "Answer:\nB", "Kategorie: B"]
        {
            assert_eq!(choices.pick(clear), Ok("B"), "{clear}");
        }
    }

    #[test]
    fn an_answer_longer_than_64_kib_is_refused_unread() {
        let padded = |blanks: usize| format!("URGENT{}", "\n".repeat(blanks));
        assert_eq!(choices().pick(&padded(MAX_ANSWER - 6)), Ok("URGENT"));
        let reason = choices().pick(&padded(MAX_ANSWER - 5)).unwrap_err();
        assert!(
            reason.contains("longer than 64 KiB") && reason.ends_with("URGENT, Follow up, OTHER"),
            "{reason}"
        );
    }

    #[test]
    fn composed_letters_and_the_punctuation_of_other_scripts_do_not_count() {
        let choices = Choices::new(["Überfällig", "緊急", "عاجل", "तत्काल"].map(str::to_owned).to_vec());
        assert_eq!(choices.pick("U\u{308}berfa\u{308}llig"), Ok("Überfällig"));
        assert_eq!(choices.pick("「緊急」。"), Ok("緊急"));
        assert_eq!(choices.pick("答え：緊急"), Ok("緊急"));
        assert_eq!(choices.pick("عاجل؟"), Ok("عاجل"));
        assert_eq!(choices.pick("तत्काल।"), Ok("तत्काल"));
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
