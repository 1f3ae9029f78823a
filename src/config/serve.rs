//! Settings of the daemon, `[serve]`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::store::StoreUrl;
use crate::types::duration;

use super::ByteSize;
use super::glob::FileGlob;

/// The port of the daemon, if none is configured.
const DEFAULT_PORT: u16 = 7700;

/// What `[serve] drain` may be at most.
pub(super) const MAX_DRAIN: Duration = Duration::from_hours(1);

/// What the folder of the daemon's data is called: the file of the store with this suffix.
const DATA_SUFFIX: &str = "-data";

/// How the daemon listens, what it reads, and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeSettings {
    /// The address and the port at which it listens.
    #[serde(deserialize_with = "listen")]
    pub listen: SocketAddr,
    /// Whether requests need a token, see [`needs_tokens`](Self::needs_tokens).
    pub tokens: TokenMode,
    /// Globs of pipeline files, as written; [`pipeline_files`](Self::pipeline_files) returns the files.
    pub pipelines: Vec<String>,
    /// Folders from which a request may name a file of items.
    pub items: Vec<PathBuf>,
    /// The folder for uploads and for the inputs of runs, see [`data_folder`](Self::data_folder).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// How long work in flight may take to end at a stop.
    #[serde(with = "duration")]
    pub drain: Duration,
    /// The largest upload of items.
    pub max_upload: ByteSize,
    /// The largest body of any other request.
    pub max_body: ByteSize,
    /// How long a caller may wait for an answer.
    #[serde(with = "duration")]
    pub max_wait: Duration,
    /// How long the head of a request may take, and a pause within its body.
    #[serde(with = "duration")]
    pub read_timeout: Duration,
    /// How long a connection may be without a request.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// The most open connections.
    pub max_connections: NonZeroUsize,
    /// The number of items after which the shared run of a pipeline is closed, and the next item begins another run.
    pub items_per_run: NonZeroU64,
    /// The files of the certificate, if the daemon speaks TLS.
    pub tls: TlsSettings,
    /// The folder of the configuration's file, to which the globs are relative; empty for the working directory. Not a
    /// configuration key.
    #[serde(skip)]
    pub folder: PathBuf,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            tokens: TokenMode::default(),
            pipelines: Vec::new(),
            items: Vec::new(),
            data: None,
            drain: Duration::from_secs(30),
            max_upload: ByteSize(1 << 30),
            max_body: ByteSize(4 << 20),
            max_wait: Duration::from_mins(10),
            read_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            max_connections: const { NonZeroUsize::new(25_000).unwrap() },
            items_per_run: const { NonZeroU64::new(10_000).unwrap() },
            tls: TlsSettings::default(),
            folder: PathBuf::new(),
        }
    }
}

impl ServeSettings {
    /// Returns whether every request needs a token. Without tokens only programs on this machine may reach the daemon.
    pub fn needs_tokens(&self) -> bool {
        match self.tokens {
            TokenMode::Auto => !self.listen.ip().to_canonical().is_loopback(),
            TokenMode::Required => true,
        }
    }

    /// Parses an address with a port. `as_written` returns how a user writes an address, which is in the advice of an error
    /// after a semicolon.
    ///
    /// # Errors
    /// What is wrong, and what to write.
    pub fn parse_listen(text: &str, as_written: impl Fn(&str) -> String) -> Result<SocketAddr, String> {
        parse_listen(text.trim(), &as_written)
    }

    /// Returns the pipeline files that the globs match, sorted and without duplicates. A glob without a `*` names a file
    /// that may not exist.
    ///
    /// # Errors
    /// All globs that are malformed, and all folders that cannot be read.
    pub fn pipeline_files(&self) -> Result<Vec<PathBuf>, Diagnostics> {
        let mut diagnostics = Diagnostics::default();
        let mut files = BTreeSet::new();
        for text in &self.pipelines {
            let glob: FileGlob = match text.parse() {
                Ok(glob) => glob,
                Err(error) => {
                    let message = format!("[serve] pipelines {text:?}: {error}");
                    diagnostics.push(Diagnostic::new(message).with_help(error.advice));
                    continue;
                }
            };
            match glob.files(&self.folder) {
                Ok(found) => files.extend(found),
                Err(error) => {
                    let folder = glob.folder(&self.folder);
                    let message = format!(
                        "[serve] pipelines {text:?}: cannot read the folder {}: {error}",
                        folder.display()
                    );
                    diagnostics.push(Diagnostic::new(message).with_help("create it, or remove the glob"));
                }
            }
        }
        diagnostics.into_result(files.into_iter().collect())
    }

    /// Returns the folder for uploads and for the inputs of runs: the configured one, or else a folder beside the file
    /// of the store. `None` without a store.
    pub fn data_folder(&self, store: &StoreUrl) -> Option<PathBuf> {
        let beside_store = || {
            let mut path = store.path()?.as_os_str().to_owned();
            path.push(DATA_SUFFIX);
            Some(PathBuf::from(path))
        };
        self.data.clone().or_else(beside_store)
    }

    /// The keys that apply only at the start.
    pub(crate) const START_KEYS: [&str; 8] =
        ["listen", "tokens", "data", "read_timeout", "idle_timeout", "max_connections", "tls", "drain"];

    /// Takes from `former` the settings that apply only at the start.
    pub(crate) fn keep_start_settings(&mut self, former: &Self) {
        let Self { listen, tokens, data, read_timeout, idle_timeout, max_connections, tls, drain, .. } = self;
        *listen = former.listen;
        *tokens = former.tokens;
        data.clone_from(&former.data);
        *read_timeout = former.read_timeout;
        *idle_timeout = former.idle_timeout;
        *max_connections = former.max_connections;
        tls.clone_from(&former.tls);
        *drain = former.drain;
    }

    /// Makes relative paths relative to `folder`, which is that of the configuration's file.
    pub(super) fn resolve_paths(&mut self, folder: &Path) {
        folder.clone_into(&mut self.folder);
        let Self { items, data, tls: TlsSettings { certificate, key }, .. } = self;
        for path in items.iter_mut().chain(data).chain(certificate).chain(key) {
            // An empty path is an error of its own.
            if !path.as_os_str().is_empty() {
                *path = folder.join(&*path);
            }
        }
    }
}

/// Whether requests need a token. There is no mode without tokens for other machines: each of their users could then
/// spend the money of the accounts and read every answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenMode {
    /// If the daemon listens at an address that other machines can reach.
    #[default]
    Auto,
    /// Always.
    Required,
}

/// The error of a mode without tokens, with advice.
const NO_TOKENS_OFF: &str = "tokens cannot be turned off: a caller without one could spend the money of your \
                             accounts and read every answer; write tokens = \"auto\", which needs none at a \
                             loopback address such as 127.0.0.1";

impl<'de> Deserialize<'de> for TokenMode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TokenModeVisitor)
    }
}

struct TokenModeVisitor;

impl Visitor<'_> for TokenModeVisitor {
    type Value = TokenMode;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(r#""auto" or "required""#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<TokenMode, E> {
        match text {
            "auto" => Ok(TokenMode::Auto),
            "required" => Ok(TokenMode::Required),
            "off" | "none" | "never" | "no" | "false" | "disabled" => Err(E::custom(NO_TOKENS_OFF)),
            other => Err(E::unknown_variant(other, &["auto", "required"])),
        }
    }

    fn visit_bool<E: Error>(self, is_on: bool) -> Result<TokenMode, E> {
        if is_on {
            return Err(E::invalid_type(Unexpected::Bool(is_on), &self));
        }
        Err(E::custom(NO_TOKENS_OFF))
    }
}

/// The files of the daemon's certificate, `[serve.tls]`. The daemon speaks TLS if both are set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate, followed by its intermediate certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The private key of the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

impl TlsSettings {
    /// Returns the certificate and its key, if the daemon speaks TLS.
    pub fn files(&self) -> Option<(&Path, &Path)> {
        Some((self.certificate.as_deref()?, self.key.as_deref()?))
    }
}

fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    from.deserialize_str(ListenVisitor)
}

struct ListenVisitor;

impl Visitor<'_> for ListenVisitor {
    type Value = SocketAddr;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "an address with a port such as \"127.0.0.1:{DEFAULT_PORT}\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SocketAddr, E> {
        ServeSettings::parse_listen(text, |address| format!("listen = \"{address}\"")).map_err(E::custom)
    }
}

fn parse_listen(text: &str, as_written: &dyn Fn(&str) -> String) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let address = SocketAddr::new(ip, DEFAULT_PORT);
        return Err(format!("{text:?} has no port; write {}", as_written(&address.to_string())));
    }
    let local = |port: u16| as_written(&format!("127.0.0.1:{port}"));
    let example = format!("write an address with a port, such as {}", local(DEFAULT_PORT));
    if text.contains('/') {
        return Err(format!("{text:?} is a URL or a path and not an address; {example}"));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let digits = if host == text { text } else { port };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if matches!(host, "" | "*") || host == digits => Err(format!(
            "{text:?} has no address; write {} for programs on this machine, or {} for all",
            local(port),
            as_written(&format!("0.0.0.0:{port}"))
        )),
        Ok(port) => Err(format!(
            "{text:?} has a name in place of an address; write the address that the daemon is to listen at, \
             such as {}",
            local(port)
        )),
        Err(_) if is_number => Err(format!("{text:?} has no valid port; a port is a number from 1 to 65535")),
        Err(_) if host.eq_ignore_ascii_case("localhost") => {
            Err(format!("{text:?} is a name and has no port; write {}", local(DEFAULT_PORT)))
        }
        Err(_) => Err(format!("{text:?} is not an address with a port; {example}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ServeSettings, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn a_missing_key_has_its_default_and_settings_are_written_as_read() {
        assert_eq!(read("").unwrap(), ServeSettings::default());
        let settings = ServeSettings {
            listen: "[::]:80".parse().unwrap(),
            tokens: TokenMode::Required,
            data: Some("data".into()),
            tls: TlsSettings { certificate: Some("a.pem".into()), key: Some("b.pem".into()) },
            ..ServeSettings::default()
        };
        for settings in [settings, ServeSettings::default()] {
            assert_eq!(read(&toml::to_string(&settings).unwrap()).unwrap(), settings);
        }
    }

    #[test]
    fn only_a_loopback_address_needs_no_tokens() {
        for (listen, needs_tokens) in [
            ("127.0.0.1:1", false),
            ("127.8.9.1:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("10.0.0.7:1", true),
            ("[::ffff:10.0.0.7]:1", true),
        ] {
            let settings = read(&format!("listen = '{listen}'")).unwrap();
            assert_eq!(settings.needs_tokens(), needs_tokens, "{listen}");
            assert!(ServeSettings { tokens: TokenMode::Required, ..settings }.needs_tokens());
        }
    }

    #[test]
    fn an_address_without_a_port_or_with_a_name_is_refused_with_what_to_write() {
        for (wrong, advice) in [
            ("127.0.0.1", "write listen = \"127.0.0.1:7700\""),
            ("::1", "write listen = \"[::1]:7700\""),
            ("[::1]", "write listen = \"[::1]:7700\""),
            ("localhost:80", "such as listen = \"127.0.0.1:80\""),
            ("example.com:80", "such as listen = \"127.0.0.1:80\""),
            ("localhost", "write listen = \"127.0.0.1:7700\""),
            (":80", "listen = \"0.0.0.0:80\" for all"),
            ("*:80", "listen = \"0.0.0.0:80\" for all"),
            ("80", "write listen = \"127.0.0.1:80\""),
            ("127.0.0.1:99999", "a number from 1 to 65535"),
            ("http://127.0.0.1:80", "is a URL or a path"),
            ("", "such as listen = \"127.0.0.1:7700\""),
            ("127.0.0.1:", "such as listen = \"127.0.0.1:7700\""),
        ] {
            let error = read(&format!("listen = '{wrong}'")).unwrap_err();
            assert!(error.contains(advice) && error.contains("; "), "{wrong}: {error}");
        }
        let as_option = |text: &str| {
            let parsed = ServeSettings::parse_listen(text, |address| format!("--listen {address}"));
            parsed.map_err(|error| error.split("; ").last().unwrap().to_owned())
        };
        assert_eq!(as_option(" 127.0.0.1:80 "), Ok("127.0.0.1:80".parse().unwrap()));
        assert_eq!(as_option("127.0.0.1"), Err("write --listen 127.0.0.1:7700".to_owned()));
        assert!(as_option("localhost:80").unwrap_err().ends_with("such as --listen 127.0.0.1:80"));
        let error = read("listen = 80").unwrap_err();
        assert!(error.contains("an address with a port such as \"127.0.0.1:7700\""), "{error}");
    }

    #[test]
    fn tokens_cannot_be_turned_off() {
        for off in ["'off'", "'none'", "false"] {
            let error = read(&format!("tokens = {off}")).unwrap_err();
            assert!(error.contains("tokens cannot be turned off: ") && error.contains("; write "), "{error}");
        }
        assert!(read("tokens = 'reqired'").unwrap_err().contains("`auto` or `required`"));
        assert_eq!(read("tokens = 'required'").unwrap().tokens, TokenMode::Required);
    }

    #[test]
    fn relative_paths_are_relative_to_the_folder_of_the_configuration() {
        let text = "items = ['in', '/abs']\ndata = 'data'\ntls = { certificate = 'c.pem', key = '/k.pem' }\n";
        let mut settings = read(text).unwrap();
        settings.resolve_paths(Path::new("/etc/p"));
        assert_eq!(settings.items, [PathBuf::from("/etc/p/in"), PathBuf::from("/abs")]);
        assert_eq!(settings.data_folder(&StoreUrl::None), Some("/etc/p/data".into()));
        assert_eq!(settings.tls.files(), Some((Path::new("/etc/p/c.pem"), Path::new("/k.pem"))));
    }

    #[test]
    fn the_data_are_beside_the_store() {
        let settings = ServeSettings::default();
        let store = StoreUrl::Sqlite("/var/lib/runs.db".into());
        assert_eq!(settings.data_folder(&store), Some("/var/lib/runs.db-data".into()));
        assert_eq!(settings.data_folder(&StoreUrl::None), None);
    }

    #[test]
    fn the_globs_name_files_of_the_configuration_folder_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("p")).unwrap();
        for name in ["p/b.toml", "p/a.toml"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let mut settings = read("pipelines = ['p/*.toml', 'p/a.toml', 'c.toml']").unwrap();
        settings.resolve_paths(folder.path());
        let expected = ["c.toml", "p/a.toml", "p/b.toml"].map(|name| folder.path().join(name));
        assert_eq!(settings.pipeline_files().unwrap(), expected);
        settings.pipelines = vec!["p/*.toml".into(), "q/*.toml".into(), "**".into()];
        let errors = settings.pipeline_files().unwrap_err();
        assert_eq!(errors.0.len(), 2, "{errors}");
        assert!(errors.to_string().contains("create it, or remove the glob"), "{errors}");
    }
}
