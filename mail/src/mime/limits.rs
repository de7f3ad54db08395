//! How much of a message the splitter is willing to remember.

use serde::{Deserialize, Serialize};

/// Bounds of the splitter. What goes beyond is not an error: the structure gets coarser, the bytes stay what they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// How deep parts may nest; a multipart or message at this depth becomes a leaf, `application/octet-stream`. Real
    /// mail stays below 20; each level costs a look at every line that begins with two hyphens.
    pub depth_max: usize,
    /// How many parts a message may have; once reached, nothing is opened any more. 10 000 parts are a structure of
    /// about a megabyte.
    pub parts_max: usize,
    /// How many octets of one header field are kept; the rest of its value is not seen. An address list of 64 KiB holds
    /// more than a thousand recipients.
    pub field_bytes_max: usize,
    /// How many octets of all header fields together are kept (top and parts), which bounds the record of a message.
    pub header_bytes_max: usize,
    /// How many addresses of one list are kept.
    pub addresses_max: usize,
    /// How many parameters of one Content-Type or Content-Disposition are kept.
    pub parameters_max: usize,
    /// How many message-ids of References and In-Reply-To are kept: the first (the root of the thread) and the last.
    pub references_max: usize,
    /// Longest message-id kept, in octets.
    pub message_id_bytes_max: usize,
    /// Longest boundary honoured, in octets. RFC 2046 §5.1.1 allows 70; longer ones are seen.
    pub boundary_bytes_max: usize,
    /// How many octets of a plain text part are looked at for the preview; of HTML four times as many, since it begins
    /// with styles. Decoding them is the greatest part of the work on a small message.
    pub preview_source_bytes: usize,
    /// Length of the preview in characters (RFC 8970 §3.1: at most 256, and 200 is what is asked for).
    pub preview_characters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth_max: 100,
            parts_max: 10_000,
            field_bytes_max: 64 * 1024,
            header_bytes_max: 1024 * 1024,
            addresses_max: 1000,
            parameters_max: 100,
            references_max: 100,
            message_id_bytes_max: 998,
            boundary_bytes_max: 998,
            preview_source_bytes: 4 * 1024,
            preview_characters: 200,
        }
    }
}
