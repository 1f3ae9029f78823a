//! Reads the requests of clients: the reverse of encoding.
//!
//! What a [`Prompt`] expresses becomes typed. Every other field of the top level is carried unchanged as a field of
//! the vendor, for targets of the same format. What neither can carry is refused by name, so that no client pays for
//! an answer to another request. The caller bounds the size of the body.

#[cfg(test)]
pub(super) mod equivalence;
mod fields;
mod media;
#[cfg(test)]
pub(super) mod mutations;
#[cfg(test)]
pub(super) mod strategies;

use crate::types::{Failure, FailureScope, Format, Prompt, VendorFields};

use super::vendor_fields;

pub(super) use fields::{Fields, invalid};
pub(super) use media::{media_at, media_of_url};

/// The request of a client, as its body says it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct IncomingRequest {
    /// The model that the client names.
    pub model: String,
    /// The prompt. Its `length_limit` is `Return`, as at the vendors.
    pub prompt: Prompt,
    /// Whether the client expects a stream.
    pub is_streamed: bool,
    /// Whether a stream ends with the usage.
    pub wants_usage: bool,
}

/// Returns the model of a request: that of the path if there is one, or else the field `model`.
///
/// # Errors
/// `api_error` if there is none, or if the path and the body name different models.
pub(super) fn model(body: &mut Fields, model_in_path: Option<&str>) -> Result<String, Failure> {
    let in_body = body.text("model")?;
    match (model_in_path, in_body) {
        (Some(path), Some(body)) if path != body => {
            Err(invalid(format!("model {body:?} differs from the model {path:?} of the path")))
        }
        (Some(model), _) => Ok(model.to_owned()),
        (None, Some(model)) => Ok(model),
        (None, None) => Err(invalid("model is missing")),
    }
}

/// Adds the fields that are left of a body to a prompt, for targets of the same format.
///
/// # Errors
/// `api_error`, which names a field whose effect a response could not show, or that needs a state of the vendor.
pub(super) fn add_vendor_fields(prompt: &mut Prompt, format: Format, body: Fields) -> Result<(), Failure> {
    let rest = body.into_rest();
    if rest.is_empty() {
        return Ok(());
    }
    vendor_fields::check_fields(&rest, format).map_err(|failure| failure.with_scope(FailureScope::Class))?;
    prompt.vendor_fields.push(VendorFields::new(format, rest));
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::Class;

    fn fields(body: &serde_json::Value) -> Fields {
        Fields::of_body(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_model_of_the_path_must_be_that_of_the_body() {
        let read = |body: serde_json::Value, path| {
            model(&mut fields(&body), path).map_err(|failure| String::from(failure.message))
        };
        assert_eq!(read(json!({ "model": "a" }), None), Ok("a".to_owned()));
        assert_eq!(read(json!({ "model": "a" }), Some("a")), Ok("a".to_owned()));
        assert_eq!(read(json!({}), Some("a")), Ok("a".to_owned()));
        assert_eq!(read(json!({ "model": null }), None), Err("model is missing".to_owned()));
        assert_eq!(read(json!({ "model": 1 }), None), Err("model must be a string".to_owned()));
        let differs = "model \"a\" differs from the model \"b\" of the path".to_owned();
        assert_eq!(read(json!({ "model": "a" }), Some("b")), Err(differs));
    }

    #[test]
    fn the_rest_of_a_body_becomes_fields_of_the_vendor() {
        let mut prompt = Prompt::text("x");
        add_vendor_fields(&mut prompt, Format::Openai, fields(&json!({ "a": null }))).unwrap();
        assert_eq!(prompt, Prompt::text("x"));
        let rest = json!({ "a": null, "n": 1, "metadata": { "b": null } });
        add_vendor_fields(&mut prompt, Format::Openai, fields(&rest)).unwrap();
        let kept = json!({ "n": 1, "metadata": { "b": null } }).as_object().cloned().unwrap();
        assert_eq!(prompt.vendor_fields, [VendorFields::new(Format::Openai, kept)]);
        let failure = add_vendor_fields(&mut prompt, Format::Openai, fields(&json!({ "n": 2 }))).unwrap_err();
        assert_eq!((failure.class, failure.scope), (Class::ApiError, FailureScope::Class));
        assert!(failure.message.starts_with("n must be 1"), "{failure}");
    }
}
