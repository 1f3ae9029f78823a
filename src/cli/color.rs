//! Whether text on stderr has colors.
//!
//! `NO_COLOR` (<https://no-color.org>) turns them off, `CLICOLOR_FORCE` turns them on without a terminal, and
//! `CLICOLOR=0` and `TERM=dumb` turn them off on a terminal (<https://bixense.com/clicolors>).

use std::ffi::OsString;
use std::sync::OnceLock;

use super::stderr;

/// Returns whether text on stderr has colors.
pub(super) fn stderr_has_color() -> bool {
    static HAS_COLOR: OnceLock<bool> = OnceLock::new();
    *HAS_COLOR.get_or_init(|| has_color(|name| std::env::var_os(name), stderr::is_terminal()))
}

/// Returns whether the environment is that of a terminal which cannot move its cursor.
pub(super) fn is_dumb_terminal() -> bool {
    is_dumb(&|name| std::env::var_os(name))
}

fn has_color(variable: impl Fn(&str) -> Option<OsString>, is_terminal: bool) -> bool {
    let is_set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if is_set("NO_COLOR").is_some() {
        return false;
    }
    if is_set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return true;
    }
    is_terminal && !is_dumb(&variable) && is_set("CLICOLOR").is_none_or(|value| value != "0")
}

fn is_dumb(variable: &impl Fn(&str) -> Option<OsString>) -> bool {
    variable("TERM").is_none_or(|value| value.is_empty() || value == "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_whether_there_are_colors() {
        let decide = |variables: &[(&str, &str)], is_terminal| {
            let variable = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            };
            has_color(variable, is_terminal)
        };
        for (variables, on_terminal, elsewhere) in [
            (&[("TERM", "xterm")][..], true, false),
            (&[], false, false),
            (&[("TERM", "dumb")], false, false),
            (&[("TERM", "xterm"), ("NO_COLOR", "1")], false, false),
            (&[("TERM", "xterm"), ("NO_COLOR", "")], true, false),
            (&[("TERM", "xterm"), ("CLICOLOR", "0")], false, false),
            (&[("TERM", "xterm"), ("CLICOLOR_FORCE", "1")], true, true),
            (&[("TERM", "dumb"), ("CLICOLOR_FORCE", "1")], true, true),
            (&[("TERM", "xterm"), ("CLICOLOR_FORCE", "0")], true, false),
            (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false, false),
        ] {
            assert_eq!(decide(variables, true), on_terminal, "{variables:?}");
            assert_eq!(decide(variables, false), elsewhere, "{variables:?}");
        }
    }
}
