//! Errors at three levels (RFC 8620 §3.6): of a request, of a method call, and of one record of a /set (§5.3).

use serde_json::{Value, json};

use crate::Object;

/// Why a whole request was refused (RFC 8620 §3.6.1). Nothing of it was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A capability in `using` that is not offered.
    #[error("the capability {0:?} is not known here")]
    UnknownCapability(String),
    /// The content type is not `application/json`, or the content is not I-JSON.
    #[error("{0}")]
    NotJson(String),
    /// It is JSON, and no request.
    #[error("{0}")]
    NotRequest(String),
    /// Beyond one of the limits that the session announces.
    #[error("the request is beyond the limit {0}")]
    Limit(&'static str),
}

impl RequestError {
    /// The URN after `urn:ietf:params:jmap:error:`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::UnknownCapability(_) => "unknownCapability",
            Self::NotJson(_) => "notJSON",
            Self::NotRequest(_) => "notRequest",
            Self::Limit(_) => "limit",
        }
    }

    /// The problem details object (RFC 7807) that is the body of the answer.
    pub fn problem(&self) -> Value {
        let mut problem = json!({
            "type": format!("urn:ietf:params:jmap:error:{}", self.name()),
            "status": 400,
            "detail": self.to_string(),
        });
        if let Self::Limit(limit) = self {
            problem["limit"] = json!(limit);
        }
        problem
    }
}

/// Why a method call was refused (RFC 8620 §3.6.2, §5, RFC 8621 §4, RFC 9404 §4.3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "they are RFC 8620's words, one by one")]
pub enum MethodError {
    #[error("a service that this needs is not there now")]
    ServerUnavailable,
    #[error("{0}")]
    ServerFail(String),
    #[error("the call failed after some of it was done")]
    ServerPartialFail,
    #[error("there is no such method")]
    UnknownMethod,
    #[error("{0}")]
    InvalidArguments(String),
    #[error("{0}")]
    InvalidResultReference(String),
    #[error("not allowed")]
    Forbidden,
    #[error("there is no such account")]
    AccountNotFound,
    #[error("the account does not offer this")]
    AccountNotSupportedByMethod,
    #[error("the account is read-only")]
    AccountReadOnly,
    #[error("{0}")]
    RequestTooLarge(String),
    #[error("the state is not the one given in ifInState")]
    StateMismatch,
    #[error("changes since that state are not known")]
    CannotCalculateChanges,
    #[error("there are more changes than maxChanges")]
    TooManyChanges,
    #[error("the anchor is not among the results")]
    AnchorNotFound,
    #[error("{0}")]
    UnsupportedSort(String),
    #[error("{0}")]
    UnsupportedFilter(String),
    #[error("there is no such account to copy from")]
    FromAccountNotFound,
    #[error("the account to copy from does not offer this")]
    FromAccountNotSupportedByMethod,
    #[error("there is no such type of objects")]
    UnknownDataType,
}

impl MethodError {
    /// An argument is not what it has to be.
    pub fn argument(name: &str, expected: &str) -> Self {
        Self::InvalidArguments(format!("{name}: not {expected}"))
    }

    /// The error's `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ServerUnavailable => "serverUnavailable",
            Self::ServerFail(_) => "serverFail",
            Self::ServerPartialFail => "serverPartialFail",
            Self::UnknownMethod => "unknownMethod",
            Self::InvalidArguments(_) => "invalidArguments",
            Self::InvalidResultReference(_) => "invalidResultReference",
            Self::Forbidden => "forbidden",
            Self::AccountNotFound => "accountNotFound",
            Self::AccountNotSupportedByMethod => "accountNotSupportedByMethod",
            Self::AccountReadOnly => "accountReadOnly",
            Self::RequestTooLarge(_) => "requestTooLarge",
            Self::StateMismatch => "stateMismatch",
            Self::CannotCalculateChanges => "cannotCalculateChanges",
            Self::TooManyChanges => "tooManyChanges",
            Self::AnchorNotFound => "anchorNotFound",
            Self::UnsupportedSort(_) => "unsupportedSort",
            Self::UnsupportedFilter(_) => "unsupportedFilter",
            Self::FromAccountNotFound => "fromAccountNotFound",
            Self::FromAccountNotSupportedByMethod => "fromAccountNotSupportedByMethod",
            Self::UnknownDataType => "unknownDataType",
        }
    }

    /// The arguments of the `error` answer.
    pub fn arguments(&self) -> Object {
        let mut arguments = Object::new();
        arguments.insert("type".to_owned(), json!(self.name()));
        arguments.insert("description".to_owned(), json!(self.to_string()));
        arguments
    }
}

/// Which kind of trouble one record of a /set, an import or a copy met (RFC 8620 §5.3, §5.4, RFC 8621 §2.5, §4.6–4.8,
/// §6.3, §7.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the RFCs' words, one by one")]
pub enum SetErrorKind {
    Forbidden,
    OverQuota,
    TooLarge,
    RateLimit,
    NotFound,
    InvalidPatch,
    WillDestroy,
    InvalidProperties,
    Singleton,
    AlreadyExists,
    MailboxHasChild,
    MailboxHasEmail,
    BlobNotFound,
    TooManyKeywords,
    TooManyMailboxes,
    InvalidEmail,
    ForbiddenFrom,
    ForbiddenMailFrom,
    ForbiddenToSend,
    InvalidRecipients,
    NoRecipients,
    TooManyRecipients,
    CannotUnsend,
    ServerFail,
}

impl SetErrorKind {
    /// The error's `type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::OverQuota => "overQuota",
            Self::TooLarge => "tooLarge",
            Self::RateLimit => "rateLimit",
            Self::NotFound => "notFound",
            Self::InvalidPatch => "invalidPatch",
            Self::WillDestroy => "willDestroy",
            Self::InvalidProperties => "invalidProperties",
            Self::Singleton => "singleton",
            Self::AlreadyExists => "alreadyExists",
            Self::MailboxHasChild => "mailboxHasChild",
            Self::MailboxHasEmail => "mailboxHasEmail",
            Self::BlobNotFound => "blobNotFound",
            Self::TooManyKeywords => "tooManyKeywords",
            Self::TooManyMailboxes => "tooManyMailboxes",
            Self::InvalidEmail => "invalidEmail",
            Self::ForbiddenFrom => "forbiddenFrom",
            Self::ForbiddenMailFrom => "forbiddenMailFrom",
            Self::ForbiddenToSend => "forbiddenToSend",
            Self::InvalidRecipients => "invalidRecipients",
            Self::NoRecipients => "noRecipients",
            Self::TooManyRecipients => "tooManyRecipients",
            Self::CannotUnsend => "cannotUnsend",
            Self::ServerFail => "serverFail",
        }
    }
}

/// What went wrong with one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetError {
    /// The kind of trouble.
    pub kind: SetErrorKind,
    /// For a person who debugs a client.
    pub description: String,
    /// Which properties were wrong, for [`SetErrorKind::InvalidProperties`] and [`SetErrorKind::InvalidEmail`].
    pub properties: Vec<String>,
    /// What the kind has besides: `existingId`, `notFound`, `maxSize`.
    pub more: Object,
}

impl SetError {
    /// Trouble of this kind.
    pub fn new(kind: SetErrorKind, description: impl Into<String>) -> Self {
        Self { kind, description: description.into(), properties: Vec::new(), more: Object::new() }
    }

    /// One property is wrong.
    pub fn property(name: impl Into<String>, description: impl Into<String>) -> Self {
        Self { properties: vec![name.into()], ..Self::new(SetErrorKind::InvalidProperties, description) }
    }

    /// With one more member.
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }

    /// As it stands in `notCreated` and the like.
    pub fn to_value(&self) -> Value {
        let mut error = self.more.clone();
        error.insert("type".to_owned(), json!(self.kind.name()));
        error.insert("description".to_owned(), json!(self.description));
        if !self.properties.is_empty() {
            error.insert("properties".to_owned(), json!(self.properties));
        }
        Value::Object(error)
    }
}
