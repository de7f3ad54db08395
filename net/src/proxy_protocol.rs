//! The PROXY protocol, versions 1 and 2: who a load balancer speaks for.
//!
//! Read only from peers that the operator has listed; from them it is required, since a connection without it would be
//! taken for one of the balancer's own.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::stream::End;

/// The ends of the connection that a proxy speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied {
    /// Where the client is.
    pub remote: End,
    /// Where it connected to.
    pub local: End,
}

/// Why a header was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection failed or ended first.
    #[error("connection ended within the PROXY header")]
    Read(#[from] io::Error),
    /// The bytes are no PROXY header.
    #[error("not a PROXY header: {0}")]
    Malformed(String),
}

/// Version 1 lines are at most 107 bytes with their CRLF.
const LINE_BYTES_MAX: usize = 107;
/// The shortest header there is, `PROXY UNKNOWN\r\n`, is longer; so this much can be read without reading too far.
const PREFIX_BYTES: usize = 12;
const FIXED_BYTES: usize = 16;
/// Version 2 may carry up to 64 KiB of extras; real ones are a few hundred bytes.
const EXTRAS_BYTES_MAX: usize = 4096;

/// Reads one header and not a byte more. `None`: the proxy speaks for itself (a health check), keep the real ends.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Proxied>, ProxyError> {
    let mut header = vec![0; PREFIX_BYTES];
    stream.read_exact(&mut header).await?;
    if header == v2::PROTOCOL_PREFIX {
        header.resize(FIXED_BYTES, 0);
        stream.read_exact(&mut header[PREFIX_BYTES..]).await?;
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if length > EXTRAS_BYTES_MAX {
            return Err(ProxyError::Malformed(format!("{length} bytes of addresses and extras")));
        }
        header.resize(FIXED_BYTES + length, 0);
        stream.read_exact(&mut header[FIXED_BYTES..]).await?;
    } else if header.starts_with(b"PROXY ") {
        while !header.ends_with(b"\r\n") {
            if header.len() == LINE_BYTES_MAX {
                return Err(ProxyError::Malformed("line too long".into()));
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(ProxyError::Malformed("unknown signature".into()));
    }
    parse(&header)
}

fn parse(header: &[u8]) -> Result<Option<Proxied>, ProxyError> {
    let ends = |source: IpAddr, source_port, destination: IpAddr, destination_port| {
        Some(Proxied {
            remote: End::tcp(SocketAddr::new(source, source_port)),
            local: End::tcp(SocketAddr::new(destination, destination_port)),
        })
    };
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(ip) => ends(
                ip.source_address.into(),
                ip.source_port,
                ip.destination_address.into(),
                ip.destination_port,
            ),
            v1::Addresses::Tcp6(ip) => ends(
                ip.source_address.into(),
                ip.source_port,
                ip.destination_address.into(),
                ip.destination_port,
            ),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) => Ok(match (header.command, header.addresses) {
            (v2::Command::Local, _) => None,
            (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => ends(
                ip.source_address.into(),
                ip.source_port,
                ip.destination_address.into(),
                ip.destination_port,
            ),
            (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => ends(
                ip.source_address.into(),
                ip.source_port,
                ip.destination_address.into(),
                ip.destination_port,
            ),
            (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
        }),
        HeaderResult::V1(Err(error)) => Err(ProxyError::Malformed(error.to_string())),
        HeaderResult::V2(Err(error)) => Err(ProxyError::Malformed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was read from `input`, and what is left of it.
    async fn check(input: &[u8]) -> (Result<Option<(String, String)>, String>, Vec<u8>) {
        let mut stream = input;
        let result = read(&mut stream).await;
        let result = result
            .map(|proxied| proxied.map(|ends| (ends.remote.to_string(), ends.local.to_string())))
            .map_err(|error| error.to_string());
        (result, stream.to_vec())
    }

    fn binary(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([0x20 | command, family]);
        header.extend((payload.len() as u16).to_be_bytes());
        header.extend(payload);
        header.extend(b"EHLO x");
        header
    }

    #[tokio::test]
    async fn accepted() {
        let ends = |remote: &str, local: &str| Ok(Some((remote.to_owned(), local.to_owned())));
        let rest = b"EHLO x".to_vec();
        assert_eq!(
            check(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\nEHLO x").await,
            (ends("192.0.2.1:1000", "192.0.2.2:25"), rest.clone())
        );
        assert_eq!(
            check(b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 25\r\nEHLO x").await,
            (ends("[2001:db8::1]:1000", "[2001:db8::2]:25"), rest.clone())
        );
        assert_eq!(check(b"PROXY UNKNOWN\r\nEHLO x").await, (Ok(None), rest.clone()));
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 3, 232, 0, 25];
        assert_eq!(
            check(&binary(1, 0x11, &v4)).await,
            (ends("192.0.2.1:1000", "192.0.2.2:25"), rest.clone())
        );
        assert_eq!(check(&binary(0, 0, &[])).await, (Ok(None), rest));
    }

    #[tokio::test]
    async fn refused() {
        for input in [
            &b"EHLO a.client.example\r\n"[..],
            b"PROXY TCP4 192.0.2.1\r\n",
            b"PROXY TCP4 999.0.2.1 192.0.2.2 1000 25\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 99999\r\n",
            b"PROXY",
            &[b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat(),
            &binary(1, 0x11, &[1, 2, 3])[..19],
            &binary(1, 0x11, &[0; 5000]),
        ] {
            let (result, _) = check(input).await;
            assert!(result.is_err(), "{:?} {result:?}", String::from_utf8_lossy(input));
        }
    }
}
