"""Files below a directory for whoever has a password; anything else for whoever has a token; a database that is silent."""
import http.server
import os
import socket
import sys
import threading


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if not self.headers.get("Authorization"):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="origin"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith("/origin.git/"):
            super().do_GET()
        else:
            self.answer()

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = answer

    def log_message(self, *_):
        pass


os.chdir(sys.argv[1])
web = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
database = socket.create_server(("127.0.0.1", 0))
print(database.getsockname()[1], flush=True)


def accept():
    while True:
        connection, _ = database.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"R")


threading.Thread(target=accept, daemon=True).start()
web.serve_forever()
