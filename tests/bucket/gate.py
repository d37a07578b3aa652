"""A gate in front of a server on loopback: open, it passes bytes on; shut, nobody is reached.

It shuts by itself where a client says so, at the very moment that a test is about. It may hold each
request back for some time, as a server far away does.
"""

import contextlib
import re
import socket
import threading
import time

_SHUT = b"shut the gate"
_REQUEST = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE) \S+ HTTP/1")


def shut(address: str) -> None:
    """Have the gate at `http://HOST:PORT` shut, and wait until it is."""
    host, _, port = address.rpartition("/")[2].partition(":")
    with socket.create_connection((host, int(port))) as control:
        control.sendall(_SHUT)
        control.recv(1)


class Gate:
    """Passes connections on to a port, until it is shut.

    Attributes:
        port: where it listens.
    """

    def __init__(self, behind: int, delay: float = 0.0):
        """Args:
        behind: the port of the server.
        delay: seconds for which each request is held back.
        """
        self._behind, self.port, self._delay = behind, 0, delay
        self._open: list[socket.socket] = []
        self.open()

    def open(self) -> None:
        """Listen, at the same port as before."""
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def shut(self) -> None:
        """Refuse connections, and end those that there are."""
        for each in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listening.accept()
                threading.Thread(target=self._pass_on, args=(near,), daemon=True).start()

    def _pass_on(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            first = near.recv(65536)
            if first == _SHUT:
                self.shut()
                near.close()
                return
            far = socket.create_connection(("127.0.0.1", self._behind))
            self._open += [near, far]
            threading.Thread(target=_copy, args=(far, near), daemon=True).start()
            _copy(near, far, self._delay, first)


def _copy(
    source: socket.socket, sink: socket.socket, delay: float = 0.0, first: bytes = b""
) -> None:
    with contextlib.suppress(OSError):
        while data := first or source.recv(65536):
            first = b""
            if delay and _REQUEST.match(data):
                time.sleep(delay)
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
