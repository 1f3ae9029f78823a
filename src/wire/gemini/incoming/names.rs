//! The two names of a field in the JSON mapping of protocol buffers.

use crate::types::Failure;
use crate::wire::incoming::{Fields, invalid};

/// Gives fields that are written in snake case their names in lower camel case.
///
/// # Errors
/// `api_error` if a field is there with both names.
pub(super) fn accept_snake_case(fields: &mut Fields, names: &[&str]) -> Result<(), Failure> {
    for name in names {
        let snake = snake_case(name);
        if snake == *name {
            continue;
        }
        let Some(value) = fields.take(&snake) else { continue };
        if fields.has(name) {
            let path = fields.path_of(name);
            return Err(invalid(format!("{path} is there twice: the other name is {snake}")));
        }
        fields.put(name, value);
    }
    Ok(())
}

/// Puts back what is left of an object, for the fields of the vendor.
pub(super) fn put_rest(fields: &mut Fields, name: &str, object: Fields) {
    let rest = object.into_rest();
    if !rest.is_empty() {
        fields.put(name, rest);
    }
}

pub(super) fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_has_one_of_two_names() {
        let mut fields = Fields::of(json!({ "top_p": 1, "seed": 2, "other_one": 3 }), "config").unwrap();
        accept_snake_case(&mut fields, &["topP", "seed"]).unwrap();
        assert_eq!(
            Some(fields.into_rest()),
            json!({ "seed": 2, "other_one": 3, "topP": 1 }).as_object().cloned()
        );
        let mut twice = Fields::of(json!({ "top_p": 1, "topP": 1 }), "config").unwrap();
        let failure = accept_snake_case(&mut twice, &["topP"]).unwrap_err();
        assert_eq!(&*failure.message, "config.topP is there twice: the other name is top_p");
        assert_eq!(snake_case("responseMimeType"), "response_mime_type");
    }
}
