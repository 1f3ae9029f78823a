//! TLS of the server: a certificate and its key in PEM files, which are read again when they change.
//!
//! A handshake checks the files, at most once a second. Faulty files leave the certificate that is in use, and are logged
//! once. They are tried again until they are valid, because the two files are replaced one after the other.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use tokio::time::Instant;
use tracing::{error, info};

use crate::files::{self, FileId, PrivateFileError};
use crate::types::error_chain;

/// How often the files are checked at most.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The most bytes of each file.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    advice: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    fn new(message: String, advice: impl Into<String>) -> Self {
        Self { message, advice: advice.into(), source: None }
    }

    fn with_source(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Box::new(source)), ..self }
    }

    /// Returns what the user can do about it.
    pub fn advice(&self) -> &str {
        &self.advice
    }
}

/// Returns the TLS settings of a server with the certificate and the key in these files. New connections get a new
/// certificate soon after the files have changed.
///
/// # Errors
/// If the files cannot be used, or if users other than its owner can access the key.
pub(super) fn server_config(certificate: &Path, key: &Path) -> Result<ServerConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let resolver = CertificateResolver::open(certificate, key, provider.clone())?;
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| {
        Error::new("TLS cannot be set up".to_owned(), "report this as a bug").with_source(error)
    })?;
    Ok(builder.with_no_client_auth().with_cert_resolver(Arc::new(resolver)))
}

/// The certificate that is in use, and its files.
#[derive(Debug)]
struct CertificateResolver {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
    check: Mutex<FileCheck>,
}

/// What the last check of the files has found.
#[derive(Debug)]
struct FileCheck {
    last: Instant,
    /// The versions of the files that are in use.
    in_use: FileVersions,
    /// The error of the files, if they are faulty.
    error: Option<String>,
}

/// The versions of both files; `None` for a file that cannot be found.
type FileVersions = [Option<FileVersion>; 2];

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    id: FileId,
    modified: Option<SystemTime>,
    len: u64,
}

impl CertificateResolver {
    fn open(certificate: &Path, key: &Path, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        // Before the files are read: a change meanwhile is found by the next check.
        let in_use = versions(certificate, key);
        let current = load(certificate, key, &provider)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            provider,
            current: ArcSwap::from_pointee(current),
            check: Mutex::new(FileCheck { last: Instant::now(), in_use, error: None }),
        })
    }

    /// Reads the files again if they have changed and the last check was long enough ago. If another thread does it, the
    /// certificate in use is good enough.
    fn refresh(&self, now: Instant) {
        let mut check = match self.check.try_lock() {
            Ok(check) => check,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return,
        };
        if now.duration_since(check.last) < CHECK_INTERVAL {
            return;
        }
        check.last = now;
        let found = versions(&self.certificate, &self.key);
        // After an error the files may become valid without another version, as by `chmod`.
        if found == check.in_use && check.error.is_none() {
            return;
        }
        match load(&self.certificate, &self.key, &self.provider) {
            Ok(loaded) => {
                self.current.store(Arc::new(loaded));
                check.in_use = found;
                check.error = None;
                info!(certificate = %self.certificate.display(), "certificate was read again");
            }
            Err(error) => {
                let text = error_chain(&error);
                if check.error.as_ref() != Some(&text) {
                    let advice = error.advice();
                    error!(error = %text, advice, "certificate cannot be used, keeping the old one");
                    check.error = Some(text);
                }
            }
        }
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.refresh(Instant::now());
        Some(self.current.load_full())
    }
}

fn versions(certificate: &Path, key: &Path) -> FileVersions {
    [certificate, key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some(FileVersion {
            id: FileId::of(&metadata),
            modified: metadata.modified().ok(),
            len: metadata.len(),
        })
    })
}

/// Reads a certificate and its key. An error does not repeat what is in the file of the key.
fn load(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let chain = read_chain(certificate)?;
    let bytes = files::read_private(key, MAX_PEM_BYTES).map_err(|error: PrivateFileError| {
        let advice = error.advice(key);
        Error::new(format!("the key {} cannot be used", key.display()), advice).with_source(error)
    })?;
    let private_key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        Error::new(
            format!("the file {} has no private key in PEM format", key.display()),
            "name a file with `-----BEGIN PRIVATE KEY-----`; an encrypted key has to be decrypted first",
        )
    })?;
    CertifiedKey::from_der(chain, private_key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Error::new(
            format!("the key {} does not belong to the certificate {}", key.display(), certificate.display()),
            "name the key of the first certificate in the file; the certificate of the server comes first",
        ),
        rustls::Error::InvalidCertificate(_) => Error::new(
            format!("the certificate {} is damaged", certificate.display()),
            "export it again in PEM format",
        )
        .with_source(error),
        other => Error::new(
            format!("the key {} cannot be used", key.display()),
            "use an RSA, ECDSA (P-256, P-384) or Ed25519 key",
        )
        .with_source(other),
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read_bounded(path).map_err(|error| {
        let message = format!("cannot read the certificate {}", path.display());
        Error::new(message, "check the path and its permissions").with_source(error)
    })?;
    let without_certificate = || {
        Error::new(
            format!("the file {} has no certificate in PEM format", path.display()),
            "name a file with `-----BEGIN CERTIFICATE-----`",
        )
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| without_certificate().with_source(error))?;
    if chain.is_empty() { Err(without_certificate()) } else { Ok(chain) }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_PEM_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_PEM_BYTES} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    use super::*;

    /// A folder with the two files of a server.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new(pair: &str) -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            folder.put_certificate(pair);
            folder.put_key(pair);
            folder
        }

        fn certificate(&self) -> PathBuf {
            self.0.path().join("certificate.pem")
        }

        fn key(&self) -> PathBuf {
            self.0.path().join("key.pem")
        }

        fn put_certificate(&self, pair: &str) {
            self.replace(&self.certificate(), &data(&format!("{pair}.pem")));
        }

        fn put_key(&self, pair: &str) {
            self.replace(&self.key(), &data(&format!("{pair}.key.pem")));
        }

        /// Replaces a file by a new one, so that its version changes even within the resolution of the file's time.
        fn replace(&self, path: &Path, bytes: &[u8]) {
            let new = self.0.path().join("new");
            std::fs::write(&new, bytes).unwrap();
            set_mode(&new, 0o600);
            std::fs::rename(&new, path).unwrap();
        }

        fn resolver(&self) -> CertificateResolver {
            open(&self.certificate(), &self.key()).unwrap()
        }
    }

    fn open(certificate: &Path, key: &Path) -> Result<CertificateResolver, Error> {
        CertificateResolver::open(certificate, key, Arc::new(ring::default_provider()))
    }

    fn data(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
        std::fs::read(folder.join(name)).unwrap()
    }

    fn certificate_of(pair: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(&data(&format!("{pair}.pem"))).unwrap()
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[track_caller]
    fn assert_uses(resolver: &CertificateResolver, pair: &str) {
        assert_eq!(resolver.current.load().cert, [certificate_of(pair)]);
    }

    /// Returns a time at which the files are checked again.
    fn later(resolver: &CertificateResolver) -> Instant {
        resolver.check.lock().unwrap().last + CHECK_INTERVAL
    }

    #[test]
    fn new_files_are_used_after_the_next_check() {
        let folder = Folder::new("first");
        let resolver = folder.resolver();
        assert_uses(&resolver, "first");
        folder.put_key("second");
        folder.put_certificate("second");
        let opened = resolver.check.lock().unwrap().last;
        resolver.refresh(opened + CHECK_INTERVAL / 2);
        assert_uses(&resolver, "first");
        resolver.refresh(opened + CHECK_INTERVAL);
        assert_uses(&resolver, "second");
        assert_eq!(resolver.check.lock().unwrap().error, None);
    }

    #[test]
    fn faulty_files_leave_the_old_certificate_until_they_are_valid() {
        let folder = Folder::new("first");
        let resolver = folder.resolver();
        let assert_keeps = |part: &str| {
            resolver.refresh(later(&resolver));
            assert_uses(&resolver, "first");
            let error = resolver.check.lock().unwrap().error.clone().unwrap();
            assert!(error.contains(part), "{error}");
        };
        folder.put_certificate("second");
        assert_keeps("does not belong to the certificate");
        folder.replace(&folder.certificate(), b"nonsense");
        assert_keeps("has no certificate in PEM format");
        std::fs::remove_file(folder.certificate()).unwrap();
        assert_keeps("cannot read the certificate");
        folder.put_certificate("second");
        folder.put_key("second");
        set_mode(&folder.key(), 0o644);
        assert_keeps("users other than its owner can access it (mode 0644)");
        set_mode(&folder.key(), 0o600);
        resolver.refresh(later(&resolver));
        assert_uses(&resolver, "second");
        assert_eq!(resolver.check.lock().unwrap().error, None);
    }

    #[test]
    fn faulty_files_are_refused_at_the_start_with_advice() {
        let folder = Folder::new("first");
        let error = || open(&folder.certificate(), &folder.key()).unwrap_err();
        for mode in [0o640, 0o604] {
            set_mode(&folder.key(), mode);
            assert!(error().advice().starts_with("run `chmod 600 "), "{}", error().advice());
        }
        folder.put_key("second");
        assert!(error().to_string().contains("does not belong to the certificate"), "{}", error());
        folder.replace(&folder.key(), &data("first.pem"));
        assert!(error().to_string().contains("has no private key in PEM format"), "{}", error());
        folder.put_key("first");
        folder.replace(&folder.certificate(), b"");
        assert!(error().advice().contains("BEGIN CERTIFICATE"), "{}", error().advice());
        let damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        folder.replace(&folder.certificate(), damaged);
        assert!(error().to_string().ends_with("is damaged"), "{}", error());
    }

    #[test]
    fn an_error_shows_nothing_of_the_key() {
        let folder = Folder::new("first");
        let secret = String::from_utf8(data("first.key.pem")).unwrap();
        let body = secret.lines().nth(1).unwrap();
        let as_heading = format!("-----BEGIN {body}-----\n{body}\n");
        for text in [body.to_owned(), as_heading, secret.replace("END", "ENT")] {
            folder.replace(&folder.key(), text.as_bytes());
            let error = open(&folder.certificate(), &folder.key()).unwrap_err();
            let shown = format!("{} {error:?}", error_chain(&error));
            assert!(!shown.contains(&body[..12]), "{shown}");
        }
    }

    /// Runs a handshake in memory with a client that trusts only the certificate of `trusted`.
    fn handshake(server: &Arc<ServerConfig>, trusted: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate_of(trusted)).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(server.clone()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_gets_the_certificate_of_the_files() {
        let folder = Folder::new("first");
        let config = Arc::new(server_config(&folder.certificate(), &folder.key()).unwrap());
        handshake(&config, "first").unwrap();
        assert!(handshake(&config, "second").is_err());
        folder.put_certificate("second");
        folder.put_key("second");
        tokio::time::advance(CHECK_INTERVAL).await;
        handshake(&config, "second").unwrap();
        assert!(handshake(&config, "first").is_err());
    }
}
