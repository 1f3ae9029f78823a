//! Sizes in bytes as written in a configuration, such as `"512MiB"`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct ByteSize(pub usize);

const UNITS: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)));
        let bytes =
            parts.and_then(|(number, bytes)| number.trim().parse::<usize>().ok()?.checked_mul(*bytes));
        match bytes {
            Some(bytes) if bytes > 0 => Ok(Self(bytes)),
            _ => Err(format!(
                "{text:?} is not a size; write a whole number with a unit, KiB, MiB or GiB, such as \"512MiB\""
            )),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(ByteSizeVisitor)
    }
}

struct ByteSizeVisitor;

impl Visitor<'_> for ByteSizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(r#"a size with its unit, such as "512MiB""#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse().map_err(E::custom)
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, bytes)| self.0.is_multiple_of(*bytes));
        match whole {
            Some((unit, bytes)) => write!(out, "{}{unit}", self.0 / bytes),
            None => write!(out, "{}KiB", self.0.div_ceil(1 << 10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_with_a_unit() {
        for (text, bytes) in [("1GiB", 1 << 30), ("512 MiB", 512 << 20), ("3KiB", 3 << 10)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
        assert_eq!(ByteSize(1536 << 20).to_string(), "1536MiB");
        for wrong in ["", "1", "GiB", "0MiB", "1.5GiB", "1GB", "-1MiB", "99999999999999GiB"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_refused_with_a_size_to_write() {
        let read = |text: &str| toml::from_str::<crate::config::ServeSettings>(text);
        let error = read("max_upload = 1000").unwrap_err();
        assert!(error.message().contains("expected a size with its unit"), "{error}");
        let diagnostics = crate::config::Config::parse("c.toml", "[serve]\nmax_upload = 1000\n", &|_| None);
        let help = diagnostics.unwrap_err().to_string();
        assert!(help.contains("write max_upload = \"1KiB\", or with another unit"), "{help}");
        assert_eq!(read("max_upload = \"1KiB\"").unwrap().max_upload, ByteSize(1 << 10));
    }
}
