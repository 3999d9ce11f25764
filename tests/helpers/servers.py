"""Servers of one file that behave as badly as servers do."""

import re
import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Seconds between two pieces of what is sent slowly.
TICK = 0.01


@dataclass
class Server:
    """What a server has and how it sends it; and, in the end, what it was asked for and sent.

    Attributes:
        rates: bytes per second of each answer, and the last one of all that follow; without any, as
            fast as it can.
        cuts: after how many bytes each answer breaks off, the first answer first.
        is_resuming: whether it knows of ranges; or else it sends the whole, whatever it is asked.
        silent: "headers" and "body" send nothing of these, "trickle" one header after the other.
        unmeasured: do not say how many bytes there are.
        status: of every answer, without a content where it is an error.
    """

    content: bytes
    rates: list[float] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    is_resuming: bool = True
    silent: str = ""
    unmeasured: bool = False
    status: int = 200
    address: str = ""
    asked: list[str | None] = field(default_factory=list)
    sent: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)


class _Answer(BaseHTTPRequestHandler):
    def __init__(self, *arguments, server_of: Server):
        self.has = server_of
        super().__init__(*arguments)

    def do_GET(self):
        try:
            self._answer()
        except OSError:  # whoever asked has gone
            self.close_connection = True

    def _answer(self):
        self.has.asked.append(wanted := self.headers.get("Range"))
        if self.has.silent == "headers":
            self.has.stopped.wait()
            return
        found = re.fullmatch(r"bytes=(\d+)-", wanted or "") if self.has.is_resuming else None
        begin, length = int(found[1]) if found else 0, len(self.has.content)
        if found and begin >= length:
            self._head(416, {"Content-Range": f"bytes */{length}", "Content-Length": 0})
            return
        if self.has.status >= 400:
            self._head(self.has.status, {"Content-Length": 0})
            return
        headers = {} if self.has.unmeasured else {"Content-Length": length - begin}
        if found:
            headers["Content-Range"] = f"bytes {begin}-{length - 1}/{length}"
        self._head(206 if found else 200, headers)
        if self.has.silent == "body":
            self.has.stopped.wait()
            return
        self._send(self.has.content[begin:], self.has.cuts.pop(0) if self.has.cuts else None)

    def _head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        if self.has.silent == "trickle":
            while not self.has.stopped.wait(10 * TICK):
                self.send_header("X-More", "to come")
                self.flush_headers()
        self.end_headers()

    def _send(self, content, cut):
        begin, content, rates = time.monotonic(), content[:cut], self.has.rates
        rate = rates[min(len(self.has.asked), len(rates)) - 1] if rates else 1e12
        piece = int(rate * TICK)
        for at in range(0, len(content), piece):
            due = begin + at / rate
            if self.has.stopped.wait(max(0.0, due - time.monotonic())):
                return
            self.wfile.write(content[at : at + piece])
            self.has.sent += len(content[at : at + piece])
        if cut is not None and len(self.has.cuts) % 2:  # every other one without a goodbye
            time.sleep(TICK)
            reset = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)

    def log_message(self, *_):
        pass


@contextmanager
def serving(*servers: Server):
    """Have servers answer on this machine, and write into each the address it is found at."""
    running = []
    for server in servers:
        answering = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answer, server_of=server))
        answering.daemon_threads = True
        threading.Thread(target=answering.serve_forever, args=(0.01,)).start()
        server.address = f"http://127.0.0.1:{answering.server_port}/archive"
        running.append(answering)
    try:
        yield [server.address for server in servers]
    finally:
        for server, answering in zip(servers, running, strict=True):
            server.stopped.set()
            answering.shutdown()
            answering.server_close()
