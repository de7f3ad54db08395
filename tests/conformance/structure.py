#!/usr/bin/env python3
"""What IMAP tells about a message's structure, ours beside Dovecot's, on the same bytes.

    structure.py peer  OUT FOLDER...     puts every .eml file into a private Dovecot and keeps what it answers
    structure.py ours  OUT FOLDER...     the same from `cargo run -p mail --example structure`
    structure.py compare PEER OURS [--list differences.tsv] [--show N]

Dovecot is not started as a server: its `imap` runs pre-authenticated on a pipe, with a configuration, mail folder and
user of its own in a temporary folder. `compare` fails when a difference is not in the list, or a listed one is gone.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

FIELDS = "From To Cc Subject Date Message-ID Content-Type Received X-Missing"
ITEMS = [
    "RFC822.SIZE", "ENVELOPE", "BODY", "BODYSTRUCTURE", "BODY[HEADER]", "BODY[TEXT]", "BODY[1]", "BODY[1.MIME]",
    "BODY[2]", "BODY[2.MIME]", "BODY[1.1]", "BODY[2.1]", "BODY[2.HEADER]", "BODY[2.TEXT]", f"BODY[HEADER.FIELDS ({FIELDS.upper()})]",
]
# Those that the aim of 99.5 % speaks of.
AIMED = {"RFC822.SIZE", "ENVELOPE", "BODYSTRUCTURE", "BODY[1]", ITEMS[-1]}


class Reader:
    """Reads IMAP responses: lists, strings, literals, numbers, NIL."""

    def __init__(self, stream):
        self.stream = stream
        self.line = b""
        self.at = 0

    def next_line(self):
        self.line = self.stream.readline()
        self.at = 0
        if not self.line:
            raise EOFError("connection closed")
        return self.line

    def value(self):
        while self.line[self.at:self.at + 1] == b" ":
            self.at += 1
        first = self.line[self.at:self.at + 1]
        if first == b"(":
            self.at += 1
            items = []
            while True:
                while self.line[self.at:self.at + 1] == b" ":
                    self.at += 1
                if self.line[self.at:self.at + 1] == b")":
                    self.at += 1
                    return items
                items.append(self.value())
        if first == b'"':
            self.at += 1
            out = bytearray()
            while self.line[self.at:self.at + 1] != b'"':
                if self.line[self.at:self.at + 1] == b"\\":
                    self.at += 1
                out += self.line[self.at:self.at + 1]
                self.at += 1
            self.at += 1
            return out.decode("latin1")
        if first == b"{":
            end = self.line.index(b"}", self.at)
            data = self.stream.read(int(self.line[self.at + 1:end]))
            self.next_line()
            return data.decode("latin1")
        start = self.at
        depth = 0
        while self.at < len(self.line):
            c = self.line[self.at:self.at + 1]
            if c == b"[":
                depth += 1
            elif c == b"]":
                depth -= 1
            elif depth == 0 and c in b" ()\r\n":
                break
            self.at += 1
        word = self.line[start:self.at].decode("latin1")
        if word.upper() == "NIL":
            return None
        return int(word) if word.isdigit() else word

    def fetch(self):
        """`* n FETCH (...)` as a mapping, or None for any other line."""
        line = self.next_line()
        parts = line.split(b" ", 3)
        if len(parts) < 4 or parts[0] != b"*" or parts[2] != b"FETCH":
            return None
        self.at = len(line) - len(parts[3])
        items = self.value()
        return {str(k).upper().replace(".PEEK", ""): v for k, v in zip(items[::2], items[1::2])}


def messages(folders):
    for folder in folders:
        yield from sorted(pathlib.Path(folder).glob("*.eml"))


def write(out, rows):
    with open(out, "w") as file:
        for name, row in rows:
            file.write(json.dumps([name, row]) + "\n")


CONFIG = """
base_dir = {0}/run
state_dir = {0}/state
mail_location = sdbox:{0}/mail
log_path = {0}/log
mail_uid = {1}
mail_gid = {2}
default_internal_user = {1}
default_login_user = {1}
default_internal_group = {2}
first_valid_uid = 1
first_valid_gid = 1
ssl = no
mail_fsync = never
mail_save_crlf = yes
namespace inbox {{
  inbox = yes
}}
"""


def peer(out, folders):
    home = tempfile.mkdtemp(prefix="structure-peer-")
    user, group = "nobody", "nogroup"
    for folder in ("run", "state", "mail"):
        os.mkdir(f"{home}/{folder}")
    pathlib.Path(f"{home}/dovecot.conf").write_text(CONFIG.format(home, user, group))
    subprocess.run(["chown", "-R", f"{user}:{group}", home], check=True)
    imap = subprocess.Popen(
        ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups",
         "doveadm", "-c", f"{home}/dovecot.conf", "exec", "imap"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "USER": "peer", "HOME": home})
    reader = Reader(imap.stdout)

    def until(tag):
        while True:
            line = reader.next_line()
            if line.startswith(tag + b" "):
                if not line.startswith(tag + b" OK"):
                    raise RuntimeError(line)
                return

    def rows():
        names = []
        reader.next_line()
        for path in messages(folders):
            body = path.read_bytes()
            imap.stdin.write(b"a APPEND INBOX {%d+}\r\n" % len(body) + body + b"\r\n")
            imap.stdin.flush()
            until(b"a")
            names.append(f"{path.parent.name}/{path.name}")
        imap.stdin.write(b"s SELECT INBOX\r\n")
        imap.stdin.flush()
        until(b"s")
        wanted = " ".join(item.replace("BODY[", "BODY.PEEK[") for item in ITEMS)
        for number, name in enumerate(names, 1):
            imap.stdin.write(f"f FETCH {number} ({wanted})\r\n".encode())
            imap.stdin.flush()
            row = reader.fetch()
            until(b"f")
            yield name, row

    try:
        write(out, rows())
    finally:
        imap.stdin.close()
        imap.wait()
        shutil.rmtree(home)


def ours(out, folders):
    paths = list(messages(folders))
    example = os.environ.get("STRUCTURE_EXAMPLE")
    command = [example] if example else ["cargo", "run", "-q", "-p", "mail", "--example", "structure", "--"]
    run = subprocess.Popen(command + [FIELDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    reader = Reader(run.stdout)

    def rows():
        for path in paths:
            run.stdin.write(f"{path}\n".encode())
            run.stdin.flush()
            yield f"{path.parent.name}/{path.name}", reader.fetch()

    write(out, rows())
    run.stdin.close()
    run.wait()


def has_parts(body, number):
    """Whether the part of a multipart has parts of its own: elsewhere Dovecot takes 1.1 for 1, which RFC 9051 has not."""
    if not isinstance(body[0], list) or len(body) <= number or not isinstance(body[number - 1], list):
        return False
    part = body[number - 1]
    return isinstance(part[0], list) or (part[0].lower(), part[1].lower()) == ("message", "rfc822")


def compare(peer_file, ours_file, listed_file, show):
    def load(name):
        with open(name) as file:
            return dict(json.loads(line) for line in file)

    theirs, mine = load(peer_file), load(ours_file)
    listed = set()
    if listed_file:
        for line in open(listed_file):
            if line.strip() and not line.startswith("#"):
                name, item, _ = line.split("\t", 2)
                listed.add((name, item))
    differing = []
    counts = dict.fromkeys(ITEMS, 0)
    for name, row in theirs.items():
        for item in ITEMS:
            if item in ("BODY[1.1]", "BODY[2.1]") and not has_parts(row["BODY"], int(item[5])):
                continue
            if mine.get(name, {}).get(item, "absent") != row.get(item, "absent"):
                counts[item] += 1
                differing.append((name, item))
    for item in ITEMS:
        share = 100 * (1 - counts[item] / len(theirs))
        mark = "*" if item in AIMED else " "
        print(f"{mark} {share:7.3f} %  {counts[item]:5} of {len(theirs)} differ  {item[:40]}")
    unlisted = [pair for pair in differing if pair not in listed]
    stale = listed - set(differing)
    for name, item in unlisted[:show]:
        print(f"\n{name}  {item}\n  peer {json.dumps(theirs[name].get(item))[:1500]}\n"
              f"  ours {json.dumps(mine.get(name, {}).get(item))[:1500]}")
    for name, item in sorted(stale):
        print(f"stale: {name}\t{item}")
    print(f"{len(unlisted)} differences are not listed, {len(stale)} listed ones are gone")
    return 1 if unlisted or stale else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("peer", "ours"):
        command = commands.add_parser(name)
        command.add_argument("out")
        command.add_argument("folders", nargs="+")
    command = commands.add_parser("compare")
    command.add_argument("peer")
    command.add_argument("ours")
    command.add_argument("--list")
    command.add_argument("--show", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.command == "compare":
        return compare(arguments.peer, arguments.ours, arguments.list, arguments.show)
    {"peer": peer, "ours": ours}[arguments.command](arguments.out, arguments.folders)
    return 0


if __name__ == "__main__":
    sys.exit(main())
