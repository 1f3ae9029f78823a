//! A part of a page that changes. The stream of updates sends it whole when its content differs.

use maud::{Markup, PreEscaped, html};

/// A part of a page that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fragment {
    /// The ID of its element.
    pub(super) id: &'static str,
    /// The heading above it; `None` for a status, which is read out when it changes.
    heading: Option<&'static str>,
    /// Its content.
    pub(super) content: String,
}

impl Fragment {
    /// Creates a part with a heading.
    pub(super) fn new(id: &'static str, heading: &'static str, content: Markup) -> Self {
        Self { id, heading: Some(heading), content: content.into_string() }
    }

    /// Creates a part that is read out when it changes.
    pub(super) fn status(id: &'static str, content: Markup) -> Self {
        Self { id, heading: None, content: content.into_string() }
    }

    /// Returns the section of the page with this part.
    pub(super) fn section(&self) -> Markup {
        // It was rendered by maud, which has escaped it.
        let content = PreEscaped(&self.content);
        html! {
            @match self.heading {
                Some(heading) => {
                    section aria-labelledby={ (self.id) "-heading" } {
                        h2 id={ (self.id) "-heading" } { (heading) }
                        div id=(self.id) { (content) }
                    }
                }
                None => { div id=(self.id) role="status" aria-live="polite" { (content) } }
            }
        }
    }
}
