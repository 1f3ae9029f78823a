//! Requests and responses of OpenAI's embeddings.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::simulator::api_error::ApiError;
use crate::simulator::content::Text;
use crate::simulator::embedding::{MAX_DIMENSIONS, MAX_INPUTS, ParsedEmbeddings, append_numbers};
use crate::simulator::response_data::{append, json_string};

use super::request_checks::missing_parameter;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    input: Option<Input>,
    encoding_format: Option<String>,
    dimensions: Option<i64>,
}

/// One or more inputs, each as text or as tokens.
#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u64>),
    TokenLists(Vec<Vec<u64>>),
}

impl Input {
    /// Returns the texts. Tokens have no text here; their numbers take its place.
    fn into_texts(self) -> Vec<String> {
        let of_tokens =
            |tokens: Vec<u64>| tokens.iter().map(|token| format!("{token:<4}")).collect::<String>();
        match self {
            Self::Text(text) => vec![text],
            Self::Texts(texts) => texts,
            Self::Tokens(tokens) => vec![of_tokens(tokens)],
            Self::TokenLists(lists) => lists.into_iter().map(of_tokens).collect(),
        }
    }
}

/// Parses a request.
pub(in crate::simulator) fn parse_request(body: &[u8]) -> Result<ParsedEmbeddings<'_>, ApiError> {
    let request: Request<'_> = serde_json::from_slice(body).map_err(|error| {
        let message = format!("We could not parse the JSON body of your request: {error}");
        ApiError::invalid_request(message, None, None)
    })?;
    let model = request.model.ok_or_else(|| missing_parameter("model"))?.0;
    let texts = request.input.ok_or_else(|| missing_parameter("input"))?.into_texts();
    check_inputs(&texts)?;
    let is_base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message = format!("Invalid value: '{other}'. Supported values are: 'float' and 'base64'.");
            return Err(ApiError::invalid_request(message, Some("encoding_format"), Some("invalid_value")));
        }
    };
    let dimensions = request.dimensions.map(check_dimensions).transpose()?;
    let texts = texts.into_iter().map(|text| (Cow::Owned(text), dimensions));
    Ok(ParsedEmbeddings::new(model, texts, is_base64))
}

fn check_inputs(texts: &[String]) -> Result<(), ApiError> {
    let invalid = |message: String, code| ApiError::invalid_request(message, Some("input"), Some(code));
    if texts.is_empty() {
        let message = "Invalid 'input': empty array. Expected an array with minimum length 1.".to_owned();
        return Err(invalid(message, "empty_array"));
    }
    if texts.len() > MAX_INPUTS {
        let message = format!(
            "Invalid 'input': array too long. Expected an array with maximum length {MAX_INPUTS}, but got an \
             array with length {} instead.",
            texts.len()
        );
        return Err(invalid(message, "array_above_max_length"));
    }
    match texts.iter().position(String::is_empty) {
        None => Ok(()),
        Some(at) => {
            Err(invalid(format!("Invalid 'input[{at}]': input cannot be an empty string."), "invalid_value"))
        }
    }
}

fn check_dimensions(dimensions: i64) -> Result<u32, ApiError> {
    let in_range = u32::try_from(dimensions).ok().filter(|count| (1..=MAX_DIMENSIONS).contains(count));
    in_range.ok_or_else(|| {
        let message = format!(
            "Invalid 'dimensions': expected an integer from 1 to {MAX_DIMENSIONS}, but got {dimensions} instead."
        );
        ApiError::invalid_request(message, Some("dimensions"), Some("invalid_value"))
    })
}

/// Renders the response with the vectors of these inputs.
pub(in crate::simulator) fn render_response(parsed: &ParsedEmbeddings<'_>, vectors: &[Vec<f32>]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(br#"{"object":"list","data":["#);
    for (index, vector) in vectors.iter().enumerate() {
        let separator = if index == 0 { "" } else { "," };
        append!(out, separator, r#"{"object":"embedding","index":"#, index, r#","embedding":"#);
        if parsed.is_base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            append!(out, '"', STANDARD.encode(bytes), '"');
        } else {
            append_numbers(&mut out, vector);
        }
        out.push(b'}');
    }
    out.extend_from_slice(br#"],"model":"#);
    json_string(&mut out, &parsed.request.model);
    let tokens = parsed.request.conversation.tokens();
    append!(out, r#","usage":{"prompt_tokens":"#, tokens, r#","total_tokens":"#, tokens, "}}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<(usize, u64), String> {
        match parse_request(body.as_bytes()) {
            Ok(parsed) => Ok((parsed.inputs.len(), parsed.request.conversation.tokens())),
            Err(ApiError::InvalidRequest { message, .. }) => Err(message),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn inputs_are_texts_or_tokens() {
        assert_eq!(parse(r#"{"model":"m","input":"abcd"}"#), Ok((1, 1)));
        assert_eq!(parse(r#"{"model":"m","input":["abcd","efgh"],"user":"u"}"#), Ok((2, 2)));
        assert_eq!(parse(r#"{"model":"m","input":[1,22,333]}"#), Ok((1, 3)));
        assert_eq!(parse(r#"{"model":"m","input":[[1,22],[333]]}"#), Ok((2, 3)));
    }

    #[test]
    fn an_invalid_request_is_rejected_with_the_name_of_its_parameter() {
        let many = format!(r#"{{"model":"m","input":[{}"x"]}}"#, r#""x","#.repeat(MAX_INPUTS));
        for (body, problem) in [
            ("{", "parse the JSON"),
            (r#"{"input":"x"}"#, "'model'"),
            (r#"{"model":"m"}"#, "'input'"),
            (r#"{"model":"m","input":{}}"#, "parse the JSON"),
            (r#"{"model":"m","input":[]}"#, "empty array"),
            (r#"{"model":"m","input":["x",""]}"#, "'input[1]'"),
            (r#"{"model":"m","input":""}"#, "'input[0]'"),
            (&many, "maximum length 2048, but got an array with length 2049"),
            (r#"{"model":"m","input":"x","encoding_format":"hex"}"#, "'hex'"),
            (r#"{"model":"m","input":"x","dimensions":0}"#, "but got 0"),
            (r#"{"model":"m","input":"x","dimensions":4097}"#, "from 1 to 4096"),
            (r#"{"model":"m","input":"x","dimensions":-1}"#, "but got -1"),
        ] {
            let error = parse(body).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
