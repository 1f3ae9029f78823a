//! Lists of a response, with a limit on their elements: an element may take a hundred times the memory of its JSON.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Maximum number of elements of one list.
const MAX_ELEMENTS: usize = 10_000;

/// Reads a list that may be missing or null, for serde's `deserialize_with`.
pub(super) fn optional<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<Vec<T>>, D::Error> {
    struct Reader<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
        type Value = Option<Vec<T>>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a list")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(element) = list.next_element()? {
                if all.len() == MAX_ELEMENTS {
                    return Err(A::Error::custom(format!("a list has more than {MAX_ELEMENTS} elements")));
                }
                all.push(element);
            }
            Ok(Some(all))
        }
    }

    from.deserialize_any(Reader(PhantomData))
}

/// Reads a list that may be missing, for serde's `deserialize_with`.
pub(super) fn required<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    optional(from)?.ok_or_else(|| D::Error::custom("null instead of a list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Lists {
        #[serde(default, deserialize_with = "optional")]
        optional: Option<Vec<u8>>,
        #[serde(default, deserialize_with = "required")]
        required: Vec<u8>,
    }

    fn read(json: &str) -> Result<(Option<usize>, usize), String> {
        let lists: Lists = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Ok((lists.optional.map(|list| list.len()), lists.required.len()))
    }

    #[test]
    fn a_list_has_at_most_ten_thousand_elements() {
        let list = |length: usize| format!("[{}]", vec!["1"; length].join(","));
        assert_eq!(read("{}"), Ok((None, 0)));
        assert_eq!(read("{\"optional\": null}"), Ok((None, 0)));
        assert_eq!(read(&format!("{{\"optional\": {}}}", list(10_000))), Ok((Some(10_000), 0)));
        assert_eq!(read(&format!("{{\"required\": {}}}", list(3))), Ok((None, 3)));
        for field in ["optional", "required"] {
            let error = read(&format!("{{\"{field}\": {}}}", list(10_001))).unwrap_err();
            assert!(error.contains("more than 10000 elements"), "{error}");
        }
        assert!(read("{\"required\": null}").unwrap_err().contains("null instead of a list"));
        assert!(read("{\"optional\": 7}").is_err());
    }
}
