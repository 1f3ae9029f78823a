//! The ID of the request that the present task handles, for errors and logs.

use std::cell::RefCell;
use std::fmt::Write;

/// Longest ID that is taken from a caller, in bytes.
const MAX_BYTES: usize = 128;

tokio::task_local! {
    static CURRENT: RefCell<String>;
}

/// Returns the ID of the present request; empty outside of one.
pub(super) fn current() -> String {
    CURRENT.try_with(|id| id.borrow().clone()).unwrap_or_default()
}

/// Runs `work` as a part of the request with this ID.
pub(super) async fn within<T>(id: String, work: impl Future<Output = T>) -> T {
    CURRENT.scope(RefCell::new(id), work).await
}

/// Returns the ID that a caller has given, if it is safe to log and to send back.
pub(super) fn accepted(given: &str) -> Option<String> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    let is_valid = !given.is_empty() && given.len() <= MAX_BYTES && given.bytes().all(is_safe);
    is_valid.then(|| given.to_owned())
}

/// Returns a new random ID.
pub(super) fn random() -> String {
    let mut id = String::with_capacity(20);
    // Writing to a string cannot fail.
    let _ = write!(id, "req-{:016x}", fastrand::u64(..));
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_change_a_log_line_is_replaced() {
        assert_eq!(accepted("trace-1.a:b"), Some("trace-1.a:b".to_owned()));
        for wrong in ["", "a b", "a\nb", "ä", &"a".repeat(129)] {
            assert_eq!(accepted(wrong), None, "{wrong:?}");
        }
        assert!(accepted(&random()).is_some());
    }
}
