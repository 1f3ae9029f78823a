//! Finds the known name that the author of an unknown name probably meant.
//!
//! Only close matches count: a wrong suggestion misleads, and the list of valid names is shown instead.

/// Returns the known name that is closest to `wrong` by Damerau-Levenshtein distance. At most one edit per three
/// characters is allowed, and at most two. Case, dashes, underscores and spaces are ignored. Names shorter than
/// three characters match only if they are equal.
pub fn nearest<'k>(wrong: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let normalize = |name: &str| -> String {
        name.chars().filter(|letter| !['-', '_', ' '].contains(letter)).flat_map(char::to_lowercase).collect()
    };
    let wrong = normalize(wrong);
    known
        .map(|name| {
            let candidate = normalize(name);
            let max_edits = (wrong.chars().count().min(candidate.chars().count()) / 3).min(2);
            (strsim::damerau_levenshtein(&wrong, &candidate), max_edits, name)
        })
        .filter(|(distance, max_edits, _)| distance <= max_edits && !wrong.is_empty())
        .map(|(distance, _, name)| (distance, name))
        .min()
        .map(|(_, name)| name)
}

/// Names of our keys in other programs, and other forms of their words, each with our name.
const KEY_ALIASES: [(&str, &str); 23] = [
    ("api_key", "keys"),
    ("apikey", "keys"),
    ("token", "keys"),
    ("url", "base_url"),
    ("endpoint", "base_url"),
    ("host", "base_url"),
    ("type", "format"),
    ("rpm", "requests_per_minute"),
    ("rps", "requests_per_second"),
    ("rpd", "requests_per_day"),
    ("tpm", "tokens_per_minute"),
    ("max_concurrency", "concurrency"),
    ("retries", "attempts_per_target"),
    ("context_window", "context"),
    ("stop_sequences", "stop"),
    ("effort", "reasoning_effort"),
    ("drop_params", "drop_parameters"),
    ("extra_body", "extra"),
    ("streaming", "stream"),
    ("max_output_tokens", "max_tokens"),
    ("embeded", "embed"),
    ("embedded", "embed"),
    ("embedding", "embed"),
];

/// Returns the known key that other programs call `wrong`.
pub(super) fn alias_of<'k>(wrong: &str, known: &[&'k str]) -> Option<&'k str> {
    let (_, ours) = KEY_ALIASES.into_iter().find(|(theirs, _)| theirs.eq_ignore_ascii_case(wrong))?;
    known.iter().copied().find(|key| *key == ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_corrected_and_another_word_is_not() {
        let keys =
            ["requests_per_minute", "requests_per_day", "tokens_per_minute", "max", "min", "keys", "p"];
        for (wrong, meant) in [
            ("request_per_minute", Some("requests_per_minute")),
            ("RequestsPerMinute", Some("requests_per_minute")),
            ("tokens-per-minute", Some("tokens_per_minute")),
            ("kyes", Some("keys")),
            ("mix", Some("max")),
            ("requests_per_hour", None),
            ("tokens_per_day", None),
            ("a", None),
            ("q", None),
            ("60", None),
            ("", None),
            ("most", None),
        ] {
            assert_eq!(nearest(wrong, keys.into_iter()), meant, "{wrong}");
        }
    }

    #[test]
    fn a_key_of_another_program_is_translated_only_where_our_key_is_valid() {
        assert_eq!(alias_of("api_key", &["format", "keys"]), Some("keys"));
        assert_eq!(alias_of("api_key", &["format"]), None);
        assert_eq!(alias_of("Embedding", &["prompt", "embed"]), Some("embed"));
    }
}
