//! The other regions, as a node of this one sees them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mail::region::Region;
use net::stream::Stream;
use net::tls::{TlsClient, TlsError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::call::{Answer, Call, Request};
use crate::config::Neighbour;
use crate::link::{Link, LinkError, OPEN_PATIENCE};
use crate::secret::RegionSecret;

/// This region and its neighbours. Cheap to clone.
#[derive(Clone)]
pub struct Regions {
    inner: Arc<Inner>,
}

struct Inner {
    here: Region,
    secret: RegionSecret,
    others: BTreeMap<Region, Other>,
}

struct Other {
    nodes: Vec<String>,
    tls: TlsClient,
    /// Which node is asked first the next time.
    next: AtomicUsize,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A region is named twice, or names itself.
    #[error("region {0} is named twice")]
    Twice(Region),
    /// A region without nodes.
    #[error("region {0} has no nodes")]
    NoNodes(Region),
    /// The certificates of a region.
    #[error("{} holds no usable certificate", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// TLS to a region.
    #[error("TLS to region {region}")]
    Tls {
        /// The region.
        region: Region,
        /// What is wrong.
        #[source]
        source: TlsError,
    },
}

/// No node of a region has answered.
#[derive(Debug, thiserror::Error)]
#[error("no node of region {0} has answered")]
pub struct Unreachable(pub Region);

impl Regions {
    /// The region `here` and these others.
    pub fn new(here: Region, secret: RegionSecret, neighbours: &[Neighbour]) -> Result<Self, BuildError> {
        let mut others = BTreeMap::new();
        for Neighbour { name, nodes, server_name, ca_file } in neighbours {
            if nodes.is_empty() {
                return Err(BuildError::NoNodes(name.clone()));
            }
            let tls = TlsClient::trusting(server_name, &certificates(ca_file)?)
                .map_err(|source| BuildError::Tls { region: name.clone(), source })?;
            let other = Other { nodes: nodes.clone(), tls, next: AtomicUsize::new(0) };
            if *name == here || others.insert(name.clone(), other).is_some() {
                return Err(BuildError::Twice(name.clone()));
            }
        }
        Ok(Self { inner: Arc::new(Inner { here, secret, others }) })
    }

    /// This region.
    pub fn here(&self) -> &Region {
        &self.inner.here
    }

    /// What the regions know each other by.
    pub fn secret(&self) -> &RegionSecret {
        &self.inner.secret
    }

    /// Asks a node of another region. The link is still there behind the answer.
    ///
    /// A request is given to one node only: whoever has heard it may have begun to act.
    pub async fn ask(&self, region: &Region, request: Request) -> Result<(Answer, Link), Unreachable> {
        let unreachable = || Unreachable(region.clone());
        let Some(other) = self.inner.others.get(region) else {
            warn!(%region, "a name is in a region that is not configured");
            return Err(unreachable());
        };
        let mut link = other.connect(&self.inner.secret).await.ok_or_else(unreachable)?;
        let call = Call { from: self.inner.here.clone(), to: region.clone(), request };
        let asked = async {
            link.send(&call).await?;
            link.receive().await
        };
        match asked.await {
            Ok(answer) => {
                metrics::counter!("postrider_region_calls_total", "outcome" => "answered").increment(1);
                Ok((answer, link))
            }
            Err(error) => {
                metrics::counter!("postrider_region_calls_total", "outcome" => "failed").increment(1);
                warn!(%region, %error, "another region has not answered");
                Err(unreachable())
            }
        }
    }

    /// Hears what a node of another region asks. `None`: it is no such node, or takes this for another region.
    pub async fn hear(&self, stream: Stream) -> Option<(Request, Link)> {
        let remote = stream.peer().remote.clone();
        let heard = async {
            let mut link = Link::accepted(stream, &self.inner.secret)?;
            let call: Call = link.receive().await?;
            Ok::<_, LinkError>((call, link))
        };
        match heard.await {
            Ok((call, link)) if call.to == self.inner.here => {
                debug!(from = %call.from, "asked by another region");
                Some((call.request, link))
            }
            Ok((call, _)) => {
                warn!(%remote, from = %call.from, asked = %call.to, "taken for another region: see regions.others there");
                None
            }
            Err(error @ LinkError::Forged) => {
                warn!(%remote, %error, "not a node of another region");
                None
            }
            Err(error) => {
                debug!(%remote, %error, "link was not made");
                None
            }
        }
    }
}

impl Other {
    /// A link to the first node that can be reached.
    async fn connect(&self, secret: &RegionSecret) -> Option<Link> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for step in 0..self.nodes.len() {
            let node = &self.nodes[first.wrapping_add(step) % self.nodes.len()];
            match self.link(node, secret).await {
                Ok(link) => return Some(link),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    warn!(node, %error, cause, "node of another region not reached");
                }
            }
        }
        metrics::counter!("postrider_region_calls_total", "outcome" => "unreachable").increment(1);
        None
    }

    async fn link(&self, node: &str, secret: &RegionSecret) -> Result<Link, LinkError> {
        let connected = async {
            let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
            for address in tokio::net::lookup_host(node).await? {
                match Stream::connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let stream = timeout(OPEN_PATIENCE, connected).await.map_err(|_| LinkError::Slow)??;
        Link::connect(stream, &self.tls, secret).await
    }
}

impl fmt::Debug for Regions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others: Vec<_> = self.inner.others.keys().collect();
        f.debug_struct("Regions").field("here", &self.inner.here).field("others", &others).finish()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    let failed = |source| BuildError::Certificates { path: path.into(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    match found.map_err(failed)? {
        none if none.is_empty() => Err(failed(rustls::pki_types::pem::Error::NoItemsFound)),
        found => Ok(found),
    }
}
