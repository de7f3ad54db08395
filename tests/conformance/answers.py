#!/usr/bin/env python3
"""Whether commands are answered with OK, NO or BAD as the RFCs want, by us over the socket and by Dovecot.

    answers.py [answers.tsv]

The file has a command on each line, run in its order in one session, with what the RFC wants; where Dovecot answers
otherwise, that and why. So a mistake in the file shows on one side or the other.
"""

import pathlib
import re
import sys

sys.dont_write_bytecode = True
import structure  # noqa: E402

LITERAL = re.compile(rb"\{(\d+)\}\r\n$")


def ask(reader, send, tag, command):
    """Sends a command; its answer, and the untagged lines before it. A continuation is answered with an empty line."""
    send(tag + b" " + command + b"\r\n")
    untagged = []
    while True:
        line = reader.next_line()
        if line.startswith(tag + b" "):
            return line.decode("latin1").split(" ", 1)[1].strip(), untagged
        if line.startswith(b"+"):
            send(b"\r\n")
            continue
        while literal := LITERAL.search(line):
            reader.stream.read(int(literal[1]))
            line = reader.next_line()
        untagged.append(line)


def rows(name):
    for number, line in enumerate(open(name), 1):
        if line.strip() and not line.startswith("#"):
            command, expected, *peer = line.rstrip("\n").split("\t")
            yield number, command.encode().decode("unicode_escape").encode("latin1"), expected, peer


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).with_name("answers.tsv")
    wrong = count = 0
    for who, server in (("postrider", structure.postrider), ("dovecot", structure.dovecot)):
        with server() as (reader, send):
            for number, command, expected, peer in rows(name):
                if who == "dovecot" and peer:
                    expected = peer[0]
                answer, _ = ask(reader, send, b"t%d" % number, command)
                count += 1
                if answer.startswith("BAD"):
                    # Too many of them in a row end a connection.
                    ask(reader, send, b"n%d" % number, b"NOOP")
                if not answer.startswith(expected):
                    wrong += 1
                    print(f"line {number}, {who}: {command!r}\n  expected {expected}\n  answered {answer}")
    print(f"{count} answers, {wrong} not as expected")
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main())
