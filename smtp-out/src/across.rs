//! Mail for names of our own domains that other regions have: it goes to a node there, over a link between regions, in
//! the words of SMTP. Where a name is, is looked up for each attempt, since accounts move.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use directory::{Directory, Resolution};
use mail::region::Region;
use net::stream::Stream;
use queue::{OutboundClaim, Turn};
use region::Regions;
use region::call::{Answer, Request};
use smtp_protocol::status::status;

use crate::mx::{Candidate, Exchangers, Unreachable};
use crate::report::Reports;
use crate::route::Route;
use crate::service::Inner;

/// Messages that are taken from the queue at one time.
const BATCH_MAX: usize = 8;

/// The other regions, and who knows what is in them. Cheap to clone.
#[derive(Clone)]
pub struct Elsewhere {
    /// Says which region has a name.
    pub directory: Directory,
    /// Reaches them.
    pub regions: Regions,
    /// Serves SMTP on a connection within this process: for names that are here by now.
    pub here: Arc<dyn Fn(Stream) + Send + Sync>,
}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elsewhere").field("regions", &self.regions).finish_non_exhaustive()
    }
}

/// Where a name of one of our domains is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Region(Region),
    /// It was elsewhere when the message was accepted, and has moved.
    Here,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region(region) => write!(f, "region {region}"),
            Self::Here => f.write_str("this region"),
        }
    }
}

impl Elsewhere {
    /// A connection on which the node of a place speaks SMTP.
    pub(crate) async fn connect(&self, place: &Place) -> Result<Stream, String> {
        match place {
            Place::Region(region) => match self.regions.ask(region, Request::Mail).await {
                Ok((Answer::Mail, link)) => Ok(link.into_stream()),
                Ok((answer, _)) => Err(format!("region {region} takes no mail: {answer:?}")),
                Err(error) => Err(error.to_string()),
            },
            Place::Here => {
                let (ours, theirs) = Stream::memory_pair(64 * 1024);
                (self.here)(theirs);
                Ok(ours)
            }
        }
    }

    async fn place_of(&self, claim: &OutboundClaim, index: usize) -> Result<Option<Place>, String> {
        match self.directory.resolve(&claim.recipients()[index].recipient.address).await {
            Ok(Resolution::Elsewhere { region, .. }) => Ok(Some(Place::Region(region))),
            Ok(Resolution::NoSuchUser | Resolution::NotLocal) => Ok(None),
            // What is wrong with it is said where it is delivered.
            Ok(_) => Ok(Some(Place::Here)),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Inner {
    /// Whether a domain is one of ours, so that what waits for it is for other regions.
    pub(crate) async fn is_across(&self, turn: &Turn) -> bool {
        match &self.dialler.elsewhere {
            // Not known: then as if it were, since a look at the names comes to the same.
            Some(elsewhere) => elsewhere.directory.is_local(turn.domain()).await.unwrap_or(true),
            None => false,
        }
    }

    /// A turn of one of our domains.
    pub(crate) async fn across(&self, mut turn: Turn, reports: &Reports) {
        while !self.is_draining() {
            let claims = turn.claim(BATCH_MAX).await;
            if claims.is_empty() {
                return;
            }
            for claim in claims {
                if claim.route().is_some() {
                    self.rerouted(claim, reports).await;
                } else {
                    Box::pin(self.to_place(claim, reports)).await;
                }
            }
        }
    }

    /// One item, as far as its recipients are where the first of them is. The others come again with it.
    async fn to_place(&self, mut claim: OutboundClaim, reports: &Reports) {
        let Some(elsewhere) = &self.dialler.elsewhere else { return };
        let mut places = Vec::with_capacity(claim.recipients().len());
        for index in 0..claim.recipients().len() {
            match elsewhere.place_of(&claim, index).await {
                Ok(place) => places.push(place),
                Err(text) => {
                    let unknown = Unreachable { status: status(4, 4, 3), text };
                    return self.tell(vec![claim], reports, &unknown).await;
                }
            }
        }
        let Some(first) = places.first().cloned() else { return };
        let due = claim.recipients().iter().map(|due| due.index).zip(places);
        let together: BTreeSet<u32> =
            due.filter(|(_, place)| *place == first).map(|(index, _)| index).collect();
        claim.retain(|due| together.contains(&due.index));
        let Some(place) = first else {
            let gone = Unreachable { status: status(5, 1, 1), text: "no such user".to_owned() };
            return self.tell(vec![claim], reports, &gone).await;
        };
        let name: Arc<str> = place.to_string().into();
        // A link is found by the region's name and not by an address.
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let exchangers =
            Exchangers { site: name.clone(), candidates: vec![Candidate { host: name, address }] };
        let way = self.way(Arc::new(Route::across(place)), exchangers);
        // Without leave it comes again by itself.
        let Ok(permit) = way.site.admit(Instant::now()) else { return };
        let mut kept = None;
        self.send(&way, vec![claim], &mut kept, reports).await;
        if let Some(connection) = kept {
            self.dialler.keep(connection, &way.site);
        }
        drop(permit);
    }
}
