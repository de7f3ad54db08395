//! The suite that every back end passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use blob::Blobs;

use crate::stand_in::Server;
use crate::{Config, S3Blobs, Secret};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    let server = Server::start().await;
    run(&server.config).await;
}

/// The same on a service that runs elsewhere: `POSTRIDER_S3` is its URL, `POSTRIDER_S3_BUCKET` a bucket of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract_on_a_real_service() {
    let Some(config) = real_service() else { return };
    run(&config).await;
}

pub(crate) fn real_service() -> Option<Config> {
    let endpoint = std::env::var("POSTRIDER_S3").ok()?;
    let needed = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is missing"));
    Some(Config {
        endpoint: Some(endpoint),
        bucket: needed("POSTRIDER_S3_BUCKET"),
        path_style: true,
        access_key_id: Some(needed("POSTRIDER_S3_KEY")),
        secret_access_key: Some(Secret::new(needed("POSTRIDER_S3_SECRET"))),
        ..Config::default()
    })
}

/// Each instance has a prefix of its own, so that each begins empty.
async fn run(config: &Config) {
    let run = uuid::Uuid::new_v4().as_simple().to_string();
    let count = AtomicUsize::new(0);
    blob::contract::run(|| {
        let prefix = format!("{run}/{}/", count.fetch_add(1, Ordering::Relaxed));
        let config = Config { prefix, ..config.clone() };
        async move { Arc::new(S3Blobs::open(config).await.unwrap()) as Arc<dyn Blobs> }
    })
    .await;
}
