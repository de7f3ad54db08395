//! Which process holds the other end of a connection on loopback: all nodes come from the same address.

use std::fs;
use std::net::{IpAddr, SocketAddr};

/// The number of the process that has a socket with this local address, connected to that remote one.
pub(super) fn holds(local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let wanted = (written(local)?, written(remote)?);
    let inode = table.lines().skip(1).find_map(|line| {
        // Number, local and remote address, state, queues, timer, retransmits, user, time-out, inode.
        let fields: Vec<&str> = line.split_whitespace().collect();
        (*fields.get(1)? == wanted.0 && *fields.get(2)? == wanted.1).then(|| fields.get(9).copied())?
    })?;
    let link = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|number| {
        let files = fs::read_dir(format!("/proc/{number}/fd")).into_iter().flatten().filter_map(Result::ok);
        files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| target.as_os_str() == link.as_str())
    })
}

/// An address as /proc/net/tcp writes it: the four bytes as a number of this machine, in hexadecimal.
fn written(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn finds_this_process() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let _client = TcpStream::connect(address).expect("it listens");
        let (_, peer) = listener.accept().expect("somebody has connected");
        assert_eq!(holds(peer, address), Some(std::process::id()));
        assert_eq!(holds(peer, SocketAddr::from(([127, 0, 0, 1], 1))), None);
    }
}
