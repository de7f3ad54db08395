//! Office documents: XML in a ZIP archive.

use std::io::{BufReader, Cursor, Read};

use quick_xml::Reader;
use quick_xml::events::Event;
use zip::ZipArchive;

use super::Format;

/// Files of an archive that are looked at.
const ENTRIES_MAX: usize = 2_000;
/// Octets of one file after decompression.
const ENTRY_BYTES_MAX: u64 = 32 << 20;
/// Octets of all files after decompression.
const ARCHIVE_BYTES_MAX: u64 = 64 << 20;

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OfficeError {
    /// It is no archive, or a broken one.
    #[error("the archive cannot be read")]
    Archive(#[from] zip::result::ZipError),
}

/// The text of a document, up to so many octets. What cannot be read ends it.
pub(crate) fn text(format: Format, bytes: &[u8], text_bytes_max: usize) -> Result<String, OfficeError> {
    let mut archive = ZipArchive::new(Cursor::new(bytes))?;
    let mut names: Vec<String> = archive
        .file_names()
        .filter(|name| is_text(format, name))
        .take(ENTRIES_MAX)
        .map(str::to_owned)
        .collect();
    // Slides and sheets in the order of their numbers.
    names.sort_by_key(|name| (name.len(), name.clone()));
    let mut text = String::new();
    let mut room = ARCHIVE_BYTES_MAX;
    for name in names {
        let Ok(entry) = archive.by_name(&name) else { continue };
        let mut limited = entry.take(ENTRY_BYTES_MAX.min(room));
        read_xml(format, &mut limited, &mut text, text_bytes_max);
        room = room.saturating_sub(ENTRY_BYTES_MAX.min(room) - limited.limit());
        if text.len() >= text_bytes_max || room == 0 {
            break;
        }
    }
    text.truncate(text.floor_char_boundary(text_bytes_max));
    Ok(text)
}

fn is_text(format: Format, name: &str) -> bool {
    let xml_in = |folder: &str| name.starts_with(folder) && name.ends_with(".xml");
    match format {
        Format::Docx => [
            "word/document",
            "word/header",
            "word/footer",
            "word/footnotes",
            "word/endnotes",
            "word/comments",
        ]
        .into_iter()
        .any(xml_in),
        Format::Xlsx => {
            name == "xl/sharedStrings.xml"
                || name == "xl/workbook.xml"
                || xml_in("xl/worksheets/sheet")
                || xml_in("xl/comments")
        }
        Format::Pptx => xml_in("ppt/slides/slide") || xml_in("ppt/notesSlides/notesSlide"),
        Format::Odf => name == "content.xml",
        Format::Pdf => false,
    }
}

fn read_xml(format: Format, source: &mut impl Read, text: &mut String, text_bytes_max: usize) {
    let mut reader = Reader::from_reader(BufReader::new(source));
    let mut buffer = Vec::new();
    // Whether text at this place is text of the document, and not a formula or a style.
    let mut shown = format == Format::Odf;
    let mut is_shared = false;
    while text.len() < text_bytes_max {
        buffer.clear();
        let Ok(event) = reader.read_event_into(&mut buffer) else { break };
        match event {
            Event::Start(element) => match element.local_name().as_ref() {
                b"t" => shown = true,
                b"c" => {
                    let kind = element.try_get_attribute("t").ok().flatten();
                    is_shared = kind.is_some_and(|kind| &*kind.value == b"s");
                }
                b"v" => shown = format == Format::Xlsx && !is_shared,
                _ => {}
            },
            Event::Empty(element) => match element.local_name().as_ref() {
                b"tab" | b"br" | b"cr" | b"s" | b"line-break" => text.push(' '),
                b"sheet" => {
                    if let Ok(Some(name)) = element.try_get_attribute("name") {
                        text.push_str(&String::from_utf8_lossy(&name.value));
                        text.push('\n');
                    }
                }
                _ => {}
            },
            Event::End(element) => match element.local_name().as_ref() {
                b"t" => shown = format == Format::Odf,
                b"v" => {
                    shown = false;
                    text.push('\n');
                }
                b"p" | b"h" | b"si" | b"tr" => text.push('\n'),
                _ => {}
            },
            Event::Text(piece) if shown => text.push_str(&piece.decode().unwrap_or_default()),
            Event::CData(piece) if shown => text.push_str(&piece.decode().unwrap_or_default()),
            Event::GeneralRef(entity) if shown => {
                let character = match entity.resolve_char_ref() {
                    Ok(Some(character)) => Some(character),
                    _ => match &*entity {
                        b"amp" => Some('&'),
                        b"lt" => Some('<'),
                        b"gt" => Some('>'),
                        b"quot" => Some('"'),
                        b"apos" => Some('\''),
                        // Others would have to be declared, and what is declared is not read.
                        _ => None,
                    },
                };
                text.extend(character);
            }
            Event::Eof => break,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, text) in files {
            writer.start_file(*name, SimpleFileOptions::default()).expect("a file");
            writer.write_all(text.as_bytes()).expect("its text");
        }
        writer.finish().expect("an archive").into_inner()
    }

    fn check(format: Format, files: &[(&str, &str)], expected: &str) {
        let text = text(format, &archive(files), 1000).expect("text");
        assert_eq!(text.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn documents_of_all_kinds() {
        check(
            Format::Docx,
            &[
                (
                    "word/document.xml",
                    "<w:p><w:r><w:t>Hello</w:t><w:tab/><w:t>w&amp;rld &#8364;</w:t></w:r></w:p><w:p><w:instrText>NO</w:instrText><w:t>日本</w:t></w:p>",
                ),
                ("word/styles.xml", "<w:t>no</w:t>"),
            ],
            "Hello w&rld € 日本",
        );
        check(
            Format::Xlsx,
            &[
                ("xl/workbook.xml", "<sheets><sheet name=\"Budget\"/></sheets>"),
                (
                    "xl/sharedStrings.xml",
                    "<sst><si><t>Apples</t></si><si><r><t>Pe</t></r><r><t>ars</t></r></si></sst>",
                ),
                ("xl/worksheets/sheet1.xml", "<row><c t=\"s\"><v>0</v></c><c><f>A1+1</f><v>42</v></c></row>"),
            ],
            "Budget Apples Pears 42",
        );
        check(
            Format::Pptx,
            &[
                ("ppt/slides/slide10.xml", "<a:p><a:t>ten</a:t></a:p>"),
                ("ppt/slides/slide2.xml", "<a:p><a:t>two</a:t></a:p>"),
            ],
            "two ten",
        );
        check(
            Format::Odf,
            &[("content.xml", "<text:h>Title</text:h><text:p>a<text:s/>b</text:p>")],
            "Title a b",
        );
    }

    #[test]
    fn german_and_korean() {
        let files = [("word/document.xml", "<w:p><w:t>Größe</w:t></w:p><w:p><w:t>회의 보고서</w:t></w:p>")];
        check(Format::Docx, &files, "Größe 회의 보고서");
    }

    #[test]
    fn what_is_broken_ends_it() {
        assert!(text(Format::Docx, b"no archive", 100).is_err());
        check(
            Format::Docx,
            &[("word/document.xml", "<w:t>before</w:t><w:p></w:x><w:t>after</w:t>")],
            "before",
        );
        check(
            Format::Docx,
            &[("word/document.xml", "<!DOCTYPE x [<!ENTITY a \"bomb\">]><w:t>x&a;y</w:t>")],
            "xy",
        );
    }

    /// Gigabytes of zeros in some kilobytes are read only as far as the limits go.
    #[test]
    fn bombs_are_bounded() {
        let bomb = archive(&[("word/document.xml", &format!("<w:t>{}</w:t>", "a".repeat(50 << 20)))]);
        assert!(bomb.len() < 100_000);
        let text = text(Format::Docx, &bomb, 1 << 20).expect("text");
        assert!(text.len() <= 1 << 20);
    }
}
