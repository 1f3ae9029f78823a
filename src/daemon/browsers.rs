//! Browsers log in with a token, and have a session from then on.

use tokio::time::Instant;

use crate::clock;
use crate::types::Secret;

use super::browser_sessions::{LIFETIME, TokenVersion};
use super::daemon::Daemon;
use super::error::Error;
use super::token_text::random_text;
use super::tokens::Access;

/// A session of a browser that has begun.
#[derive(Debug)]
#[non_exhaustive]
pub struct BrowserLogin {
    /// The text of the session, which only the browser may know.
    pub session: Secret,
    /// How long it lasts, in seconds.
    pub lifetime_seconds: u64,
}

impl Daemon {
    /// Begins a session for the holder of a token; `None` if the token is not valid.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn log_in(&self, token: &str) -> Result<Option<BrowserLogin>, Error> {
        let Some(found) = self.find_token(token).await? else { return Ok(None) };
        let session = random_text()?;
        let version = TokenVersion { id: found.id().to_owned(), version: found.version };
        self.browser_sessions().insert(session.expose(), version, Instant::now());
        tracing::info!(token = found.name, "a browser has logged in");
        Ok(Some(BrowserLogin { session, lifetime_seconds: LIFETIME.as_secs() }))
    }

    /// Returns the holder of the token of a session; `None` if the session has ended or the token is not valid any more.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn session_access(&self, session: &str) -> Result<Option<Access>, Error> {
        let Some(TokenVersion { id, version }) = self.browser_sessions().token(session, Instant::now())
        else {
            return Ok(None);
        };
        self.refresh_tokens().await?;
        let found = self.token_index().find_version(&id, version, clock::milliseconds());
        if found.is_none() {
            self.browser_sessions().remove(session);
        }
        Ok(found.map(|found| Access::of(&found)))
    }

    /// Ends a session.
    pub fn log_out(&self, session: &str) {
        self.browser_sessions().remove(session);
    }
}
