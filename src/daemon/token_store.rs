//! The tokens in a store: creates, lists and revokes them. The command line uses it without a daemon.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::clock;
use crate::store::{self, Document, DocumentKind, ExpectedVersion, Store};
use crate::types::{NanoUsd, Secret, utc_time};

use super::error::Error;
use super::permission::Permission;
use super::token_limits::TokenLimits;
use super::token_text::{self, PresentedToken, TokenHash};

/// Longest name of a token, in bytes.
const MAX_NAME_BYTES: usize = 100;

/// The most tokens of a store. All of them are in the memory of the daemon.
const MAX_TOKENS: usize = 10_000;

/// How many tokens are read at once.
const PAGE: u32 = 500;

/// How often a new ID is made if it belongs to another token.
const MAX_IDS: usize = 8;

/// The tokens in a store.
#[derive(Debug, Clone)]
pub struct TokenStore {
    store: Arc<dyn Store>,
}

/// A token to create.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewToken {
    /// Its name.
    pub name: String,
    /// What its holder may do.
    pub permissions: Vec<Permission>,
    /// The limits of its requests.
    pub limits: TokenLimits,
    /// How long it is valid; `None` is until it is revoked.
    pub expires_in: Option<Duration>,
}

impl NewToken {
    /// Creates a token without limits that is valid until it is revoked.
    pub fn new(name: impl Into<String>, permissions: impl Into<Vec<Permission>>) -> Self {
        Self {
            name: name.into(),
            permissions: permissions.into(),
            limits: TokenLimits::new(),
            expires_in: None,
        }
    }

    /// Sets the limits of its requests.
    #[must_use]
    pub fn with_limits(mut self, limits: TokenLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Checks the name and the permissions.
    ///
    /// # Errors
    /// If they are invalid.
    pub fn check(&self) -> Result<(), Error> {
        check_name(&self.name)?;
        if self.permissions.is_empty() {
            let words = Permission::ALL.map(Permission::as_str).join(", ");
            return Err(Error::invalid(format!("a token needs a permission: {words}")));
        }
        Ok(())
    }

    /// Sets how long it is valid.
    #[must_use]
    pub fn with_expires_in(mut self, expires_in: Duration) -> Self {
        self.expires_in = Some(expires_in);
        self
    }
}

/// The state of a token as a word. An alias, because a reference would be borrowed from the text that is parsed.
type StateWord = &'static str;

fn known_state<'de, D: Deserializer<'de>>(from: D) -> Result<StateWord, D::Error> {
    let word = String::deserialize(from)?;
    let known = ["active", "expired"].into_iter().find(|known| *known == word);
    known.ok_or_else(|| D::Error::custom(format!("there is no state {word:?}")))
}

/// A token, as a list shows it. It has no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct TokenView {
    /// Its name.
    pub name: String,
    /// Its ID, which is the part of its text before the last 43 characters.
    pub id: String,
    /// What its holder may do.
    #[schema(value_type = Vec<String>)]
    pub permissions: Vec<Permission>,
    /// `active` or `expired`.
    #[serde(deserialize_with = "known_state")]
    #[schema(value_type = String)]
    pub state: StateWord,
    /// Requests that may begin in a minute; null for no limit.
    #[schema(value_type = Option<u64>)]
    pub requests_per_minute: Option<NonZeroU64>,
    /// Requests in progress at once; null for no limit.
    #[schema(value_type = Option<u32>)]
    pub concurrency: Option<NonZeroU32>,
    /// What its requests may spend in a day, UTC, in US dollars; null for no limit.
    pub budget_usd: Option<f64>,
    /// When it was created, in milliseconds since 1970; a text in JSON.
    #[serde(with = "utc_time")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: i64,
    /// Who created it: the name of a token, or empty.
    pub created_by: String,
    /// From when it is not valid, in milliseconds since 1970; a text in JSON, and null for never.
    #[serde(with = "utc_time::optional")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<i64>,
    /// When it was last used, in milliseconds since 1970; a text in JSON, and null for never.
    #[serde(with = "utc_time::optional")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<i64>,
}

/// A token that the store has.
#[derive(Debug, Clone)]
pub(super) struct StoredToken {
    pub(super) name: String,
    /// The version of its document. A name that is used again has a later one.
    pub(super) version: i64,
    pub(super) expires_at: Option<i64>,
    pub(super) hash: TokenHash,
    record: TokenRecord,
}

/// The value of a token's document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct TokenRecord {
    id: String,
    /// In hexadecimal digits.
    hash: String,
    permissions: Vec<Permission>,
    requests_per_minute: Option<NonZeroU64>,
    concurrency: Option<NonZeroU32>,
    budget_nano_usd: Option<NanoUsd>,
    /// The document has the time of its last use.
    created_at: i64,
    created_by: String,
    last_used_at: Option<i64>,
}

impl TokenStore {
    /// Creates the tokens of a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Creates a token. `by` is who does it. Its text is returned only here.
    ///
    /// # Errors
    /// If a token has this name, or the name or the permissions are invalid.
    pub async fn create(&self, new: &NewToken, by: &str) -> Result<(TokenView, Secret), Error> {
        let NewToken { name, permissions, limits, expires_in } = new;
        new.check()?;
        let mut permissions = permissions.clone();
        permissions.sort_unstable();
        permissions.dedup();
        let known = self.load().await?;
        if known.len() >= MAX_TOKENS {
            return Err(Error::conflict(format!(
                "there are {MAX_TOKENS} tokens: revoke those that are not used"
            )));
        }
        let (secret, id, hash) = unused_text(&known)?;
        let now = clock::milliseconds();
        let expires_at = expires_in
            .map(|lifetime| now.saturating_add(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX)));
        let record = TokenRecord {
            id,
            hash: hash.to_string(),
            permissions,
            requests_per_minute: limits.requests_per_minute,
            concurrency: limits.concurrency,
            budget_nano_usd: limits.budget,
            created_at: now,
            created_by: by.to_owned(),
            last_used_at: None,
        };
        let value = serde_json::to_value(&record).map_err(Error::json)?;
        let expected = ExpectedVersion::None;
        let put = self.store.put_document(DocumentKind::Token, name, &value, by, expires_at, expected).await;
        let document = put.map_err(|error| match error {
            store::Error::VersionConflict { .. } => Error::conflict(format!(
                "there is a token {name:?} already: revoke it first, or use another name"
            )),
            error => Error::Store(error),
        })?;
        let stored = StoredToken { name: document.name, version: document.version, expires_at, hash, record };
        Ok((stored.view(now), secret))
    }

    /// Returns all tokens that are not revoked, by name.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn list(&self) -> Result<Vec<TokenView>, Error> {
        let now = clock::milliseconds();
        Ok(self.load().await?.iter().map(|token| token.view(now)).collect())
    }

    /// Revokes a token: it is not valid any more, and another may have its name. `by` is who does it.
    ///
    /// # Errors
    /// If there is none.
    pub async fn revoke(&self, name: &str, by: &str) -> Result<(), Error> {
        if self.store.delete_document(DocumentKind::Token, name, by).await? {
            Ok(())
        } else {
            Err(Error::NotFound { what: "token", name: name.to_owned() })
        }
    }

    /// Returns all tokens that are not revoked. One that cannot be read is not valid.
    pub(super) async fn load(&self) -> Result<Vec<StoredToken>, Error> {
        let mut tokens = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.store.documents(DocumentKind::Token, after.as_deref(), PAGE).await?;
            after = page.last().map(|last| last.name.clone());
            let is_last = page.len() < PAGE as usize;
            tokens.extend(page.into_iter().filter_map(StoredToken::of));
            if is_last {
                return Ok(tokens);
            }
        }
    }

    /// Records when a version of a token was last used, unless it was revoked meanwhile.
    pub(super) async fn record_use(&self, name: &str, version: i64, at: i64) -> Result<(), Error> {
        let found = self.store.document(DocumentKind::Token, name, clock::milliseconds()).await?;
        let Some(document) = found.filter(|found| found.version == version) else { return Ok(()) };
        let expires_at = document.expires_at;
        let Some(StoredToken { mut record, .. }) = StoredToken::of(document) else { return Ok(()) };
        record.last_used_at = record.last_used_at.max(Some(at));
        let value = serde_json::to_value(&record).map_err(Error::json)?;
        let by = record.created_by.as_str();
        let expected = ExpectedVersion::Is(version);
        let kind = DocumentKind::Token;
        match self.store.replace_document(kind, name, &value, by, expires_at, expected).await {
            Ok(_) | Err(store::Error::VersionConflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl StoredToken {
    fn of(document: Document) -> Option<Self> {
        let record: TokenRecord = serde_json::from_value(document.value).ok()?;
        let hash = TokenHash::parse(&record.hash)?;
        let Document { name, version, expires_at, .. } = document;
        Some(Self { name, version, expires_at, hash, record })
    }

    /// Returns the ID.
    pub(super) fn id(&self) -> &str {
        &self.record.id
    }

    /// Returns what its holder may do.
    pub(super) fn permissions(&self) -> &[Permission] {
        &self.record.permissions
    }

    /// Returns its limits.
    pub(super) fn limits(&self) -> TokenLimits {
        let TokenRecord { requests_per_minute, concurrency, budget_nano_usd: budget, .. } = self.record;
        TokenLimits { requests_per_minute, concurrency, budget }
    }

    /// Returns whether it is not valid any more at `now`.
    pub(super) fn is_expired(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    fn view(&self, now: i64) -> TokenView {
        let record = self.record.clone();
        TokenView {
            name: self.name.clone(),
            id: record.id,
            permissions: record.permissions,
            state: if self.is_expired(now) { "expired" } else { "active" },
            requests_per_minute: record.requests_per_minute,
            concurrency: record.concurrency,
            budget_usd: record.budget_nano_usd.map(NanoUsd::dollars),
            created_at: record.created_at,
            created_by: record.created_by,
            expires_at: self.expires_at,
            last_used_at: record.last_used_at,
        }
    }
}

/// Makes the text of a token whose ID no other has.
fn unused_text(known: &[StoredToken]) -> Result<(Secret, String, TokenHash), Error> {
    for _ in 0..MAX_IDS {
        let secret = token_text::generate()?;
        let parsed = PresentedToken::parse(secret.expose()).map(|token| (token.id.to_owned(), token.hash));
        if let Some((id, hash)) = parsed.filter(|(id, _)| known.iter().all(|token| token.id() != id)) {
            return Ok((secret, id, hash));
        }
    }
    Err(Error::Io {
        doing: "make a token".to_owned(),
        source: std::io::Error::other("the random source of the system repeats itself"),
    })
}

fn check_name(name: &str) -> Result<(), Error> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let begins_well = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if begins_well && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the name of a token has 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` or `.`, and begins with a letter or digit"
    )))
}

#[cfg(test)]
mod tests {
    use crate::daemon::Kind;
    use crate::store::Sqlite;

    use super::*;

    async fn tokens() -> (tempfile::TempDir, TokenStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("a.db")).await.unwrap();
        (folder, TokenStore::new(Arc::new(store)))
    }

    #[tokio::test]
    async fn a_token_is_stored_as_a_hash_and_listed_until_it_is_revoked() {
        let (_folder, tokens) = tokens().await;
        let limits = TokenLimits { budget: Some(NanoUsd(20_000_000_000)), ..TokenLimits::new() };
        let permissions = [Permission::Run, Permission::Read, Permission::Run];
        let new =
            NewToken::new("ci", permissions).with_limits(limits).with_expires_in(Duration::from_secs(60));
        let (view, secret) = tokens.create(&new, "admin").await.unwrap();
        assert_eq!(view.permissions, [Permission::Read, Permission::Run]);
        assert_eq!((view.state, view.budget_usd, view.created_by.as_str()), ("active", Some(20.0), "admin"));
        assert_eq!(view.expires_at, Some(view.created_at + 60_000));
        assert_eq!(tokens.list().await.unwrap(), std::slice::from_ref(&view));
        let documents = tokens.store.documents(DocumentKind::Token, None, 10).await.unwrap();
        let stored = documents[0].value.to_string();
        assert!(stored.contains(&view.id) && !stored.contains(&secret.expose()[12..]), "{stored}");
        tokens.revoke("ci", "admin").await.unwrap();
        assert_eq!(tokens.list().await.unwrap(), []);
        assert_eq!(tokens.revoke("ci", "admin").await.unwrap_err().kind(), Kind::NotFound);
    }

    #[tokio::test]
    async fn a_name_belongs_to_one_token_until_it_is_revoked() {
        let (_folder, tokens) = tokens().await;
        let new = NewToken::new("ci", [Permission::Run]);
        let (first, _) = tokens.create(&new, "").await.unwrap();
        let error = tokens.create(&new, "").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        tokens.revoke("ci", "").await.unwrap();
        let (second, _) = tokens.create(&new, "").await.unwrap();
        assert_ne!(first.id, second.id);
        let versions: Vec<_> = tokens.load().await.unwrap().iter().map(|token| token.version).collect();
        assert_eq!(versions, [3]);
    }

    #[tokio::test]
    async fn an_invalid_name_and_no_permission_are_refused() {
        let (_folder, tokens) = tokens().await;
        for name in ["", "a b", "../a", ".a", "-a", "gr\u{fc}n", &"x".repeat(101)] {
            let error = tokens.create(&NewToken::new(name, [Permission::Run]), "").await.unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{name:?}: {error}");
        }
        let error = tokens.create(&NewToken::new("ci", []), "").await.unwrap_err().to_string();
        assert_eq!(error, "a token needs a permission: read, run, request, admin");
    }

    #[tokio::test]
    async fn the_last_use_is_recorded_and_never_revives_a_revoked_token() {
        let (_folder, tokens) = tokens().await;
        let new = NewToken::new("ci", [Permission::Run]).with_expires_in(Duration::from_secs(60));
        let (created, _) = tokens.create(&new, "admin").await.unwrap();
        tokens.record_use("ci", 1, 5_000).await.unwrap();
        tokens.record_use("ci", 1, 4_000).await.unwrap();
        let used = TokenView { last_used_at: Some(5_000), ..created };
        assert_eq!(tokens.list().await.unwrap(), [used]);
        tokens.revoke("ci", "").await.unwrap();
        tokens.record_use("ci", 1, 6_000).await.unwrap();
        assert_eq!(tokens.list().await.unwrap(), []);
        tokens.create(&new, "").await.unwrap();
        tokens.record_use("ci", 1, 7_000).await.unwrap();
        assert_eq!(tokens.list().await.unwrap()[0].last_used_at, None, "the use was of another token");
    }
}
