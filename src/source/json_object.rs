//! Finds the array of items in a JSON object such as `{"count": 2, "data": [{...}, {...}]}`.
//!
//! The whole object is scanned before an item is read, so that an object with several arrays is refused before a request
//! is paid for. The scan separates the values under the keys of the outermost object, and does not parse them. Its memory
//! does not depend on the size of the object.

use std::io::{self, BufRead};

use super::error::LayoutFault;
use super::json::Position;
use crate::types::{Advice, Remedy};

/// Most bytes of a key that are kept.
const MAX_KEY_BYTES: usize = 256;

/// Most keys that are remembered, for messages.
const MAX_KEYS: usize = 1000;

/// Where an array of items begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ArrayStart {
    /// Its offset from the start of the input.
    pub(super) offset: u64,
    pub(super) at: Position,
}

/// Why there is no array of items.
#[derive(Debug)]
pub(super) enum FindError {
    /// The input cannot be read beyond this line.
    Read(u64, io::Error),
    /// The JSON is broken.
    Syntax(Position, String),
    /// The object does not have exactly one array of objects.
    Layout(LayoutFault),
}

/// An array under a key.
struct Candidate {
    key: String,
    start: ArrayStart,
    /// Whether its first element is an object, or it is empty.
    may_be_items: bool,
}

/// Reads an object to the end of the input and returns its array of objects: the one under the key `wanted`, or the only
/// one.
pub(super) fn find(input: impl BufRead, wanted: Option<&str>) -> Result<ArrayStart, FindError> {
    let mut scan = Scan { input, offset: 0, at: Position::START };
    let mut keys = Vec::new();
    let mut arrays = Vec::new();
    scan.read_object(wanted, &mut keys, &mut arrays)?;
    choose(&keys, arrays, wanted)
}

fn choose(keys: &[String], arrays: Vec<Candidate>, wanted: Option<&str>) -> Result<ArrayStart, FindError> {
    if let Some(wanted) = wanted {
        if let Some(found) = arrays.iter().find(|array| array.key == wanted) {
            return Ok(found.start);
        }
        if keys.iter().any(|key| key == wanted) {
            let reason =
                format!("the value of the key {wanted:?}, which is to have the items, is not an array");
            return Err(FindError::Layout(reason.into()));
        }
        let use_of_it = "is to have the items";
        return Err(FindError::Layout(LayoutFault::unknown_name("key", use_of_it, wanted, keys)));
    }
    let items: Vec<Candidate> = arrays.into_iter().filter(|array| array.may_be_items).collect();
    match &items[..] {
        [only] => Ok(only.start),
        [] => {
            let reason = "a JSON array of objects is expected here, or an object with one under a key, and this object has \
                          none; put [ ] around it, or choose the format jsonl if every line is an object";
            Err(FindError::Layout(reason.into()))
        }
        [..] => {
            let names: Vec<String> = items.iter().take(20).map(|array| format!("{:?}", array.key)).collect();
            let reason = format!("the object has several arrays: {}", names.join(", "));
            let advice = Advice::from("choose one: ").with_remedy(Remedy::SetItemsKey);
            Err(FindError::Layout(LayoutFault::with_advice(reason, advice)))
        }
    }
}

struct Scan<R> {
    input: R,
    offset: u64,
    at: Position,
}

impl<R: BufRead> Scan<R> {
    fn read_object(
        &mut self,
        wanted: Option<&str>,
        keys: &mut Vec<String>,
        arrays: &mut Vec<Candidate>,
    ) -> Result<(), FindError> {
        self.expect(b'{', "a JSON object is expected here")?;
        if self.peek()? == Some(b'}') {
            self.take()?;
        } else {
            loop {
                let key = self.read_key()?;
                self.expect(b':', "`:` is expected after the key")?;
                if let Some(array) = self.read_value(&key)?
                    && (arrays.len() < MAX_KEYS || wanted == Some(key.as_str()))
                {
                    arrays.push(array);
                }
                if keys.len() < MAX_KEYS {
                    keys.push(key);
                }
                match self.next_byte()? {
                    Some(b',') => {}
                    Some(b'}') => break,
                    Some(_) => return Err(self.syntax("`,` or `}` is expected after the value")),
                    None => return Err(self.syntax("the input ends inside the object")),
                }
            }
        }
        match self.peek()? {
            None => Ok(()),
            Some(_) => Err(self.syntax(
                "there is more after the end of the object; choose the format jsonl if every line is an object",
            )),
        }
    }

    /// Reads a key with its quotes. Only its beginning is kept.
    fn read_key(&mut self) -> Result<String, FindError> {
        self.expect(b'"', "a key in quotes is expected here")?;
        let mut text = vec![b'"'];
        let mut is_escaped = false;
        loop {
            let Some(byte) = self.take()? else {
                return Err(self.syntax("the input ends inside the object"));
            };
            if text.len() <= MAX_KEY_BYTES {
                text.push(byte);
            }
            if byte == b'"' && !is_escaped {
                break;
            }
            is_escaped = byte == b'\\' && !is_escaped;
        }
        let whole = serde_json::from_slice::<String>(&text);
        Ok(whole.unwrap_or_else(|_| format!("{}…", String::from_utf8_lossy(&text[1..]))))
    }

    /// Skips a value, and returns it if it is an array.
    fn read_value(&mut self, key: &str) -> Result<Option<Candidate>, FindError> {
        let Some(first) = self.peek()? else {
            return Err(self.syntax("the input ends inside the object"));
        };
        let start = ArrayStart { offset: self.offset, at: self.at };
        if first != b'[' {
            self.skip_value()?;
            return Ok(None);
        }
        self.take()?;
        let may_be_items = matches!(self.peek()?, Some(b'{' | b']'));
        self.skip_nested(1)?;
        Ok(Some(Candidate { key: key.to_owned(), start, may_be_items }))
    }

    fn skip_value(&mut self) -> Result<(), FindError> {
        match self.peek()? {
            Some(b'{' | b'[') => {
                self.take()?;
                self.skip_nested(1)
            }
            Some(b'"') => {
                self.take()?;
                self.skip_string()
            }
            Some(b',' | b'}' | b']') => Err(self.syntax("a value is missing")),
            Some(_) | None => self.skip_until(|byte| matches!(byte, b',' | b'}')).map(drop),
        }
    }

    /// Skips to the end of `depth` open brackets.
    fn skip_nested(&mut self, mut depth: u64) -> Result<(), FindError> {
        while depth > 0 {
            match self.skip_until(|byte| matches!(byte, b'{' | b'[' | b'}' | b']' | b'"'))? {
                Some(b'"') => {
                    self.take()?;
                    self.skip_string()?;
                }
                Some(b'{' | b'[') => {
                    self.take()?;
                    depth += 1;
                }
                Some(_) => {
                    self.take()?;
                    depth -= 1;
                }
                None => return Err(self.syntax("the input ends inside the object")),
            }
        }
        Ok(())
    }

    /// Skips the rest of a string.
    fn skip_string(&mut self) -> Result<(), FindError> {
        loop {
            match self.skip_until(|byte| matches!(byte, b'"' | b'\\'))? {
                Some(b'"') => return self.take().map(drop),
                Some(_) => {
                    self.take()?;
                    self.take()?;
                }
                None => return Err(self.syntax("the input ends inside the object")),
            }
        }
    }

    /// Skips to the next byte that `stops` accepts, which stays unread.
    fn skip_until(&mut self, stops: impl Fn(u8) -> bool) -> Result<Option<u8>, FindError> {
        loop {
            let line = self.at.line;
            let available = self.input.fill_buf().map_err(|error| FindError::Read(line, error))?;
            if available.is_empty() {
                return Ok(None);
            }
            let found = available.iter().position(|byte| stops(*byte));
            let skipped = &available[..found.unwrap_or(available.len())];
            let next = found.map(|at| available[at]);
            skipped.iter().for_each(|byte| self.at.advance_over(*byte));
            let used = skipped.len();
            self.offset += used as u64;
            self.input.consume(used);
            if next.is_some() {
                return Ok(next);
            }
        }
    }

    /// Skips white space and returns the byte after it, which stays unread.
    fn peek(&mut self) -> Result<Option<u8>, FindError> {
        self.skip_until(|byte| !byte.is_ascii_whitespace())
    }

    /// Returns the next byte that is not white space.
    fn next_byte(&mut self) -> Result<Option<u8>, FindError> {
        self.peek()?;
        self.take()
    }

    /// Returns the next byte.
    fn take(&mut self) -> Result<Option<u8>, FindError> {
        let next = self.skip_until(|_| true)?;
        if let Some(byte) = next {
            self.at.advance_over(byte);
            self.offset += 1;
            self.input.consume(1);
        }
        Ok(next)
    }

    fn expect(&mut self, byte: u8, reason: &str) -> Result<(), FindError> {
        if self.peek()? == Some(byte) { self.take().map(drop) } else { Err(self.syntax(reason)) }
    }

    fn syntax(&self, reason: &str) -> FindError {
        FindError::Syntax(self.at, reason.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn find_in(text: &str, wanted: Option<&str>) -> Result<String, String> {
        let find_with = |capacity| find(BufReader::with_capacity(capacity, text.as_bytes()), wanted);
        match (find_with(1), find_with(100)) {
            (Ok(found), Ok(other)) => {
                assert_eq!(found, other);
                Ok(text[usize::try_from(found.offset).unwrap()..].chars().take(9).collect())
            }
            (Err(FindError::Layout(fault)), Err(_)) => Err(fault.to_string()),
            (Err(FindError::Syntax(at, reason)), Err(_)) => {
                Err(format!("{}:{} {reason}", at.line, at.column))
            }
            (found, other) => panic!("{found:?} {other:?}"),
        }
    }

    #[test]
    fn the_only_array_of_objects_is_found_wherever_it_is() {
        for text in [
            r#"{"data":[{"a":1}]}"#,
            "{ \"n\": 2, \"tags\": [1, \"x\"], \"in\": {\"data\": [{\"b\": 2}]},\n\"data\" : [{\"a\":1}], \"z\": \"]}\\\"[{\" }",
            r#"{"a\"b": null, "t": true, "rows": [{"a":1}, {}]} "#,
        ] {
            let found = find_in(text, None).unwrap();
            assert!(found.starts_with("[{\"a\":1}"), "{text}: {found}");
        }
        assert_eq!(find_in(r#"{"x": []}"#, None).unwrap(), "[]}");
    }

    #[test]
    fn several_arrays_are_named_and_a_key_chooses_one() {
        let text = r#"{"users": [{"a":1}], "orders": [{"b":2}], "n": 3}"#;
        let reason = find_in(text, None).unwrap_err();
        assert_eq!(
            reason,
            "the object has several arrays: \"users\", \"orders\"; choose one: name the key of the items"
        );
        assert_eq!(find_in(text, Some("orders")).unwrap(), "[{\"b\":2}]");
        let reason = find_in(text, Some("order")).unwrap_err();
        assert!(reason.contains("did you mean \"orders\"?") && reason.contains("\"n\""), "{reason}");
        assert!(find_in(text, Some("n")).unwrap_err().contains("is not an array"));
    }

    #[test]
    fn what_is_no_object_with_an_array_is_refused() {
        for (text, reason) in [
            (r#"{"id": 1}"#, "put [ ] around it"),
            ("{}", "put [ ] around it"),
            ("{\"id\": 1}\n{\"id\": 2}", "2:1 there is more after the end of the object"),
            (r#"{"data": [{"a": 1}"#, "the input ends inside the object"),
            (r#"{"data": [{"a": "x"#, "the input ends inside the object"),
            (r#"{"data" [1]}"#, "1:9 `:` is expected"),
            (r#"{"data": }"#, "a value is missing"),
            (r#"{data: [1]}"#, "1:2 a key in quotes is expected"),
            (r#"{"a": 1 "b": 2}"#, "expected"),
        ] {
            let found = find_in(text, None).unwrap_err();
            assert!(found.contains(reason), "{text}: {found}");
        }
    }
}
