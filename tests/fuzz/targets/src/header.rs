//! Header values: addresses, dates, encoded words, message-ids, subjects; and the choice of fields.

use mail::date::SentDate;
use mail::header::address_list::parse_address_list;
use mail::header::decode::{decode_charset, decode_header_text};
use mail::header::select::{FieldSelector, Keep};
use mail::thread::{base_subject, message_id, message_ids};
use mail::{flag, status_report, uid, xtext};

use crate::input::{Cuts, Input};

/// Byte 1: cuts; a piece: a charset or a field's name; then a value, or a header.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = input.cuts();
    let name = input.piece();
    let value = input.rest();
    addresses(value);
    texts(name, value);
    dates(value);
    reports(value);
    fields(name, value, &cuts);
}

fn addresses(value: &[u8]) {
    for most in [0, 3, usize::MAX] {
        let mut list = Vec::new();
        parse_address_list(value, most, &mut list);
        assert!(list.len() <= most.saturating_add(1), "{} of {most} addresses", list.len());
        let mut depth = 0_i32;
        for address in &list {
            depth += i32::from(address.is_group_start()) - i32::from(address.is_group_end());
            assert!((0..=1).contains(&depth), "{list:?}");
            for part in [&address.name, &address.route, &address.mailbox, &address.host].into_iter().flatten()
            {
                let bytes = part.as_bytes();
                assert!(bytes.len() <= 3 * value.len() + 20, "{part:?}");
            }
        }
        assert_eq!(depth, 0, "a group is not closed: {list:?}");
    }
}

fn texts(charset: &[u8], value: &[u8]) {
    let text = decode_charset(charset, value);
    assert!(text.len() <= 16 + 12 * value.len(), "{} octets become {}", value.len(), text.len());
    let text = decode_header_text(value);
    assert!(text.len() <= 16 + 12 * value.len(), "{} octets become {}", value.len(), text.len());
    let base = base_subject(&text);
    assert!(base.text.len() <= text.len(), "{base:?}");
    assert_eq!(base_subject(&base.text).text, base.text, "what is left has still a mark");
    for id in message_ids(value, 100).iter().chain(&message_id(value, 100)) {
        assert!(!id.is_empty() && id.len() <= 300, "{id:?}");
    }
    let text = String::from_utf8_lossy(value);
    assert_eq!(xtext::decode(&xtext::encode(&text)).as_deref(), Some(&*text));
    if let Ok(set) = uid::UidSet::parse(&text) {
        assert_eq!(uid::UidSet::parse(&set.to_string()).as_ref(), Ok(&set));
        assert_eq!(
            postcard::from_bytes::<uid::UidSet>(&postcard::to_stdvec(&set).unwrap()).as_ref(),
            Ok(&set)
        );
        let whole = uid::UidSet::parse("1:4294967295").unwrap();
        assert_eq!(whole.difference(&whole.difference(&set)), set);
        assert_eq!(whole.intersection(&set).union(&set), set);
    }
    let mut flags = flag::FlagSet::new();
    for word in text.split(' ') {
        // What is no flag leaves the set as it is.
        let _ = flags.insert_name(word);
    }
    let mut again = flag::FlagSet::new();
    for word in flags.to_string().split(' ').filter(|word| !word.is_empty()) {
        again.insert_name(word).expect("a flag that was shown is a flag");
    }
    assert_eq!(again, flags);
}

fn dates(value: &[u8]) {
    let dates = [SentDate::parse(value), std::str::from_utf8(value).ok().and_then(SentDate::parse_internal)];
    for date in dates.into_iter().flatten() {
        assert!(i32::from(date.offset_minutes).abs() <= 24 * 60, "{date:?}");
        let text = date.rfc5322().to_string();
        assert_eq!(SentDate::parse(text.as_bytes()), Some(date), "{text}");
        let text = date.internal().to_string();
        assert_eq!(SentDate::parse_internal(&text), Some(date), "{text}");
        let _ = date.local_day();
    }
}

/// Reports of others about messages: claims of bounded number and size.
fn reports(value: &[u8]) {
    let recipients = status_report::recipients(value);
    assert!(recipients.len() <= 100);
    for recipient in recipients {
        assert!(recipient.diagnostic.len() <= 3 * value.len());
    }
    assert!(status_report::queue_ids(value).len() <= 100 + value.len() / 32);
}

/// However the header is cut, the same fields come out; and each field is either among the named or among the others.
fn fields(name: &[u8], header: &[u8], cuts: &Cuts) {
    let select = |keep: Keep, cuts: &Cuts| {
        let mut selector = FieldSelector::new([name, b"subject"], keep);
        let mut out = Vec::new();
        cuts.pieces(header).for_each(|piece| selector.push(piece, &mut out));
        selector.finish(&mut out);
        out
    };
    let mut length = 0;
    for keep in [Keep::Named, Keep::Others] {
        let whole = select(keep, &Cuts::WHOLE);
        assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(&select(keep, cuts)));
        length += whole.len() - 2;
    }
    assert!(length <= header.len(), "a field was selected twice");
}
