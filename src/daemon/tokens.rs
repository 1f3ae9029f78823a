//! Tokens of a daemon: who presents one, and what its holder may do.
//!
//! A token is a scope of the core, named `token:NAME`, with its limits and its budget. The scope is set before the token is
//! accepted, so that no request goes past its limits.

use std::sync::Arc;

use serde_json::json;
use tokio::time::Instant;

use crate::clock;
use crate::types::{ScopeName, Secret, error_chain};

use super::caller::Caller;
use super::daemon::Daemon;
use super::error::Error;
use super::events::EventKind;
use super::permission::Permission;
use super::token_index::{Freshness, TokenChanges};
use super::token_store::{NewToken, StoredToken, TokenView};
use super::token_text::PresentedToken;

/// How long a caller has to wait after the tokens could not be read, in seconds.
const RETRY_AFTER_SECONDS: u64 = 2;

/// The holder of a valid token, and what it may do.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Access {
    /// The holder.
    pub caller: Caller,
    /// Its permissions.
    pub permissions: Vec<Permission>,
}

impl Access {
    pub(super) fn of(token: &StoredToken) -> Self {
        let permissions = token.permissions().to_vec();
        let sees_all = permissions.iter().any(|permission| match permission {
            Permission::Read | Permission::Admin => true,
            Permission::Run | Permission::Request => false,
        });
        let caller = Caller::token(token.name.clone(), ScopeName::of_token(&token.name))
            .with_all_visible(sees_all)
            .with_all_controlled(permissions.contains(&Permission::Admin));
        Self { caller, permissions }
    }

    /// Returns whether the holder has one of these permissions.
    pub fn has_any(&self, allowed: &[Permission]) -> bool {
        self.permissions.iter().any(|permission| allowed.contains(permission))
    }
}

impl Daemon {
    /// Returns the holder of a token; `None` if it is not valid.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn authenticate(&self, token: &str) -> Result<Option<Access>, Error> {
        Ok(self.find_token(token).await?.map(|found| Access::of(&found)))
    }

    /// Returns the token that a caller has presented; `None` if it is not valid.
    pub(super) async fn find_token(&self, token: &str) -> Result<Option<Arc<StoredToken>>, Error> {
        let index = self.token_index();
        // A text that cannot be a token does not make the daemon read the store.
        if let Some(presented) = PresentedToken::parse(token) {
            self.refresh_tokens().await?;
            if let Some(found) = index.find(&presented, clock::milliseconds()) {
                return Ok(Some(found));
            }
            // Another process may have created it a moment ago.
            if index.may_look_up(&presented, Instant::now()) {
                let _reading = index.lock_reading().await;
                self.read_tokens().await?;
                if let Some(found) = index.find(&presented, clock::milliseconds()) {
                    return Ok(Some(found));
                }
            }
        }
        index.record_refusal(Instant::now());
        Ok(None)
    }

    /// Creates a token. `by` is who does it. Its text is returned only here.
    ///
    /// # Errors
    /// If a token has this name, or the name or the permissions are invalid.
    pub async fn create_token(&self, new: &NewToken, by: &str) -> Result<(TokenView, Secret), Error> {
        self.check_running()?;
        let index = self.token_index();
        let reading = index.lock_reading().await;
        let created = index.tokens().create(new, by).await?;
        self.read_tokens_after_change().await;
        drop(reading);
        self.record_token_change("created", &new.name, by);
        Ok(created)
    }

    /// Returns all tokens that are not revoked, by name.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn tokens(&self) -> Result<Vec<TokenView>, Error> {
        let index = self.token_index();
        let mut tokens = index.tokens().list().await?;
        for token in &mut tokens {
            token.last_used_at = token.last_used_at.max(index.last_use(&token.name));
        }
        Ok(tokens)
    }

    /// Revokes a token, which is refused from now on. Its runs are paused; requests in progress continue. `by` is who does it.
    ///
    /// # Errors
    /// If there is none.
    pub async fn revoke_token(&self, name: &str, by: &str) -> Result<(), Error> {
        let index = self.token_index();
        let reading = index.lock_reading().await;
        index.tokens().revoke(name, by).await?;
        self.read_tokens_after_change().await;
        drop(reading);
        self.record_token_change("revoked", name, by);
        Ok(())
    }

    /// Reads the tokens for the first time.
    pub(super) async fn load_tokens(&self) -> Result<(), Error> {
        let _reading = self.token_index().lock_reading().await;
        self.read_tokens().await
    }

    /// Writes when tokens were last used.
    pub(super) async fn store_token_uses(&self) {
        let index = self.token_index();
        for last in index.take_unstored_uses() {
            if let Err(error) = index.tokens().record_use(&last.name, last.version, last.at).await {
                // The next use is written again.
                tracing::warn!(token = last.name, error = %error_chain(&error), "the use of a token was not stored");
            }
        }
    }

    /// Reads the tokens if those in memory are too old. While one task reads them, the others wait.
    pub(super) async fn refresh_tokens(&self) -> Result<(), Error> {
        let index = self.token_index();
        match index.freshness(Instant::now()) {
            Freshness::Fresh => return Ok(()),
            Freshness::Unreadable => return Err(unreadable()),
            Freshness::Stale => {}
        }
        let _reading = index.lock_reading().await;
        match index.freshness(Instant::now()) {
            Freshness::Fresh => Ok(()),
            Freshness::Unreadable => Err(unreadable()),
            Freshness::Stale => self.read_tokens().await,
        }
    }

    /// Reads the tokens, and sets the scopes of those that are new. The caller holds the lock of the index.
    async fn read_tokens(&self) -> Result<(), Error> {
        let index = self.token_index();
        let loaded = match index.tokens().load().await {
            Ok(loaded) => loaded,
            Err(error) => {
                index.record_unreadable(Instant::now());
                return Err(error);
            }
        };
        let loaded: Vec<Arc<StoredToken>> = loaded.into_iter().map(Arc::new).collect();
        let TokenChanges { added, removed } = index.compare(&loaded);
        if let Err(error) = self.set_token_scopes(&added).await {
            index.record_unreadable(Instant::now());
            return Err(error);
        }
        let is_used =
            |name: &str| loaded.iter().any(|token| token.name == name && token.limits().is_limited());
        let is_gone = |name: &str| loaded.iter().all(|token| token.name != name);
        let gone: Vec<String> =
            removed.iter().filter(|token| is_gone(&token.name)).map(|token| token.name.clone()).collect();
        let unlimited: Vec<_> = removed.iter().filter(|token| !is_used(&token.name)).collect();
        // Before their limits are removed.
        for name in &gone {
            self.pause_runs_of(name).await;
        }
        for token in unlimited {
            self.pointsman().remove_scope(&ScopeName::of_token(&token.name));
        }
        index.publish(loaded, Instant::now());
        Ok(())
    }

    /// Reads the tokens after a change that was stored. If they cannot be read, no token is accepted until they can.
    async fn read_tokens_after_change(&self) {
        if let Err(error) = self.read_tokens().await {
            tracing::error!(error = %error_chain(&error), "the tokens cannot be read");
        }
    }

    /// Sets the limits and budgets of tokens. What they have spent today counts.
    async fn set_token_scopes(&self, added: &[Arc<StoredToken>]) -> Result<(), Error> {
        let mut has_budget = false;
        for token in added {
            let limits = token.limits();
            if limits.is_limited() {
                let scope = ScopeName::of_token(&token.name);
                self.pointsman().set_scope(&scope, limits.scope_settings(), limits.budget)?;
                has_budget |= limits.budget.is_some();
            }
        }
        if has_budget {
            self.pointsman().sync_budgets(&**self.store()).await?;
        }
        Ok(())
    }

    fn record_token_change(&self, change: &str, name: &str, by: &str) {
        let data = json!({ "token": name, "change": change, "by": by });
        self.events().record(EventKind::TokenChanged, None, data);
    }
}

fn unreadable() -> Error {
    Error::Busy {
        message: "the tokens cannot be read from the store".to_owned(),
        retry_after: RETRY_AFTER_SECONDS,
    }
}
