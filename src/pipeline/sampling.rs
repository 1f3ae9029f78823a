//! Values of settings that control sampling: nucleus sampling, the seed, and the texts that end an answer.

use std::fmt;
use std::sync::Arc;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Nucleus sampling, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct TopP(f64);

impl TopP {
    /// Returns it as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for TopP {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        match number {
            0.0..=1.0 => Ok(Self(number)),
            _ => Err(format!("a top_p of {number} is not possible; choose one from 0 to 1")),
        }
    }
}

/// Deserializes an optional seed, for serde's `deserialize_with`.
pub(super) fn optional_seed<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    from.deserialize_i64(SeedVisitor).map(Some)
}

struct SeedVisitor;

impl Visitor<'_> for SeedVisitor {
    type Value = i64;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a whole number without quotes")
    }

    fn visit_i64<E: Error>(self, seed: i64) -> Result<i64, E> {
        Ok(seed)
    }

    fn visit_u64<E: Error>(self, seed: u64) -> Result<i64, E> {
        i64::try_from(seed).map_err(|_| too_large(seed))
    }

    fn visit_i128<E: Error>(self, seed: i128) -> Result<i64, E> {
        i64::try_from(seed).map_err(|_| too_large(seed))
    }

    fn visit_u128<E: Error>(self, seed: u128) -> Result<i64, E> {
        i64::try_from(seed).map_err(|_| too_large(seed))
    }
}

fn too_large<E: Error>(seed: impl fmt::Display) -> E {
    E::custom(format!("a seed of {seed} is not possible; choose one from {} to {}", i64::MIN, i64::MAX))
}

/// Texts before which an answer ends: one text or a list of texts. Literal, not templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopSequences(pub Vec<Arc<str>>);

impl StopSequences {
    /// Maximum number of texts. The vendors document 4 to 16.
    pub const MAX: usize = 16;
}

impl<'de> Deserialize<'de> for StopSequences {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StopVisitor)
    }
}

struct StopVisitor;

impl<'de> Visitor<'de> for StopVisitor {
    type Value = StopSequences;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("text in quotes, or a list of such texts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<StopSequences, E> {
        Ok(StopSequences(vec![non_empty(text)?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<StopSequences, A::Error> {
        let mut texts = Vec::new();
        while let Some(StopText(text)) = list.next_element()? {
            texts.push(text);
        }
        if texts.len() > StopSequences::MAX {
            let message = format!("{} texts are too many; write at most {}", texts.len(), StopSequences::MAX);
            return Err(A::Error::custom(message));
        }
        Ok(StopSequences(texts))
    }
}

/// One text of a list.
struct StopText(Arc<str>);

impl<'de> Deserialize<'de> for StopText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(StopTextVisitor)
    }
}

struct StopTextVisitor;

impl Visitor<'_> for StopTextVisitor {
    type Value = StopText;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<StopText, E> {
        non_empty(text).map(StopText)
    }
}

fn non_empty<E: Error>(text: &str) -> Result<Arc<str>, E> {
    match text {
        "" => Err(E::custom("this text is empty; write the text before which the answer ends, or remove it")),
        text => Ok(text.into()),
    }
}
