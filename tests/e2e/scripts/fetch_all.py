"""Writes every message of INBOX to a file, as Python's imaplib reads it: PORT USER PASSWORD FOLDER."""

import imaplib
import os
import sys

port, user, password, folder = sys.argv[1:]
imaplib._MAXLINE = 10_000_000
connection = imaplib.IMAP4("127.0.0.1", int(port))
connection.login(user, password)
status, data = connection.select("INBOX", readonly=True)
assert status == "OK", data
status, data = connection.uid("SEARCH", "ALL")
assert status == "OK", data
uids = data[0].split()
for start in range(0, len(uids), 100):
    status, parts = connection.uid("FETCH", b",".join(uids[start : start + 100]), "(UID RFC822.SIZE BODY.PEEK[])")
    assert status == "OK", parts
    for part in parts:
        if not isinstance(part, tuple):
            continue
        head, body = part
        words = head.replace(b"(", b" ").split()
        uid = words[words.index(b"UID") + 1].decode()
        size = int(words[words.index(b"RFC822.SIZE") + 1])
        assert size == len(body), (uid, size, len(body))
        with open(os.path.join(folder, uid), "wb") as file:
            file.write(body)
connection.logout()
