//! Keys of other programs that have no key of the same meaning in the table where they are written.

/// The unknown key, an accepted key by which its table is recognised, and the help.
const EXPLAINED: [(&str, &str, &str); 13] = [
    ("model", "prompt", MODEL),
    ("models", "prompt", MODEL),
    ("provider", "prompt", MODEL),
    ("target", "prompt", MODEL),
    ("timeout", "prompt", TIMEOUT),
    ("timeouts", "prompt", TIMEOUT),
    ("retries", "prompt", RETRIES),
    ("retry", "prompt", RETRIES),
    ("max_retries", "prompt", RETRIES),
    ("if", "prompt", "a condition is called `when`: when = \"item.amount > 3\""),
    ("condition", "prompt", "a condition is called `when`: when = \"item.amount > 3\""),
    ("depends_on", "prompt", "steps that this one waits for are called `needs`: needs = [\"STEP\"]"),
    (
        "timeout",
        "attempts_per_target",
        "the time of an attempt is set in [provider.NAME.timeouts], that of a step by `deadline`",
    ),
];

const MODEL: &str = "a step names a route: write route = \"NAME\", and in the configuration [route.NAME] with targets = \
                     [\"PROVIDER/MODEL\"]";

const TIMEOUT: &str = "write deadline = \"5m\", the time of the whole step; that of one attempt is set in \
                       [provider.NAME.timeouts] of the configuration";

const RETRIES: &str = "failed attempts are repeated as [retry] of the configuration says; `max_validation_retries` is for \
                       answers that are not valid";

/// Returns the help for an unknown key in a table that accepts other keys.
pub(super) fn explained(wrong: &str, accepted: &[&str]) -> Option<&'static str> {
    let mut known = EXPLAINED.iter().filter(|(name, _, _)| name.eq_ignore_ascii_case(wrong));
    known.find(|(_, marker, _)| accepted.contains(marker)).map(|(_, _, help)| *help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_explained_only_in_its_table() {
        assert_eq!(explained("Model", &["prompt", "route"]), Some(MODEL));
        assert_eq!(explained("model", &["models", "keys"]), None);
        assert_eq!(explained("prompt", &["prompt"]), None);
    }
}
