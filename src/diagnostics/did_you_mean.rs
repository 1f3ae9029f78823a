//! Finds the known name that the author of an unknown name probably meant.
//!
//! Only close matches count: a wrong suggestion misleads, and the list of valid names is shown instead.

/// Longest name that is compared, in characters. The work of a comparison is the product of both lengths.
const MAX_COMPARED_CHARS: usize = 100;

/// Returns the known name that is closest to `wrong` by Damerau-Levenshtein distance. At most one edit per three
/// characters is allowed, and at most two. Case, dashes, underscores and spaces are ignored. Names shorter than
/// three characters match only if they are equal.
pub fn nearest<'k>(wrong: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let normalize = |name: &str| -> String {
        name.chars().filter(|letter| !['-', '_', ' '].contains(letter)).flat_map(char::to_lowercase).collect()
    };
    let wrong = normalize(wrong);
    let length = wrong.chars().count();
    if length == 0 || length > MAX_COMPARED_CHARS {
        return None;
    }
    known
        .filter_map(|name| {
            let candidate = normalize(name);
            let candidate_length = candidate.chars().count();
            let max_edits = (length.min(candidate_length) / 3).min(2);
            // Each character more is an edit.
            if length.abs_diff(candidate_length) > max_edits {
                return None;
            }
            let distance = strsim::damerau_levenshtein(&wrong, &candidate);
            (distance <= max_edits).then_some((distance, name))
        })
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
    fn a_name_of_any_length_is_compared_only_if_it_is_short() {
        let long = "x".repeat(100_000);
        let other = format!("{long}y");
        assert_eq!(nearest(&long, [other.as_str(), "x"].into_iter()), None);
        let short = "x".repeat(MAX_COMPARED_CHARS - 1);
        let known = format!("{short}y");
        assert_eq!(nearest(&short, [known.as_str(), long.as_str()].into_iter()), Some(known.as_str()));
    }

    #[test]
    fn a_key_of_another_program_is_translated_only_where_our_key_is_valid() {
        assert_eq!(alias_of("api_key", &["format", "keys"]), Some("keys"));
        assert_eq!(alias_of("api_key", &["format"]), None);
        assert_eq!(alias_of("Embedding", &["prompt", "embed"]), Some("embed"));
    }
}
