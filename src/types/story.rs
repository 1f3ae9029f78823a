//! Tells an error with everything that led to it, where only text can travel.

use std::error::Error;

/// Returns what `error` says, and after it the whole chain of its causes.
pub fn whole_story(error: &dyn Error) -> String {
    let mut story = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        story.push_str(": ");
        story.push_str(&error.to_string());
        cause = error.source();
    }
    story
}
