"""A pod over CRI, by a client that is not ours: cri.py FILE SOCKET UID IMAGE VARIABLE COMMAND... makes a pod on the host's network with
one container, writes the container's id to FILE, and removes both at SIGTERM."""
import signal
import sys

import grpc

FILE, SOCKET, UID, IMAGE, VARIABLE = sys.argv[1:6]
COMMAND = sys.argv[6:]
SERVICE = "/runtime.v1.RuntimeService/"
HOST, CONTAINER = 2, 1


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, content):
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def numeral(number, value):
    return varint(number << 3) + varint(value)


def pair(number, key, value):
    return field(number, field(1, key) + field(2, value))


channel = grpc.insecure_channel("unix:" + SOCKET, options=[("grpc.default_authority", "localhost")])


def call(method, request):
    ask = channel.unary_unary(SERVICE + method, request_serializer=bytes, response_deserializer=bytes)
    return ask(request, timeout=60, wait_for_ready=True)


def identifier(answer):
    """Field 1, of less than 128 bytes."""
    assert answer[0] == 0x0A, answer
    return answer[2 : 2 + answer[1]].decode()


spaces = field(1, numeral(1, HOST) + numeral(2, CONTAINER))
pod = (
    field(1, field(1, "api-0") + field(2, UID) + field(3, "payments"))
    + pair(6, "app", "api")
    + pair(6, "io.kubernetes.pod.name", "api-0")
    + pair(6, "io.kubernetes.pod.uid", UID)
    + pair(7, "kubernetes.io/config", VARIABLE)
    + field(8, field(1, "/kubepods/besteffort/pod" + UID) + field(2, spaces))
)
key, value = VARIABLE.split("=", 1)
container = (
    field(1, field(1, "app"))
    + field(2, field(1, IMAGE))
    + b"".join(field(3, word) for word in COMMAND)
    + pair(6, key, value)
    + field(15, field(2, field(3, numeral(1, HOST) + numeral(2, CONTAINER))))
)
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
sandbox = identifier(call("RunPodSandbox", field(1, pod)))
try:
    made = identifier(call("CreateContainer", field(1, sandbox) + field(2, container) + field(3, pod)))
    call("StartContainer", field(1, made))
    with open(FILE, "w", encoding="utf-8") as file:
        file.write(made + "\n")
    while True:
        signal.pause()
finally:
    call("StopPodSandbox", field(1, sandbox))
    call("RemovePodSandbox", field(1, sandbox))
