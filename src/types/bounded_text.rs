//! Cuts a text that may quote what others have sent.

/// What a text ends with that was cut.
const MARK: char = '…';

/// Returns a text of at most `max_bytes`. A longer one is cut at a character, and ends with `…`.
pub(crate) fn bounded_text(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes.saturating_sub(MARK.len_utf8())));
        text.push(MARK);
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(bounded_text("twelve bytes".to_owned(), 12), "twelve bytes");
        assert_eq!(bounded_text("twelve bytes".to_owned(), 11), "twelve b…");
        assert_eq!(bounded_text("éééé".to_owned(), 8), "éééé");
        // Two bytes are left of it, and a character does not end after five.
        assert_eq!(bounded_text("ééééé".to_owned(), 8), "éé…");
    }
}
