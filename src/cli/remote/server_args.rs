//! The options that name a daemon, and the token for it.
//!
//! No option takes the token itself, because other users of the machine see the arguments of a process.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};

use crate::cli::shell_word::shell_word;
use crate::files;
use crate::types::Secret;

use super::client::Client;
use super::requests::Remote;
use super::server_url::ServerUrl;

/// The environment variable with the address of a daemon.
const SERVER_VARIABLE: &str = "POINTSMAN_SERVER";

/// The environment variable with a token.
const TOKEN_VARIABLE: &str = "POINTSMAN_TOKEN";

/// The largest file with a token, in bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

/// The daemon that a command asks, in place of a store.
#[derive(Debug, Clone, Default, clap::Args)]
pub(in crate::cli) struct ServerArgs {
    /// Ask the daemon at this URL, such as http://127.0.0.1:7700, in place of the store [default: POINTSMAN_SERVER, unless
    /// a store or a configuration is named].
    #[arg(long, value_name = "URL", value_parser = ServerUrl::parse)]
    pub(in crate::cli) server: Option<ServerUrl>,
    /// The file with the token for the daemon, which only its owner may access [default: the token in POINTSMAN_TOKEN].
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) token_file: Option<PathBuf>,
}

impl ServerArgs {
    /// Returns the daemon to ask; `None` for the store. `names_store` tells whether the command names a store or a
    /// configuration.
    pub(in crate::cli) fn remote(&self, names_store: bool) -> anyhow::Result<Option<Remote>> {
        let url = match &self.server {
            Some(url) => Some(url.clone()),
            None if names_store => None,
            None => environment_url()?,
        };
        let Some(url) = url else {
            ensure!(
                self.token_file.is_none(),
                "--token-file is for a daemon: name one with --server URL, or in {SERVER_VARIABLE}"
            );
            return Ok(None);
        };
        self.at(url).map(Some)
    }

    /// Returns the daemon to ask, which is that on this machine if none is named.
    #[cfg(feature = "tui")]
    pub(in crate::cli) fn remote_or_local(&self) -> anyhow::Result<Remote> {
        self.at(self.url_or_local()?)
    }

    /// Returns the address of the daemon, which is that on this machine if none is named.
    pub(in crate::cli) fn url_or_local(&self) -> anyhow::Result<ServerUrl> {
        let named = match &self.server {
            Some(url) => Some(url.clone()),
            None => environment_url()?,
        };
        Ok(named.unwrap_or_else(ServerUrl::local))
    }

    /// Returns the daemon at this address.
    pub(in crate::cli) fn at(&self, url: ServerUrl) -> anyhow::Result<Remote> {
        let token = match &self.token_file {
            Some(path) => Some(read_token(path)?),
            None => variable(TOKEN_VARIABLE)?.map(Secret::from),
        };
        Remote::new(Client::new(url, token.as_ref())?, self.option())
    }

    /// Returns the options that another command needs to reach the same daemon.
    fn option(&self) -> String {
        let server = self.server.as_ref().map(|url| format!(" --server {}", shell_word(&url.to_string())));
        let file = self.token_file.as_ref().map(|path| path.display().to_string());
        let file = file.map(|path| format!(" --token-file {}", shell_word(&path)));
        [server, file].into_iter().flatten().collect()
    }
}

/// Returns a client for the health of a daemon, which needs no token.
pub(in crate::cli) fn health_client(url: ServerUrl) -> anyhow::Result<Client> {
    Client::for_health(url)
}

fn environment_url() -> anyhow::Result<Option<ServerUrl>> {
    let parse = |text: String| ServerUrl::parse(&text).map_err(|why| anyhow!("{SERVER_VARIABLE}: {why}"));
    variable(SERVER_VARIABLE)?.map(parse).transpose()
}

/// Returns an environment variable; `None` if it is not set or empty.
fn variable(name: &str) -> anyhow::Result<Option<String>> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    // The value may be a secret: the error does not repeat it.
    let value = value.into_string().map_err(|_| anyhow!("{name} is not UTF-8"))?;
    let value = value.trim();
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

/// Reads the token in a file that only its owner may access.
fn read_token(path: &Path) -> anyhow::Result<Secret> {
    let bytes = match files::read_private(path, MAX_TOKEN_BYTES) {
        Ok(bytes) => bytes,
        Err(error) => {
            let advice = error.advice(path);
            let refused = anyhow::Error::new(error);
            return Err(refused.context(format!("cannot use the token file {} ({advice})", path.display())));
        }
    };
    let name = path.display();
    let text =
        String::from_utf8(bytes).ok().with_context(|| format!("the token file {name} is not UTF-8"))?;
    let token = text.trim();
    ensure!(!token.is_empty(), "the token file {name} is empty");
    Ok(Secret::from(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_token_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "ptm_secret\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = format!("{:#}", read_token(&path).unwrap_err());
        assert!(error.contains("users other than its owner") && error.contains("chmod 600"), "{error}");
        assert!(!error.contains("ptm_secret"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_token(&path).unwrap().expose(), "ptm_secret");
        std::fs::write(&path, "\n").unwrap();
        assert!(read_token(&path).unwrap_err().to_string().contains("is empty"));
    }

    #[test]
    fn a_suggested_command_reaches_the_same_daemon() {
        let args = ServerArgs {
            server: Some(ServerUrl::parse("http://127.0.0.1:1/").unwrap()),
            token_file: Some("my token".into()),
        };
        assert_eq!(args.option(), " --server http://127.0.0.1:1 --token-file 'my token'");
        assert_eq!(ServerArgs::default().option(), "");
    }
}
