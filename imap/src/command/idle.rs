//! IDLE (RFC 2177): the client waits for news.

use std::time::Duration;

use imap_protocol::server::Event;
use tokio::time::{Instant, sleep_until};

use crate::news::Expunges;
use crate::reply::{Reply, Stop, storage_failure};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session) -> Result<(), Stop> {
    let account = session.account()?;
    // Watching begins before the look, so that nothing falls between.
    let mut watch = account.watch();
    if session.selected.is_some()
        && let Err(error) = account.refresh().await
    {
        let reply = storage_failure(&error)?;
        session.finish(&reply);
        return Ok(());
    }
    session.pump.machine().begin_idle();
    session.tell_news(Expunges::Tell).await?;

    let poll = session.imap.config.idle_poll_seconds;
    let mut next_poll = Instant::now() + Duration::from_secs(poll);
    loop {
        tokio::select! {
            event = session.pump.next() => match event? {
                Some(Event::IdleDone) => break,
                // Something else than DONE; it is answered.
                Some(_) => return Ok(()),
                None => return Err(Stop::Disconnected),
            },
            changed = watch.changed() => {
                if changed.is_err() {
                    // The account was closed under us, or its log evicted: watch it anew.
                    watch = session.account()?.watch();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                watch.borrow_and_update();
                session.tell_news(Expunges::Tell).await?;
            }
            () = sleep_until(next_poll), if poll > 0 && session.selected.is_some() => {
                next_poll = Instant::now() + Duration::from_secs(poll);
                if let Err(error) = account.refresh().await {
                    storage_failure(&error)?;
                }
                session.tell_news(Expunges::Tell).await?;
            }
            () = session.shutdown.requested() => {
                return Err(Stop::Bye("[UNAVAILABLE] The server is shutting down"));
            }
        }
    }
    session.tell_news(Expunges::Tell).await?;
    session.finish(&Reply::ok("Idle completed"));
    Ok(())
}
