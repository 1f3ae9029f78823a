//! The part of the list of models that a request asks for.

/// The largest page.
const MAX_SIZE: usize = 1_000;

/// A page of the list.
#[derive(Debug, PartialEq)]
pub(super) struct ModelPage<'m> {
    pub(super) models: &'m [String],
    /// The position after it, if more models follow.
    pub(super) next: Option<usize>,
}

impl<'m> ModelPage<'m> {
    /// Returns the page that begins at `start`, with as many models as the parameter `size` says.
    pub(super) fn from(
        models: &'m [String],
        start: usize,
        query: &str,
        (size, default_size): (&str, usize),
    ) -> Self {
        let wanted = parameter(query, size).and_then(|size| size.parse::<usize>().ok());
        let size = wanted.filter(|size| *size > 0).unwrap_or(default_size).min(MAX_SIZE);
        let start = start.min(models.len());
        let end = models.len().min(start + size);
        Self { models: &models[start..end], next: Some(end).filter(|end| *end < models.len()) }
    }
}

/// Returns a parameter of a query.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| decoded(value))
}

/// Returns the text that a parameter of a URL encodes.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => {
                let digits = [*high, *low];
                std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_at_most_the_size_that_was_asked_for() {
        let models: Vec<String> = (0..5).map(|number| format!("m{number}")).collect();
        let page = |start, query| {
            let page = ModelPage::from(&models, start, query, ("limit", 3));
            (page.models.len(), page.next)
        };
        assert_eq!(page(0, ""), (3, Some(3)));
        assert_eq!(page(3, ""), (2, None));
        assert_eq!(page(1, "limit=2&x=1"), (2, Some(3)));
        assert_eq!(page(9, "limit=0"), (0, None));
    }

    #[test]
    fn an_encoded_parameter_is_decoded() {
        assert_eq!(parameter("x=1&after_id=a%20b%2Fc%", "after_id").as_deref(), Some("a b/c%"));
        assert_eq!(decoded("%zz"), "%zz");
    }
}
