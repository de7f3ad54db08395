//! Header fields as properties of an email (RFC 8621 §4.1.2, §4.1.3): `header:Subject:asText:all`.

use std::fmt;

/// A form in which a field is told (RFC 8621 §4.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are RFC 8621's words, one by one")]
pub enum Form {
    Raw,
    Text,
    Addresses,
    GroupedAddresses,
    MessageIds,
    Date,
    Urls,
}

/// A property that tells a header field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderProperty {
    /// The field's name, as the client writes it: so it stands in the answer.
    pub field: String,
    /// In which form.
    pub form: Form,
    /// All fields of this name, and not only the last.
    pub all: bool,
}

/// Why a name is not a header property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not `header:` with a field name, `:as` with a form, and `:all`, in this order.
    #[error("not the name of a header field with its form")]
    Malformed,
    /// The field is not told in this form.
    #[error("the field is not told in this form")]
    FormNotAllowed,
}

impl Form {
    const ALL: [Self; 7] = [
        Self::Raw,
        Self::Text,
        Self::Addresses,
        Self::GroupedAddresses,
        Self::MessageIds,
        Self::Date,
        Self::Urls,
    ];

    /// As it stands after `:as`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "Raw",
            Self::Text => "Text",
            Self::Addresses => "Addresses",
            Self::GroupedAddresses => "GroupedAddresses",
            Self::MessageIds => "MessageIds",
            Self::Date => "Date",
            Self::Urls => "URLs",
        }
    }

    /// Whether a field may be told in this form. What neither RFC 5322 nor RFC 2369 defines may be told in any.
    pub fn is_allowed_for(self, field: &str) -> bool {
        let among = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(field));
        let kind = if among(&ADDRESS_FIELDS) {
            Kind::Addresses
        } else if among(&["Subject", "Comments", "Keywords"]) {
            Kind::Text
        } else if among(&["Message-ID", "In-Reply-To", "References", "Resent-Message-ID"]) {
            Kind::MessageIds
        } else if among(&["Date", "Resent-Date"]) {
            Kind::Date
        } else if among(&URL_FIELDS) {
            Kind::Urls
        } else if among(&["Return-Path", "Received"]) {
            Kind::Trace
        } else {
            Kind::Other
        };
        match self {
            Self::Raw => true,
            Self::Text => matches!(kind, Kind::Text | Kind::Other),
            Self::Addresses | Self::GroupedAddresses => matches!(kind, Kind::Addresses | Kind::Other),
            Self::MessageIds => matches!(kind, Kind::MessageIds | Kind::Other),
            Self::Date => matches!(kind, Kind::Date | Kind::Other),
            Self::Urls => matches!(kind, Kind::Urls | Kind::Other),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Addresses,
    Text,
    MessageIds,
    Date,
    Urls,
    Trace,
    Other,
}

const ADDRESS_FIELDS: [&str; 12] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Resent-From",
    "Resent-Sender",
    "Resent-Reply-To",
    "Resent-To",
    "Resent-Cc",
    "Resent-Bcc",
];

const URL_FIELDS: [&str; 6] =
    ["List-Help", "List-Unsubscribe", "List-Subscribe", "List-Post", "List-Owner", "List-Archive"];

/// Octets of a field name; a header line has 998 (RFC 5322 §2.1.1).
const FIELD_MAX: usize = 255;

impl HeaderProperty {
    /// Reads the name of a property that begins with `header:`.
    pub fn parse(name: &str) -> Result<Self, HeaderError> {
        let mut pieces = name.split(':');
        let (Some("header"), Some(field)) = (pieces.next(), pieces.next()) else {
            return Err(HeaderError::Malformed);
        };
        // RFC 5322 §3.6.8: a field name is of printable ASCII without the colon.
        let is_name = (1..=FIELD_MAX).contains(&field.len())
            && field.bytes().all(|byte| (33..=126).contains(&byte) && byte != b':');
        if !is_name {
            return Err(HeaderError::Malformed);
        }
        let mut property = Self { field: field.to_owned(), form: Form::Raw, all: false };
        let mut next = pieces.next();
        if let Some(form) = next.and_then(|piece| piece.strip_prefix("as")) {
            let form = Form::ALL.into_iter().find(|known| known.name() == form);
            property.form = form.ok_or(HeaderError::Malformed)?;
            next = pieces.next();
        }
        if next == Some("all") {
            property.all = true;
            next = pieces.next();
        }
        if next.is_some() {
            return Err(HeaderError::Malformed);
        }
        if !property.form.is_allowed_for(&property.field) {
            return Err(HeaderError::FormNotAllowed);
        }
        Ok(property)
    }

    /// What a convenience property stands for (RFC 8621 §4.1.3).
    pub fn of_convenience(name: &str) -> Option<Self> {
        let (field, form) = match name {
            "messageId" => ("Message-ID", Form::MessageIds),
            "inReplyTo" => ("In-Reply-To", Form::MessageIds),
            "references" => ("References", Form::MessageIds),
            "sender" => ("Sender", Form::Addresses),
            "from" => ("From", Form::Addresses),
            "to" => ("To", Form::Addresses),
            "cc" => ("Cc", Form::Addresses),
            "bcc" => ("Bcc", Form::Addresses),
            "replyTo" => ("Reply-To", Form::Addresses),
            "subject" => ("Subject", Form::Text),
            "sentAt" => ("Date", Form::Date),
            _ => return None,
        };
        Some(Self { field: field.to_owned(), form, all: false })
    }
}

impl fmt::Display for HeaderProperty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "header:{}", self.field)?;
        if self.form != Form::Raw {
            write!(f, ":as{}", self.form.name())?;
        }
        if self.all { f.write_str(":all") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_rfc8621_4_1_3() {
        let check = |name: &str, field: &str, form: Form, all: bool| {
            let expected = HeaderProperty { field: field.to_owned(), form, all };
            assert_eq!(HeaderProperty::parse(name), Ok(expected), "{name}");
        };
        check("header:X-Foo", "X-Foo", Form::Raw, false);
        check("header:from:asAddresses", "from", Form::Addresses, false);
        check("header:List-POST:asURLs:all", "List-POST", Form::Urls, true);
        check("header:Subject:all", "Subject", Form::Raw, true);
        check("header:X:asDate", "X", Form::Date, false);
        for name in [
            "header:",
            "header",
            "header:a b",
            "header:ä",
            "header:Subject:all:asText",
            "header:Subject:asText:all:all",
            "header:Subject:astext",
            "header:Subject:",
            "header:Subject:asNothing",
            "Header:Subject",
        ] {
            assert_eq!(HeaderProperty::parse(name), Err(HeaderError::Malformed), "{name}");
        }
    }

    #[test]
    fn forms_rfc8621_4_1_2() {
        for (name, allowed) in [
            ("header:Subject:asText", true),
            ("header:Subject:asAddresses", false),
            ("header:From:asText", false),
            ("header:Resent-Bcc:asGroupedAddresses", true),
            ("header:Received:asText", false),
            ("header:Received", true),
            ("header:Date:asDate", true),
            ("header:Date:asText", false),
            ("header:references:asMessageIds", true),
            ("header:Message-Id:asURLs", false),
            ("header:List-Unsubscribe:asURLs", true),
            ("header:List-Unsubscribe:asText", false),
            ("header:List-Id:asText", true),
            ("header:X-Any:asMessageIds", true),
        ] {
            let parsed = HeaderProperty::parse(name);
            assert_eq!(parsed.is_ok(), allowed, "{name}");
            if let Ok(parsed) = parsed {
                assert_eq!(parsed.to_string(), name);
            } else {
                assert_eq!(parsed, Err(HeaderError::FormNotAllowed));
            }
        }
    }
}
