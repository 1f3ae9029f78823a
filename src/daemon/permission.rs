//! What the holder of a token may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::diagnostics::nearest;

/// What the holder of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Permission {
    /// See everything: runs of all, providers, configuration, spending.
    Read,
    /// Create runs and items, and see and control its own.
    Run,
    /// Send requests.
    Request,
    /// Everything.
    Admin,
}

impl Permission {
    /// All permissions.
    pub const ALL: [Self; 4] = [Self::Read, Self::Run, Self::Request, Self::Admin];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Run => "run",
            Self::Request => "request",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// A text is not a permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no permission {word:?}: {advice}")]
pub struct PermissionError {
    word: String,
    advice: String,
}

impl FromStr for Permission {
    type Err = PermissionError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|permission| permission.as_str() == word.trim());
        known.ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str);
            let advice = match nearest(word, words.into_iter()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("use {}", words.join(", ")),
            };
            PermissionError { word: word.to_owned(), advice }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_is_read_as_it_is_written_and_a_typo_is_corrected() {
        for permission in Permission::ALL {
            assert_eq!(permission.to_string().parse(), Ok(permission));
            assert_eq!(serde_json::to_value(permission).unwrap(), permission.as_str());
        }
        let refused = |word: &str| word.parse::<Permission>().unwrap_err().to_string();
        assert_eq!(refused("reqest"), "there is no permission \"reqest\": did you mean `request`?");
        assert_eq!(refused("write"), "there is no permission \"write\": use read, run, request, admin");
        assert_eq!(refused(""), "there is no permission \"\": use read, run, request, admin");
    }
}
