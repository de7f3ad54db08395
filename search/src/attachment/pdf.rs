//! PDF.

use lopdf::Document;

/// Pages that are looked at.
const PAGES_MAX: usize = 2_000;

/// The text of a document, up to so many octets. A page that cannot be read is left out. The parser has no limits of
/// its own that can be relied on: those of the process end it.
pub(crate) fn text(bytes: &[u8], text_bytes_max: usize) -> Option<String> {
    let document = Document::load_mem(bytes).ok()?;
    let mut text = String::new();
    for page in document.get_pages().into_keys().take(PAGES_MAX) {
        if text.len() >= text_bytes_max {
            break;
        }
        if let Ok(piece) = document.extract_text(&[page]) {
            text.push_str(&piece);
            text.push('\n');
        }
    }
    text.truncate(text.floor_char_boundary(text_bytes_max));
    Some(text)
}
