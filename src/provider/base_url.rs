//! Reads the address of a provider, `base_url`.

use http::Uri;

use crate::wire::Format;

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

/// Hosts whose documented address for OpenAI's format has no version.
const WITHOUT_VERSION: [&str; 3] = ["api.deepseek.com", "api.perplexity.ai", "models.github.ai"];

/// Returns what is probably wrong with an address, and what to write instead. Only probably: a server may be so.
pub fn advise_base_url(format: Format, base_url: &str) -> Option<(&'static str, String)> {
    let uri: Uri = base_url.parse().ok()?;
    let path = uri.path().trim_end_matches('/');
    let ends: &[&str] = match format {
        Format::Openai => &["/chat/completions", "/completions", "/responses", "/models"],
        Format::Anthropic => &["/v1/messages", "/messages"],
        Format::Gemini => &["/v1beta/models", "/v1/models", "/models"],
    };
    if let Some(end) = ends.iter().find(|end| path.ends_with(*end)) {
        let base = base_url.trim_end_matches('/').strip_suffix(end).unwrap_or(base_url);
        return Some(("each call adds its path to this address", format!("write base_url = {base:?}")));
    }
    let is_version = |part: &str| {
        part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
    };
    let is_listed = uri.host().is_some_and(|host| WITHOUT_VERSION.contains(&host));
    if format == Format::Openai && !path.split('/').any(is_version) && !is_listed && base_url != SIMULATOR {
        let advice = format!("write base_url = \"{}/v1\", unless this server answers without it", base_url);
        return Some(("this address has no version, and most servers of this format expect one", advice));
    }
    None
}

const NO_ADDRESS: AddressError = AddressError {
    wrong: "this is no http address",
    advice: r#"write it like "https://api.example.com/v1", or "simulator" for simulated answers"#,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_probably_wrong_is_advised() {
        let advice = |format, url| advise_base_url(format, url).map(|(_, advice)| advice);
        for (format, url, instead) in [
            (Format::Openai, "http://localhost:11434", "http://localhost:11434/v1"),
            (Format::Openai, "https://openrouter.ai/api", "https://openrouter.ai/api/v1"),
            (Format::Openai, "https://a.b/v1/chat/completions", "https://a.b/v1"),
            (Format::Openai, "https://a.b/v1/models", "https://a.b/v1"),
            (Format::Anthropic, "https://a.b/v1/messages", "https://a.b"),
            (Format::Gemini, "https://a.b/v1beta/models", "https://a.b"),
        ] {
            let told = advice(format, url).unwrap();
            assert!(told.starts_with(&format!("write base_url = {instead:?}")), "{url}: {told}");
        }
        for (format, url) in [
            (Format::Openai, "https://api.openai.com/v1"),
            (Format::Openai, "https://generativelanguage.googleapis.com/v1beta/openai"),
            (Format::Openai, "https://api.cloudflare.com/client/v4/accounts/x/ai/v1"),
            (Format::Openai, "https://api.deepseek.com"),
            (Format::Openai, "simulator"),
            (Format::Anthropic, "https://a.b"),
            (Format::Gemini, "https://a.b"),
        ] {
            assert_eq!(advice(format, url), None, "{url}");
        }
    }

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
