//! This installation as one of several regions: the table that they share, and what nodes of the others are answered.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::Context;
use cluster::agreement;
use directory::{AuthError, Directory, Homes, PlainLogin, Principal, Resolution, Service};
use engine::{Engine, Rows};
use engine_cql::Cql;
use imap::Imap;
use mail::address::Address;
use net::shutdown::{Shutdown, ShutdownGuard};
use net::stream::{Peer, Stream};
use region::call::{Answer, LogIn, Proof, Proved, Recipient, Request, Session, Verifier};
use region::{Link, LinkError, RegionSecret, Regions};
use smtp_in::SmtpIn;
use storage::Storage;

use crate::config::Config;
use crate::role::Role;

/// What a keyspace is, in the agreement of the nodes that use it.
const REGION: &str = "region";
/// What all regions must have the same.
const SECRET: &str = "regions' secret";

/// The other regions as the stores know them: whom to ask, and the table of who is where.
pub(crate) struct Neighbourhood {
    pub(crate) regions: Regions,
    pub(crate) homes: Homes,
}

impl Neighbourhood {
    /// Opens the regions' table; `None` where there is one region only. `own` is where this region keeps everything.
    pub(crate) async fn open(config: &Config, own: &dyn Rows) -> anyhow::Result<Option<Self>> {
        let Some(here) = config.regions.here()? else { return Ok(None) };
        // What is in this keyspace belongs to one region.
        agreement::agree(own, REGION, here.as_str()).await.context("regions.name")?;
        let secret = RegionSecret::read(&config.regions.secret_file).context("regions.secret_file")?;
        let table = Box::pin(Cql::open(&config.regions.table(&config.cql))).await.context("regions")?;
        let Engine { rows, .. } = table.engine();
        // With another secret the table would be read in vain, and nobody would be found.
        agreement::agree(&*rows, SECRET, &secret.fingerprint())
            .await
            .context("regions.secret_file is not the file of the other regions")?;
        let homes = Homes::new(rows, here.clone(), secret.expose());
        let regions = Regions::new(here, secret, &config.regions.others).context("regions")?;
        Ok(Some(Self { regions, homes }))
    }
}

impl Neighbourhood {
    /// How mail for names of other regions gets there.
    pub(crate) fn mail(&self, directory: &Directory, smtp_in: &SmtpIn) -> smtp_out::Elsewhere {
        // Nobody tells these sessions to end: their other half is this process's own sending.
        let (smtp_in, shutdown) = (smtp_in.clone(), Shutdown::new());
        let here = move |stream| {
            tokio::spawn(smtp_in.serve(smtp_in::Role::Mx, stream, shutdown.guard()));
        };
        let (directory, regions) = (directory.clone(), self.regions.clone());
        smtp_out::Elsewhere { directory, regions, here: Arc::new(here) }
    }
}

/// Answers nodes of other regions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Answering {
    regions: Regions,
    directory: Directory,
    storage: Storage,
    smtp_in: Option<SmtpIn>,
    imap: Option<Imap>,
}

/// Somebody has logged in: what their session goes on with.
enum Entered {
    Imap(Imap, imap::Entered),
    Submission(SmtpIn, Principal, (bool, String)),
}

impl Answering {
    pub(crate) fn new(
        config: &Config,
        regions: Regions,
        directory: Directory,
        storage: Storage,
        smtp_in: SmtpIn,
        imap: Imap,
    ) -> Self {
        Self {
            regions,
            directory,
            storage,
            smtp_in: config.roles.contains(&Role::SmtpIn).then_some(smtp_in),
            imap: config.roles.contains(&Role::Imap).then_some(imap),
        }
    }

    /// Serves one connection from a node of another region, to its end.
    pub(crate) async fn serve(&self, stream: Stream, guard: ShutdownGuard) {
        let heard = tokio::select! {
            heard = self.regions.hear(stream) => heard,
            () = guard.requested() => None,
        };
        let served = match heard {
            Some((Request::LogIn(login), link)) => Box::pin(self.log_in(login, link, guard)).await,
            Some((Request::Recipient { address, size }, mut link)) => {
                link.send(&Box::pin(self.recipient(&address, size)).await).await
            }
            Some((Request::Mail, link)) => Box::pin(self.mail(link, guard)).await,
            None => Ok(()),
        };
        if let Err(error) = served {
            tracing::debug!(%error, "another region does not listen any more");
        }
    }

    /// What an address of ours is. A message that is too large for one mailbox is refused like one that is too large at
    /// all: by whoever takes it.
    async fn recipient(&self, address: &str, size: u64) -> Answer {
        let Ok(address) = Address::parse(address) else { return Answer::NotServed };
        let resolution = match self.directory.resolve(&address).await {
            Ok(resolution) => resolution,
            Err(error) => {
                tracing::warn!(%error, "recipient not decided");
                return Answer::Unavailable;
            }
        };
        Answer::Recipient(match resolution {
            Resolution::Account(route) => {
                match self.storage.account(&storage::Principal::Delivery, route.account).await {
                    Ok(account) if account.state().quota().has_room(1, size) => Recipient::Good,
                    Ok(_) => Recipient::Full,
                    Err(error) => {
                        tracing::warn!(account_id = %route.account, %error, "account not opened");
                        return Answer::Unavailable;
                    }
                }
            }
            Resolution::Alias { .. } | Resolution::List { .. } => Recipient::Good,
            Resolution::Disabled => Recipient::Disabled,
            Resolution::NoSuchUser | Resolution::NotLocal => Recipient::Unknown,
            // It moved on a moment ago; whoever asks sees that soon.
            Resolution::Elsewhere { .. } => return Answer::Unavailable,
        })
    }

    /// Takes mail that another region has for us.
    async fn mail(&self, mut link: Link, guard: ShutdownGuard) -> Result<(), LinkError> {
        let Some(smtp_in) = self.smtp_in.clone() else { return link.send(&Answer::NotServed).await };
        link.send(&Answer::Mail).await?;
        smtp_in.serve(smtp_in::Role::Mx, link.into_stream(), guard).await;
        Ok(())
    }

    async fn log_in(&self, asked: LogIn, mut link: Link, guard: ShutdownGuard) -> Result<(), LinkError> {
        let peer = asked.client.peer();
        let principal = match self.principal(&asked, &peer, &mut link).await? {
            Ok(principal) => principal,
            Err(answer) => return link.send(&answer).await,
        };
        let entered = match self.enter(asked.session, principal).await {
            Ok(entered) => entered,
            Err(answer) => return link.send(&answer).await,
        };
        let text = match &entered {
            Entered::Imap(_, entered) => entered.text().to_owned(),
            Entered::Submission(..) => String::new(),
        };
        link.send(&Answer::LoggedIn { text }).await?;
        let mut stream = link.into_stream();
        stream.set_peer(peer);
        match entered {
            Entered::Imap(imap, entered) => imap.serve_entered(entered, stream, guard).await,
            Entered::Submission(smtp_in, principal, hello) => {
                smtp_in.serve_entered(principal, hello, stream, guard).await;
            }
        }
        Ok(())
    }

    /// Who has logged in, or what to answer instead.
    async fn principal(
        &self,
        asked: &LogIn,
        peer: &Peer,
        link: &mut Link,
    ) -> Result<Result<Principal, Answer>, LinkError> {
        let service = match asked.session {
            Session::Imap => Service::Imap,
            Session::Submission { .. } => Service::Smtp,
        };
        // Limits are those of the client and not of the node that speaks for it.
        let remote = peer.remote.ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let proved = match &asked.proof {
            Proof::Password(password) => {
                let (login, password) = (asked.login.clone(), password.0.clone());
                self.directory.authenticate(&PlainLogin { login, password, service }, remote).await
            }
            Proof::Scram => match self.directory.scram(&asked.login, service, remote).await {
                Ok(login) => {
                    let kept = login.verifier();
                    let verifier = Verifier {
                        iterations: kept.iterations,
                        salt: kept.salt.clone(),
                        stored_key: kept.stored_key,
                        server_key: kept.server_key,
                    };
                    link.send(&Answer::Verifier(verifier)).await?;
                    // Without this word it was a failed login, which is counted when `login` goes.
                    let Proved {} = link.receive().await?;
                    login.succeeded()
                }
                Err(error) => Err(error),
            },
        };
        Ok(match proved {
            Ok(principal) if principal.services.contains(service) => Ok(principal),
            Ok(_) => Err(Answer::Rejected),
            Err(error) => Err(refusal(&error)),
        })
    }

    /// What serves somebody who has logged in, or what to answer instead.
    async fn enter(&self, session: Session, principal: Principal) -> Result<Entered, Answer> {
        match session {
            Session::Imap => {
                let imap = self.imap.clone().ok_or(Answer::NotServed)?;
                let entered = imap.enter(principal).await.ok_or(Answer::Unavailable)?;
                Ok(Entered::Imap(imap, entered))
            }
            Session::Submission { extended, name } => {
                let smtp_in = self.smtp_in.clone().ok_or(Answer::NotServed)?;
                Ok(Entered::Submission(smtp_in, principal, (extended, name)))
            }
        }
    }
}

fn refusal(error: &AuthError) -> Answer {
    match error {
        AuthError::Elsewhere(region) => {
            tracing::warn!(%region, "asked about an account that is in another region");
        }
        AuthError::Temporary(error) => tracing::warn!(%error, "directory unavailable"),
        AuthError::Rejected | AuthError::Throttled { .. } | AuthError::Busy => {}
    }
    Answer::refusing(error)
}
