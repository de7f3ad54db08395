//! Uploads that nobody completes.

use std::time::{Duration, SystemTime};

use blob::{Blobs, BlobsError, SegmentId};
use bytes::Bytes;

use super::contract::real_service;
use crate::config::PART_BYTES_MIN;
use crate::service::Stamp;
use crate::stand_in::{Fate, Server};
use crate::uploads::Cleared;
use crate::{Config, S3Blobs};

const DAY: Duration = Duration::from_secs(86_400);

/// The service in the process lists no uploads, so its answer is written here, in two pages.
#[tokio::test]
async fn old_uploads_of_segments_are_given_up() {
    let server = Server::start().await;
    let blobs = server.blobs().await;
    server.plan(|seen| {
        if !seen.target.contains("uploads") {
            return Fate::Answer(204, "");
        }
        if seen.target.contains("key-marker") {
            return Fate::Listed(
                "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>
                <Upload><Key>segments/01a21d0297c1723b8653d0cb7aeade97</Key><UploadId>third</UploadId>
                <Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>",
            );
        }
        Fate::Listed(
            "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>
            <NextKeyMarker>segments/x</NextKeyMarker><NextUploadIdMarker>other</NextUploadIdMarker>
            <Upload><Key>segments/01a21d0297c1723b8653d0cb7aeade96</Key><UploadId>first</UploadId>
            <Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload>
            <Upload><Key>segments/01a21d0297c1723b8653d0cb7aeade96</Key><UploadId>second</UploadId>
            <Initiated>2020-01-01T23:59:00.000Z</Initiated></Upload>
            <Upload><Key>segments/x</Key><UploadId>other</UploadId>
            <Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>",
        )
    });
    // 2020-01-02T00:00:01Z: a day and a second after the first.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_923_201);
    let cleared = blobs.clear_uploads(DAY, now).await.unwrap();
    assert_eq!(cleared, Cleared { aborted: 2, left: 2 });
    let aborted: Vec<String> = server
        .seen()
        .into_iter()
        .filter(|seen| seen.method == hyper::Method::DELETE)
        .map(|seen| seen.target.split("uploadId=").nth(1).unwrap_or_default().to_owned())
        .collect();
    assert_eq!(aborted, ["first", "third"]);
}

/// What the service in the process cannot show, on a real one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_service_keeps_its_word() {
    let Some(config) = real_service() else { return };
    let prefix = format!("{}/", uuid::Uuid::new_v4().as_simple());
    let config = Config { prefix, part_bytes: PART_BYTES_MIN, ..config };
    let blobs = S3Blobs::open(config.clone()).await.unwrap();
    // An upload in parts, with checksums, that is completed once.
    let id = SegmentId::fresh();
    let bytes = Bytes::from((0..12_000_000u32).map(|at| (at / 7) as u8).collect::<Vec<_>>());
    let mut appender = blobs.begin(id, 0).await.unwrap();
    appender.append(vec![bytes.clone()]).await.unwrap();
    assert!(matches!(blobs.stat(id).await, Err(BlobsError::NotFound(_))));
    let left = blobs.clear_uploads(DAY, SystemTime::now()).await.unwrap();
    assert_eq!(left, Cleared { aborted: 0, left: 1 });
    // Another takes the id meanwhile.
    let other = S3Blobs::open(config.clone()).await.unwrap();
    other.put(id, vec![Bytes::from_static(b"other")]).await.unwrap();
    assert!(matches!(appender.seal(Vec::new()).await, Err(BlobsError::Exists(_))));
    other.delete(id).await.unwrap();
    let mut appender = blobs.begin(id, 0).await.unwrap();
    appender.append(vec![bytes.clone()]).await.unwrap();
    appender.seal(Vec::new()).await.unwrap();
    assert_eq!(blobs.get(id, 0..bytes.len() as u64).await.unwrap(), bytes);
    // The same write again finds itself; another does not.
    let (id, stamp) = (SegmentId::fresh(), Stamp::fresh());
    let text = Bytes::from_static(b"once");
    blobs.service.put(id, text.clone(), &stamp).await.unwrap();
    blobs.service.put(id, text.clone(), &stamp).await.unwrap();
    assert!(matches!(blobs.service.put(id, text, &Stamp::fresh()).await, Err(BlobsError::Exists(_))));
    // What is given up is old enough tomorrow.
    let mut appender = blobs.begin(SegmentId::fresh(), 0).await.unwrap();
    appender.append(vec![bytes]).await.unwrap();
    drop(appender);
    let cleared = blobs.clear_uploads(DAY, SystemTime::now() + 2 * DAY).await.unwrap();
    assert_eq!(cleared, Cleared { aborted: 1, left: 0 });
    // A bucket that is not there is no missing segment.
    let elsewhere = S3Blobs::open(Config { bucket: "elsewhere".into(), ..config }).await.unwrap();
    assert!(matches!(elsewhere.get(id, 0..1).await, Err(BlobsError::Refused { .. })));
    assert!(matches!(elsewhere.stat(id).await, Err(BlobsError::Refused { .. })));
}
