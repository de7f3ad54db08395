//! Ways to the service: TLS, and credentials from a file.

use blob::{Blobs, BlobsError, SegmentId};
use bytes::Bytes;

use crate::stand_in::{KEY_ID, SECRET, Server};
use crate::{Config, OpenError, S3Blobs};

async fn works(blobs: &S3Blobs) -> Result<(), BlobsError> {
    let id = SegmentId::fresh();
    blobs.put(id, vec![Bytes::from_static(b"some text")]).await?;
    assert_eq!(blobs.get(id, 5..9).await?, "text");
    Ok(())
}

#[tokio::test]
async fn tls_trusts_whom_it_is_told_to() {
    let mut server = Server::start_tls().await;
    server.config.retries_max = 0;
    works(&server.blobs().await).await.unwrap();
    // Another's certificate, of the same name.
    let other = Server::start_tls().await;
    let config = Config { ca_file: other.config.ca_file.clone(), ..server.config.clone() };
    let error = works(&S3Blobs::open(config).await.unwrap()).await.unwrap_err();
    assert!(matches!(error, BlobsError::Unavailable { .. }), "{error:?}");
    // What is no certificate is said at the start.
    let file = server.config.ca_file.clone().unwrap();
    for content in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&file, content).unwrap();
        assert!(matches!(S3Blobs::open(server.config.clone()).await, Err(OpenError::Ca(_))));
    }
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(S3Blobs::open(server.config.clone()).await, Err(OpenError::Ca(_))));
}

#[tokio::test]
async fn credentials_come_from_a_shared_file() {
    let server = Server::start_tls().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    let text = format!(
        "[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n\
         [mail]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
    );
    std::fs::write(&file, text).unwrap();
    let config = Config {
        access_key_id: None,
        secret_access_key: None,
        credentials_file: Some(file),
        credentials_profile: Some("mail".into()),
        retries_max: 0,
        ..server.config.clone()
    };
    works(&S3Blobs::open(config.clone()).await.unwrap()).await.unwrap();
    let config = Config { credentials_profile: None, ..config };
    let refused = works(&S3Blobs::open(config).await.unwrap()).await;
    assert!(matches!(refused, Err(BlobsError::Refused { .. })), "{refused:?}");
}
