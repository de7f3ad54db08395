//! Mailbox names, in both forms and back.

use bytes::BytesMut;
use imap_protocol::mailbox_name::{MailboxName, NameForm};
use imap_protocol::response::{list, status};

use crate::imap_response::check_response;

/// A name as it comes from the wire.
pub fn run(data: &[u8]) {
    for form in [NameForm::Utf7, NameForm::Utf8] {
        let Some(name) = MailboxName::decode(data, form) else { continue };
        assert!(!name.as_str().chars().any(char::is_control), "{name:?}");
        assert!(name.as_str().len() <= data.len() * 3);
        for form in [NameForm::Utf7, NameForm::Utf8] {
            let encoded = name.encode(form);
            assert!(form == NameForm::Utf8 || encoded.is_ascii());
            assert_eq!(MailboxName::decode(encoded.as_bytes(), form).as_ref(), Some(&name), "{encoded}");
            let mut out = BytesMut::new();
            let listed =
                list::Listed { lsub: false, attributes: &[], name: &encoded, child_info: &["SUBSCRIBED"] };
            list::list(&mut out, &listed);
            check_response(&out);
            out.clear();
            status::status(&mut out, &encoded, []);
            check_response(&out);
        }
    }
}
