//! The trace context of the W3C: the headers `traceparent` and `tracestate`.
//!
//! Source: <https://www.w3.org/TR/trace-context/>. A context that is not valid is not used: the trace then begins at
//! Pointsman.

use std::fmt::{self, Write};

/// The length of the value of `traceparent` in version 00, and the least length in later ones.
const TRACEPARENT_LEN: usize = 55;

/// The longest value of `tracestate` that is passed on.
const MAX_TRACESTATE_BYTES: usize = 512;

/// The most entries of `tracestate`.
const MAX_TRACESTATE_ENTRIES: usize = 32;

/// The longest key and the longest value of an entry of `tracestate`.
const MAX_TRACESTATE_PART: usize = 256;

/// The flags that are defined: whether the caller may have recorded the trace, and whether the id of the trace is
/// random.
const KNOWN_FLAGS: u8 = 0b11;

/// The flag of a caller that may have recorded the trace.
const SAMPLED: u8 = 0b01;

/// The place of a request in the trace of its caller.
///
/// ```
/// use pointsman::TraceContext;
///
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context = TraceContext::parse(header)?.with_state("vendor=1");
/// assert_eq!(context.traceparent(), header);
/// assert_eq!(context.tracestate(), Some("vendor=1"));
/// # Ok::<(), pointsman::errors::TraceContextError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
    state: Option<Box<str>>,
}

/// Why a text is not a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceContextError {
    /// It does not have the form `version-trace-span-flags` in lowercase hexadecimal digits.
    #[error("it is not of the form 00-TRACE-SPAN-FLAGS, with 32, 16 and 2 lowercase hexadecimal digits")]
    Form,
    /// The version is ff, which is invalid.
    #[error("version ff is invalid")]
    Version,
    /// The id of the trace is zero.
    #[error("the id of the trace is zero")]
    ZeroTrace,
    /// The id of the span is zero.
    #[error("the id of the span is zero")]
    ZeroSpan,
}

impl TraceContext {
    /// Reads the value of the header `traceparent`. Of a later version than 00, the parts of version 00 are read.
    ///
    /// # Errors
    /// If the value is not valid.
    pub fn parse(traceparent: &str) -> Result<Self, TraceContextError> {
        let bytes = traceparent.as_bytes();
        let head = bytes.get(..TRACEPARENT_LEN).ok_or(TraceContextError::Form)?;
        let rest = bytes.get(TRACEPARENT_LEN..).unwrap_or_default();
        let [version] = hex(head, 0)?;
        if version == 0xff {
            return Err(TraceContextError::Version);
        }
        let is_end = if version == 0 { rest.is_empty() } else { matches!(rest.first(), None | Some(b'-')) };
        if !is_end || [2, 35, 52].iter().any(|at| head.get(*at) != Some(&b'-')) {
            return Err(TraceContextError::Form);
        }
        let trace = hex(head, 3)?;
        let span = hex(head, 36)?;
        let [flags] = hex(head, 53)?;
        if trace == [0; 16] {
            return Err(TraceContextError::ZeroTrace);
        }
        if span == [0; 8] {
            return Err(TraceContextError::ZeroSpan);
        }
        // The meaning of all flags but the first may differ in a later version.
        let known = if version == 0 { KNOWN_FLAGS } else { SAMPLED };
        Ok(Self { trace, span, flags: flags & known, state: None })
    }

    /// Adds the value of the header `tracestate`; several headers are joined with commas. It is left out if it is
    /// malformed or longer than 512 bytes.
    #[must_use]
    pub fn with_state(mut self, tracestate: &str) -> Self {
        let tracestate = tracestate.trim_matches([' ', '\t']);
        self.state = is_valid_state(tracestate).then(|| tracestate.into());
        self
    }

    /// Creates the context of a new trace with a random id, which its creator does not record.
    pub fn random() -> Self {
        let trace = fastrand::u128(1..).to_be_bytes();
        Self { trace, span: random_span(), flags: 0, state: None }
    }

    /// Creates a context from its parts; `None` if an id is zero.
    #[cfg(feature = "otel")]
    pub(super) fn from_parts(trace: [u8; 16], span: [u8; 8], flags: u8) -> Option<Self> {
        let is_valid = trace != [0; 16] && span != [0; 8];
        is_valid.then_some(Self { trace, span, flags: flags & KNOWN_FLAGS, state: None })
    }

    /// Returns the context of a new span under this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: random_span(), ..self.clone() }
    }

    /// Returns the id of the trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace
    }

    /// Returns the id of the span.
    pub fn span_id(&self) -> [u8; 8] {
        self.span
    }

    /// Returns whether the caller may have recorded the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Returns the flags.
    #[cfg(feature = "otel")]
    pub(super) fn flags(&self) -> u8 {
        self.flags
    }

    /// Returns the value of the header `traceparent`, in version 00.
    pub fn traceparent(&self) -> String {
        let mut text = String::with_capacity(TRACEPARENT_LEN);
        text.push_str("00-");
        push_hex(&mut text, &self.trace);
        text.push('-');
        push_hex(&mut text, &self.span);
        text.push('-');
        push_hex(&mut text, &[self.flags]);
        text
    }

    /// Returns the value of the header `tracestate`; `None` if there is none.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The state belongs to the caller's tracing systems and may contain anything.
        out.debug_tuple("TraceContext").field(&self.traceparent()).finish()
    }
}

fn random_span() -> [u8; 8] {
    fastrand::u64(1..).to_be_bytes()
}

/// Reads lowercase hexadecimal digits from a position on.
fn hex<const N: usize>(text: &[u8], at: usize) -> Result<[u8; N], TraceContextError> {
    let mut bytes = [0; N];
    let digits = text.get(at..at + 2 * N).ok_or(TraceContextError::Form)?;
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err(TraceContextError::Form),
            };
            *byte = (*byte << 4) | value;
        }
    }
    Ok(bytes)
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
}

/// Returns whether a text is a `tracestate` with at least one entry that may be passed on.
fn is_valid_state(text: &str) -> bool {
    if text.len() > MAX_TRACESTATE_BYTES {
        return false;
    }
    let mut keys: Vec<&str> = Vec::new();
    for entry in text.split(',') {
        let entry = entry.trim_matches([' ', '\t']);
        // An entry may be empty, so that headers can be joined.
        if entry.is_empty() {
            continue;
        }
        let Some((key, value)) = entry.split_once('=') else { return false };
        if !is_valid_key(key) || !is_valid_value(value) || keys.contains(&key) {
            return false;
        }
        keys.push(key);
    }
    (1..=MAX_TRACESTATE_ENTRIES).contains(&keys.len())
}

fn is_valid_key(key: &str) -> bool {
    let begins_well = key.starts_with(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    let is_allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    begins_well
        && key.len() <= MAX_TRACESTATE_PART
        && key.bytes().all(is_allowed)
        && key.bytes().filter(|byte| *byte == b'@').count() <= 1
        && !key.ends_with('@')
}

fn is_valid_value(value: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'=';
    (1..=MAX_TRACESTATE_PART).contains(&value.len()) && value.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_written_as_it_was_read() {
        let context = TraceContext::parse(TRACEPARENT).unwrap();
        assert_eq!(context.traceparent(), TRACEPARENT);
        assert!(context.is_sampled());
        assert_eq!((context.trace_id()[0], context.span_id()[1]), (0x4b, 0xf0));
        assert_eq!(context.tracestate(), None);
    }

    #[test]
    fn what_is_not_valid_is_refused_with_its_reason() {
        for (text, error) in [
            ("", TraceContextError::Form),
            ("00", TraceContextError::Form),
            ("00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", TraceContextError::Form),
            ("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", TraceContextError::Form),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", TraceContextError::Form),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-", TraceContextError::Form),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ", TraceContextError::Form),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-000f067aa0ba902b7-01", TraceContextError::Form),
            ("0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", TraceContextError::Form),
            ("00-4bf92f3577b34da6a3ce929d0e0e473é-0f067aa0ba902b7-01", TraceContextError::Form),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", TraceContextError::Version),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", TraceContextError::ZeroTrace),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", TraceContextError::ZeroSpan),
        ] {
            assert_eq!(TraceContext::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn of_a_later_version_the_known_parts_are_read() {
        let later = TRACEPARENT.replacen("00", "cc", 1);
        for text in [later.clone(), format!("{later}-"), format!("{later}-what-follows")] {
            assert_eq!(TraceContext::parse(&text).unwrap().traceparent(), TRACEPARENT, "{text}");
        }
        assert_eq!(TraceContext::parse(&format!("{later}.")), Err(TraceContextError::Form));
    }

    #[test]
    fn unknown_flags_are_cleared() {
        let flags = |version: &str, flags: &str| {
            let text = format!("{version}-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
            TraceContext::parse(&text).unwrap().traceparent()[53..].to_owned()
        };
        assert_eq!(flags("00", "ff"), "03");
        assert_eq!(flags("01", "ff"), "01");
        assert_eq!(flags("00", "fc"), "00");
    }

    #[test]
    fn a_malformed_state_is_left_out() {
        let state = |text: &str| {
            TraceContext::parse(TRACEPARENT).unwrap().with_state(text).tracestate().map(str::to_owned)
        };
        for valid in ["a=1", "a=1,b=2", "a=1 , ,b=2", "t1@sys=x", "0a_-*/=!~", "a=b c"] {
            assert_eq!(state(valid).as_deref(), Some(valid), "{valid}");
        }
        assert_eq!(state(" a=1\t").as_deref(), Some("a=1"));
        let long = format!("a={}", "x".repeat(257));
        let too_long = format!("a={},b={},c=1", "x".repeat(253), "y".repeat(253));
        let many: Vec<_> = (0..33).map(|number| format!("a{number}=1")).collect();
        let many = many.join(",");
        for invalid in [
            "", ",", "a", "=1", "a=", "A=1", "a=1,a=2", "a=1=2", "a=é", "a@b@c=1", "a@=1", "a b=1", "a=\n",
            &long, &too_long, &many,
        ] {
            assert_eq!(state(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn a_child_is_in_the_same_trace_under_another_id() {
        let parent = TraceContext::parse(TRACEPARENT).unwrap().with_state("a=1");
        let child = parent.child();
        assert_eq!((child.trace_id(), child.is_sampled()), (parent.trace_id(), true));
        assert_eq!(child.tracestate(), Some("a=1"));
        assert_ne!(child.span_id(), parent.span_id());
        assert!(!format!("{child:?}").contains("a=1"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,80}", state in ".{0,600}") {
            let context = TraceContext::random().with_state(&state);
            prop_assert!(context.tracestate().is_none_or(|state| state.len() <= MAX_TRACESTATE_BYTES));
            if let Ok(context) = TraceContext::parse(&text) {
                prop_assert_eq!(context.traceparent().len(), TRACEPARENT_LEN);
            }
        }

        #[test]
        fn what_is_written_is_read_again(
            trace in 1u128..,
            span in 1u64..,
            flags in 0u8..4,
        ) {
            let text = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
            let context = TraceContext::parse(&text).unwrap();
            prop_assert_eq!(context.traceparent(), text);
            prop_assert_eq!(context.trace_id(), trace.to_be_bytes());
            prop_assert_eq!(context.span_id(), span.to_be_bytes());
        }

        #[test]
        fn one_wrong_byte_is_never_read_as_the_same_context(at in 0usize..55, byte in any::<u8>()) {
            let mut text = TRACEPARENT.as_bytes().to_vec();
            text[at] = byte;
            let Ok(text) = String::from_utf8(text) else { return Ok(()) };
            let same = TraceContext::parse(TRACEPARENT).unwrap();
            // Another version, other unknown flags and the same byte leave the context as it is.
            let may_be_same = !(2..53).contains(&at) || text == TRACEPARENT;
            prop_assert!(may_be_same || TraceContext::parse(&text) != Ok(same));
        }

        #[test]
        fn a_new_trace_is_valid(_ in 0..100) {
            let context = TraceContext::random();
            prop_assert_eq!(TraceContext::parse(&context.traceparent()), Ok(context));
        }
    }
}
