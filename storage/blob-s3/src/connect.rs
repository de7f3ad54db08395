//! The way to the service: HTTP, TLS, credentials.

use std::io;
use std::path::Path;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedCredentialsProvider,
    SharedHttpClient,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::waiting::blocking;
use crate::{Config, OpenError};

/// A client as the configuration has it. Nothing is asked over the network yet.
pub(crate) async fn client(config: &Config) -> Result<Client, OpenError> {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http(config).await?)
        .region(Region::new(config.region.clone()))
        // Both are ours: see `call.rs`.
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let (Some(id), Some(secret)) = (&config.access_key_id, &config.secret_access_key) {
        let token = config.session_token.as_ref().map(|token| token.expose().to_owned());
        let credentials = Credentials::new(id, secret.expose(), token, None, "configuration");
        loader = loader.credentials_provider(SharedCredentialsProvider::new(credentials));
    }
    if let Some(file) = &config.credentials_file {
        let files = EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, file).build();
        loader = loader.profile_files(files);
    }
    if let Some(profile) = &config.credentials_profile {
        loader = loader.profile_name(profile);
    }
    let shared = loader.load().await;
    let mut builder = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(config.path_style)
        // We send CRC32C where bytes go out, and look at lengths and seals where they come in; what the SDK would do
        // beyond that needs answers that not every service gives.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    Ok(Client::from_conf(builder.build()))
}

async fn http(config: &Config) -> Result<SharedHttpClient, OpenError> {
    let http = aws_smithy_http_client::Builder::new();
    let plain = config.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    // With credentials at hand and a plain endpoint nothing speaks TLS, and no certificates of the system are needed.
    if plain && config.access_key_id.is_some() {
        return Ok(http.build_http());
    }
    let http = http.tls_provider(Provider::Rustls(CryptoMode::AwsLc));
    let Some(file) = config.ca_file.clone() else { return Ok(http.build_https()) };
    let pem = blocking(move || certificates(&file)).await.map_err(OpenError::Ca)?;
    let trusted = TrustStore::empty().with_pem_certificate(pem);
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| OpenError::Ca(io::Error::other(error)))?;
    Ok(http.tls_context(context).build_https())
}

/// The file's content. It is read here as the client will: what that cannot use it would say by a panic.
fn certificates(file: &Path) -> io::Result<Vec<u8>> {
    let pem = std::fs::read(file)?;
    let unusable = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("no certificates in it".into()));
    }
    Ok(pem)
}
