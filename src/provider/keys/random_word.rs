//! Recognizes words that look like a part of a key.

/// Minimum length of a word without separators that counts as random.
const MIN_RANDOM_WORD: usize = 16;

/// Returns whether a word, without separators, looks random.
pub(super) fn is_random(word: &str) -> bool {
    word.len() >= MIN_RANDOM_WORD && has_digits_and_letters(word)
}

/// Returns whether a text has digits as well as letters, as hardly any word of an answer has.
pub(super) fn has_digits_and_letters(text: &str) -> bool {
    let has = |of: fn(&char) -> bool| text.chars().any(|character| of(&character));
    has(char::is_ascii_digit) && has(char::is_ascii_alphabetic)
}
