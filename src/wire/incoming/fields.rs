//! The fields of a JSON object of a request, each of which is read once or refused.

use serde_json::{Map, Value};

use crate::types::{Class, Failure, Part};

/// The fields of an object that have not been read yet. `null` counts as missing, as at the vendors.
#[derive(Debug)]
pub(in crate::wire) struct Fields {
    /// The path of the object, such as `messages[2].`; empty for the body.
    path: String,
    fields: Map<String, Value>,
}

impl Fields {
    /// Reads a body.
    ///
    /// # Errors
    /// `api_error` with the line and the column if it is not JSON.
    pub(in crate::wire) fn of_body(body: &[u8]) -> Result<Self, Failure> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self { path: String::new(), fields }),
            Ok(_) => Err(invalid("the body must be a JSON object")),
            Err(error) => Err(invalid(format!("the body is not JSON: {error}"))),
        }
    }

    /// Reads an object at a path, such as `messages[2]`.
    ///
    /// # Errors
    /// `api_error` if the value is not an object.
    pub(in crate::wire) fn of(value: Value, path: &str) -> Result<Self, Failure> {
        let Value::Object(fields) = value else {
            return Err(invalid(format!("{path} must be an object")));
        };
        Ok(Self { path: format!("{path}."), fields })
    }

    /// Returns the path of a field.
    pub(in crate::wire) fn path_of(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// Returns whether there is a field of this name.
    pub(in crate::wire) fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// Returns a field without removing it.
    pub(in crate::wire) fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// Removes a field of any type.
    pub(in crate::wire) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Puts a field back.
    pub(in crate::wire) fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// Puts back what is left of an object, if anything is.
    pub(in crate::wire) fn put_object(&mut self, name: &str, object: Self) {
        let rest = object.into_rest();
        if !rest.is_empty() {
            self.put(name, rest);
        }
    }

    /// Removes a string.
    pub(in crate::wire) fn text(&mut self, name: &str) -> Result<Option<String>, Failure> {
        self.read(name, "a string", |value| if let Value::String(text) = value { Some(text) } else { None })
    }

    /// Removes a string that must be there.
    pub(in crate::wire) fn required_text(&mut self, name: &str) -> Result<String, Failure> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    /// Removes `true` or `false`.
    pub(in crate::wire) fn bool(&mut self, name: &str) -> Result<Option<bool>, Failure> {
        self.read(name, "true or false", |value| value.as_bool())
    }

    /// Removes a number.
    pub(in crate::wire) fn number(&mut self, name: &str) -> Result<Option<f64>, Failure> {
        self.read(name, "a number", |value| value.as_f64().filter(|number| number.is_finite()))
    }

    /// Removes a whole number.
    pub(in crate::wire) fn integer(&mut self, name: &str) -> Result<Option<i64>, Failure> {
        self.read(name, "a whole number of at most 64 bits", |value| value.as_i64())
    }

    /// Removes a number of tokens.
    pub(in crate::wire) fn tokens(&mut self, name: &str) -> Result<Option<u32>, Failure> {
        let of = |value: Value| value.as_u64().and_then(|tokens| u32::try_from(tokens).ok());
        self.read(name, "a whole number from 0 to 4294967295", of)
    }

    /// Removes a list.
    pub(in crate::wire) fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Failure> {
        self.read(name, "a list", |value| if let Value::Array(all) = value { Some(all) } else { None })
    }

    /// Removes an object.
    pub(in crate::wire) fn object(&mut self, name: &str) -> Result<Option<Self>, Failure> {
        self.take(name).map(|value| Self::of(value, &self.path_of(name))).transpose()
    }

    /// Removes an object that must be there.
    pub(in crate::wire) fn required_object(&mut self, name: &str) -> Result<Self, Failure> {
        self.object(name)?.ok_or_else(|| self.missing(name))
    }

    /// Removes a text or a list of parts, each an object with a `type`. `read` removes the other fields of a part.
    pub(in crate::wire) fn parts(
        &mut self,
        name: &str,
        read: impl Fn(&mut Self, &str) -> Result<Part, Failure>,
    ) -> Result<Option<Vec<Part>>, Failure> {
        let path = self.path_of(name);
        let all = match self.take(name) {
            None => return Ok(None),
            Some(Value::String(text)) => return Ok(Some(vec![Part::text(text)])),
            Some(Value::Array(all)) => all,
            Some(_) => return Err(invalid(format!("{path} must be a string or a list"))),
        };
        let mut parts = Vec::with_capacity(all.len());
        for (index, value) in all.into_iter().enumerate() {
            let mut part = Self::of(value, &format!("{path}[{index}]"))?;
            let kind = part.required_text("type")?;
            parts.push(read(&mut part, &kind)?);
            part.finish()?;
        }
        Ok(Some(parts))
    }

    /// Ends the reading of an object.
    ///
    /// # Errors
    /// `api_error`, which names the first field that has not been read: neither a prompt nor the fields of a vendor
    /// can carry it.
    pub(in crate::wire) fn finish(self) -> Result<(), Failure> {
        match self.fields.iter().find(|(_, value)| !value.is_null()) {
            Some((name, _)) => Err(invalid(format!("{} is not supported; remove it", self.path_of(name)))),
            None => Ok(()),
        }
    }

    /// Returns the fields that have not been read.
    pub(in crate::wire) fn into_rest(mut self) -> Map<String, Value> {
        self.fields.retain(|_, value| !value.is_null());
        self.fields
    }

    /// Returns the failure of an object without a field that it needs.
    pub(in crate::wire) fn missing(&self, name: &str) -> Failure {
        invalid(format!("{} is missing", self.path_of(name)))
    }

    /// Returns the failure of a field with a value that is not supported.
    pub(in crate::wire) fn unsupported(&self, name: &str, value: &str) -> Failure {
        invalid(format!("{} {value:?} is not supported", self.path_of(name)))
    }

    fn read<T>(
        &mut self,
        name: &str,
        expected: &str,
        of: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match of(value) {
            Some(read) => Ok(Some(read)),
            None => Err(invalid(format!("{} must be {expected}", self.path_of(name)))),
        }
    }
}

/// Returns the failure of a request that no target could take for this reason.
pub(in crate::wire) fn invalid(message: impl Into<Box<str>>) -> Failure {
    Failure::new(Class::ApiError, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::of(value, "messages[2]").unwrap()
    }

    fn message<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
        let failure = result.unwrap_err();
        assert_eq!(failure.class, Class::ApiError);
        failure.message.into()
    }

    #[test]
    fn a_body_that_is_not_json_is_refused_with_its_position() {
        let error = message(Fields::of_body(b"{\n  \"model\": \"m\",\n  \"messages\": [,]\n}"));
        assert_eq!(error, "the body is not JSON: expected value at line 3 column 16");
        assert!(message(Fields::of_body(b"")).contains("line 1 column 0"));
        assert!(message(Fields::of_body(b"{\"a\": \"\xff\"}")).contains("line 1 column"));
        assert_eq!(message(Fields::of_body(b"[1]")), "the body must be a JSON object");
        let nested = "[".repeat(100_000);
        assert!(message(Fields::of_body(nested.as_bytes())).contains("recursion limit exceeded at line 1"));
    }

    #[test]
    fn a_field_of_another_type_is_refused_by_its_path() {
        let all = || fields(json!({ "a": 1.5, "b": "x", "c": -1, "d": [], "e": {} }));
        assert_eq!(message(all().text("a")), "messages[2].a must be a string");
        assert_eq!(message(all().bool("b")), "messages[2].b must be true or false");
        assert_eq!(message(all().number("b")), "messages[2].b must be a number");
        assert_eq!(message(all().integer("a")), "messages[2].a must be a whole number of at most 64 bits");
        assert_eq!(message(all().tokens("c")), "messages[2].c must be a whole number from 0 to 4294967295");
        assert_eq!(message(all().list("e")), "messages[2].e must be a list");
        assert_eq!(message(all().object("d")), "messages[2].d must be an object");
        assert_eq!(message(all().required_text("f")), "messages[2].f is missing");
        assert_eq!(message(all().required_object("f")), "messages[2].f is missing");
        assert_eq!(message(Fields::of(json!("x"), "messages[2]")), "messages[2] must be an object");
    }

    #[test]
    fn a_text_or_a_list_of_parts_is_read() {
        let read = |content: Value| {
            fields(json!({ "content": content })).parts("content", |part, kind| match kind {
                "text" => part.required_text("text").map(Part::text),
                other => Err(part.unsupported("type", other)),
            })
        };
        assert_eq!(read(Value::Null), Ok(None));
        assert_eq!(read(json!("x")), Ok(Some(vec![Part::text("x")])));
        let texts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
        assert_eq!(read(texts), Ok(Some(vec![Part::text("a"), Part::text("b")])));
        for (content, expected) in [
            (json!(7), "messages[2].content must be a string or a list"),
            (json!(["x"]), "messages[2].content[0] must be an object"),
            (json!([{}]), "messages[2].content[0].type is missing"),
            (
                json!([{ "type": "text", "text": "a" }, { "type": "input_video" }]),
                "messages[2].content[1].type \"input_video\" is not supported",
            ),
            (
                json!([{ "type": "text", "text": "a", "z": 1 }]),
                "messages[2].content[0].z is not supported; remove it",
            ),
        ] {
            assert_eq!(message(read(content)), expected);
        }
    }

    #[test]
    fn a_field_that_was_not_read_is_refused_or_returned() {
        let mut object = fields(json!({ "a": "x", "b": null, "c": { "d": null }, "e": 7, "f": 0.5 }));
        assert!(object.has("a") && !object.has("b") && !object.has("z"));
        assert_eq!(object.text("a").unwrap().as_deref(), Some("x"));
        assert_eq!(object.bool("b").unwrap(), None);
        assert_eq!((object.integer("e").unwrap(), object.number("f").unwrap()), (Some(7), Some(0.5)));
        let mut inner = object.object("c").unwrap().unwrap();
        assert_eq!(inner.path_of("d"), "messages[2].c.d");
        inner.put("g", 1);
        assert_eq!(inner.get("g"), Some(&json!(1)));
        assert_eq!(message(inner.finish()), "messages[2].c.g is not supported; remove it");
        object.put("h", Value::Null);
        assert!(object.finish().is_ok());
        let rest = fields(json!({ "a": null, "b": { "c": null } })).into_rest();
        assert_eq!(Value::Object(rest), json!({ "b": { "c": null } }));
    }
}
