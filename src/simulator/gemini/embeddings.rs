//! Requests and responses of Gemini's embedContent and batchEmbedContents.

use std::borrow::Cow;

use serde::Deserialize;

use crate::simulator::api_error::ApiError;
use crate::simulator::embedding::{
    EmbeddingApi, MAX_DIMENSIONS, MAX_INPUTS, ParsedEmbeddings, append_numbers,
};

use super::tools::invalid;

#[derive(Deserialize)]
struct BatchRequest {
    #[serde(default)]
    requests: Vec<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    #[serde(default)]
    model: String,
    #[serde(default)]
    content: Content,
    #[serde(alias = "output_dimensionality")]
    output_dimensionality: Option<i64>,
}

#[derive(Default, Deserialize)]
struct Content {
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: String,
}

/// Parses a request for `model`, which the path names. A request of a batch names it as well.
pub(in crate::simulator) fn parse_request<'a>(
    api: EmbeddingApi,
    model: &'a str,
    body: &[u8],
) -> Result<ParsedEmbeddings<'a>, ApiError> {
    let not_json = |error: serde_json::Error| invalid(format!("Invalid JSON payload received. {error}"));
    let requests = match api {
        EmbeddingApi::GeminiBatch => {
            let batch: BatchRequest = serde_json::from_slice(body).map_err(not_json)?;
            check_batch(&batch.requests, model)?;
            batch.requests
        }
        EmbeddingApi::GeminiOne | EmbeddingApi::OpenAi => {
            vec![serde_json::from_slice(body).map_err(not_json)?]
        }
    };
    let texts = requests.into_iter().map(|request| {
        let text: String = request.content.parts.into_iter().map(|part| part.text).collect();
        if text.is_empty() {
            return Err(invalid("* EmbedContentRequest.content: content is empty\n"));
        }
        let dimensions = request.output_dimensionality.map(check_dimensions).transpose()?;
        Ok((Cow::Owned(text), dimensions))
    });
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    Ok(ParsedEmbeddings::new(Cow::Borrowed(model), texts, false))
}

fn check_batch(requests: &[Request], model: &str) -> Result<(), ApiError> {
    if requests.is_empty() {
        return Err(invalid("* BatchEmbedContentsRequest.requests: requests is not specified\n"));
    }
    if requests.len() > MAX_INPUTS {
        let message = format!(
            "* BatchEmbedContentsRequest.requests: at most {MAX_INPUTS} requests can be in one batch\n"
        );
        return Err(invalid(message));
    }
    let is_other = |request: &Request| request.model.strip_prefix("models/") != Some(model);
    match requests.iter().position(is_other) {
        None => Ok(()),
        Some(at) => Err(invalid(format!(
            "* BatchEmbedContentsRequest.requests[{at}].model: the model must be models/{model}\n"
        ))),
    }
}

fn check_dimensions(dimensions: i64) -> Result<u32, ApiError> {
    let in_range = u32::try_from(dimensions).ok().filter(|count| (1..=MAX_DIMENSIONS).contains(count));
    in_range.ok_or_else(|| {
        invalid(format!("* EmbedContentRequest.output_dimensionality: must be from 1 to {MAX_DIMENSIONS}\n"))
    })
}

/// Renders the response with these vectors. The vendor counts no tokens in it.
pub(in crate::simulator) fn render_response(api: EmbeddingApi, vectors: &[Vec<f32>]) -> Vec<u8> {
    let is_batch = match api {
        EmbeddingApi::GeminiBatch => true,
        EmbeddingApi::GeminiOne | EmbeddingApi::OpenAi => false,
    };
    let mut out = if is_batch { b"{\"embeddings\":[".to_vec() } else { b"{\"embedding\":".to_vec() };
    for (index, vector) in vectors.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"values\":" } else { b",{\"values\":" });
        append_numbers(&mut out, vector);
        out.push(b'}');
    }
    if vectors.is_empty() && !is_batch {
        out.extend_from_slice(b"null");
    }
    out.extend_from_slice(if is_batch { b"]}" } else { b"}" });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(api: EmbeddingApi, body: &str) -> Result<usize, String> {
        match parse_request(api, "m", body.as_bytes()) {
            Ok(parsed) => Ok(parsed.inputs.len()),
            Err(ApiError::InvalidRequest { message, .. }) => Err(message),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_has_one_input_and_a_batch_several() {
        let one =
            r#"{"model":"models/m","content":{"parts":[{"text":"low tide"}]},"outputDimensionality":4}"#;
        assert_eq!(parse(EmbeddingApi::GeminiOne, one), Ok(1));
        assert_eq!(parse(EmbeddingApi::GeminiBatch, &format!(r#"{{"requests":[{one},{one}]}}"#)), Ok(2));
    }

    #[test]
    fn an_invalid_request_is_rejected() {
        let request = |model: &str, text: &str, dimensions: i64| {
            format!(
                r#"{{"model":"{model}","content":{{"parts":[{{"text":"{text}"}}]}},"outputDimensionality":{dimensions}}}"#
            )
        };
        let batch = |request: &str| format!(r#"{{"requests":[{request}]}}"#);
        let many = vec![request("models/m", "x", 4); MAX_INPUTS + 1].join(",");
        for (body, problem) in [
            ("{", "Invalid JSON"),
            ("{}", "requests is not specified"),
            (&batch(&many), "at most 2048 requests"),
            (&batch(&request("models/other", "x", 4)), "requests[0].model"),
            (&batch(&request("", "x", 4)), "requests[0].model"),
            (&batch(&request("models/m", "", 4)), "content is empty"),
            (&batch(&request("models/m", "x", 0)), "must be from 1 to 4096"),
            (&batch(&request("models/m", "x", 4_097)), "must be from 1 to 4096"),
        ] {
            let error = parse(EmbeddingApi::GeminiBatch, body).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        assert!(parse(EmbeddingApi::GeminiOne, "{}").unwrap_err().contains("content is empty"));
    }
}
