"""A collector of OpenTelemetry by the project's own types: collector.py FILE PORT EVERY. It writes each log record it takes to FILE, a
line each: its `log.record.uid`, a blank, and the record; BAD where it breaks a rule. One request of EVERY is answered 503."""
import glob
import gzip
import http.server
import os
import re
import sys
import threading

import opentelemetry
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service

FILE, PORT, EVERY = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
OUT = open(FILE, "ab", buffering=0)
LOCK = threading.Lock()
# The names of the semantic conventions, by the package that is made of them.
CONVENTIONS = os.path.join(list(opentelemetry.__path__)[0], "semconv")
NAMES = set()
for path in glob.glob(f"{CONVENTIONS}/**/attributes/*.py", recursive=True):
    with open(path, encoding="utf-8") as file:
        NAMES.update(re.findall(r'Final = "([^"]+)"', file.read()))
with open(f"{CONVENTIONS}/schemas.py", encoding="utf-8") as file:
    SCHEMAS = set(re.findall(r'"(https://opentelemetry.io/schemas/[^"]+)"', file.read()))
assert len(NAMES) > 500 and SCHEMAS, CONVENTIONS


def known(name):
    return name in NAMES or name.startswith(("keytrail.", "k8s.pod.label."))


def lines(body):
    request = service.ExportLogsServiceRequest.FromString(body)
    for logs in request.resource_logs:
        names = {pair.key: pair.value.string_value for pair in logs.resource.attributes}
        if names.get("service.name") != "keytrail" or not all(map(known, names)):
            yield f"BAD resource {names}"
        for scope in logs.scope_logs:
            if scope.schema_url not in SCHEMAS:
                yield f"BAD schema {scope.schema_url}"
            for record in scope.log_records:
                named = {pair.key: pair.value for pair in record.attributes}
                strange = [name for name in named if not known(name)]
                if strange or len(named) != len(record.attributes):
                    yield f"BAD attributes {strange}"
                if not (record.event_name.startswith("keytrail.") and record.time_unix_nano and record.severity_text):
                    yield f"BAD record {record}"
                # A gap that the sink itself tells has no id.
                uid = named["log.record.uid"].string_value if "log.record.uid" in named else "-"
                yield uid + " " + MessageToJson(record, indent=None)


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        good = self.path == "/v1/logs" and self.headers["Content-Type"] == "application/x-protobuf"
        with LOCK:
            Collector.count += 1
            status = 503 if Collector.count % EVERY == 0 else 200
            if not good:
                OUT.write(b"BAD request\n")
            elif status == 200:
                OUT.write("".join(line + "\n" for line in lines(body)).encode())
        answer = service.ExportLogsServiceResponse().SerializeToString()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Collector).serve_forever()
