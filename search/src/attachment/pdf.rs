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

#[cfg(test)]
mod tests {
    use super::*;

    /// A document of one page with these operators, and a table of where its objects are.
    fn document(operators: &str) -> Vec<u8> {
        let page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R \
                    /Resources << /Font << /F1 5 0 R >> >> >>";
        let content = format!("<< /Length {} >>\nstream\n{operators}\nendstream", operators.len());
        let objects = [
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            page,
            &content,
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        ];
        let mut out = String::from("%PDF-1.4\n");
        let mut table = String::from("0000000000 65535 f \n");
        for (at, object) in objects.iter().enumerate() {
            table += &format!("{:010} 00000 n \n", out.len());
            out += &format!("{} 0 obj\n{object}\nendobj\n", at + 1);
        }
        let start = out.len();
        out += &format!("xref\n0 6\n{table}trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n");
        out.into_bytes()
    }

    #[test]
    fn text_of_a_page() {
        // ö and ß as WinAnsiEncoding has them.
        let bytes = document("BT /F1 12 Tf 10 100 Td (Die Gr\\366\\337e) Tj ET");
        let found = text(&bytes, 1000).expect("text");
        assert!(found.contains("Die Größe"), "{found:?}");
        assert!(text(&bytes, 3).is_some_and(|short| short.len() <= 3));
    }

    #[test]
    fn what_is_broken_has_no_text() {
        assert_eq!(text(b"no document", 100), None);
    }
}
