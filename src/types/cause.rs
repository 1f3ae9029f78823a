//! The cause of a failure, where it decides which remedy helps and the class does not say it.

/// A cause that needs another remedy than the class of the failure suggests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The provider requires a key, and no key is configured.
    NoKeyConfigured,
    /// A limit in the user's configuration was reached: `requests_per_day`, or a limit of a scope.
    ConfiguredLimit,
    /// The base URL is `https`, and the server does not support TLS. The message contains the URL to use.
    NoTls,
    /// The server redirects to another URL. The message contains the URL to use if it is at the same host.
    Redirected,
    /// The server does not have the requested path.
    EndpointNotFound,
    /// A proxy requires a user name and a password.
    ProxyAuthRequired,
    /// The response is not that of a model API, such as a web page.
    NotAnApi,
    /// The response is larger than any answer of a model.
    ResponseTooLarge,
    /// The model called a tool that the request does not offer, or with arguments that are not a JSON object.
    InvalidToolCall,
    /// The model ignores the requested number of dimensions. The message contains the advice.
    DimensionsIgnored,
    /// A cap of a day does not admit the call on any day: the call alone is above the cap, or its price is unknown.
    NeverWithinBudget,
    /// An operator, or a change of the configuration, has taken the target out of service. The message contains the advice.
    OutOfService,
}

impl Cause {
    /// Returns whether this is evidence that the server is not a model API, if it never sent anything else.
    /// Waiting does not help then.
    pub fn is_not_an_api(self) -> bool {
        matches!(self, Self::NotAnApi | Self::ResponseTooLarge)
    }
}
