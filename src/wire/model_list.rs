//! The list of a provider's models: the request of each format, and one page of its response.
//!
//! OpenAI's list has one page and says nothing about a model; other servers of the format add the context under several
//! names. The other vendors return pages and the limits of each model.

use std::fmt::Write;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use crate::types::{Class, Failure, Format};

use super::{Dialect, anthropic, gemini};

/// Models that are asked for at once; the vendors allow no more.
const PAGE_SIZE: usize = 1_000;

/// The longest name of a model, and of the mark of a page, in bytes. A longer one is left out.
const MAX_NAME_BYTES: usize = 512;

/// The request of one page.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelListRequest {
    /// The path after the base URL, with its query.
    pub path: String,
    /// Headers of the format, such as its version.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A model that a provider offers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OfferedModel {
    /// What the provider calls it in requests.
    pub name: String,
    /// The most tokens of a prompt, if the provider states it.
    pub context: Option<u64>,
    /// The most tokens of an answer, if the provider states it.
    pub max_output: Option<u64>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPage {
    /// Its models.
    pub models: Vec<OfferedModel>,
    /// What the request of the next page contains; `None` for the last page.
    pub next: Option<String>,
}

impl Format {
    /// Returns the request of a page: of the first, or of the one that `next` of the page before names.
    ///
    /// # Errors
    /// `api_error` if the API version of the dialect is not allowed in a header.
    pub fn model_list_request(
        self,
        dialect: &Dialect,
        next: Option<&str>,
    ) -> Result<ModelListRequest, Failure> {
        match self {
            Self::Openai | Self::OpenaiResponses => {
                Ok(ModelListRequest { path: "/models".to_owned(), headers: Vec::new() })
            }
            Self::Anthropic => {
                let path = with_page(format!("/v1/models?limit={PAGE_SIZE}"), "after_id", next);
                Ok(ModelListRequest { path, headers: vec![anthropic::version_header(dialect)?] })
            }
            Self::Gemini => {
                let path = format!("{}?pageSize={PAGE_SIZE}", gemini::models_path(dialect));
                Ok(ModelListRequest { path: with_page(path, "pageToken", next), headers: Vec::new() })
            }
        }
    }

    /// Reads one page. Entries without a name are left out.
    ///
    /// # Errors
    /// `unreadable` if it is no list of models.
    pub fn read_model_list(self, body: &[u8]) -> Result<ModelPage, Failure> {
        let unreadable = || Failure::new(Class::Unreadable, "the response is no list of models");
        let mut page: ModelPage = match self {
            // Together returns the list itself.
            Self::Openai | Self::OpenaiResponses => {
                let page: OpenaiPage = serde_json::from_slice(body).map_err(|_| unreadable())?;
                let entries = match page {
                    OpenaiPage::Object { data } => data.unwrap_or_default(),
                    OpenaiPage::List(entries) => entries,
                };
                ModelPage { models: entries.iter().filter_map(of_openai).collect(), next: None }
            }
            Self::Anthropic => {
                let page: AnthropicPage = serde_json::from_slice(body).map_err(|_| unreadable())?;
                let next = page.last_id.filter(|_| page.has_more);
                ModelPage { models: page.data.iter().filter_map(of_anthropic).collect(), next }
            }
            Self::Gemini => {
                let page: GeminiPage = serde_json::from_slice(body).map_err(|_| unreadable())?;
                ModelPage {
                    models: page.models.iter().filter_map(of_gemini).collect(),
                    next: page.next_page_token,
                }
            }
        };
        page.models.retain(|model| is_short(&model.name));
        page.next = page.next.filter(|next| is_short(next));
        Ok(page)
    }
}

fn is_short(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES
}

/// Adds the parameter of a page to a path that has a query.
fn with_page(mut path: String, parameter: &str, next: Option<&str>) -> String {
    let Some(next) = next else { return path };
    path.push('&');
    path.push_str(parameter);
    path.push('=');
    for byte in next.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            // Writing to a string never fails.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OpenaiPage {
    Object { data: Option<Vec<Value>> },
    List(Vec<Value>),
}

#[derive(Deserialize)]
struct AnthropicPage {
    data: Vec<Value>,
    #[serde(default)]
    has_more: bool,
    #[serde(default)]
    last_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiPage {
    #[serde(default)]
    models: Vec<Value>,
    #[serde(default)]
    next_page_token: Option<String>,
}

/// Reads a model of OpenAI's format. The context is called differently by vLLM, OpenRouter, Groq, Mistral and llama.cpp.
fn of_openai(entry: &Value) -> Option<OfferedModel> {
    let context = ["context_length", "max_model_len", "context_window", "max_context_length"];
    let context = context.into_iter().find_map(|field| entry[field].as_u64());
    let context = context.or_else(|| entry["meta"]["n_ctx_train"].as_u64());
    let max_output = ["max_completion_tokens", "max_output_tokens"];
    let max_output = max_output.into_iter().find_map(|field| entry[field].as_u64());
    let max_output = max_output.or_else(|| entry["top_provider"]["max_completion_tokens"].as_u64());
    Some(OfferedModel { name: entry["id"].as_str()?.to_owned(), context, max_output })
}

fn of_anthropic(entry: &Value) -> Option<OfferedModel> {
    Some(OfferedModel {
        name: entry["id"].as_str()?.to_owned(),
        context: entry["max_input_tokens"].as_u64(),
        max_output: entry["max_tokens"].as_u64(),
    })
}

fn of_gemini(entry: &Value) -> Option<OfferedModel> {
    let name = entry["name"].as_str()?;
    Some(OfferedModel {
        name: name.strip_prefix("models/").unwrap_or(name).to_owned(),
        context: entry["inputTokenLimit"].as_u64(),
        max_output: entry["outputTokenLimit"].as_u64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of a model, its context and its most output tokens.
    type Listed = (String, Option<u64>, Option<u64>);

    fn names(format: Format, body: &str) -> (Vec<Listed>, Option<String>) {
        let page = format.read_model_list(body.as_bytes()).unwrap();
        let models = page.models.into_iter().map(|model| (model.name, model.context, model.max_output));
        (models.collect(), page.next)
    }

    #[test]
    fn a_page_of_each_format_is_read() {
        let model = |name: &str, context, output| (name.to_owned(), context, output);
        let openai = r#"{"object":"list","data":[{"id":"a","object":"model"},{"id":"b","max_model_len":8192},
            {"id":"c","context_length":10,"top_provider":{"max_completion_tokens":5}},{"id":"d","meta":{"n_ctx_train":7}},
            {"object":"model"},{"id":""}]}"#;
        let expected = vec![
            model("a", None, None),
            model("b", Some(8192), None),
            model("c", Some(10), Some(5)),
            model("d", Some(7), None),
        ];
        assert_eq!(names(Format::Openai, openai), (expected, None));
        assert_eq!(names(Format::OpenaiResponses, r#"[{"id":"a"}]"#), (vec![model("a", None, None)], None));
        assert_eq!(names(Format::Openai, r#"{"object":"list","data":null}"#), (vec![], None));
        let anthropic = r#"{"data":[{"id":"c","max_input_tokens":200000,"max_tokens":64000}],"has_more":true,"last_id":"c"}"#;
        let expected = vec![model("c", Some(200_000), Some(64_000))];
        assert_eq!(names(Format::Anthropic, anthropic), (expected.clone(), Some("c".to_owned())));
        let last = anthropic.replace("true", "false");
        assert_eq!(names(Format::Anthropic, &last), (expected, None));
        let gemini = r#"{"models":[{"name":"models/g","inputTokenLimit":10,"outputTokenLimit":5},{"name":"tunedModels/t"}],
            "nextPageToken":"x=="}"#;
        let expected = vec![model("g", Some(10), Some(5)), model("tunedModels/t", None, None)];
        assert_eq!(names(Format::Gemini, gemini), (expected, Some("x==".to_owned())));
        assert_eq!(names(Format::Gemini, "{}"), (vec![], None));
    }

    #[test]
    fn what_is_no_list_is_unreadable() {
        for format in Format::ALL {
            for body in ["", "<html>", "3", "\"models\""] {
                let failure = format.read_model_list(body.as_bytes()).unwrap_err();
                assert_eq!(failure.class, Class::Unreadable, "{format:?} {body}");
            }
        }
        assert!(Format::Anthropic.read_model_list(b"{}").is_err());
    }

    #[test]
    fn the_request_of_a_page_has_the_path_of_the_format() {
        let dialect = Dialect::default();
        let path = |format: Format, next| format.model_list_request(&dialect, next).unwrap().path;
        assert_eq!(path(Format::Openai, None), "/models");
        assert_eq!(path(Format::Anthropic, None), "/v1/models?limit=1000");
        assert_eq!(path(Format::Anthropic, Some("a b&c")), "/v1/models?limit=1000&after_id=a%20b%26c");
        assert_eq!(path(Format::Gemini, Some("x==")), "/v1beta/models?pageSize=1000&pageToken=x%3D%3D");
        let headers = Format::Anthropic.model_list_request(&dialect, None).unwrap().headers;
        assert_eq!(headers[0].0, "anthropic-version");
    }
}
