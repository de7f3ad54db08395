"""Reads the newest message of an INBOX with imaplib, and with Python's email package the notification that it has to be."""

import email
import email.policy
import imaplib
import json
import sys

port, user, password = sys.argv[1:]
client = imaplib.IMAP4("127.0.0.1", int(port))
client.login(user, password)
_, (count,) = client.select("INBOX", readonly=True)
_, data = client.fetch(count.decode(), "(BODY.PEEK[])")
client.logout()
message = email.message_from_bytes(data[0][1], policy=email.policy.default)
assert not message.defects, message.defects
assert message.get_content_type() == "multipart/report", message.get_content_type()
assert message.get_param("report-type") == "delivery-status"
people, status, returned = message.iter_parts()
for part in message.walk():
    assert not part.defects, (part.get_content_type(), part.defects)
assert people.get_content_type() == "text/plain"
assert status.get_content_type() == "message/delivery-status"
whole, *recipients = status.get_payload()
if returned.get_content_type() == "message/rfc822":
    subject = returned.get_content()["Subject"]
else:
    assert returned.get_content_type() == "text/rfc822-headers", returned.get_content_type()
    subject = email.message_from_string(returned.get_content())["Subject"]
print(json.dumps({
    "from": message["From"],
    "to": message["To"],
    "subject": message["Subject"],
    "return_path": message["Return-Path"],
    "auto_submitted": message["Auto-Submitted"],
    "text": people.get_content(),
    "reporting_mta": whole["Reporting-MTA"],
    "envelope_id": whole["Original-Envelope-Id"],
    "recipients": [dict(recipient.items()) for recipient in recipients],
    "returned": returned.get_content_type(),
    "returned_subject": subject,
}))
