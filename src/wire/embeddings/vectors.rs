//! The vectors of a response: numbers in one of two notations, and the checks that all formats share.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use crate::types::{Cause, Class, Completion, Failure, FailureScope, Usage};
use crate::wire::http_error;

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes of a number in base64.
const BYTES_PER_NUMBER: usize = size_of::<f32>();

/// One vector: a list of numbers, or the base64 of little-endian 32-bit numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Vector(Vec<f32>);

impl From<Vec<f32>> for Vector {
    fn from(numbers: Vec<f32>) -> Self {
        Self(numbers)
    }
}

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Vector;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of numbers, or base64")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = all.next_element::<f32>()? {
                    numbers.push(number);
                }
                Ok(Vector(numbers))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                decode_base64(text)
                    .map(Vector)
                    .ok_or_else(|| E::custom("the text of an embedding is not the base64 of 32-bit numbers"))
            }
        }

        from.deserialize_any(Reader)
    }
}

/// Returns the numbers of a text; `None` if it is not the base64 of 32-bit numbers.
fn decode_base64(text: &str) -> Option<Vec<f32>> {
    let bytes = BASE64.decode(text).ok()?;
    let (numbers, rest) = bytes.as_chunks::<BYTES_PER_NUMBER>();
    rest.is_empty().then(|| numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
}

/// What the prompt expects of a response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// The number of inputs.
    pub(super) inputs: usize,
    /// The number of dimensions, if the request asks for one.
    pub(super) dimensions: Option<NonZeroU32>,
}

/// What a response contains.
#[derive(Debug)]
pub(super) struct ResponseContents {
    /// The vectors, each with the number of its input from 0; `None` is a vector without a number.
    pub(super) vectors: Vec<(Option<u64>, Vector)>,
    pub(super) usage: Option<Usage>,
    pub(super) model: String,
    pub(super) request_id: Option<String>,
}

impl ResponseContents {
    /// Returns the vectors in the order of the inputs.
    ///
    /// # Errors
    /// `unreadable` if there is not exactly one vector of the expected dimensions for each input; `api_error` if all
    /// vectors have another number of dimensions than the requested one.
    pub(super) fn complete(self, expected: Expected) -> Result<Completion, Failure> {
        let Self { vectors, usage, model, request_id } = self;
        if let Some(failure) = ignored_dimensions(&vectors, expected) {
            return Err(failure.with_usage(usage));
        }
        let embeddings =
            in_order(vectors, expected).map_err(|problem| unreadable(&problem).with_usage(usage))?;
        Ok(Completion { embeddings, usage, model, request_id, ..Completion::default() })
    }
}

/// Returns the failure if the model has ignored the requested number of dimensions. It does so for every request, so
/// that waiting does not help; another target may answer.
fn ignored_dimensions(vectors: &[(Option<u64>, Vector)], expected: Expected) -> Option<Failure> {
    let requested = expected.dimensions?;
    let (_, Vector(first)) = vectors.first().filter(|_| vectors.len() == expected.inputs)?;
    let dimensions = first.len();
    let are_alike = vectors.iter().all(|(_, Vector(numbers))| numbers.len() == dimensions);
    if !are_alike || dimensions == 0 || dimensions == requested.get() as usize {
        return None;
    }
    let message = format!(
        "the embeddings have {dimensions} dimensions instead of the {requested} requested; remove `dimensions`, or \
         use a model that can shorten its vectors"
    );
    let failure = Failure::new(Class::ApiError, message).with_scope(FailureScope::Target);
    Some(failure.with_cause(Cause::DimensionsIgnored))
}

/// Returns the vectors in the order of the inputs, or what is wrong with them.
fn in_order(vectors: Vec<(Option<u64>, Vector)>, expected: Expected) -> Result<Vec<Arc<[f32]>>, String> {
    let count = vectors.len();
    if count != expected.inputs {
        return Err(format!("{count} embeddings for {} inputs", expected.inputs));
    }
    let requested = expected.dimensions.map(|dimensions| dimensions.get() as usize);
    let dimensions = requested.or_else(|| vectors.first().map(|(_, Vector(numbers))| numbers.len()));
    let mut ordered: Vec<Option<Arc<[f32]>>> = vec![None; count];
    for (index, Vector(numbers)) in vectors {
        let Some(index) = index else {
            return Err("an embedding without the number of its input".to_owned());
        };
        let slot = usize::try_from(index).ok().and_then(|index| ordered.get_mut(index));
        let Some(slot) = slot else {
            return Err(format!("an embedding with the number {index} for {count} inputs"));
        };
        if slot.is_some() {
            return Err(format!("two embeddings with the number {index}"));
        }
        if numbers.is_empty() {
            return Err(format!("the embedding of input {index} is empty"));
        }
        if dimensions != Some(numbers.len()) {
            let kind = if requested.is_some() { "requested" } else { "of the others" };
            return Err(format!(
                "the embedding of input {index} has {} dimensions instead of the {} {kind}",
                numbers.len(),
                dimensions.unwrap_or_default()
            ));
        }
        if numbers.iter().any(|number| !number.is_finite()) {
            return Err(format!("the embedding of input {index} has a number that is not finite"));
        }
        *slot = Some(numbers.into());
    }
    // As many vectors as inputs, none of them twice: each input has one.
    Ok(ordered.into_iter().flatten().collect())
}

/// Creates the failure of a response that was possibly charged and cannot be used.
pub(super) fn unreadable(problem: &str) -> Failure {
    http_error::failure(Class::Unreadable, None, &format!("cannot read the embeddings: {problem}"))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Option<Vec<f32>> {
        serde_json::from_str::<Vector>(json).ok().map(|Vector(numbers)| numbers)
    }

    fn encode(numbers: &[f32]) -> String {
        STANDARD.encode(numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())
    }

    fn complete(
        vectors: &[(Option<u64>, &[f32])],
        inputs: usize,
        dimensions: u32,
    ) -> Result<Vec<f32>, String> {
        let vectors = vectors.iter().map(|(index, numbers)| (*index, Vector::from(numbers.to_vec())));
        let expected = Expected { inputs, dimensions: NonZeroU32::new(dimensions) };
        in_order(vectors.collect(), expected).map(|vectors| vectors.concat())
    }

    #[test]
    fn a_vector_is_a_list_or_base64() {
        assert_eq!(read("[0.5, -1, 2e-1]"), Some(vec![0.5, -1.0, 0.2]));
        assert_eq!(read("\"AAAAPw==\""), Some(vec![0.5]));
        assert_eq!(read("\"AAAAPw\""), Some(vec![0.5]));
        for json in ["\"AAAA\"", "\"!\"", "null", "7", "[null]", "[\"1\"]", "{}", "[NaN]", "[[1]]", "true"] {
            assert_eq!(read(json), None, "{json}");
        }
    }

    #[test]
    fn each_input_has_exactly_one_vector_of_the_expected_dimensions() {
        let one: &[f32] = &[1.0, 2.0];
        let two: &[f32] = &[3.0, 4.0];
        assert_eq!(complete(&[(Some(1), two), (Some(0), one)], 2, 0), Ok(vec![1.0, 2.0, 3.0, 4.0]));
        assert_eq!(complete(&[(Some(0), one)], 1, 2), Ok(vec![1.0, 2.0]));
        /// Vectors with their numbers, the inputs, the requested dimensions, and what is wrong.
        type Case<'a> = (&'a [(Option<u64>, &'a [f32])], usize, u32, &'a str);
        let cases: [Case<'_>; 10] = [
            (&[(Some(0), one)], 2, 0, "1 embeddings for 2 inputs"),
            (&[(Some(0), one), (Some(1), two)], 1, 0, "2 embeddings for 1 inputs"),
            (&[], 1, 0, "0 embeddings for 1 inputs"),
            (&[(Some(0), one), (Some(0), two)], 2, 0, "two embeddings with the number 0"),
            (&[(Some(0), one), (Some(2), two)], 2, 0, "with the number 2 for 2 inputs"),
            (&[(Some(0), one), (None, two)], 2, 0, "without the number of its input"),
            (&[(Some(0), one)], 1, 3, "has 2 dimensions instead of the 3 requested"),
            (&[(Some(0), one), (Some(1), &[1.0])], 2, 0, "has 1 dimensions instead of the 2 of the others"),
            (&[(Some(0), &[])], 1, 0, "is empty"),
            (&[(Some(0), &[1.0, f32::NAN])], 1, 0, "not finite"),
        ];
        for (vectors, inputs, dimensions, problem) in cases {
            let error = complete(vectors, inputs, dimensions).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        assert!(complete(&[(Some(u64::MAX), one)], 1, 0).is_err());
        assert!(complete(&[(Some(0), &[f32::INFINITY])], 1, 0).is_err());
    }

    proptest! {
        #[test]
        fn base64_and_a_list_are_the_same_vector(numbers in prop::collection::vec(any::<f32>(), 1..50)) {
            let finite: Vec<f32> = numbers.into_iter().filter(|number| number.is_finite()).collect();
            let list = serde_json::to_string(&finite).unwrap();
            prop_assert_eq!(read(&list), Some(finite.clone()));
            prop_assert_eq!(read(&format!("{:?}", encode(&finite))), Some(finite));
        }

        #[test]
        fn any_base64_is_a_vector_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let numbers = read(&format!("{:?}", STANDARD.encode(&bytes)));
            prop_assert_eq!(numbers.map(|numbers| numbers.len() * 4), (bytes.len() % 4 == 0).then_some(bytes.len()));
        }

        #[test]
        fn vectors_are_returned_in_the_order_of_their_inputs(
            order in (1..40_u64).prop_flat_map(|count| Just((0..count).collect::<Vec<_>>()).prop_shuffle()),
        ) {
            let vectors = order.iter().map(|index| (Some(*index), Vector::from(vec![*index as f32]))).collect();
            let expected = Expected { inputs: order.len(), dimensions: None };
            let ordered = in_order(vectors, expected).unwrap().concat();
            let numbers: Vec<f32> = (0..order.len()).map(|index| index as f32).collect();
            prop_assert_eq!(ordered, numbers);
        }
    }
}
