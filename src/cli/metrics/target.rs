//! The option `--metrics`: a file or an address.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};

/// Options for metrics.
#[derive(Debug, Clone, Default, clap::Args)]
pub(in crate::cli) struct MetricsArgs {
    /// Write the metrics to this file every 5 s and at the end, or serve them at `http://ADDR/metrics`, such as
    /// 127.0.0.1:9100. The format is that of Prometheus.
    #[arg(long = "metrics", value_name = "FILE|ADDR", value_parser = MetricsTarget::parser())]
    pub(super) target: Option<MetricsTarget>,
}

impl MetricsArgs {
    /// Returns whether the command has the option.
    #[cfg(feature = "server")]
    pub(in crate::cli) fn is_given(&self) -> bool {
        self.target.is_some()
    }

    /// Returns the file to write to, if it is a file.
    pub(in crate::cli) fn file(&self) -> Option<&Path> {
        match &self.target {
            Some(MetricsTarget::File(path)) => Some(path),
            Some(MetricsTarget::Address(_)) | None => None,
        }
    }

    /// Returns the same options, independent of the working directory.
    pub(in crate::cli) fn absolute(&self) -> anyhow::Result<Self> {
        let target = match &self.target {
            Some(MetricsTarget::File(path)) => Some(MetricsTarget::File(std::path::absolute(path)?)),
            Some(MetricsTarget::Address(address)) => Some(MetricsTarget::Address(*address)),
            None => None,
        };
        Ok(Self { target })
    }
}

/// Where metrics go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MetricsTarget {
    /// To a file that is replaced.
    File(PathBuf),
    /// To clients of this address.
    Address(SocketAddr),
}

impl MetricsTarget {
    /// Returns the parser of the argument.
    fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(|text: OsString| Self::parse(&text))
    }

    /// Parses an address or the name of a file. A text that looks like an address and is none is refused, because it
    /// would silently become the name of a file.
    fn parse(text: &OsStr) -> Result<Self, String> {
        let file = || Self::File(PathBuf::from(text));
        let Some(text) = text.to_str() else { return Ok(file()) };
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        if text.is_empty() || text == "-" {
            return Err("name a file or an address such as 127.0.0.1:9100".to_owned());
        }
        if text.contains("://") {
            return Err("write only the address, such as 127.0.0.1:9100".to_owned());
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err("a port is missing; write an address such as 127.0.0.1:9100".to_owned());
        }
        if is_port(port) && host.is_empty() {
            return Err(format!(
                "the IP address is missing; write 127.0.0.1:{port} to serve this machine, 0.0.0.0:{port} to serve every \
                 network, or ./{text} for a file"
            ));
        }
        if is_port(port) && !host.contains(['/', '\\']) {
            return Err(format!(
                "this is no IP address and port; write an address such as 127.0.0.1:9100, or ./{text} for a file"
            ));
        }
        Ok(file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MetricsTarget, String> {
        MetricsTarget::parse(OsStr::new(text))
    }

    #[test]
    fn an_ip_address_with_a_port_is_an_address() {
        for text in ["127.0.0.1:9100", "[::1]:9100", "0.0.0.0:0"] {
            assert_eq!(parse(text), Ok(MetricsTarget::Address(text.parse().unwrap())));
        }
    }

    #[test]
    fn other_texts_are_files() {
        for text in ["metrics.prom", "./9100", "folder/a:9100", "a:b", "/tmp/metrics.prom", "9100.prom"] {
            assert_eq!(parse(text), Ok(MetricsTarget::File(PathBuf::from(text))));
        }
    }

    #[test]
    fn a_text_that_looks_like_an_address_is_no_file() {
        for (text, advice) in [
            (":9100", "write 127.0.0.1:9100 to serve this machine"),
            ("9100", "or ./9100 for a file"),
            ("localhost:9100", "write an address such as 127.0.0.1:9100"),
            ("127.0.0.1:91000", "this is no IP address and port"),
            ("127.0.0.1", "a port is missing"),
            ("::1", "a port is missing"),
            ("http://127.0.0.1:9100/metrics", "write only the address"),
            ("-", "name a file or an address"),
            ("", "name a file or an address"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }
}
