//! Putting messages as emails: into several mailboxes at once, as one email (RFC 8621 §4.8).

use std::collections::BTreeSet;
use std::sync::Arc;

use blob::{BlobAddress, Nonce};
use mail::flag::FlagSet;
use mail::id::{EmailId, MailboxId, ThreadId};

use crate::account::Account;
use crate::append::{
    AppendError, AppendRequest, Appended, Prepared, RECORDS_BYTES_MAX, Target, key_parts, put_set,
    records_bytes,
};
use crate::body::StoredBody;
use crate::compose::Since;
use crate::date::InternalDate;
use crate::draft::{Draft, Refusal};
use crate::email_update::ChangeEmailsError;
use crate::error::StorageError;
use crate::state::AccountState;
use crate::store::unix_now;

/// A message that is to be an email.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    /// The mailboxes that it comes into, one at least.
    pub mailboxes: BTreeSet<MailboxId>,
    /// The message.
    pub body: StoredBody,
    /// Its flags and keywords.
    pub flags: FlagSet,
    /// When it was received; now when `None`.
    pub received: Option<InternalDate>,
}

/// An email was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Imported {
    /// The email.
    pub email: EmailId,
    /// Its thread.
    pub thread: ThreadId,
    /// Octets in all.
    pub size: u32,
}

/// Emails were put.
#[derive(Clone, Debug)]
pub struct EmailsImported {
    /// The state of emails before.
    pub old_state: Since,
    /// The state of emails after it.
    pub new_state: Since,
    /// For each, in the order asked for.
    pub results: Vec<Result<Imported, AppendError>>,
}

impl Account {
    /// Puts emails, each on its own: one that is refused does not hold back the others. As many go into one commit as
    /// fit; the state is compared before the first. Bodies of what is refused are given up.
    pub async fn import_emails(
        &self,
        requests: Vec<ImportRequest>,
        if_in_state: Option<Since>,
    ) -> Result<EmailsImported, ChangeEmailsError> {
        let now = unix_now();
        let bodies: Vec<(BlobAddress, Nonce)> =
            requests.iter().map(|request| (request.body.address, request.body.reference)).collect();
        let mut groups: Vec<Vec<Result<Prepared, AppendError>>> = vec![Vec::new()];
        let mut group_bytes = 0;
        for request in requests {
            let prepared = self.prepare_import(request, now);
            let bytes = prepared.as_ref().map_or(0, |message| records_bytes(std::slice::from_ref(message)));
            if group_bytes + bytes > RECORDS_BYTES_MAX {
                groups.push(Vec::new());
                group_bytes = 0;
            }
            group_bytes += bytes;
            groups.last_mut().expect("there is one from the start").push(prepared);
        }
        let mut all: Option<EmailsImported> = None;
        let mut failed = None;
        for group in groups {
            let count = group.len();
            let condition = if_in_state.filter(|_| all.is_none());
            match (self.import_group(group, now, condition).await, &mut all) {
                (Ok(imported), None) => all = Some(imported),
                (Ok(imported), Some(all)) => {
                    all.new_state = imported.new_state;
                    all.results.extend(imported.results);
                }
                (Err(ChangeEmailsError::Storage(error)), Some(all)) => {
                    let failed = || Err(AppendError::Storage(error.clone()));
                    all.results.extend(std::iter::repeat_with(failed).take(count));
                }
                (Err(error), _) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let is_undecided = |error: &StorageError| matches!(error, StorageError::Undecided);
        let unused: Vec<(BlobAddress, Nonce)> = match (&all, &failed) {
            (_, Some(ChangeEmailsError::Storage(error))) if is_undecided(error) => Vec::new(),
            (_, Some(_)) | (None, None) => bodies,
            (Some(all), None) => {
                let refused = all.results.iter().zip(bodies).filter(|(result, _)| match result {
                    Ok(_) => false,
                    Err(AppendError::Storage(error)) => !is_undecided(error),
                    Err(_) => true,
                });
                refused.map(|(_, body)| body).collect()
            }
        };
        if !unused.is_empty() {
            self.unreference(&unused).await;
        }
        match (all, failed) {
            (Some(all), None) => Ok(all),
            (_, Some(error)) => Err(error),
            (None, None) => Err(StorageError::Unavailable("nothing was asked for".to_owned()).into()),
        }
    }

    fn prepare_import(&self, request: ImportRequest, now: u32) -> Result<Prepared, AppendError> {
        let ImportRequest { mailboxes, body, flags, received } = request;
        let mut mailboxes = mailboxes.into_iter();
        let target = Target::Mailbox(mailboxes.next().ok_or(AppendError::NoMailbox)?);
        let prepared = self.prepare(AppendRequest { target, body, flags, internal_date: received }, now)?;
        let prepared = prepared.also_in(mailboxes.collect());
        if records_bytes(std::slice::from_ref(&prepared)) > RECORDS_BYTES_MAX {
            return Err(AppendError::TooLarge);
        }
        Ok(prepared)
    }

    async fn import_group(
        &self,
        group: Vec<Result<Prepared, AppendError>>,
        now: u32,
        if_in_state: Option<Since>,
    ) -> Result<EmailsImported, ChangeEmailsError> {
        let parts = group.iter().flatten().flat_map(|message| key_parts(&message.thread_keys)).collect();
        let group: Arc<[_]> = group.into();
        let config = self.storage.config().clone();
        let build = move |state: &AccountState| -> Result<_, Refusal<ChangeEmailsError>> {
            let mut draft = Draft::new::<ChangeEmailsError>(state)?;
            let old_state = state.emails_state();
            if if_in_state.is_some_and(|wanted| wanted != old_state) {
                return Err(ChangeEmailsError::StateMismatch.into());
            }
            let mut new_state = old_state;
            let mut results = Vec::with_capacity(group.len());
            for message in &*group {
                let put = match message {
                    Ok(message) => put_set(&mut draft, std::slice::from_ref(message), now, &config)
                        .map(|appended| appended.first().map(|appended| imported(appended, message.size))),
                    Err(error) => Err(error.clone().into()),
                };
                match put {
                    Ok(put) => {
                        new_state = Since::operation(draft.last());
                        results.push(put.ok_or(AppendError::NoMailbox));
                    }
                    Err(Refusal::Error(error)) => results.push(Err(error)),
                    Err(Refusal::Load(parts)) => return Err(Refusal::Load(parts)),
                }
            }
            Ok(draft.build(EmailsImported { old_state, new_state, results }))
        };
        Ok(self.commit(parts, build).await?.answer)
    }
}

fn imported(appended: &Appended, size: u32) -> Imported {
    Imported { email: appended.email, thread: appended.thread, size }
}
