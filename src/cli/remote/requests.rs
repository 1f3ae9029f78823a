//! Requests to a daemon, one after the other, for a command that waits for each.

use std::time::Duration;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::client::{Body, Client};
use super::error::RemoteError;
use super::server_url::ServerUrl;

/// A daemon that a command asks.
pub(in crate::cli) struct Remote {
    runtime: Runtime,
    client: Client,
    option: String,
}

/// Complete lines of an answer.
pub(in crate::cli) struct Lines<'a> {
    remote: &'a Remote,
    body: Body,
    /// The beginning of the next line.
    partial: Vec<u8>,
}

impl Remote {
    /// Creates it. `option` is what a suggested command needs to reach the same daemon.
    pub(super) fn new(client: Client, option: String) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
        Ok(Self { runtime, client, option })
    }

    /// Returns the address of the daemon.
    pub(in crate::cli) fn url(&self) -> &ServerUrl {
        self.client.url()
    }

    /// Returns the options by which another command reaches the same daemon; nothing if the command named none.
    pub(in crate::cli) fn option(&self) -> &str {
        &self.option
    }

    /// Returns the client, to use it in a runtime of its own.
    #[cfg(feature = "tui")]
    pub(in crate::cli) fn into_client(self) -> Client {
        self.client
    }

    /// Returns whether it responds within this time.
    pub(in crate::cli) fn is_healthy(&self, within: Duration) -> bool {
        self.runtime.block_on(self.client.is_healthy(within))
    }

    /// Reads a resource of the API, such as `/runs`.
    pub(in crate::cli) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RemoteError> {
        let value = self.runtime.block_on(self.client.get(path))?;
        self.parse(value)
    }

    /// Creates or changes something.
    pub(in crate::cli) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, RemoteError> {
        let value = self.runtime.block_on(self.client.post(path, body))?;
        self.parse(value)
    }

    /// Deletes something.
    pub(in crate::cli) fn delete(&self, path: &str) -> Result<(), RemoteError> {
        self.runtime.block_on(self.client.delete(path))
    }

    /// Reads lines.
    pub(in crate::cli) fn lines(&self, path: &str) -> Result<Lines<'_>, RemoteError> {
        let body = self.runtime.block_on(self.client.stream(path))?;
        Ok(Lines { remote: self, body, partial: Vec::new() })
    }

    /// Reads what the daemon answered.
    ///
    /// Numbers keep all their digits, because a [`Value`] has their text.
    pub(in crate::cli) fn parse<T: DeserializeOwned>(&self, value: Value) -> Result<T, RemoteError> {
        let parsed = serde_json::from_value(value);
        parsed.map_err(|error| self.runtime.block_on(self.client.other_version(error)))
    }
}

impl Lines<'_> {
    /// Returns the next lines, each with its end; `None` after the last. The last line may have no end.
    pub(in crate::cli) fn next(&mut self) -> Result<Option<Vec<u8>>, RemoteError> {
        loop {
            let Some(piece) = self.remote.runtime.block_on(self.body.next())? else {
                let rest = std::mem::take(&mut self.partial);
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            };
            self.partial.extend_from_slice(&piece);
            if let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') {
                let rest = self.partial.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.partial, rest)));
            }
        }
    }
}
