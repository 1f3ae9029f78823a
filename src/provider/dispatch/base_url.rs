//! Parses and checks the address of a provider, `base_url`.

use http::Uri;

use crate::types::Format;

/// The `base_url` of a simulated provider.
pub(in crate::provider) const SIMULATOR: &str = "simulator";

/// Why an address is refused. The message does not contain the address, because it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wrong}; {advice}")]
pub struct AddressError {
    /// The problem.
    pub wrong: &'static str,
    /// Advice for the user.
    pub advice: &'static str,
}

/// Parses an `http` or `https` address, or `simulator`.
///
/// # Errors
/// The problem with the address and advice for the user.
pub fn parse_base_url(text: &str) -> Result<String, AddressError> {
    if text == SIMULATOR {
        return Ok(text.to_owned());
    }
    let uri: Uri = text.parse().map_err(|_| NOT_AN_HTTP_ADDRESS)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(NOT_AN_HTTP_ADDRESS);
    }
    match uri.authority() {
        None => Err(NOT_AN_HTTP_ADDRESS),
        Some(authority) if authority.as_str().contains('@') => {
            let wrong = "the address appears in logs and must not contain a password";
            Err(AddressError { wrong, advice: "put the password into `headers` or `keys`" })
        }
        Some(_) if uri.query().is_some() || text.contains('#') => {
            let wrong = "each call adds its path to this address";
            Err(AddressError { wrong, advice: "remove everything from `?` or `#` on" })
        }
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
    }
}

/// Hosts whose documented address for the OpenAI formats has no version.
const HOSTS_WITHOUT_VERSION: [&str; 3] = ["api.deepseek.com", "api.perplexity.ai", "models.github.ai"];

/// Returns the probable mistake in an address, and advice. It is a warning: a server may have such an address.
pub fn advise_base_url(format: Format, base_url: &str) -> Option<(&'static str, String)> {
    let uri: Uri = base_url.parse().ok()?;
    let path = uri.path().trim_end_matches('/');
    let ends: &[&str] = match format {
        Format::Openai | Format::OpenaiResponses => {
            &["/chat/completions", "/completions", "/responses", "/models"]
        }
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
    let is_listed = uri.host().is_some_and(|host| HOSTS_WITHOUT_VERSION.contains(&host));
    let expects_version = match format {
        Format::Openai | Format::OpenaiResponses => true,
        Format::Anthropic | Format::Gemini => false,
    };
    if expects_version && !path.split('/').any(is_version) && !is_listed && base_url != SIMULATOR {
        let advice = format!("write base_url = \"{}/v1\", unless this server answers without it", base_url);
        return Some(("this address has no version, and most servers of this format expect one", advice));
    }
    None
}

const NOT_AN_HTTP_ADDRESS: AddressError = AddressError {
    wrong: "this is not an http address",
    advice: r#"write it like "https://api.example.com/v1", or "simulator" for simulated answers"#,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probable_mistake_in_an_address_gets_advice() {
        let advice = |format, url| advise_base_url(format, url).map(|(_, advice)| advice);
        for (format, url, instead) in [
            (Format::Openai, "http://localhost:11434", "http://localhost:11434/v1"),
            (Format::Openai, "https://openrouter.ai/api", "https://openrouter.ai/api/v1"),
            (Format::Openai, "https://a.b/v1/chat/completions", "https://a.b/v1"),
            (Format::Openai, "https://a.b/v1/models", "https://a.b/v1"),
            (Format::OpenaiResponses, "http://localhost:11434", "http://localhost:11434/v1"),
            (Format::OpenaiResponses, "https://a.b/v1/responses", "https://a.b/v1"),
            (Format::Anthropic, "https://a.b/v1/messages", "https://a.b"),
            (Format::Gemini, "https://a.b/v1beta/models", "https://a.b"),
        ] {
            let text = advice(format, url).unwrap();
            assert!(text.starts_with(&format!("write base_url = {instead:?}")), "{url}: {text}");
        }
        for (format, url) in [
            (Format::Openai, "https://api.openai.com/v1"),
            (Format::Openai, "https://generativelanguage.googleapis.com/v1beta/openai"),
            (Format::Openai, "https://api.cloudflare.com/client/v4/accounts/x/ai/v1"),
            (Format::Openai, "https://api.deepseek.com"),
            (Format::Openai, "simulator"),
            (Format::OpenaiResponses, "https://api.openai.com/v1"),
            (Format::OpenaiResponses, "simulator"),
            (Format::Anthropic, "https://a.b"),
            (Format::Gemini, "https://a.b"),
        ] {
            assert_eq!(advice(format, url), None, "{url}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_called_is_refused() {
        for wrong in [
            "localhost:8000",
            "ftp://a.b/c",
            "https://",
            "https://me:secret@a.b",
            "https://a.b/v1?key=1",
            "",
            "a b",
        ] {
            let error = parse_base_url(wrong).unwrap_err();
            assert!(!error.advice.is_empty() && !error.wrong.contains(';'), "{wrong}: {error}");
        }
        for right in ["https://api.openai.com/v1", "http://127.0.0.1:11434", "http://[::1]:80", "simulator"] {
            assert_eq!(parse_base_url(right).as_deref(), Ok(right));
        }
    }
}
