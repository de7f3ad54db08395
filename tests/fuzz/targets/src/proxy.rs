//! The PROXY header before a connection.

use futures_util::FutureExt;
use net::proxy_protocol;

/// What a balancer sends. The header is read to its end and no further.
pub fn run(data: &[u8]) {
    let mut stream = data;
    let read = proxy_protocol::read(&mut stream).now_or_never().expect("bytes in memory are there at once");
    let used = data.len() - stream.len();
    assert!(used <= 16 + 4096);
    if read.is_ok() && data.starts_with(b"PROXY ") {
        assert!(data[..used].ends_with(b"\r\n") && used <= 107);
        let ends = data[..used].windows(2).filter(|pair| pair == b"\r\n").count();
        assert_eq!(ends, 1);
    }
}

/// Version 2 is binary.
pub fn samples() -> Vec<Vec<u8>> {
    let with = |command: u8, family: u8, body: &[u8]| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([0x20 | command, family]);
        header.extend((body.len() as u16).to_be_bytes());
        header.extend_from_slice(body);
        header.extend_from_slice(b"EHLO");
        header
    };
    vec![
        with(1, 0x11, &[192, 0, 2, 1, 192, 0, 2, 2, 0x10, 0, 0, 25]),
        with(1, 0x21, &[0x20; 36]),
        with(0, 0x00, &[]),
        with(1, 0x11, &[192, 0, 2, 1, 192, 0, 2, 2, 0x10, 0, 0, 25, 3, 0, 4, 1, 2, 3, 4]),
        with(1, 0x31, &[b'/'; 216]),
    ]
}
