//! Finds the name that was probably meant by one that nobody knows.
//!
//! Guesses little: a wrong guess sends its reader astray, a list of what there is does not.

/// Returns the known name that differs from `wrong` by no more than a slip of the pen: one letter, two in
/// a longer word; capitals, dashes and blanks do not count. A short name is not guessed at all: any two
/// are alike.
pub fn nearest<'k>(wrong: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |name: &str| -> String {
        name.chars().filter(|letter| !['-', '_', ' '].contains(letter)).flat_map(char::to_lowercase).collect()
    };
    let wrong = plain(wrong);
    known
        .map(|name| {
            let plain = plain(name);
            let slips = (wrong.chars().count().min(plain.chars().count()) / 3).min(2);
            (strsim::damerau_levenshtein(&wrong, &plain), slips, name)
        })
        .filter(|(distance, slips, _)| distance <= slips && !wrong.is_empty())
        .map(|(distance, _, name)| (distance, name))
        .min()
        .map(|(_, name)| name)
}

/// What others, or earlier versions, call our keys.
const ELSEWHERE: [(&str, &str); 15] = [
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
    ("retries", "attempts_per_lane"),
    ("context_window", "context"),
    ("max_pause", "max_open_duration"),
];

/// Returns which of the known keys is called `wrong` in other programs.
pub(super) fn called_elsewhere<'k>(wrong: &str, known: &[&'k str]) -> Option<&'k str> {
    let (_, ours) = ELSEWHERE.into_iter().find(|(theirs, _)| theirs.eq_ignore_ascii_case(wrong))?;
    known.iter().copied().find(|key| *key == ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_understood_and_another_word_is_not() {
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
    fn a_key_of_another_program_is_known_where_ours_can_stand() {
        assert_eq!(called_elsewhere("api_key", &["format", "keys"]), Some("keys"));
        assert_eq!(called_elsewhere("api_key", &["format"]), None);
    }
}
