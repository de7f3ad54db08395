"""IMAPClient doing what its users do, in two sessions beside one another: IMAP IMAPS USER PASSWORD."""

import ssl
import sys
from datetime import datetime, timezone

from imapclient import DELETED, FLAGGED, SEEN, IMAPClient
from imapclient.exceptions import IMAPClientError, LoginError

imap, imaps, user, password = sys.argv[1:]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE


def message(subject, text="hello"):
    return (f"From: Jörg <joerg@example.net>\r\nTo: {user}\r\nSubject: {subject}\r\n"
            f"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <{subject}@example.net>\r\n\r\n{text}\r\n").encode()


def connect():
    client = IMAPClient("127.0.0.1", int(imaps), ssl_context=context, timeout=30)
    client.login(user, password)
    return client


plain = IMAPClient("127.0.0.1", int(imap), ssl=False, timeout=30)
plain.starttls(context)
try:
    plain.login(user, "wrong")
    raise SystemExit("a wrong password was accepted")
except LoginError:
    pass
plain.plain_login(user, password)
plain.logout()

one, two = connect(), connect()
for name in (b"IDLE", b"MOVE", b"UIDPLUS", b"CONDSTORE", b"ENABLE", b"ID", b"NAMESPACE", b"UNSELECT", b"MULTIAPPEND"):
    assert one.has_capability(name), name
assert one.id_({"name": "a test"}), "the server says who it is"
# Before a mailbox is selected, as this client has it.
assert one.enable("CONDSTORE") == [b"CONDSTORE"]
assert one.namespace().personal == (("", "/"),), one.namespace()

# Folders with names beyond ASCII; special use; subscriptions.
one.create_folder("Büro/東京")
names = {name: flags for flags, delimiter, name in one.list_folders()}
assert "Büro/東京" in names and b"\\HasChildren" in names["Büro"], names
assert one.find_special_folder(b"\\Trash") in names, names
one.subscribe_folder("Büro/東京")
assert [name for _, _, name in one.list_sub_folders("Büro/")] == ["Büro/東京"], one.list_sub_folders("Büro/")
assert one.folder_exists("Büro") and not one.folder_exists("Nirgends")

# Append, alone and several at once; flags and dates come back as they went in.
when = datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc)
assert b"[APPENDUID " in one.append("INBOX", message("eins"), [FLAGGED, "$Label"], when)
one.multiappend("INBOX", [message("zwei", "Käse"), {"msg": message("drei"), "flags": [SEEN], "date": when}])
selected = one.select_folder("INBOX")
assert selected[b"EXISTS"] == 3 and selected[b"UIDNEXT"] == 4, selected
before = one.folder_status("INBOX", ["HIGHESTMODSEQ", "MESSAGES", "UNSEEN"])
assert (before[b"MESSAGES"], before[b"UNSEEN"]) == (3, 2), before
rows = one.fetch([1, 2, 3], ["FLAGS", "INTERNALDATE", "ENVELOPE", "BODYSTRUCTURE", "RFC822.SIZE", "BODY.PEEK[]"])
assert sorted(rows) == [1, 2, 3], rows
assert set(rows[1][b"FLAGS"]) == {FLAGGED, b"$Label"} and rows[3][b"FLAGS"] == (SEEN,), rows
assert rows[3][b"INTERNALDATE"].timestamp() == when.timestamp(), rows[3][b"INTERNALDATE"]
assert rows[2][b"BODY[]"] == message("zwei", "Käse") and rows[2][b"RFC822.SIZE"] == len(rows[2][b"BODY[]"]), rows
envelope = rows[1][b"ENVELOPE"]
assert (envelope.subject, envelope.message_id) == (b"eins", b"<eins@example.net>"), envelope
assert str(envelope.from_[0]).endswith("<joerg@example.net>") and envelope.cc is None, envelope
assert envelope.date.timestamp() == when.timestamp(), envelope
assert rows[1][b"BODYSTRUCTURE"][:2] == (b"text", b"plain") and not rows[1][b"BODYSTRUCTURE"].is_multipart, rows
header = one.fetch(1, ["BODY.PEEK[HEADER.FIELDS (SUBJECT)]"])[1]
assert header[b"BODY[HEADER.FIELDS (SUBJECT)]"] == b"Subject: eins\r\n\r\n", header

# Search: by flag, date, text in UTF-8 (a literal), and their combinations.
for criteria, charset, expected in [
    ("ALL", None, [1, 2, 3]),
    (["FLAGGED", "SINCE", datetime(2023, 11, 14).date()], None, [1]),
    (["NOT", "SEEN"], None, [1, 2]),
    (["BODY", "Käse"], "UTF-8", [2]),
    (["OR", ["SUBJECT", "drei"], ["KEYWORD", "$Label"]], None, [1, 3]),
    (["FROM", "joerg@example.net", "UID", "2:3"], None, [2, 3]),
    (["TEXT", "nowhere"], None, []),
]:
    found = one.search(criteria, charset)
    assert list(found) == expected, (criteria, found)

# What has changed is told by its modification sequence (RFC 7162).
since = before[b"HIGHESTMODSEQ"]
assert one.add_flags(2, ["Wichtig"])[2] == (b"Wichtig",)
changed = one.fetch([1, 2, 3], ["FLAGS"], [f"CHANGEDSINCE {since}"])
assert list(changed) == [2] and changed[2][b"MODSEQ"][0] > since, changed
found = one.search(["MODSEQ", str(since + 1)])
assert list(found) == [2] and found.modseq == changed[2][b"MODSEQ"][0], (found, found.modseq)
assert one.set_flags(2, [SEEN])[2] == (SEEN,) and one.remove_flags(2, [SEEN])[2] == ()

# One idles and is told what the other does: a new message, flags, an expunge.
one.idle()
two.append("INBOX", message("vier"))


def told(count):
    heard = []
    for _ in range(20):
        heard += [line for line in one.idle_check(timeout=10) if line[0] != b"OK"]
        if len(heard) >= count:
            return heard
    raise SystemExit(f"told only {heard}")


assert (4, b"EXISTS") in told(1)
two.select_folder("INBOX")
two.add_flags(4, [DELETED])
assert any(line[0] == 4 and line[1] == b"FETCH" and b"FLAGS" in line[2] for line in told(1))
two.uid_expunge(4)
assert (4, b"EXPUNGE") in told(1)
text, rest = one.idle_done()
assert text.startswith(b"Idle"), text

# Copy and move into a folder whose name is beyond ASCII; the other session is told of what left.
one.copy([1], "Büro/東京")
one.move([1, 3], "Büro/東京")
assert list(one.search()) == [2]
left = [1, 2, 3]
for number, *what in two.noop()[1]:
    if what == [b"EXPUNGE"]:
        del left[number - 1]
assert left == [2], left
assert two.select_folder("Büro/東京", readonly=True)[b"EXISTS"] == 3
try:
    two.add_flags(1, [SEEN])
    raise SystemExit("flags were changed in a mailbox opened for reading")
except IMAPClientError:
    pass
two.unselect_folder()

one.delete_messages([2])
one.expunge()
assert one.folder_status("INBOX", ["MESSAGES"])[b"MESSAGES"] == 0
one.rename_folder("Büro", "Alt")
assert one.folder_exists("Alt/東京") and not one.folder_exists("Büro")
two.delete_folder("Alt/東京")
try:
    one.select_folder("Alt/東京")
    raise SystemExit("a deleted folder was selected")
except IMAPClientError:
    pass
one.logout()
two.logout()
print("all done")
