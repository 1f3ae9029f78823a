//! What the user can do about an error, as text that a program can complete with its own options.

use std::fmt;

/// An action against an error that is a setting or a method of the library.
///
/// `Display` writes it as a verb with its object, such as `accept the changes`. A program that has an option for it
/// adds the option with [`Advice::annotated`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// Replace all targets by simulated ones.
    Simulate,
    /// Keep the targets of the configuration.
    UseRealAnswers,
    /// Name the only model.
    NameModel,
    /// Write a first configuration file.
    WriteConfiguration,
    /// Load another configuration file.
    NameConfiguration,
    /// Resume the run although its pipeline, models or prices have changed.
    AcceptChanges,
    /// Process every item again in a new run.
    BeginNewRun,
    /// Allow the run to replace a file that it did not write.
    Overwrite,
    /// Read the items in the format with this name.
    SetInputFormat(&'static str),
    /// Name what separates the columns of CSV items.
    SetDelimiter,
    /// Name the key of a JSON object whose value is the array of items.
    SetItemsKey,
    /// Use the copy of a database as the store.
    OpenCopy,
    /// Look up the runs of a store.
    ListRuns,
    /// Write results without the fields of the items.
    MinimalColumns,
    /// Write results to a file.
    WriteToFile,
}

impl fmt::Display for Remedy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Simulate => "simulate the answers",
            Self::UseRealAnswers => "use real answers",
            Self::NameModel => "name the model",
            Self::WriteConfiguration => "write a configuration",
            Self::NameConfiguration => "name another configuration file",
            Self::AcceptChanges => "accept the changes",
            Self::BeginNewRun => "begin a new run",
            Self::Overwrite => "overwrite it",
            Self::SetInputFormat(format) => return write!(out, "set the input format to {format}"),
            Self::SetDelimiter => "name the delimiter",
            Self::SetItemsKey => "name the key of the items",
            Self::OpenCopy => "open the copy",
            Self::ListRuns => "list its runs",
            Self::MinimalColumns => "write them without the fields of the items",
            Self::WriteToFile => "name a file",
        };
        out.write_str(words)
    }
}

/// What the user can do about an error.
///
/// An error that has advice ends its message with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Remedy(Remedy),
}

impl Advice {
    /// Appends text, with the space before it.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.0.push(Part::Text(text.into()));
        self
    }

    /// Appends the words of a remedy.
    #[must_use]
    pub fn with_remedy(mut self, remedy: Remedy) -> Self {
        self.0.push(Part::Remedy(remedy));
        self
    }

    /// Returns the remedies in the order of the text.
    pub fn remedies(&self) -> impl Iterator<Item = Remedy> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Remedy(remedy) => Some(*remedy),
        })
    }

    /// Returns the advice without a remedy that is its last alternative, as in `set KEY, or simulate the answers`.
    /// In any other place it stays.
    #[must_use]
    #[doc(hidden)]
    pub fn without_last_alternative(mut self, remedy: Remedy) -> Self {
        if let [.., Part::Text(text), Part::Remedy(last)] = self.0.as_mut_slice()
            && *last == remedy
            && let Some(rest) = text.strip_suffix(", or ").map(str::to_owned)
        {
            *text = rest;
            self.0.pop();
        }
        self
    }

    /// Returns the text with a note in parentheses after each remedy that has one, such as the option of a program.
    ///
    /// ```
    /// use pointsman::{Advice, Remedy};
    ///
    /// let advice = Advice::from("name another file, or ").with_remedy(Remedy::Overwrite);
    /// assert_eq!(advice.to_string(), "name another file, or overwrite it");
    /// let annotated = advice.annotated(|_| Some("--overwrite".to_owned()));
    /// assert_eq!(annotated, "name another file, or overwrite it (--overwrite)");
    /// ```
    #[doc(hidden)]
    pub fn annotated(&self, note: impl Fn(Remedy) -> Option<String>) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Remedy(remedy) => match note(*remedy) {
                Some(note) => format!("{remedy} ({note})"),
                None => remedy.to_string(),
            },
        });
        parts.collect()
    }

    /// Returns the advice with every text replaced by what `edit` makes of it. Remedies stay.
    #[must_use]
    #[doc(hidden)]
    pub fn map_text(self, edit: impl Fn(&str) -> String) -> Self {
        let parts = self.0.into_iter().map(|part| match part {
            Part::Text(text) => Part::Text(edit(&text)),
            Part::Remedy(remedy) => Part::Remedy(remedy),
        });
        Self(parts.collect())
    }
}

impl From<String> for Advice {
    fn from(text: String) -> Self {
        Self(vec![Part::Text(text)])
    }
}

impl From<&String> for Advice {
    fn from(text: &String) -> Self {
        text.clone().into()
    }
}

impl From<&str> for Advice {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<Remedy> for Advice {
    fn from(remedy: Remedy) -> Self {
        Self(vec![Part::Remedy(remedy)])
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => out.write_str(text),
            Part::Remedy(remedy) => remedy.fmt(out),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_stands_after_each_remedy_and_the_text_itself_has_none() {
        let advice = Advice::from("correct it, ")
            .with_remedy(Remedy::Simulate)
            .with_text(", or ")
            .with_remedy(Remedy::SetInputFormat("json"));
        assert_eq!(advice.to_string(), "correct it, simulate the answers, or set the input format to json");
        assert_eq!(
            advice.annotated(|remedy| Some(format!("{remedy:?}"))),
            "correct it, simulate the answers (Simulate), or set the input format to json \
             (SetInputFormat(\"json\"))"
        );
        assert_eq!(
            advice.annotated(|remedy| (remedy == Remedy::Simulate).then(|| "note".to_owned())),
            "correct it, simulate the answers (note), or set the input format to json"
        );
        let remedies = [Remedy::Simulate, Remedy::SetInputFormat("json")];
        assert!(advice.remedies().eq(remedies));
        let shorter = advice.clone().without_last_alternative(Remedy::SetInputFormat("json"));
        assert_eq!(shorter.to_string(), "correct it, simulate the answers");
        assert_eq!(advice.clone().without_last_alternative(Remedy::Simulate), advice);
        let needed = Advice::from("it is not needed to ").with_remedy(Remedy::Simulate);
        assert_eq!(needed.clone().without_last_alternative(Remedy::Simulate), needed);
        let edited = advice.map_text(|text| text.replace("it", "this"));
        assert_eq!(edited.to_string(), "correct this, simulate the answers, or set the input format to json");
    }
}
