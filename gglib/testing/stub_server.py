# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs
"""A stub of an OpenAI-compatible engine: ``stub_server.py OPTIONS-AS-JSON``. Stdlib only, quick.

Options, all optional but ``port``:

``model_name``    what answers name
``gate``          a FIFO: loading ends when a writer opens and closes it
``load_s``        loading ends after so many seconds
``listen``        false: never opens its port
``share_port``    binds with SO_REUSEPORT
``certificate``   a PEM file with a certificate and its key: it speaks HTTPS
``lines``         printed at the start
``complaints``    printed at the start on stderr
``noise_bytes``   so much output at the start, in lines of 100
``exit_status``   exits with it instead of listening
``deaf``          ignores SIGTERM
``tells_end``     prints ``asked to stop`` at a SIGTERM, of which it then dies
``health_path``   where it tells that it is ready, in place of ``/health``
``health_status`` with what status, in place of 200
``props``         what it tells of itself under ``/props``, in place of 404
``children``      a list of ``group``, ``session``, ``orphan``, ``deaf``: processes it starts
``record``        a file that gets one JSON line per request
``ballast_bytes`` memory it holds
``chunks``        how many pieces a streamed answer has
``needs``         a file without which loading fails
``rations``       files, of which loading takes one for itself: without a free one it fails for
                  want of memory

A request with ``"pause_after": n`` gets n pieces of its stream, and no more; with
``"takes_s": t`` its answer takes so many seconds; with ``"exit_status": n`` it ends the server.

Prints ``child PID`` for each child, ``listening``, ``ready at SECONDS`` (Unix). Beside the API it
serves ``POST /stub/exit`` (the body is the status) and ``POST /stub/print``.
"""

import json
import os
import signal
import socket
import sys
import threading
import time


def say(text, stream=1):
    """Print a line in one write, whatever the thread."""
    os.write(stream, (text + "\n").encode())


def end(number, frame):
    """Say that it was asked to, and die of the signal."""
    say("asked to stop")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class Stub:
    def __init__(self, options):
        self.options = options
        self.name = options.get("model_name", "stub")
        self.ready = threading.Event()
        self.key = os.environ.get("STUB_API_KEY")
        self.ballast = b"\1" * options.get("ballast_bytes", 0)

    def load(self):
        gate = self.options.get("gate")
        if gate:
            with open(gate, "rb") as fifo:  # noqa: PTH123 - pathlib costs start time
                fifo.read()
        time.sleep(self.options.get("load_s", 0))
        needed = self.options.get("needs")
        if needed and not os.path.exists(needed):  # noqa: PTH110
            say(f"error: {needed} is missing")
            os._exit(1)
        if "rations" in self.options and not self.takes_ration():
            say("error: out of memory")
            os._exit(1)
        say(f"ready at {time.time()!r}")
        self.ready.set()

    def takes_ration(self):
        import fcntl  # not everywhere, and seldom wanted

        for path in self.options["rations"]:
            self.ration = open(path, "w")  # noqa: PTH123, SIM115 - held until the process ends
            try:
                fcntl.flock(self.ration, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return True
        return False

    def listen(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.options.get("share_port"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind(("127.0.0.1", self.options["port"]))
        except OSError as error:
            say(f"couldn't bind HTTP server socket: {error.strerror}")
            sys.exit(1)
        listener.listen(256)
        say("listening")
        return listener

    def serve(self, listener):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection):
        try:
            with self.secured(connection) as spoken, spoken.makefile("rwb") as stream:
                while self.exchange(stream):
                    stream.flush()
        except (OSError, ValueError):
            return

    def secured(self, connection):
        if "certificate" not in self.options:
            return connection
        import ssl  # slow to load, and seldom wanted

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.options["certificate"])
        return context.wrap_socket(connection, server_side=True)

    def exchange(self, stream):
        request = stream.readline().split()
        if len(request) < 2:
            return False
        headers = {}
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            headers[name.lower().decode()] = value.strip().decode()
        body = stream.read(int(headers.get("content-length", 0)))
        method, path = request[0].decode(), request[1].decode()
        if self.options.get("record"):
            entry = {"method": method, "path": path, "headers": headers, "body": body.decode()}
            with open(self.options["record"], "a") as file:  # noqa: PTH123
                file.write(json.dumps(entry) + "\n")
        self.answer(stream, path, headers, body)
        stream.flush()
        return headers.get("connection", "").lower() != "close"

    def answer(self, stream, path, headers, body):
        if path == "/stub/exit":
            os._exit(int(body or b"1"))
        if path == "/stub/print":
            say(body.decode())
            return self.send(stream, 200, {})
        if not self.ready.is_set():
            return self.refuse(stream, 503, "Loading model", "unavailable_error")
        if path == self.options.get("health_path", "/health"):
            return self.send(stream, self.options.get("health_status", 200), {"status": "ok"})
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            return self.refuse(stream, 401, "Invalid API Key", "authentication_error")
        if path == "/props" and "props" in self.options:
            return self.send(stream, 200, self.options["props"])
        if path == "/v1/models":
            return self.send(stream, 200, {"object": "list", "data": [{"id": self.name}]})
        if path == "/v1/embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}]
            return self.send(stream, 200, {"object": "list", "data": data, "model": self.name})
        if path == "/v1/chat/completions":
            return self.chat(stream, json.loads(body))
        return self.refuse(stream, 404, "File Not Found", "not_found_error")

    def chat(self, stream, request):
        if "exit_status" in request:
            os._exit(request["exit_status"])
        base = {"id": "chatcmpl-stub", "created": 0, "model": self.name}
        takes_s = request.get("takes_s", 0)
        if not request.get("stream"):
            message = {"role": "assistant", "content": f"I am {self.name}"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
            answer = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
            time.sleep(takes_s)
            return self.send(stream, 200, answer)
        stream.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        count = self.options.get("chunks", 3)
        for number in range(count):
            if number == request.get("pause_after"):
                threading.Event().wait()
            if takes_s:
                time.sleep(takes_s / count)
            delta = {"content": f"{number} "}
            end = "stop" if number == count - 1 else None
            choice = {"index": 0, "delta": delta, "finish_reason": end}
            piece = {**base, "object": "chat.completion.chunk", "choices": [choice]}
            self.chunk(stream, b"data: " + json.dumps(piece).encode() + b"\n\n")
        self.chunk(stream, b"data: [DONE]\n\n")
        stream.write(b"0\r\n\r\n")
        return None

    @staticmethod
    def chunk(stream, content):
        stream.write(b"%x\r\n%s\r\n" % (len(content), content))
        stream.flush()

    def refuse(self, stream, status, message, kind):
        self.send(stream, status, {"error": {"message": message, "type": kind, "code": status}})

    @staticmethod
    def send(stream, status, document):
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
        stream.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


def start_child(kind):
    """Start a process that waits for a signal, for ever."""
    told, tells = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if kind in ("session", "orphan"):
            os.setsid()
        if kind == "orphan" and os.fork() != 0:
            os._exit(0)
        if kind == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(tells, str(os.getpid()).encode())
        os.close(tells)
        while True:
            signal.pause()
    os.close(tells)
    if kind == "orphan":
        os.waitpid(pid, 0)
    say(f"child {os.read(told, 20).decode()}")
    os.close(told)


def main():
    """Do what the options say."""
    options = json.loads(sys.argv[1])
    if options.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif options.get("tells_end"):
        signal.signal(signal.SIGTERM, end)
    for line in options.get("lines", []):
        say(line)
    for line in options.get("complaints", []):
        say(line, 2)
    for number in range(options.get("noise_bytes", 0) // 100):
        say(f"{number:099d}")
    for kind in options.get("children", []):
        start_child(kind)
    stub = Stub(options)
    if "exit_status" in options:
        sys.exit(options["exit_status"])
    if not options.get("listen", True):
        say("not listening")
        while True:
            signal.pause()
    listener = stub.listen()
    threading.Thread(target=stub.serve, args=(listener,), daemon=True).start()
    stub.load()
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
