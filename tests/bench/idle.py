"""Opens idle IMAP sessions over TLS and holds them until a line comes in: PORT USER PASSWORD COUNT."""

import resource
import socket
import ssl
import sys

port, user, password, count = sys.argv[1:]
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE


def read_until(stream, end):
    data = b""
    while end not in data:
        part = stream.recv(65536)
        assert part, "closed"
        data += part
    return data


streams = []
for number in range(int(count)):
    stream = context.wrap_socket(socket.create_connection(("127.0.0.1", int(port)), timeout=60))
    read_until(stream, b"\r\n")
    stream.sendall(f"a LOGIN {user} {password}\r\n".encode())
    read_until(stream, b"a OK")
    stream.sendall(b"b SELECT INBOX\r\n")
    read_until(stream, b"b OK")
    stream.sendall(b"c IDLE\r\n")
    read_until(stream, b"+ ")
    streams.append(stream)
print("idling", flush=True)
sys.stdin.readline()
