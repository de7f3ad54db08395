//! Arguments of the standard methods (RFC 8620 §5), and how their answers are made.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Object;
use crate::arguments::Arguments;
use crate::error::{MethodError, SetError};
use crate::filter::{Comparator, Filter};
use crate::id::{Id, IdOrReference};

/// `Foo/get` (RFC 8620 §5.1).
#[derive(Clone, Debug)]
pub struct Get {
    /// Which; `None`: all.
    pub ids: Option<Vec<Id>>,
    /// Which properties; `None`: those that the object has by default.
    pub properties: Option<Vec<String>>,
}

impl Get {
    /// Takes its arguments out of those of a call.
    pub fn take(arguments: &mut Arguments, objects_max: usize) -> Result<Self, MethodError> {
        let mut ids = arguments.ids("ids")?;
        let properties = arguments.strings("properties")?;
        if let Some(ids) = &mut ids {
            if ids.len() > objects_max {
                return Err(MethodError::RequestTooLarge(format!("more than {objects_max} ids")));
            }
            // RFC 8620 §5.1: an id that is given twice is answered once.
            let mut seen = std::collections::BTreeSet::new();
            ids.retain(|id| seen.insert(id.clone()));
        }
        Ok(Self { ids, properties })
    }

    /// Whether this property is asked for; `id` always is.
    pub fn wants(&self, property: &str) -> bool {
        property == "id"
            || self.properties.as_ref().is_none_or(|list| list.iter().any(|wanted| wanted == property))
    }

    /// Refuses properties that the object does not have.
    pub fn check(&self, known: &[&str]) -> Result<(), MethodError> {
        let unknown = |name: &&String| !known.contains(&name.as_str());
        match self.properties.iter().flatten().find(unknown) {
            None => Ok(()),
            Some(name) => Err(MethodError::InvalidArguments(format!("properties: there is no {name:?}"))),
        }
    }
}

/// The answer of `Foo/get`.
pub fn got(account: &Id, state: &str, list: Vec<Value>, not_found: &[Id]) -> Object {
    object(json!({"accountId": account, "state": state, "list": list, "notFound": not_found}))
}

/// Only those members of a record that are asked for.
pub fn project(mut record: Object, get: &Get) -> Value {
    record.retain(|name, _| get.wants(name));
    Value::Object(record)
}

/// `Foo/changes` (RFC 8620 §5.2).
#[derive(Clone, Debug)]
pub struct Changes {
    /// The state that the client knows.
    pub since_state: String,
    /// How many ids it wants at most.
    pub max_changes: Option<u64>,
}

impl Changes {
    /// Takes its arguments out of those of a call.
    pub fn take(arguments: &mut Arguments) -> Result<Self, MethodError> {
        let since_state = arguments.string("sinceState")?;
        let max_changes = arguments.unsigned("maxChanges")?;
        if max_changes == Some(0) {
            return Err(MethodError::argument("maxChanges", "greater than zero"));
        }
        Ok(Self { since_state, max_changes })
    }
}

/// `Foo/set` (RFC 8620 §5.3).
#[derive(Clone, Debug)]
pub struct Set {
    /// The state that it must be.
    pub if_in_state: Option<String>,
    /// What to make, by creation id.
    pub create: BTreeMap<Id, Object>,
    /// What to change, with its patch.
    pub update: BTreeMap<IdOrReference, Object>,
    /// What to destroy.
    pub destroy: Vec<IdOrReference>,
}

impl Set {
    /// Takes its arguments out of those of a call.
    pub fn take(arguments: &mut Arguments, objects_max: usize) -> Result<Self, MethodError> {
        let if_in_state = arguments.string_or_null("ifInState")?;
        let create = arguments.objects("create")?;
        let update = arguments.objects_or_references("update")?;
        let destroy = arguments.nullable("destroy", "a list of ids", |value| {
            crate::arguments::list(value, IdOrReference::from_value)
        })?;
        let destroy = destroy.unwrap_or_default();
        if create.len() + update.len() + destroy.len() > objects_max {
            return Err(MethodError::RequestTooLarge(format!("more than {objects_max} objects")));
        }
        Ok(Self { if_in_state, create, update, destroy })
    }

    /// Refuses what is not for this state.
    pub fn check_state(&self, state: &str) -> Result<(), MethodError> {
        check_state(self.if_in_state.as_deref(), state)
    }
}

/// Refuses a call that is for another state.
pub fn check_state(wanted: Option<&str>, state: &str) -> Result<(), MethodError> {
    if wanted.is_some_and(|wanted| wanted != state) { Err(MethodError::StateMismatch) } else { Ok(()) }
}

/// The answer of `Foo/set`, while it is made.
#[derive(Clone, Debug, Default)]
pub struct SetAnswer {
    /// What the server added to each record made.
    pub created: BTreeMap<Id, Value>,
    /// What changed besides what was asked for.
    pub updated: BTreeMap<String, Value>,
    /// What is gone.
    pub destroyed: Vec<Id>,
    /// What was not made.
    pub not_created: BTreeMap<Id, SetError>,
    /// What was not changed.
    pub not_updated: BTreeMap<String, SetError>,
    /// What was not destroyed.
    pub not_destroyed: BTreeMap<String, SetError>,
}

impl SetAnswer {
    /// As JSON; what is empty is `null`.
    pub fn into_object(self, account: &Id, old_state: Option<&str>, new_state: &str) -> Object {
        let errors = |errors: BTreeMap<String, SetError>| {
            let errors = errors.into_iter().map(|(id, error)| (id, error.to_value()));
            some_object(errors.collect())
        };
        let created = self.created.into_iter().map(|(id, value)| (id.to_string(), value)).collect();
        let not_created = self.not_created.into_iter().map(|(id, error)| (id.to_string(), error)).collect();
        object(json!({
            "accountId": account,
            "oldState": old_state,
            "newState": new_state,
            "created": some_object(created),
            "updated": some_object(self.updated.into_iter().collect()),
            "destroyed": if self.destroyed.is_empty() { Value::Null } else { json!(self.destroyed) },
            "notCreated": errors(not_created),
            "notUpdated": errors(self.not_updated),
            "notDestroyed": errors(self.not_destroyed),
        }))
    }
}

fn some_object(object: Object) -> Value {
    if object.is_empty() { Value::Null } else { Value::Object(object) }
}

/// `Foo/query` (RFC 8620 §5.5), but for filter and sort.
#[derive(Clone, Debug)]
pub struct Window {
    position: i64,
    anchor: Option<Id>,
    anchor_offset: i64,
    limit: Option<u64>,
    /// Whether the number of all results is wanted.
    pub calculate_total: bool,
}

impl Window {
    /// Takes its arguments out of those of a call.
    pub fn take(arguments: &mut Arguments) -> Result<Self, MethodError> {
        Ok(Self {
            position: arguments.int("position")?,
            anchor: arguments.id_or_null("anchor")?,
            anchor_offset: arguments.int("anchorOffset")?,
            limit: arguments.unsigned("limit")?,
            calculate_total: arguments.boolean("calculateTotal", false)?,
        })
    }

    /// Where the results begin, and the results; and the limit where it is less than what was asked for. `is` says which
    /// of all results the anchor is.
    pub fn cut<'a, T>(
        &self,
        all: &'a [T],
        is: impl Fn(&T, &Id) -> bool,
        limit_max: usize,
    ) -> Result<(usize, &'a [T], Option<usize>), MethodError> {
        let count = all.len() as i64;
        let start = match &self.anchor {
            Some(anchor) => {
                let at = all.iter().position(|result| is(result, anchor));
                (at.ok_or(MethodError::AnchorNotFound)? as i64).saturating_add(self.anchor_offset).max(0)
            }
            None if self.position < 0 => (count + self.position).max(0),
            None => self.position,
        };
        let asked = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let limit = asked.min(limit_max);
        let begin = usize::try_from(start).unwrap_or(usize::MAX).min(all.len());
        let end = begin.saturating_add(limit).min(all.len());
        // RFC 8620 §5.5: `limit` is told when it is the server's.
        Ok((begin, &all[begin..end], (asked > limit_max).then_some(limit_max)))
    }

    /// The answer of `Foo/query`.
    pub fn answer<T>(
        &self,
        account: &Id,
        state: &str,
        all: &[T],
        id: impl Fn(&T) -> Id,
        limit_max: usize,
    ) -> Result<Object, MethodError> {
        let (position, found, limit) = self.cut(all, |result, anchor| id(result) == *anchor, limit_max)?;
        let ids: Vec<Id> = found.iter().map(id).collect();
        let mut answer = object(json!({
            "accountId": account,
            "queryState": state,
            "canCalculateChanges": false,
            "position": position,
            "ids": ids,
        }));
        if self.calculate_total {
            answer.insert("total".to_owned(), json!(all.len()));
        }
        if let Some(limit) = limit {
            answer.insert("limit".to_owned(), json!(limit));
        }
        Ok(answer)
    }
}

/// Takes `filter` and `sort` out of the arguments of a call.
pub fn take_filter_and_sort<C>(
    arguments: &mut Arguments,
    condition: &impl Fn(&Object) -> Result<C, MethodError>,
) -> Result<(Option<Filter<C>>, Vec<Comparator>), MethodError> {
    let filter = arguments.take("filter").map(|filter| Filter::parse(&filter, condition)).transpose()?;
    let sort = arguments.take("sort").map(|sort| Comparator::parse_list(&sort)).transpose()?;
    Ok((filter, sort.unwrap_or_default()))
}

/// An object of `json!`.
pub fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<Id> {
        names.iter().map(|name| Id::new(*name).unwrap()).collect()
    }

    fn window(value: Value) -> Window {
        let mut arguments = Arguments::new(object(value));
        let window = Window::take(&mut arguments).unwrap();
        arguments.finish().unwrap();
        window
    }

    /// RFC 8620 §5.5
    #[test]
    fn windows() {
        let all = ids(&["a", "b", "c", "d", "e"]);
        let check = |value: Value, start: usize, expected: &[&str], limit: Option<usize>| {
            let (at, found, told) = window(value.clone()).cut(&all, Id::eq, 3).unwrap();
            assert_eq!((at, found, told), (start, &ids(expected)[..], limit), "{value}");
        };
        check(json!({}), 0, &["a", "b", "c"], Some(3));
        check(json!({"limit": 2}), 0, &["a", "b"], None);
        check(json!({"limit": 0}), 0, &[], None);
        check(json!({"position": 3}), 3, &["d", "e"], Some(3));
        check(json!({"position": 9, "limit": 1}), 5, &[], None);
        check(json!({"position": -2, "limit": 3}), 3, &["d", "e"], None);
        check(json!({"position": -9, "limit": 1}), 0, &["a"], None);
        check(json!({"anchor": "c", "position": 4, "limit": 1}), 2, &["c"], None);
        check(json!({"anchor": "c", "anchorOffset": -1, "limit": 2}), 1, &["b", "c"], None);
        check(json!({"anchor": "c", "anchorOffset": -9, "limit": 1}), 0, &["a"], None);
        check(json!({"anchor": "c", "anchorOffset": 9, "limit": 1}), 5, &[], None);
        let error = window(json!({"anchor": "x"})).cut(&all, Id::eq, 3).unwrap_err();
        assert_eq!(error, MethodError::AnchorNotFound);
    }

    #[test]
    fn what_is_given_twice_is_answered_once() {
        let mut arguments = Arguments::new(object(json!({"ids": ["a", "b", "a"], "properties": ["name"]})));
        let get = Get::take(&mut arguments, 3).unwrap();
        assert_eq!(get.ids, Some(ids(&["a", "b"])));
        assert!(get.wants("id") && get.wants("name") && !get.wants("role"));
        assert_eq!(get.check(&["role"]).unwrap_err().name(), "invalidArguments");
        let mut arguments = Arguments::new(object(json!({"ids": ["a", "b", "c"]})));
        assert_eq!(Get::take(&mut arguments, 2).unwrap_err().name(), "requestTooLarge");
    }
}
