"""Receivers of what keytrail delivers: each writes what it gets to a file, a line each, and BAD where it breaks a rule.

receiver.py http FILE PORT KEYFILE [N] webhook: checks the signature; answers 503 to every fifth batch, or every Nth
receiver.py tcp|udp FILE PORT          syslog, RFC 5424; by TCP octets counted (RFC 6587)
receiver.py unix FILE PATH             syslog, a datagram each
"""
import hashlib
import hmac
import http.server
import json
import os
import re
import socket
import sys
import threading
import time

WAY, FILE, PLACE = sys.argv[1:4]
OUT = open(FILE, "ab", buffering=0)
LOCK = threading.Lock()
EVERY = int(sys.argv[5]) if len(sys.argv) > 5 else 5
# RFC 5424, section 6: a head of seven parts, nil structured data as keytrail sends it.
MESSAGE = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) - (.*)",
    re.S,
)


def write(lines):
    with LOCK:
        OUT.write(b"".join(line + b"\n" for line in lines))


def syslog(message):
    found = MESSAGE.fullmatch(message)
    if not found or int(found[1]) > 191 or b"\n" in found[7]:
        return b"BAD " + message[:200]
    return found[7]


class Webhook(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are written apart: as any server, without waiting for the client's acknowledgement of the first.
    disable_nagle_algorithm = True
    count = 0

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            # Whoever sent it was killed.
            self.close_connection = True
            return
        time_stamp = self.headers["Keytrail-Timestamp"]
        with open(sys.argv[4], "rb") as file:
            key = file.read().rstrip()
        mac = hmac.new(key, time_stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        good = hmac.compare_digest("sha256=" + mac, self.headers["Keytrail-Signature"])
        good = good and abs(time.time() - int(time_stamp)) < 300
        Webhook.count += 1
        status = 503 if Webhook.count % EVERY == 0 else 200
        if not good:
            write([b"BAD signature"])
        elif status == 200 and self.headers["Content-Type"] == "application/json":
            write(json.dumps(event, separators=(",", ":")).encode() for event in json.loads(body))
        elif status == 200:
            write(body.splitlines())
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


def connection(peer):
    with peer.makefile("rb") as stream:
        while True:
            length = b""
            while (digit := stream.read(1)) not in (b"", b" "):
                length += digit
            if digit == b"":
                return
            if not re.fullmatch(rb"[1-9]\d*", length):
                return write([b"BAD length " + length])
            message = stream.read(int(length))
            if len(message) == int(length):
                write([syslog(message)])


def tcp():
    listener = socket.create_server(("127.0.0.1", int(PLACE)))
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=connection, args=(peer,), daemon=True).start()


def datagrams(family, place):
    with socket.socket(family, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        receiver.bind(place)
        while True:
            write([syslog(receiver.recv(1 << 20))])


if WAY == "http":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(PLACE)), Webhook)
    server.serve_forever()
elif WAY == "tcp":
    tcp()
elif WAY == "udp":
    datagrams(socket.AF_INET, ("127.0.0.1", int(PLACE)))
else:
    if os.path.exists(PLACE):
        os.unlink(PLACE)
    datagrams(socket.AF_UNIX, PLACE)
