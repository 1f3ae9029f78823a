//! What is known of a failure's reason beside its class, where that decides what helps.

/// A reason that asks for another remedy than the class alone does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The provider wants a key, and none is configured for it.
    NoKeyConfigured,
    /// A limit of the user's own configuration: `requests_per_day`.
    ConfiguredLimit,
    /// The server was addressed with `https` and does not speak TLS. The message says what to write.
    NoTls,
    /// The server answers with another address. The message says what to write.
    Redirected,
    /// The server has no such path.
    NoEndpoint,
    /// A proxy wants a name and a password.
    ProxyLogin,
    /// What came is no answer of any API, such as a web page.
    NoApi,
    /// What came is larger than any answer of a model.
    TooLarge,
}

impl Cause {
    /// Returns whether a server that never sent anything else is no API of a model, so that waiting does not help.
    pub fn is_of_no_api(self) -> bool {
        matches!(self, Self::NoApi | Self::TooLarge)
    }
}
