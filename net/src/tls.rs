//! TLS on both sides: certificates by SNI that can be replaced while the server runs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::stream::Transport;

/// The cryptography that every connection of this process uses. Key exchanges are named: a dependency can have rustls
/// offer a hybrid one first, whose greeting is longer than one packet, and hosts are met that do not survive that.
pub fn provider() -> Arc<CryptoProvider> {
    use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
    let kx_groups =
        vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1, kx_group::X25519MLKEM768];
    Arc::new(CryptoProvider { kx_groups, ..default_provider() })
}

/// What is known of an encrypted connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// The protocol version in the words of `Received` lines and logs: `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite: `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The name that the client asked for.
    pub server_name: Option<String>,
    /// The `tls-exporter` channel binding (RFC 9266). Only for TLS 1.3: in older versions it needs more than we check.
    pub exporter: Option<[u8; 32]>,
}

impl TlsInfo {
    pub(crate) fn of<'a>(connection: impl Into<Side<'a>>) -> Self {
        let connection = connection.into();
        let (common, server_name): (&rustls::CommonState, _) = match connection {
            Side::Server(connection) => (connection, connection.server_name().map(str::to_owned)),
            Side::Client(connection) => (connection, None),
        };
        let tls13 = common.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        // RFC 9266 §2: label, no context, 32 bytes.
        const LABEL: &[u8] = b"EXPORTER-Channel-Binding";
        let exporter = tls13.then(|| match connection {
            Side::Server(connection) => connection.export_keying_material([0; 32], LABEL, Some(b"")),
            Side::Client(connection) => connection.export_keying_material([0; 32], LABEL, Some(b"")),
        });
        Self {
            version: if tls13 { "TLSv1.3" } else { "TLSv1.2" },
            cipher: common
                .negotiated_cipher_suite()
                .map(|suite| format!("{:?}", suite.suite()))
                .unwrap_or_default(),
            server_name,
            exporter: exporter.and_then(Result::ok),
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Side<'a> {
    Server(&'a rustls::ServerConnection),
    Client(&'a rustls::ClientConnection),
}

impl<'a> From<&'a rustls::ServerConnection> for Side<'a> {
    fn from(connection: &'a rustls::ServerConnection) -> Self {
        Self::Server(connection)
    }
}

impl<'a> From<&'a rustls::ClientConnection> for Side<'a> {
    fn from(connection: &'a rustls::ClientConnection) -> Self {
        Self::Client(connection)
    }
}

/// Where one certificate lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PemFiles {
    /// The certificate and its chain, the server's own first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Why certificates could not be put to use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} holds no usable {what}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What was looked for in it.
        what: &'static str,
        /// What was found instead.
        #[source]
        source: Option<rustls::pki_types::pem::Error>,
    },
    /// Certificate and key are unusable, or do not belong together.
    #[error("certificate and key do not fit")]
    Certificate(#[source] rustls::Error),
    /// A self-signed certificate could not be made.
    #[error("cannot make a self-signed certificate")]
    SelfSigned(#[source] rcgen::Error),
    /// There is no certificate at all.
    #[error("no certificate is configured")]
    NoCertificate,
    /// A name is neither a DNS name nor an address.
    #[error("{0:?} is not a name that a certificate can be for")]
    Name(String),
}

/// A certificate with its key, and the names that it is for.
#[derive(Debug, Clone)]
pub struct Certificate {
    certified: Arc<CertifiedKey>,
    names: Vec<String>,
}

impl Certificate {
    /// Reads PEM files.
    pub fn read(files: &PemFiles) -> Result<Self, TlsError> {
        let open = |path: &Path| {
            File::open(path)
                .map(BufReader::new)
                .map_err(|source| TlsError::Read { path: path.to_owned(), source })
        };
        let content = |path: &Path, what, source| TlsError::Content { path: path.to_owned(), what, source };
        let chain = CertificateDer::pem_reader_iter(open(&files.certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| content(&files.certificate, "certificate", Some(source)))?;
        if chain.is_empty() {
            return Err(content(&files.certificate, "certificate", None));
        }
        let key = PrivateKeyDer::from_pem_reader(open(&files.key)?)
            .map_err(|source| content(&files.key, "private key", Some(source)))?;
        Self::new(chain, key)
    }

    /// Takes a chain, the server's own certificate first, and its key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Certificate)?;
        let names = names(&certified)?;
        Ok(Self { certified: Arc::new(certified), names })
    }

    /// Makes a certificate for `names` that nobody but the caller has a reason to trust.
    pub fn self_signed(names: &[String]) -> Result<SelfSigned, TlsError> {
        let made = rcgen::generate_simple_self_signed(names).map_err(TlsError::SelfSigned)?;
        Ok(SelfSigned { certificate_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() })
    }
}

/// A new self-signed certificate, in the form in which it is kept in files.
#[derive(Clone)]
pub struct SelfSigned {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
}

impl SelfSigned {
    /// The certificate ready for use.
    pub fn certificate(&self) -> Result<Certificate, TlsError> {
        let chain = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes());
        match (chain, key) {
            (Ok(chain), Ok(key)) => Certificate::new(vec![chain], key),
            (Err(source), _) | (_, Err(source)) => Err(TlsError::Content {
                path: PathBuf::from("memory"),
                what: "certificate",
                source: Some(source),
            }),
        }
    }
}

/// The DNS names in a certificate, lower case. rustls checks a name against a certificate but does not list them, so
/// the subjectAltName extension is read here: a SEQUENCE whose context tag 2 members are DNS names (RFC 5280 §4.2.1.6).
fn names(certified: &CertifiedKey) -> Result<Vec<String>, TlsError> {
    let leaf = certified.end_entity_cert().map_err(TlsError::Certificate)?;
    const SUBJECT_ALT_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x11];
    let der: &[u8] = leaf.as_ref();
    let Some(at) = der.windows(SUBJECT_ALT_NAME.len()).position(|window| window == SUBJECT_ALT_NAME) else {
        return Ok(Vec::new());
    };
    let mut rest = &der[at + SUBJECT_ALT_NAME.len()..];
    // An optional `critical` BOOLEAN stands between the identifier and the OCTET STRING.
    if let Some((0x01, _, after)) = element(rest) {
        rest = after;
    }
    let Some((0x04, octets, _)) = element(rest) else { return Ok(Vec::new()) };
    let Some((0x30, mut list, _)) = element(octets) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    while let Some((tag, value, after)) = element(list) {
        if tag == 0x82
            && let Ok(name) = std::str::from_utf8(value)
        {
            names.push(name.to_ascii_lowercase());
        }
        list = after;
    }
    Ok(names)
}

/// Splits one DER element off: its tag, its content, and what comes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The certificates in use at one time.
#[derive(Debug)]
struct Chosen {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    otherwise: Arc<CertifiedKey>,
}

impl Chosen {
    fn new(certificates: &[Certificate]) -> Result<Self, TlsError> {
        let first = certificates.first().ok_or(TlsError::NoCertificate)?;
        let mut by_name = HashMap::new();
        for certificate in certificates {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_insert_with(|| Arc::clone(&certificate.certified));
            }
        }
        Ok(Self { by_name, otherwise: Arc::clone(&first.certified) })
    }

    fn find(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.otherwise };
        // A wildcard stands for exactly one label (RFC 6125 §6.4.3).
        self.by_name
            .get(&name)
            .or_else(|| self.by_name.get(&format!("*.{}", name.split_once('.')?.1)))
            .unwrap_or(&self.otherwise)
    }
}

#[derive(Debug)]
struct BySni(ArcSwap<Chosen>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A name that we do not know gets the first certificate: mail clients complain more usefully about a wrong
        // name than about a failed handshake, and many mail servers send no name or their own.
        Some(Arc::clone(self.0.load().find(hello.server_name())))
    }
}

/// The server's side of TLS.
#[derive(Clone)]
pub struct TlsServer {
    acceptor: TlsAcceptor,
    certificates: Arc<BySni>,
}

impl TlsServer {
    /// Serves these certificates by name; the first where no name fits.
    pub fn new(certificates: &[Certificate]) -> Result<Self, TlsError> {
        let certificates = Arc::new(BySni(ArcSwap::from_pointee(Chosen::new(certificates)?)));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Certificate)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
        // Tickets are sealed and kept by the client, so resumption costs no memory here. One is enough: mail clients
        // open few connections, and each ticket is 200 bytes and an encryption at every handshake.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Certificate)?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificates })
    }

    /// The same certificates, with these protocols to choose from in the handshake (ALPN, RFC 7301), the best first. A
    /// client that asks for none gets on without.
    pub fn with_protocols(&self, protocols: &[&[u8]]) -> Self {
        let mut config = ServerConfig::clone(self.acceptor.config());
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificates: Arc::clone(&self.certificates) }
    }

    /// Replaces the certificates; connections that are open keep theirs.
    pub fn reload(&self, certificates: &[Certificate]) -> Result<(), TlsError> {
        self.certificates.0.store(Arc::new(Chosen::new(certificates)?));
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

impl std::fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TlsServer").field(&self.certificates).finish()
    }
}

/// The client's side of TLS: whom it trusts, and which name it asks for.
#[derive(Clone)]
pub struct TlsClient {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsClient {
    /// Asks for `name` and trusts certificates that one of `trusted` has signed (or is).
    pub fn trusting(name: &str, trusted: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in trusted {
            roots.add(certificate.clone()).map_err(TlsError::Certificate)?;
        }
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Certificate)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Asks for `name`, and trusts whom `connector` trusts.
    pub fn with_connector(name: &str, connector: TlsConnector) -> Result<Self, TlsError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        Ok(Self { connector, name })
    }

    /// Asks for `name` and trusts the certificate that [`Certificate::self_signed`] made.
    pub fn trusting_self_signed(name: &str, made: &SelfSigned) -> Result<Self, TlsError> {
        Self::trusting(name, &made.certificate()?.certified.cert)
    }

    pub(crate) fn connect(&self, transport: Transport) -> tokio_rustls::Connect<Transport> {
        self.connector.connect(self.name.clone(), transport)
    }
}

/// Whose certificates are trusted: read once, for many connections to whatever names.
#[derive(Clone)]
pub struct Trust(TlsConnector);

impl Trust {
    /// Those whose certificates the system keeps. What of them cannot be read is left out.
    pub fn system() -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a certificate of the system cannot be read");
        }
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 { Err(TlsError::NoCertificate) } else { Self::of(roots) }
    }

    /// Those in a file in PEM.
    pub fn file(path: &Path) -> Result<Self, TlsError> {
        let wrong =
            |source| TlsError::Content { path: path.to_owned(), what: "certificate", source: Some(source) };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(wrong)? {
            roots.add(certificate.map_err(wrong)?).map_err(TlsError::Certificate)?;
        }
        Self::of(roots)
    }

    fn of(roots: RootCertStore) -> Result<Self, TlsError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Certificate)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// The client's side of a connection to `name`.
    pub fn client(&self, name: &str) -> Result<TlsClient, TlsError> {
        TlsClient::with_connector(name, self.0.clone())
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsClient").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn made(names: &[&str]) -> SelfSigned {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Certificate::self_signed(&names).unwrap()
    }

    async fn greets(server: &TlsServer, client: &TlsClient) -> io::Result<(TlsInfo, TlsInfo)> {
        let (mut here, mut there) = Stream::memory_pair(64 * 1024);
        let server = server.clone();
        let task = tokio::spawn(async move {
            here.accept_tls(&server).await?;
            here.write_all(b"hello").await?;
            here.flush().await?;
            io::Result::Ok(here.peer().tls.clone().unwrap())
        });
        there.connect_tls(client).await?;
        let mut hello = [0; 5];
        there.read_exact(&mut hello).await?;
        assert_eq!(&hello, b"hello");
        Ok((task.await.unwrap()?, there.peer().tls.clone().unwrap()))
    }

    #[tokio::test]
    async fn certificate_by_name_and_reload() {
        let (one, wild) = (made(&["one.test"]), made(&["*.wild.test"]));
        let server = TlsServer::new(&[one.certificate().unwrap(), wild.certificate().unwrap()]).unwrap();
        let (here, there) =
            greets(&server, &TlsClient::trusting_self_signed("one.test", &one).unwrap()).await.unwrap();
        assert_eq!(here.version, "TLSv1.3");
        assert_eq!(here.server_name.as_deref(), Some("one.test"));
        assert!(here.exporter.is_some());
        assert_eq!(here.exporter, there.exporter, "both ends see the same channel binding");
        greets(&server, &TlsClient::trusting_self_signed("a.wild.test", &wild).unwrap()).await.unwrap();
        let unknown = TlsClient::trusting_self_signed("b.a.wild.test", &wild).unwrap();
        greets(&server, &unknown).await.unwrap_err();

        let new = made(&["one.test"]);
        server.reload(&[new.certificate().unwrap()]).unwrap();
        greets(&server, &TlsClient::trusting_self_signed("one.test", &one).unwrap()).await.unwrap_err();
        greets(&server, &TlsClient::trusting_self_signed("one.test", &new).unwrap()).await.unwrap();
    }

    #[test]
    fn files() {
        let folder = tempfile::tempdir().unwrap();
        let made = made(&["one.test", "two.test"]);
        let files =
            PemFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        assert!(matches!(Certificate::read(&files), Err(TlsError::Read { .. })));
        std::fs::write(&files.certificate, "nothing").unwrap();
        assert!(matches!(Certificate::read(&files), Err(TlsError::Content { .. })));
        std::fs::write(&files.certificate, &made.certificate_pem).unwrap();
        std::fs::write(&files.key, &made.key_pem).unwrap();
        assert_eq!(Certificate::read(&files).unwrap().names, ["one.test", "two.test"]);
        let other = Certificate::self_signed(&["x.test".to_owned()]).unwrap();
        std::fs::write(&files.key, &other.key_pem).unwrap();
        assert!(matches!(Certificate::read(&files), Err(TlsError::Certificate(_))));
    }
}
