//! Asks a provider which models it offers.
//!
//! No permit and no rate limit is involved: the vendors count these requests separately, and there are few.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use http::{HeaderMap, HeaderName};
use tokio::time::timeout;

use crate::types::{Class, Failure};
use crate::wire::OfferedModel;

use super::dispatch::transport::{Response, Transport};
use super::keys::header_source::HeaderSource;
use super::keys::key::ReadyKey;
use super::keys::key_source::Key;
use super::settings::Settings;

/// How long a provider may take for its whole list.
const MAX_TIME: Duration = Duration::from_secs(20);

/// How long the body of an error may take.
const MAX_ERROR_BODY_TIME: Duration = Duration::from_secs(5);

/// The largest page that is read. The list of a router of many vendors has about one megabyte.
const MAX_PAGE_BYTES: usize = 16 << 20;

/// The most pages that are read.
const MAX_PAGES: usize = 50;

/// The most models that are listed.
const MAX_MODELS: usize = 20_000;

/// Returns the models that a provider offers, in its order. `headers` are sent with each request; of the keys, the first is
/// used.
///
/// # Errors
/// Why there is no list. The failure contains no key.
pub async fn list_models(
    settings: &Settings,
    base_url: &str,
    keys: &[Key],
    headers: HeaderMap,
) -> Result<Vec<OfferedModel>, Failure> {
    let key = match keys.first() {
        Some(key) => ReadyKey::new(settings.format, key.label.clone(), &key.secret)?,
        None => ReadyKey::none(),
    };
    let is_secret = |name: &HeaderName| matches!(settings.headers.get(name), Some(HeaderSource::Read(_)));
    let connect = settings.timeouts.connect.min(MAX_TIME);
    let transport = Transport::new(base_url, headers, is_secret, connect, 1)
        .map_err(|error| Failure::new(Class::Internal, crate::types::error_chain(&error)))?;
    let late = || {
        let seconds = MAX_TIME.as_secs();
        Err(Failure::new(Class::Timeout, format!("it did not send its models within {seconds} s")))
    };
    let listed = timeout(MAX_TIME, pages(settings, &transport, &key)).await.unwrap_or_else(|_| late());
    listed.map_err(|mut failure| {
        key.redact_failure(&mut failure);
        transport.redact(&mut failure);
        failure
    })
}

async fn pages(
    settings: &Settings,
    transport: &Transport,
    key: &ReadyKey,
) -> Result<Vec<OfferedModel>, Failure> {
    let mut models = Vec::new();
    let mut known = HashSet::new();
    let mut next: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let request = settings.format.model_list_request(&settings.dialect, next.as_deref())?;
        let response = transport.get(request, key.header()).await?;
        let page = settings.format.read_model_list(&body(settings, response).await?)?;
        let count = models.len();
        models.extend(page.models.into_iter().filter(|model| known.insert(model.name.clone())));
        models.truncate(MAX_MODELS);
        // A server that ignores the mark of the page sends the first one again.
        let has_new = models.len() > count;
        next = page.next.filter(|_| has_new && models.len() < MAX_MODELS);
        if next.is_none() {
            break;
        }
    }
    Ok(models)
}

/// Reads the body of a success; any other response is a failure.
async fn body(settings: &Settings, response: Response) -> Result<Vec<u8>, Failure> {
    if !response.is_success() {
        let status = response.status;
        let headers = response.headers.clone();
        let body = response.error_body(MAX_ERROR_BODY_TIME).await;
        return Err(settings.format.read_error(status, &headers, &body, SystemTime::now()));
    }
    let mut stream = response.stream(MAX_PAGE_BYTES);
    let mut body = Vec::new();
    while let Some(piece) = stream.next().await {
        body.extend_from_slice(&piece?);
        if body.len() > MAX_PAGE_BYTES {
            let message = format!("its list of models is larger than {} MiB", MAX_PAGE_BYTES >> 20);
            return Err(Failure::new(Class::Unreadable, message));
        }
    }
    Ok(body)
}
