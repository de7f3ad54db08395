//! Identities (RFC 8621 §6) as the account keeps them: objects of storage, in JSON.
//!
//! Every account has one from the beginning, with its own address and the name that the directory knows it by, and one for
//! each alias that it may send as. These are stored only when somebody changes them, and are not destroyed, so that there is
//! always one to send with.

use bytes::Bytes;
use jmap_protocol::object::identity::EmailAddress;
use jmap_protocol::{Id, MethodError, Object as JsonObject, SetError, SetErrorKind};
use mail::address::Address;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use storage::{AccountState, Object, ObjectKind};

use super::known::{Known, is_of_alias};
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
    /// It is not one that is there whatever clients do.
    pub(crate) may_delete: bool,
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
        Some(Self { id: Id::new(id)?, email, says, changed: Some(object.changed), may_delete: true })
    }

    /// The stored form.
    pub(crate) fn encode(email: &str, says: &Says) -> Bytes {
        let stored = Stored { email: email.to_owned(), says: says.clone() };
        serde_json::to_vec(&stored).expect("texts are JSON").into()
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
            "mayDelete": self.may_delete,
        }))
    }
}

/// What the directory says of the user's account.
pub(crate) async fn known(context: &Context) -> Result<Known, MethodError> {
    let names_max = context.config().alias_identities_names_max;
    let asked = Known::ask(&context.inner().directory, &context.user().principal, names_max).await;
    asked.map_err(|error| {
        tracing::warn!(%error, "name and aliases of the account not known");
        MethodError::ServerUnavailable
    })
}

/// The state of all identities: what was stored last, and what the directory says.
pub(crate) fn state_of(state: &AccountState, known: &Known) -> String {
    format!("{}{}", state.objects_state(ObjectKind::IDENTITY), known.mark())
}

/// The part of a state that storage knows. `None`: the directory says something else since.
pub(crate) fn stored_part<'a>(state: &'a str, known: &Known) -> Option<&'a str> {
    let (stored, mark) = state.split_at(state.find('-').unwrap_or(state.len()));
    (mark == known.mark()).then_some(stored)
}

/// All identities of an account, the one that it always has first.
pub(crate) fn all(context: &Context, state: &AccountState, known: &Known) -> Vec<Identity> {
    let mut list = vec![the_default(context, state, known)];
    list.extend(known.aliases.iter().map(|(id, address)| of_alias(state, id, address)));
    let is_listed = |id: &str| known.aliases.iter().any(|(alias, _)| alias.as_str() == id);
    let objects = state.objects(ObjectKind::IDENTITY);
    let others = objects.filter(|(id, _)| *id != DEFAULT && !is_listed(id));
    list.extend(others.filter_map(|(id, object)| Identity::decode(id, object)));
    list
}

/// One of them.
pub(crate) async fn find(
    context: &Context,
    state: &AccountState,
    id: &Id,
) -> Result<Option<Identity>, MethodError> {
    if id.as_str() == DEFAULT || is_of_alias(id.as_str()) {
        let all = all(context, state, &known(context).await?);
        return Ok(all.into_iter().find(|identity| identity.id == *id));
    }
    let object = state.object(ObjectKind::IDENTITY, id.as_str());
    Ok(object.and_then(|object| Identity::decode(id.as_str(), object)))
}

fn the_default(context: &Context, state: &AccountState, known: &Known) -> Identity {
    let id = Id::new(DEFAULT).expect("letters are an id");
    // An account can come to have another address.
    let email = context.user().principal.address.to_string();
    from_the_beginning(state, id, email, known.name.clone())
}

fn of_alias(state: &AccountState, id: &Id, address: &Address) -> Identity {
    // The name is that of a person, under which an alias need not write.
    from_the_beginning(state, id.clone(), address.to_string(), String::new())
}

/// An identity that is there before it is stored.
fn from_the_beginning(state: &AccountState, id: Id, email: String, name: String) -> Identity {
    let stored = state.object(ObjectKind::IDENTITY, id.as_str());
    match stored.and_then(|object| Identity::decode(id.as_str(), object)) {
        Some(stored) => Identity { email, may_delete: false, ..stored },
        None => {
            let says = Says { name, ..Says::default() };
            Identity { id, email, says, changed: None, may_delete: false }
        }
    }
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
