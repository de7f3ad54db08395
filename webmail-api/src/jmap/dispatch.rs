//! Calls to methods, one after the other (RFC 8620 §3.3 to §3.7).

use std::collections::BTreeMap;

use jmap_protocol::{Arguments, Id, Invocation, MethodError, Object, Request, Response, json, reference};
use serde_json::Value;

use super::auth::User;
use super::context::Context;
use super::method::{blob, echo, email, identity, mailbox, quota, snippet, submission, thread, vacation};
use super::service::Jmap;
use super::session::{BLOB, CORE, MAIL, QUOTA, SUBMISSION, VACATION};

/// Answers a request, and says what was made in it, where the client wants to know.
pub(super) async fn run(jmap: &Jmap, user: User, request: Request) -> (Response, Option<BTreeMap<Id, Id>>) {
    let wants_ids = request.created_ids.is_some();
    let mut context = Context::new(jmap, user, request.using, request.created_ids.unwrap_or_default());
    let mut response = Response::default();
    for call in request.calls {
        let Invocation { name, arguments, call_id } = call;
        let answered = match reference::resolve(arguments, &response.answers, &mut context.room) {
            Ok(arguments) => Box::pin(answer(&mut context, &name, arguments)).await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(answer) => response.push(&name, answer, &call_id),
            Err(error) => {
                metrics::counter!("postrider_jmap_errors_total", "type" => error.name()).increment(1);
                response.push_error(&error, &call_id);
            }
        }
        for (name, answer) in context.more.drain(..) {
            response.push(name, answer, &call_id);
        }
    }
    (response, wants_ids.then_some(context.created_ids))
}

async fn answer(context: &mut Context, name: &str, arguments: Object) -> Result<Object, MethodError> {
    let capability = match name.split_once('/') {
        Some(("Core", _)) => CORE,
        Some(("Quota", _)) => QUOTA,
        Some(("Blob", _)) => BLOB,
        Some(("Identity" | "EmailSubmission", _)) => SUBMISSION,
        Some(("VacationResponse", _)) => VACATION,
        _ => MAIL,
    };
    // RFC 8620 §3.3: what a client does not say it uses is not there for it.
    if !context.uses(capability) {
        return Err(MethodError::UnknownMethod);
    }
    if name == "Core/echo" {
        // RFC 8620 §4: exactly what came.
        context.spend(json::weight(&Value::Object(arguments.clone())))?;
        return Ok(echo::run(arguments));
    }
    let mut arguments = Arguments::new(arguments);
    let arguments = &mut arguments;
    match name {
        "Mailbox/get" => mailbox::get::run(context, arguments).await,
        "Mailbox/changes" => mailbox::changes::run(context, arguments).await,
        "Mailbox/query" => mailbox::query::run(context, arguments).await,
        "Mailbox/queryChanges" => mailbox::query_changes::run(context, arguments).await,
        "Mailbox/set" => mailbox::set::run(context, arguments).await,
        "Thread/get" => thread::get(context, arguments).await,
        "Thread/changes" => thread::changes(context, arguments).await,
        "Email/get" => email::get::run(context, arguments).await,
        "Email/changes" => email::changes::run(context, arguments).await,
        "Email/query" => email::query::run(context, arguments).await,
        "Email/queryChanges" => email::query_changes::run(context, arguments).await,
        "Email/set" => email::set::run(context, arguments).await,
        "Email/import" => email::import::run(context, arguments).await,
        "Email/copy" => email::copy::run(context, arguments),
        "Email/parse" => email::parse::run(context, arguments).await,
        "Identity/get" => identity::get::run(context, arguments).await,
        "Identity/changes" => identity::changes::run(context, arguments).await,
        "Identity/set" => identity::set::run(context, arguments).await,
        "EmailSubmission/get" => submission::get::run(context, arguments).await,
        "EmailSubmission/changes" => submission::changes::run(context, arguments).await,
        "EmailSubmission/query" => submission::query::run(context, arguments).await,
        "EmailSubmission/queryChanges" => submission::query::changes(context, arguments).await,
        "EmailSubmission/set" => submission::set::run(context, arguments).await,
        "VacationResponse/get" => vacation::get::run(context, arguments).await,
        "VacationResponse/set" => vacation::set::run(context, arguments).await,
        "SearchSnippet/get" => snippet::get(context, arguments).await,
        "Quota/get" => quota::get::run(context, arguments).await,
        "Quota/changes" => quota::changes::run(context, arguments).await,
        "Quota/query" => quota::query::run(context, arguments).await,
        "Quota/queryChanges" => quota::query_changes::run(context, arguments).await,
        "Blob/upload" => blob::upload::run(context, arguments).await,
        "Blob/get" => blob::get::run(context, arguments).await,
        "Blob/lookup" => blob::lookup::run(context, arguments).await,
        _ => Err(MethodError::UnknownMethod),
    }
}
