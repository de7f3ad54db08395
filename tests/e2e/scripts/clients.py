"""smtplib and imaplib doing what scripts do: SUBMISSION IMAP IMAPS ALICE BOB PASSWORD."""

import imaplib
import smtplib
import ssl
import sys
import time
from email import message_from_bytes, policy
from email.message import EmailMessage

submission, imap, imaps, alice, bob, password = sys.argv[1:]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE

message = EmailMessage()
message["From"] = alice
message["To"] = bob
message["Subject"] = "Grüße aus 東京"
message.set_content("Ein Text mit Umlauten: äöü, 漢字.\n")
message.add_attachment(b"\x00\x01\x02" * 1000, maintype="application", subtype="octet-stream", filename="zahlen.bin")
with smtplib.SMTP("127.0.0.1", int(submission)) as client:
    client.starttls(context=context)
    client.login(alice, password)
    client.send_message(message)
    try:
        client.sendmail(bob, [alice], b"Subject: x\r\n\r\nx\r\n")
        raise SystemExit("a foreign sender address was accepted")
    except smtplib.SMTPException:
        pass

for attempt in range(100):
    connection = imaplib.IMAP4_SSL("127.0.0.1", int(imaps), ssl_context=context)
    connection.login(bob, password)
    status, data = connection.select("INBOX")
    assert status == "OK"
    if data[0] == b"1":
        break
    connection.logout()
    time.sleep(0.1)
else:
    raise SystemExit("the message did not arrive")

status, data = connection.search(None, "SUBJECT", '"aus"')
assert status == "OK" and data == [b"1"], data
status, data = connection.fetch("1", "(UID FLAGS RFC822.SIZE BODY[])")
assert status == "OK"
body = data[0][1]
parsed = message_from_bytes(body, policy=policy.default)
assert parsed["Subject"] == "Grüße aus 東京", parsed["Subject"]
assert parsed["Message-ID"] and parsed["Date"] and parsed["Received"], "fields that submission adds"
assert parsed.get_body().get_content().startswith("Ein Text mit Umlauten")
status, data = connection.fetch("1", "(FLAGS)")
assert b"\\Seen" in data[0], data

status, data = connection.create('"Projekte"')
assert status == "OK", data
status, data = connection.copy("1", '"Projekte"')
assert status == "OK", data
status, data = connection.append('"Projekte"', "\\Flagged", imaplib.Time2Internaldate(1_700_000_000), body)
assert status == "OK", data
status, data = connection.select('"Projekte"')
assert data == [b"2"], data
status, data = connection.search(None, "FLAGGED", "SINCE", "14-Nov-2023", "BEFORE", "16-Nov-2023")
assert data == [b"2"], data
status, data = connection.store("1", "+FLAGS", "(\\Deleted)")
assert status == "OK", data
status, data = connection.expunge()
assert data == [b"1"], data
status, data = connection.rename('"Projekte"', '"Alt"')
assert status == "OK", data
status, data = connection.list()
assert any(b"Alt" in line for line in data) and not any(b"Projekte" in line for line in data), data
connection.close()
status, data = connection.delete('"Alt"')
assert status == "OK", data
connection.logout()

plain = imaplib.IMAP4("127.0.0.1", int(imap))
assert "STARTTLS" in plain.capabilities
plain.starttls(context)
try:
    plain.login(bob, "wrong")
    raise SystemExit("a wrong password was accepted")
except imaplib.IMAP4.error:
    pass
plain.authenticate("PLAIN", lambda challenge: f"\0{bob}\0{password}".encode())
plain.logout()
print("all done")
