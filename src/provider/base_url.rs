//! Reads the address of a provider, `base_url`.

use http::Uri;

/// The `base_url` of a provider that is played on this machine.
pub(super) const SIMULATOR: &str = "simulator";

/// Why no call can go to an address. Does not repeat the address: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wrong}; {advice}")]
pub struct AddressError {
    /// What is wrong.
    pub wrong: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

/// Reads an address that calls can go to, or `simulator`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_base_url(text: &str) -> Result<String, AddressError> {
    if text == SIMULATOR {
        return Ok(text.to_owned());
    }
    let uri: Uri = text.parse().map_err(|_| NO_ADDRESS)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(NO_ADDRESS);
    }
    match uri.authority() {
        None => Err(NO_ADDRESS),
        Some(authority) if authority.as_str().contains('@') => {
            let wrong = "an address shows in logs and may hold no password";
            Err(AddressError { wrong, advice: "put it into `headers` or `keys`" })
        }
        Some(_) if uri.query().is_some() || text.contains('#') => {
            let wrong = "each call adds its path to this address";
            Err(AddressError { wrong, advice: "leave out everything from `?` or `#` on" })
        }
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
    }
}

const NO_ADDRESS: AddressError = AddressError {
    wrong: "this is no http address",
    advice: r#"write it like "https://api.example.com/v1", or "simulator" for simulated answers"#,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_no_call_can_go_to_is_refused() {
        for wrong in [
            "localhost:8000",
            "ftp://a.b/c",
            "https://",
            "https://me:secret@a.b",
            "https://a.b/v1?key=1",
            "",
            "a b",
        ] {
            let fault = parse_base_url(wrong).unwrap_err();
            assert!(!fault.advice.is_empty() && !fault.wrong.contains(';'), "{wrong}: {fault}");
        }
        for right in ["https://api.openai.com/v1", "http://127.0.0.1:11434", "http://[::1]:80", "simulator"] {
            assert_eq!(parse_base_url(right).as_deref(), Ok(right));
        }
    }
}
