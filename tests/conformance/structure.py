#!/usr/bin/env python3
"""What IMAP tells about a message, ours beside Dovecot's, on the same bytes.

    structure.py peer  OUT FOLDER...     puts every .eml file into a private Dovecot and keeps what it answers
    structure.py ours  OUT FOLDER...     the same with `postrider dev` ($POSTRIDER_BIN), over its IMAP socket
    structure.py compare PEER OURS --list differences.tsv [--show N]

Both get every file by APPEND, octet by octet, and are asked the same FETCH. Dovecot is not started as a server: its
`imap` runs pre-authenticated on a pipe, with a configuration, mail folder and user of its own in a temporary folder.
Ours runs on free loopback ports with its data in a temporary folder.

`compare` fails when a difference is not in the list, a listed one is gone, a listed one names no RFC, a server did not
take a message, or too little is equal; and when it would not see one of these that is planted in what it was given.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

FIELDS = "FROM TO CC SUBJECT DATE MESSAGE-ID CONTENT-TYPE RECEIVED X-MISSING"
ITEMS = [
    "RFC822.SIZE", "ENVELOPE", "BODY", "BODYSTRUCTURE", "BODY[]", "BODY[HEADER]", "BODY[TEXT]", "BODY[1]",
    "BODY[1.MIME]", "BODY[2]", "BODY[2.MIME]", "BODY[1.1]", "BODY[2.1]", "BODY[2.HEADER]", "BODY[2.TEXT]",
    f"BODY[HEADER.FIELDS ({FIELDS})]", "BODY[TEXT]<20.100>",
]
# Those that the aim speaks of.
AIMED = {"RFC822.SIZE", "ENVELOPE", "BODYSTRUCTURE", "BODY[1]", f"BODY[HEADER.FIELDS ({FIELDS})]"}
AIM_PERCENT = 99.5
# Messages whose answers are awaited together. The answers to so many APPENDs fit into any pipe's buffer.
BATCH = 50


# RFC 9051 9: `quoted`, what is escaped in it, and atoms with the brackets of a section.
QUOTED = re.compile(rb'"((?:[^"\\\r\n]|\\["\\])*)"')
ESCAPED = re.compile(rb"\\(.)")
WORD = re.compile(rb"(?:[^ ()\[\]\r\n]|\[[^\]]*\])+")


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
        while self.line[self.at] == 0x20:
            self.at += 1
        first = self.line[self.at]
        if first == 0x28:  # (
            self.at += 1
            items = []
            while True:
                while self.line[self.at] == 0x20:
                    self.at += 1
                if self.line[self.at] == 0x29:  # )
                    self.at += 1
                    return items
                items.append(self.value())
        if first == 0x7b:  # {
            end = self.line.index(b"}\r\n", self.at)
            data = self.stream.read(int(self.line[self.at + 1:end]))
            self.next_line()
            return data.decode("latin1")
        quoted = QUOTED.match(self.line, self.at)
        if quoted:
            self.at = quoted.end()
            return ESCAPED.sub(rb"\1", quoted[1]).decode("latin1")
        word = WORD.match(self.line, self.at)
        if not word:
            raise RuntimeError(f"not a value: {self.line[self.at:self.at + 100]!r}")
        self.at = word.end()
        text = word[0].decode("latin1")
        if text.upper() == "NIL":
            return None
        return int(text) if text.isdigit() else text

    def answers(self, tag):
        """The lines up to the one with this tag, which is given last."""
        while True:
            line = self.next_line()
            yield line
            if line.startswith(tag + b" "):
                return
            if line.startswith(b"* BYE"):
                raise RuntimeError(line)

    def fetched(self, line):
        """`* n FETCH (...)` as a mapping, or None for any other line."""
        parts = line.split(b" ", 3)
        if len(parts) < 4 or parts[0] != b"*" or parts[2] != b"FETCH":
            return None
        self.at = len(line) - len(parts[3])
        items = self.value()
        if self.line[self.at:] not in (b")\r\n", b"\r\n"):
            raise RuntimeError(f"behind a FETCH response stands {self.line[self.at:]!r}")
        return {str(k).upper(): v for k, v in zip(items[::2], items[1::2])}


def messages(folders):
    for folder in folders:
        yield from sorted(pathlib.Path(folder).glob("*.eml"))


def collect(out, folders, reader, send):
    """Appends all messages and writes what is answered about each; a message that is refused has a row that says so.
    Returns the names of those whose octets do not come back as they went in."""
    paths = list(messages(folders))
    appended, refused, changed = {}, [], []
    for start in range(0, len(paths), BATCH):
        batch = paths[start:start + BATCH]
        for number, path in enumerate(batch):
            body = path.read_bytes()
            send(b"a%d APPEND INBOX {%d+}\r\n" % (number, len(body)) + body + b"\r\n")
        for number, path in enumerate(batch):
            *_, answer = reader.answers(b"a%d" % number)
            uid = re.match(rb"a\d+ OK \[APPENDUID \d+ (\d+)\]", answer)
            if uid:
                appended[int(uid[1])] = path
            else:
                refused.append((path, answer.decode("latin1").split(" ", 1)[1].strip()))
    send(b"s SELECT INBOX\r\n")
    *_, answer = reader.answers(b"s")
    if not answer.startswith(b"s OK"):
        raise RuntimeError(answer)
    wanted = " ".join(item.replace("BODY[", "BODY.PEEK[") for item in ITEMS)
    uids = sorted(appended)
    with open(out, "w") as file:
        def write(path, row):
            file.write(json.dumps([name_of(path), row]) + "\n")

        for path, answer in refused:
            write(path, {"refused": answer})
        for start in range(0, len(uids), BATCH):
            batch = uids[start:start + BATCH]
            send(f"f UID FETCH {batch[0]}:{batch[-1]} (UID {wanted})\r\n".encode())
            for line in reader.answers(b"f"):
                row = reader.fetched(line)
                if row:
                    path = appended.pop(row.pop("UID"))
                    write(path, row)
                    # No literal holds a NUL (RFC 9051 9, CHAR8).
                    if path.read_bytes().replace(b"\0", b"\x80").decode("latin1") != row["BODY[]"]:
                        changed.append(name_of(path))
                elif line.startswith(b"f ") and not line.startswith(b"f OK"):
                    raise RuntimeError(line)
    print(f"{len(paths)} messages: {len(uids)} appended, {len(refused)} refused, {len(appended)} not answered about; "
          f"{len(changed)} do not come back as they went in")
    for path, answer in refused:
        print(f"refused: {name_of(path)}  {answer}")
    for name in changed:
        print(f"changed: {name}")
    return changed


def name_of(path):
    return f"{path.parent.name}/{path.name}"


CONFIG = """
base_dir = {0}/run
state_dir = {0}/state
mail_location = mdbox:{0}/mail
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
mdbox_rotate_size = 100M
namespace inbox {{
  inbox = yes
}}
"""


@contextlib.contextmanager
def dovecot():
    """A private Dovecot with an empty INBOX: a reader behind its greeting, and a function that sends."""
    home = tempfile.mkdtemp(prefix="structure-peer-")
    user, group = "nobody", "nogroup"
    for folder in ("run", "state", "mail"):
        os.mkdir(f"{home}/{folder}")
    pathlib.Path(f"{home}/dovecot.conf").write_text(CONFIG.format(home, user, group))
    subprocess.run(["chown", "-R", f"{user}:{group}", home], check=True)
    with open(f"{home}/stderr", "w") as stderr:
        imap = subprocess.Popen(
            ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups",
             "doveadm", "-c", f"{home}/dovecot.conf", "exec", "imap"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            env={**os.environ, "USER": "peer", "HOME": home})
    reader = Reader(imap.stdout)

    def send(octets):
        imap.stdin.write(octets)
        imap.stdin.flush()

    try:
        reader.next_line()
        yield reader, send
        imap.stdin.close()
    except Exception:
        sys.stderr.write(open(f"{home}/stderr").read())
        raise
    finally:
        imap.terminate()
        imap.wait()
        shutil.rmtree(home)


# The ports of `postrider dev` before the offset is added.
PORTS = [2525, 2587, 2465, 2424, 2143, 2993, 2080]
IMAP = 2143


def free_offset():
    for turn in range(400):
        offset = 3_000 + (os.getpid() + turn * 37) % 400 * 70
        try:
            for port in PORTS:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
            return offset
        except OSError:
            pass
    raise RuntimeError("no free ports")


def connect(port, server, seconds):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=120)
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextlib.contextmanager
def postrider():
    """`postrider dev` with alice logged in: a reader and a function that sends. What its log should not hold, and an
    end that is not clean, are errors."""
    home = tempfile.mkdtemp(prefix="structure-ours-")
    offset = free_offset()
    with open(f"{home}/log", "w") as log:
        server = subprocess.Popen(
            [os.environ["POSTRIDER_BIN"], "dev", "--data", f"{home}/data", "--port-offset", str(offset)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        stream = connect(IMAP + offset, server, 60)
        reader = Reader(stream.makefile("rb"))
        reader.next_line()
        stream.sendall(b"l LOGIN alice@example.test postrider\r\n")
        *_, answer = reader.answers(b"l")
        if not answer.startswith(b"l OK"):
            raise RuntimeError(answer)
        yield reader, stream.sendall
        stream.close()
        server.terminate()
        if server.wait(60) != 0:
            raise RuntimeError(f"the server ended with {server.returncode}")
        loud = [line for line in open(f"{home}/log") if re.search(r" WARN | ERROR |panicked", line)]
        if loud:
            raise RuntimeError("unexpected lines in the log:\n" + "".join(loud[:20]))
    except Exception:
        sys.stderr.writelines(open(f"{home}/log").readlines()[-20:])
        raise
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
        shutil.rmtree(home)


def peer(out, folders):
    with dovecot() as (reader, send):
        collect(out, folders, reader, send)


def ours(out, folders):
    with postrider() as (reader, send):
        if collect(out, folders, reader, send):
            raise RuntimeError("a message never changes: RFC 9051 2.3.1.1")


SECTION = re.compile(r"BODY\[([\d.]+?)(?:\.(MIME|HEADER|TEXT))?\]")


def is_message(part):
    return isinstance(part[0], str) and (part[0].lower(), part[1].lower()) == ("message", "rfc822")


def exists(body, item):
    """Whether a message with this BODY has what the item names: the part, and for HEADER and TEXT a message in it."""
    section = SECTION.match(item)
    if not section:
        return True
    whole = True
    for number in map(int, section[1].split(".")):
        if is_message(body) and not whole:
            body, whole = body[8], True
        if isinstance(body[0], list):
            if number > len(body) or not isinstance(body[number - 1], list):
                return False
            body = body[number - 1]
        elif number != 1 or not whole:
            return False
        whole = False
    return section[2] not in ("HEADER", "TEXT") or is_message(body)


def load(name):
    with open(name) as file:
        return dict(json.loads(line) for line in file)


def load_list(name):
    """Message, item and reason of each difference that is known."""
    with open(name) as file:
        lines = [line.rstrip("\n") for line in file if line.strip() and not line.startswith("#")]
    return {tuple(line.split("\t", 2)[:2]): line.split("\t", 2)[2] for line in lines}


def key(item):
    """The name under which an item is answered: of a partial only the offset is repeated (RFC 9051 7.5.2)."""
    return re.sub(r"<(\d+)\.\d+>$", r"<\1>", item)


# One line of the list for them all: what is asked for is not there, and we say NIL.
ABSENT = ("*", "absent part")


def differences(theirs, mine):
    """Every pair of message and item that is answered differently, or by one of the two alone."""
    found = set()
    for name in theirs.keys() | mine.keys():
        row, other = theirs.get(name, {}), mine.get(name, {})
        if not row or not other or "refused" in row or "refused" in other:
            found.add((name, "APPEND"))
            continue
        for item in ITEMS:
            theirs_is, ours_is = row.get(key(item), "absent"), other.get(key(item), "absent")
            if theirs_is != ours_is:
                absent = ours_is is None and not exists(row["BODY"], item)
                found.add(ABSENT if absent else (name, item))
    return found


def faults(differing, listed, total):
    """What makes the comparison fail, a line each."""
    out = [f"not listed: {name}\t{item}" for name, item in sorted(differing - listed.keys())]
    out += [f"stale: {name}\t{item}" for name, item in sorted(listed.keys() - differing)]
    out += [f"the reason names no RFC: {name}\t{item}" for (name, item), reason in listed.items()
            if not re.search(r"RFC \d+ [\d.]+", reason)]
    for item in ITEMS:
        share = 100 * (1 - sum(i in (item, "APPEND") for _, i in differing) / total)
        if item in AIMED and share < AIM_PERCENT:
            out.append(f"{share:.3f} % of {item} are equal, not {AIM_PERCENT}")
    return out


def planted(theirs, mine, listed):
    """Plants a fault of each kind into what was given; those that go unseen, and how many there were."""
    differing = differences(theirs, mine)
    known = set(faults(differing, listed, len(theirs)))
    name = next(name for name in sorted(mine) if (name, "ENVELOPE") not in differing)

    def with_answer(row):
        others = {pair for pair in differing if pair[0] != name}
        return others | differences({name: theirs[name]}, {name: row} if row else {})

    envelope = [*mine[name]["ENVELOPE"][:-1], "<planted@example.org>"]
    cases = {
        f"not listed: {name}\tENVELOPE": (with_answer({**mine[name], "ENVELOPE": envelope}), listed),
        f"not listed: {name}\tBODY[1]": (with_answer({**mine[name], "BODY[1]": None}), listed),
        f"not listed: {name}\tAPPEND": (with_answer(None), listed),
        f"stale: {name}\tENVELOPE": (differing, {**listed, (name, "ENVELOPE"): "RFC 9051 7.5.2"}),
    }
    for pair in sorted(listed.keys() & differing)[-1:]:
        without = {other: reason for other, reason in listed.items() if other != pair}
        cases["not listed: " + "\t".join(pair)] = (differing, without)
        cases["the reason names no RFC: " + "\t".join(pair)] = (differing, {**listed, pair: "because"})
    unseen = []
    for expected, (found, listing) in cases.items():
        seen = set(faults(found, listing, len(theirs))) - known
        if seen != {expected}:
            unseen.append(f"planted and not seen: {expected} (seen: {sorted(seen)})")
    return unseen, len(cases)


def compare(peer_file, ours_file, listed_file, show):
    theirs, mine, listed = load(peer_file), load(ours_file), load_list(listed_file)
    differing = differences(theirs, mine)
    for item in [*ITEMS, "APPEND"]:
        count = sum(differs == item for _, differs in differing)
        share = 100 * (1 - count / len(theirs))
        mark = "*" if item in AIMED else " "
        print(f"{mark} {share:7.3f} %  {count:5} of {len(theirs)} differ  {item[:40]}")
    wrong = faults(differing, listed, len(theirs))
    for name, item in sorted(differing - listed.keys())[:show]:
        print(f"\n{name}  {item}\n  peer {json.dumps(theirs.get(name, {}).get(key(item)))[:1500]}\n"
              f"  ours {json.dumps(mine.get(name, {}).get(key(item)))[:1500]}")
    unseen, count = planted(theirs, mine, listed)
    for line in wrong + unseen:
        print(line)
    print(f"{len(differing)} differences, {len(listed)} listed; {len(wrong)} faults; "
          f"{count - len(unseen)} of {count} planted faults seen")
    return 1 if wrong or unseen else 0


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
    command.add_argument("--list", required=True)
    command.add_argument("--show", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.command == "compare":
        return compare(arguments.peer, arguments.ours, arguments.list, arguments.show)
    {"peer": peer, "ours": ours}[arguments.command](arguments.out, arguments.folders)
    return 0


if __name__ == "__main__":
    sys.exit(main())
