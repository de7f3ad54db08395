//! SearchSnippet/get (RFC 8621 §5): why an email was found, as HTML with marks. What is marked is what the rule of search
//! has found.

use jmap_protocol::arguments;
use jmap_protocol::filter::Filter;
use jmap_protocol::method::object;
use jmap_protocol::object::filter::{Test, condition};
use jmap_protocol::{Arguments, Id, MethodError, Object};
use search::document::Texts;
use search::{Reach, Snippet, Texts as Where, Wanted};
use serde_json::{Value, json};

use super::spend_on;
use crate::jmap::context::{Context, body_trouble, trouble};
use crate::jmap::ids;
use crate::jmap::text;

pub(crate) async fn get(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let filter = arguments.take("filter").map(|it| Filter::parse(&it, &condition)).transpose()?;
    let wanted =
        arguments.required("emailIds", "a list of ids", |value| arguments::list(value, Id::from_value))?;
    std::mem::take(arguments).finish()?;
    if wanted.len() > context.config().objects_in_get_max {
        return Err(MethodError::RequestTooLarge("too many ids".to_owned()));
    }
    let sought = sought(filter.as_ref());
    let in_body = sought.iter().any(|wanted| matches!(wanted.texts, Where::Any | Where::Body));
    let reach = if in_body { Reach::Whole } else { Reach::Header };
    let view = context.view().await?;
    let (mut list, mut not_found) = (Vec::new(), Vec::new());
    for id in wanted {
        let email = ids::parse_email(&id).filter(|email| view.email(*email).is_some());
        let record = match email {
            Some(email) => context.account().email(email).await.map_err(|error| trouble(&error))?,
            None => None,
        };
        let Some(record) = record else {
            not_found.push(id);
            continue;
        };
        let snippet = if sought.is_empty() {
            Snippet::default()
        } else {
            let limits = context.inner().text.limits();
            let texts = Texts::of(context.account(), &record, &limits, reach).await;
            Snippet::of(&texts.map_err(|error| body_trouble(&error))?, &sought)
        };
        let snippet = json!({"emailId": id, "subject": snippet.subject, "preview": snippet.preview});
        spend_on(context, &snippet)?;
        list.push(snippet);
    }
    let not_found = if not_found.is_empty() { Value::Null } else { json!(not_found) };
    Ok(object(json!({"accountId": account, "list": list, "notFound": not_found})))
}

/// What to mark. What stands under a NOT is not what an email was found by.
fn sought(filter: Option<&Filter<Vec<Test>>>) -> Vec<Wanted> {
    let mut sought = Vec::new();
    let mut open: Vec<&Filter<Vec<Test>>> = filter.into_iter().collect();
    while let Some(filter) = open.pop() {
        match filter {
            Filter::And(parts) | Filter::Or(parts) => open.extend(parts),
            Filter::Not(_) => {}
            Filter::Condition(tests) => {
                let texts = tests.iter().filter_map(|test| match test {
                    Test::Text(test) => text::wanted(test),
                    _ => None,
                });
                sought.extend(texts.filter(|wanted| !wanted.is_empty()));
            }
        }
    }
    sought
}
