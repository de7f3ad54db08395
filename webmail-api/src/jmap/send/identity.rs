//! Identities (RFC 8621 §6) as the account keeps them: objects of storage, in JSON.
//!
//! Every account has one from the beginning, with its own address and the name that the directory knows it by. It is stored
//! only when somebody changes it, and is not destroyed, so that there is always one to send with.

use bytes::Bytes;
use directory::entry::Entry;
use jmap_protocol::object::identity::EmailAddress;
use jmap_protocol::{Id, MethodError, Object as JsonObject, SetError, SetErrorKind};
use mail::address::Address;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use storage::{AccountState, Object, ObjectKind};

use crate::jmap::context::Context;

/// The id of the one that every account has. Ids that storage gives are others.
pub(crate) const DEFAULT: &str = "default";

/// An identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: Id,
    pub(crate) email: String,
    pub(crate) says: Says,
    /// The operation that last put it; `None`: it is not stored.
    pub(crate) changed: Option<u64>,
}

/// What can be changed of an identity, as it is stored. Fields are only added, and each that is has a default.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Says {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) reply_to: Option<Vec<Named>>,
    #[serde(default)]
    pub(crate) bcc: Option<Vec<Named>>,
    #[serde(default)]
    pub(crate) text_signature: String,
    #[serde(default)]
    pub(crate) html_signature: String,
}

/// An address with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    name: Option<String>,
    email: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    /// Of the one that every account has, the account's address counts.
    email: String,
    #[serde(flatten)]
    says: Says,
}

impl From<EmailAddress> for Named {
    fn from(EmailAddress { name, email }: EmailAddress) -> Self {
        Self { name, email }
    }
}

impl Identity {
    fn decode(id: &str, object: &Object) -> Option<Self> {
        let decoded = serde_json::from_slice(&object.value);
        let decoded = decoded.inspect_err(|error| tracing::error!(%error, "stored identity cannot be read"));
        let Stored { email, says } = decoded.ok()?;
        Some(Self { id: Id::new(id)?, email, says, changed: Some(object.changed) })
    }

    /// The stored form.
    pub(crate) fn encode(email: &str, says: &Says) -> Bytes {
        let stored = Stored { email: email.to_owned(), says: says.clone() };
        serde_json::to_vec(&stored).expect("texts are JSON").into()
    }

    pub(crate) fn is_default(&self) -> bool {
        self.id.as_str() == DEFAULT
    }

    /// The address that it allows to send from. `None`: none that can be sent from, or not any more.
    pub(crate) fn address(&self) -> Option<Address> {
        Address::parse(&self.email).ok()
    }

    /// With all properties.
    pub(crate) fn show(&self) -> JsonObject {
        let list = |list: &Option<Vec<Named>>| match list {
            None => Value::Null,
            Some(list) => list.iter().map(|one| json!({"name": one.name, "email": one.email})).collect(),
        };
        jmap_protocol::method::object(json!({
            "id": self.id,
            "name": self.says.name,
            "email": self.email,
            "replyTo": list(&self.says.reply_to),
            "bcc": list(&self.says.bcc),
            "textSignature": self.says.text_signature,
            "htmlSignature": self.says.html_signature,
            "mayDelete": !self.is_default(),
        }))
    }
}

/// All identities of an account, the one that it always has first.
pub(crate) async fn all(context: &Context, state: &AccountState) -> Result<Vec<Identity>, MethodError> {
    let mut list = vec![the_default(context, state).await?];
    let objects = state.objects(ObjectKind::IDENTITY).filter(|(id, _)| *id != DEFAULT);
    list.extend(objects.filter_map(|(id, object)| Identity::decode(id, object)));
    Ok(list)
}

/// One of them.
pub(crate) async fn find(
    context: &Context,
    state: &AccountState,
    id: &Id,
) -> Result<Option<Identity>, MethodError> {
    if id.as_str() == DEFAULT {
        return the_default(context, state).await.map(Some);
    }
    let object = state.object(ObjectKind::IDENTITY, id.as_str());
    Ok(object.and_then(|object| Identity::decode(id.as_str(), object)))
}

async fn the_default(context: &Context, state: &AccountState) -> Result<Identity, MethodError> {
    let address = &context.user().principal.address;
    let stored = state.object(ObjectKind::IDENTITY, DEFAULT);
    if let Some(stored) = stored.and_then(|object| Identity::decode(DEFAULT, object)) {
        // An account can come to have another address.
        return Ok(Identity { email: address.to_string(), ..stored });
    }
    let entry = context.inner().directory.entry(address).await.map_err(|error| {
        tracing::warn!(%error, "name of the account not known");
        MethodError::ServerUnavailable
    })?;
    let name = match entry.as_deref() {
        Some(Entry::Account(account)) => account.display_name.clone(),
        _ => String::new(),
    };
    let id = Id::new(DEFAULT).expect("letters are an id");
    let says = Says { name, ..Says::default() };
    Ok(Identity { id, email: address.to_string(), says, changed: None })
}

/// Whether the user may send from an address, by the rule that SMTP submission has.
pub(crate) async fn may_send_as(context: &Context, address: &Address) -> Result<bool, MethodError> {
    let sending = context.sending()?;
    if !sending.rules.sender_login_check {
        return Ok(true);
    }
    let may = context.inner().directory.may_send_as(&context.user().principal, address).await;
    may.map_err(|error| {
        tracing::warn!(%error, "sender not decided");
        MethodError::ServerUnavailable
    })
}

/// RFC 8621 §6.3, §7.5
pub(crate) fn forbidden(kind: SetErrorKind, address: &str) -> SetError {
    SetError::new(kind, format!("{address} is not yours to send from"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored has to stay readable.
    #[test]
    fn the_stored_form_is_frozen() {
        let text = br#"{"email":"a@x.test","name":"A","bcc":[{"name":null,"email":"b@x.test"}]}"#;
        let object = Object { value: Bytes::from_static(text), created: 1, changed: 7 };
        let identity = Identity::decode("o5", &object).unwrap();
        let shown = Value::Object(identity.show());
        assert_eq!(
            shown,
            json!({
                "id": "o5", "name": "A", "email": "a@x.test", "replyTo": null,
                "bcc": [{"name": null, "email": "b@x.test"}],
                "textSignature": "", "htmlSignature": "", "mayDelete": true,
            })
        );
        let again = Object { value: Identity::encode("a@x.test", &identity.says), ..object };
        assert_eq!(Identity::decode("o5", &again), Some(identity));
    }
}
