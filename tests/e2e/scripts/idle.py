"""Idles over TLS until the server says something: [HOST:]PORT USER PASSWORD."""

import socket
import ssl
import sys

address, user, password = sys.argv[1:]
host, _, port = address.rpartition(":")
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
stream = context.wrap_socket(socket.create_connection((host or "127.0.0.1", int(port)), timeout=30))
lines = stream.makefile("rb")


def until(start):
    while True:
        line = lines.readline()
        assert line, "closed"
        if line.startswith(start):
            return line


until(b"* OK")
stream.sendall(f'a LOGIN {user} "{password}"\r\nb SELECT INBOX\r\n'.encode())
assert until(b"a ").startswith(b"a OK")
assert until(b"b ").startswith(b"b OK")
stream.sendall(b"c IDLE\r\n")
until(b"+")
print("idling", flush=True)
while True:
    line = lines.readline()
    assert line, "closed"
    # "Still here" lines are allowed at any time (RFC 2177).
    if not line.startswith(b"* OK"):
        print(line.decode().strip(), flush=True)
        break
stream.sendall(b"DONE\r\n")
assert until(b"c ").startswith(b"c OK")
stream.sendall(b"d LOGOUT\r\n")
until(b"d OK")
