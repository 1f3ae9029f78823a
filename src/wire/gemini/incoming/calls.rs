//! The calls of functions in a conversation, and to which of them a response belongs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use crate::wire::answer_parts::GENERATED_ID;

/// The calls so far. Calls without ids get ids that encoding leaves out again.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The ids in the request that look like generated ones.
    taken: HashSet<String>,
    /// The number of the next generated id.
    next: usize,
    /// The name of the function of each call, by the id of the call.
    names: HashMap<Arc<str>, Arc<str>>,
    /// The ids of the calls of each function in their order. Answered calls may remain until they are at the front.
    unanswered: HashMap<Arc<str>, VecDeque<Arc<str>>>,
    answered: HashSet<Arc<str>>,
}

impl Calls {
    /// Begins to read these contents.
    pub(super) fn new(contents: &[Value]) -> Self {
        let parts = contents.iter().filter_map(|content| content["parts"].as_array()).flatten();
        let calls = parts.flat_map(|part| [&part["functionCall"], &part["function_call"]]);
        let ids = calls.filter_map(|call| call["id"].as_str());
        let taken = ids.filter(|id| id.starts_with(GENERATED_ID)).map(str::to_owned).collect();
        Self { taken, ..Self::default() }
    }

    /// Adds a call, and returns its id.
    pub(super) fn add(&mut self, id: Option<String>, name: &str) -> Arc<str> {
        let id: Arc<str> = id.unwrap_or_else(|| self.generate()).into();
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&id), Arc::clone(&name));
        self.unanswered.entry(name).or_default().push_back(Arc::clone(&id));
        id
    }

    fn generate(&mut self) -> String {
        loop {
            let id = format!("{GENERATED_ID}{}", self.next);
            self.next += 1;
            if !self.taken.contains(&id) {
                return id;
            }
        }
    }

    /// Returns the id of the call to which a response belongs; without an id the first call of the function that has
    /// no response.
    pub(super) fn answer(&mut self, id: Option<&str>, name: &str) -> Option<Arc<str>> {
        let id = match id {
            Some(id) => {
                let (id, called) = self.names.get_key_value(id)?;
                (**called == *name).then(|| Arc::clone(id))?
            }
            None => loop {
                let first = self.unanswered.get_mut(name)?.pop_front()?;
                if !self.answered.contains(&first) {
                    break first;
                }
            },
        };
        self.answered.insert(Arc::clone(&id));
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_response_belongs_to_the_call_of_its_id_or_the_first_call_of_its_function() {
        let contents = json!([{ "parts": [{ "functionCall": { "id": "pointsman_call_1" } }] }]);
        let mut calls = Calls::new(contents.as_array().unwrap());
        assert_eq!(&*calls.add(None, "f"), "pointsman_call_0");
        assert_eq!(&*calls.add(Some("pointsman_call_1".to_owned()), "f"), "pointsman_call_1");
        assert_eq!(&*calls.add(None, "f"), "pointsman_call_2");
        assert_eq!(&*calls.add(None, "g"), "pointsman_call_3");
        assert_eq!(calls.answer(Some("pointsman_call_0"), "g"), None);
        assert_eq!(calls.answer(Some("x"), "f"), None);
        assert_eq!(calls.answer(Some("pointsman_call_0"), "f").as_deref(), Some("pointsman_call_0"));
        assert_eq!(calls.answer(None, "f").as_deref(), Some("pointsman_call_1"));
        assert_eq!(calls.answer(None, "f").as_deref(), Some("pointsman_call_2"));
        assert_eq!(calls.answer(None, "f"), None);
        assert_eq!(calls.answer(None, "h"), None);
    }
}
