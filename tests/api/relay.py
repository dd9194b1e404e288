"""A TCP relay in front of a service, whose connections a test may break."""

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Relay:
    """Listens on a port of its own and passes bytes on to `target` until told to cut."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.swallow_answers = 0  # so many next answers are read and not passed on: the connection breaks instead
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection as a crash would."""
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                address = urlsplit(self.target)
                try:
                    far = socket.create_connection((address.hostname, address.port))
                except OSError:
                    near.close()
                    continue
                self._open += [near, far]
                threading.Thread(target=_pump, args=(near, far), daemon=True).start()
                threading.Thread(target=self._answer, args=(far, near), daemon=True).start()

    def _answer(self, far: socket.socket, near: socket.socket) -> None:
        if self.swallow_answers:
            with suppress(OSError):
                far.recv(65_536)
                self.swallow_answers -= 1
                near.shutdown(socket.SHUT_RDWR)
            return
        _pump(far, near)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
