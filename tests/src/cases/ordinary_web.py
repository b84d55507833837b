"""A web service: its configuration, its database, an interface it pays by, its log."""
import http.client
import re
import socket
import sys
import time

http_port, database_port, log = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
config = dict(line.split("=", 1) for line in open(".env").read().split("\n") if "=" in line)
password = re.match("postgres://[^:]*:([^@]*)@", config["DATABASE_URL"])[1]
with socket.create_connection(("127.0.0.1", database_port)) as database:
    database.sendall(b"p" + password.encode() + b"\0")
    database.recv(1)
connection = http.client.HTTPConnection("127.0.0.1", http_port)
for order in range(3):
    connection.request(
        "POST", f"/v1/charges/{order}", b"amount=1", {"Authorization": "Bearer " + config["STRIPE_SECRET_KEY"]}
    )
    status = connection.getresponse().read()
    with open(log, "a") as out:
        print(time.time(), "order", order, status, file=out)
