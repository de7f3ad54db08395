//! Failed logins of all nodes together: each tells the others, and where that has no way each has its share of the limits.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Bus, Membership, News};
use directory::Directory;
use directory::throttle::Report;
use tokio::task::JoinHandle;

/// How often it is looked whether nodes hear of each other.
const LOOK: Duration = Duration::from_secs(1);

/// Counts together with the others as long as it is kept.
#[derive(Debug)]
pub(crate) struct Logins {
    _news: Arc<News>,
    share: JoinHandle<()>,
}

impl Drop for Logins {
    fn drop(&mut self) {
        self.share.abort();
    }
}

impl Logins {
    /// Begins to.
    pub(crate) fn start(
        directory: &Directory,
        bus: Bus,
        membership: Membership,
        config: &cluster::Config,
    ) -> Self {
        let hears = directory.clone();
        let news = News::start(&bus, "logins", Report::BYTES, config, move |record| {
            if let Some(report) = Report::from_bytes(record) {
                hears.heard_of_login(report);
            }
        });
        let news = Arc::new(news);
        // The directory must not keep what keeps the directory.
        let told = Arc::downgrade(&news);
        directory.tell_others(move |report| {
            if let Some(news) = told.upgrade() {
                news.tell(&report.to_bytes());
            }
        });
        let directory = directory.clone();
        let share = tokio::spawn(async move {
            loop {
                let live = membership.view().live().count();
                let nodes = if bus.is_connected() { 1 } else { u32::try_from(live).unwrap_or(u32::MAX) };
                directory.share_login_limits(nodes);
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { _news: news, share }
    }
}
