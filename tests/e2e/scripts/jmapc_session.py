"""jmapc (PyPI) doing what its users do: HOST:PORT USER PASSWORD."""

import sys
import tempfile
import threading

import requests
import urllib3
from jmapc import Client, Comparator, Email, EmailAddress, EmailBodyPart, EmailBodyValue, EmailHeader
from jmapc import EmailQueryFilterCondition, MailboxQueryFilterCondition, Ref
from jmapc.client import EventSourceConfig
from jmapc.methods import (CoreEcho, EmailChanges, EmailGet, EmailQuery, EmailSet, MailboxGet, MailboxQuery,
                           MailboxSet, SearchSnippetGet, ThreadGet)

host, user, password = sys.argv[1:]
urllib3.disable_warnings()
# The server's certificate is its own.
plain = requests.Session.request
listening = threading.Event()


def request(self, *args, **options):
    answer = plain(self, *args, **{**options, "verify": False})
    if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
        listening.set()
    return answer


requests.Session.request = request

client = Client.create_with_password(host, user, password, event_source_config=EventSourceConfig(ping=5))
assert client.jmap_session.username == user
assert client.request(CoreEcho(data={"hello": [1, "ü"]})).data == {"hello": [1, "ü"]}

answers = client.request([MailboxQuery(filter=MailboxQueryFilterCondition(role="drafts")),
                          MailboxGet(ids=Ref("/ids"))])
drafts = answers[1].response.data[0]
assert (drafts.name, drafts.role) == ("Drafts", "drafts"), drafts

events = []
thread = threading.Thread(target=lambda: events.append(next(client.events)), daemon=True)
thread.start()
# Only what changes from now on is told.
assert listening.wait(20)

state = client.request(EmailGet(ids=[])).state
with tempfile.NamedTemporaryFile(suffix=".txt") as file:
    file.write("Käse\n".encode())
    file.flush()
    blob = client.upload_blob(file.name)
assert blob.size == 6, blob
draft = Email(
    mail_from=[EmailAddress(name="Jörg", email=user)], to=[EmailAddress(email="someone@elsewhere.example")],
    subject="Ein Entwurf für später", keywords={"$draft": True}, mailbox_ids={drafts.id: True},
    body_values={"text": EmailBodyValue(value="Grüße\naus dem Entwurf\n")},
    text_body=[EmailBodyPart(part_id="text", type="text/plain")],
    attachments=[EmailBodyPart(blob_id=blob.id, type="text/plain", name="käse.txt", disposition="attachment")],
    headers=None)
created = client.request(EmailSet(create={"draft": draft}))
assert created.created and not created.not_created, created
email_id = created.created["draft"].id

answers = client.request([
    EmailQuery(filter=EmailQueryFilterCondition(in_mailbox=drafts.id, text="entwurf"),
               sort=[Comparator(property="receivedAt", is_ascending=False)], collapse_threads=True),
    EmailGet(ids=Ref("/ids"), fetch_text_body_values=True),
    ThreadGet(ids=Ref("/list/*/threadId")),
])
email = answers[1].response.data[0]
assert email.id == email_id and email.subject == draft.subject, email
assert email.mail_from[0].name == "Jörg"
assert email.body_values[email.text_body[0].part_id].value == "Grüße\naus dem Entwurf\n"
assert email.attachments[0].name == "käse.txt"
assert answers[2].response.data[0].email_ids == [email_id]
with tempfile.NamedTemporaryFile() as file:
    client.download_attachment(email.attachments[0], file.name)
    assert open(file.name, "rb").read() == "Käse\n".encode()

snippets = client.request(SearchSnippetGet(ids=[email_id], filter=EmailQueryFilterCondition(text="entwurf")))
assert "<mark>Entwurf</mark>" in snippets.data[0].subject, snippets

updated = client.request(EmailSet(update={email_id: {"keywords/$flagged": True}}))
assert email_id in updated.updated, updated
changes = client.request(EmailChanges(since_state=state))
assert changes.created == [email_id], changes
destroyed = client.request(EmailSet(destroy=[email_id]))
assert destroyed.destroyed == [email_id], destroyed

thread.join(20)
assert events and events[0].data.changed[client.account_id].email, events
print("all done")
