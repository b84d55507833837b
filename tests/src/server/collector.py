"""A collector of OpenTelemetry by the project's own types: collector.py FILE PORT EVERY [ids]. It writes each log record it takes to FILE, a
line each: its `log.record.uid`, a blank, and the record; of metrics each point as `metric` and an object; BAD where one breaks a
rule; with `ids` of records the first alone, unchecked. One request of EVERY is answered 503."""
import glob
import gzip
import http.server
import json
import os
import re
import sys
import threading

import opentelemetry
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service

FILE, PORT, EVERY = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ONLY_IDS = sys.argv[4:] == ["ids"]
OUT = open(FILE, "ab", buffering=0)
LOCK = threading.Lock()
# The names of the semantic conventions, by the package that is made of them.
CONVENTIONS = os.path.join(list(opentelemetry.__path__)[0], "semconv")
NAMES = set()
for path in glob.glob(f"{CONVENTIONS}/**/attributes/*.py", recursive=True):
    with open(path, encoding="utf-8") as file:
        NAMES.update(re.findall(r'Final = "([^"]+)"', file.read()))
METRICS = set()
for path in glob.glob(f"{CONVENTIONS}/**/metrics/*.py", recursive=True):
    with open(path, encoding="utf-8") as file:
        METRICS.update(re.findall(r'Final = "([^"]+)"', file.read()))
with open(f"{CONVENTIONS}/schemas.py", encoding="utf-8") as file:
    SCHEMAS = set(re.findall(r'"(https://opentelemetry.io/schemas/[^"]+)"', file.read()))
assert len(NAMES) > 500 and len(METRICS) > 100 and SCHEMAS, CONVENTIONS


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


def ids(body):
    request = service.ExportLogsServiceRequest.FromString(body)
    for logs in request.resource_logs:
        for scope in logs.scope_logs:
            for record in scope.log_records:
                yield next((pair.value.string_value for pair in record.attributes if pair.key == "log.record.uid"), "-")


def points(body):
    """What is said of each point, and of the sum it is of."""
    request = metrics_service.ExportMetricsServiceRequest.FromString(body)
    for all_of_one in request.resource_metrics:
        names = {pair.key: pair.value.string_value for pair in all_of_one.resource.attributes}
        if names.get("service.name") != "keytrail" or not all(map(known, names)):
            yield f"BAD resource {names}"
        for scope in all_of_one.scope_metrics:
            if scope.schema_url not in SCHEMAS:
                yield f"BAD schema {scope.schema_url}"
            for metric in scope.metrics:
                if not (metric.name in METRICS or metric.name.startswith("keytrail.")) or not (metric.unit and metric.description):
                    yield f"BAD metric {metric.name}"
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                if kind not in ("sum", "gauge") or not data.data_points:
                    yield f"BAD data {metric.name} {kind}"
                for point in data.data_points:
                    labels = {pair.key: pair.value.string_value for pair in point.attributes}
                    counts = kind == "sum" and data.is_monotonic
                    wrong = counts and not 0 < point.start_time_unix_nano <= point.time_unix_nano
                    if wrong or not point.time_unix_nano or not all(map(known, labels)) or not point.WhichOneof("value"):
                        yield f"BAD point {metric.name} {point}"
                    yield "metric " + json.dumps({
                        "name": metric.name,
                        "labels": labels,
                        "value": getattr(point, point.WhichOneof("value")),
                        "temporality": data.aggregation_temporality if kind == "sum" else 0,
                        "counts": counts,
                        "begin": point.start_time_unix_nano,
                        "end": point.time_unix_nano,
                    })


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count = 0

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            # Whoever sent it was killed.
            self.close_connection = True
            return
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        read = {"/v1/logs": ids if ONLY_IDS else lines, "/v1/metrics": points}.get(self.path)
        good = read and self.headers["Content-Type"] == "application/x-protobuf"
        with LOCK:
            Collector.count += 1
            status = 503 if Collector.count % EVERY == 0 else 200
            if not good:
                OUT.write(b"BAD request\n")
            elif status == 200:
                OUT.write("".join(line + "\n" for line in read(body)).encode())
        answer = service.ExportLogsServiceResponse().SerializeToString()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Collector).serve_forever()
