//! Segments of messages' bytes: headers, frames and footers as they may lie on a disk.

use blob::format::frame::{FIXED_BYTES, FrameHeader, HEADER_BYTES, TRAILER_BYTES, Trailer};
use blob::format::segment::{self, Index, IndexEntry, SegmentHeader, TAIL_BYTES};
use blob::format::{self, CHUNK_OVERHEAD};
use blob::{BlobId, SegmentId};
use uuid::Uuid;

/// Byte 1: what it is, and whether checksums and hashes are put right before it is read; then the bytes.
pub fn run(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    let mend = kind & 4 != 0;
    match kind & 3 {
        0 => {
            if mend {
                put_checksum(&mut bytes, 0, 44);
            }
            if let Ok(header) = format::decode_header(&bytes) {
                assert_eq!(format::decode_header(&header.encode()), Ok(header));
            }
        }
        1 => {
            if mend {
                mend_frame(&mut bytes);
            }
            if let Ok((header, trailer)) = format::decode_frame(&bytes) {
                check_frame(&bytes, header, &trailer);
            }
        }
        _ => {
            if mend {
                mend_footer(&mut bytes);
            }
            if let Ok(index) = format::decode_footer(&bytes) {
                assert!(index.frames.len() * 19 <= bytes.len(), "more frames than there are bytes for");
                let mut end = segment::HEADER_BYTES as u64;
                for entry in &index.frames {
                    assert!(end <= entry.offset);
                    end = entry.offset + entry.length;
                    assert_eq!(index.frame(entry.frame), Some(entry));
                }
                assert!(end <= bytes.len() as u64);
            }
        }
    }
}

fn check_frame(bytes: &[u8], header: FrameHeader, trailer: &Trailer) {
    assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
    let sealed: u64 = trailer.chunks.iter().map(|length| u64::from(*length)).sum();
    let length = HEADER_BYTES as u64 + sealed + trailer.chunks.len() as u64 * 4 + TRAILER_BYTES as u64;
    assert_eq!(length, bytes.len() as u64);
    assert!(trailer.body_chunks() <= trailer.chunks.len());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..FIXED_BYTES]);
    hasher.update(&bytes[HEADER_BYTES..HEADER_BYTES + sealed as usize]);
    let mut again = trailer.clone();
    assert_eq!(again.encode(hasher), bytes[HEADER_BYTES + sealed as usize..]);
    assert_eq!(again, *trailer);
}

/// Puts the CRC32C of `start..end` behind them.
fn put_checksum(bytes: &mut [u8], start: usize, end: usize) {
    if bytes.len() >= end + 4 && start < end {
        let sum = crc32c::crc32c(&bytes[start..end]);
        bytes[end..end + 4].copy_from_slice(&sum.to_le_bytes());
    }
}

fn mend_frame(bytes: &mut [u8]) {
    let length = bytes.len();
    if length < HEADER_BYTES + TRAILER_BYTES {
        return;
    }
    bytes[20..28].copy_from_slice(&(length as u64).to_le_bytes());
    put_checksum(bytes, 0, 28);
    let fixed = *bytes.last_chunk::<TRAILER_BYTES>().unwrap();
    let Ok(trailer) = Trailer::length(&fixed, length as u64) else { return };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..FIXED_BYTES]);
    hasher.update(&bytes[HEADER_BYTES..length - 40]);
    bytes[length - 40..length - 8].copy_from_slice(hasher.finalize().as_bytes());
    put_checksum(bytes, length - trailer as usize, length - 8);
}

fn mend_footer(bytes: &mut [u8]) {
    let length = bytes.len();
    if length < segment::HEADER_BYTES + TAIL_BYTES {
        return;
    }
    let tail = length - TAIL_BYTES;
    let index_bytes = u32::from_le_bytes(bytes[tail..tail + 4].try_into().unwrap()) as usize % (tail + 1);
    let start = tail - index_bytes;
    bytes[tail..tail + 4].copy_from_slice(&(index_bytes as u32).to_le_bytes());
    bytes[tail + 8..tail + 16].copy_from_slice(&(start as u64).to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..segment::HEADER_BYTES]);
    hasher.update(&bytes[start..tail]);
    bytes[tail + 16..tail + 48].copy_from_slice(hasher.finalize().as_bytes());
    put_checksum(bytes, tail, tail + 52);
}

/// A header, a frame and a whole small segment, each with its checksums kept and mended.
pub fn samples() -> Vec<Vec<u8>> {
    let header = SegmentHeader { segment: SegmentId(Uuid::from_u128(5)), flags: 0, created: 6 }.encode();
    let frame = frame(&[&[1; 60], &[2; CHUNK_OVERHEAD]]);
    let mut whole = header.to_vec();
    whole.extend_from_slice(&frame);
    let entry = IndexEntry { frame: 3, offset: 48, length: frame.len() as u64, hash: [4; 16] };
    let index = Index {
        frames: vec![entry, IndexEntry { frame: 9, offset: entry.offset + entry.length, ..entry }],
        damaged: vec![(1, 2)],
        origins: vec![segment::Origin { frame: 3, segment: SegmentId(Uuid::nil()), origin_frame: 8 }],
    };
    whole.extend_from_slice(&frame);
    whole.extend(index.encode(&header, whole.len() as u64));
    let mut samples = Vec::new();
    for (kind, bytes) in [(0, &header[..]), (1, &frame), (2, &whole)] {
        for mend in [0, 4] {
            samples.push([&[kind | mend], bytes].concat());
        }
    }
    samples
}

fn frame(chunks: &[&[u8]]) -> Vec<u8> {
    let mut trailer = Trailer {
        chunks: chunks.iter().map(|chunk| chunk.len() as u32).collect(),
        size: 50,
        facts_size: 7,
        blob_id: BlobId([8; 32]),
        hash: [0; 32],
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&FrameHeader::fixed(0));
    let sealed = chunks.concat();
    hasher.update(&sealed);
    let end = trailer.encode(hasher);
    let length = (HEADER_BYTES + sealed.len() + end.len()) as u64;
    [&FrameHeader { dictionary: 0, frame: 3, length }.encode()[..], &sealed, &end].concat()
}
