//! What all handlers share.

use std::sync::Arc;

use crate::daemon::Daemon;

use super::body_limits::BodyLimits;

/// How the routes are mounted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Whether every request needs a token. A host that has authenticated its callers itself sets `false`.
    pub needs_tokens: bool,
    /// The path under which the routes are mounted, such as `/llm`; empty for the root. Links begin with it.
    pub prefix: String,
    /// The host names that a request may name in `Host` while no tokens are needed; empty for any. It keeps pages of
    /// other sites from using a daemon on this machine.
    pub hosts: Vec<String>,
    /// Whether the dashboard is mounted, too. It is by default.
    pub has_dashboard: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { needs_tokens: false, prefix: String::new(), hosts: Vec::new(), has_dashboard: true }
    }
}

impl ServerOptions {
    /// Creates options for a server on this machine: without tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether every request needs a token.
    #[must_use]
    pub fn with_tokens(mut self, needs_tokens: bool) -> Self {
        self.needs_tokens = needs_tokens;
        self
    }

    /// Sets the path under which the routes are mounted.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the host names that a request may name while no tokens are needed.
    #[must_use]
    pub fn with_hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether the dashboard is mounted, too.
    #[must_use]
    pub fn with_dashboard(mut self, has_dashboard: bool) -> Self {
        self.has_dashboard = has_dashboard;
        self
    }
}

/// What all handlers share. It is cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ApiState {
    pub(super) daemon: Daemon,
    pub(super) options: Arc<ServerOptions>,
    pub(super) bodies: Arc<BodyLimits>,
}

impl ApiState {
    pub(super) fn new(daemon: Daemon, options: ServerOptions) -> Self {
        Self { daemon, options: Arc::new(options), bodies: Arc::new(BodyLimits::new()) }
    }

    /// Returns the URL path of something below the API, for `Location` and links.
    pub(super) fn api_path(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.options.prefix)
    }
}
