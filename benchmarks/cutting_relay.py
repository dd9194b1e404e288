"""A relay that breaks connections after so many bytes have gone through to the service."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit


class CuttingRelay:
    """Listens on a port of its own; `cuts` holds how many bytes the next connections may send before they break.

    Connections of fewer bytes pass and use no cut up. `on_cut` is called after each.
    """

    def __init__(self, target: str, cuts: list[int], on_cut: Callable[[], None] = lambda: None) -> None:
        self.target = target
        self.cuts = cuts
        self.made = 0
        self.passed_bytes = 0  # to the service
        self.down = False
        self._on_cut = on_cut
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                if self.down:
                    near.close()
                    continue
                address = urlsplit(self.target)
                far = socket.create_connection((address.hostname, address.port))
                threading.Thread(target=self._there, args=(near, far), daemon=True).start()
                threading.Thread(target=_back, args=(far, near), daemon=True).start()

    def _there(self, near: socket.socket, far: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := near.recv(65_536):
                passed += len(data)
                if self.cuts and passed >= self.cuts[0]:
                    self.cuts.pop(0)
                    self.made += 1
                    for end in (near, far):
                        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
                        end.close()  # one that stays open with a full window keeps the sender waiting
                    self._on_cut()
                    return
                far.sendall(data)
                self.passed_bytes += len(data)
        with suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)


def _back(far: socket.socket, near: socket.socket) -> None:
    with suppress(OSError):
        while data := far.recv(65_536):
            near.sendall(data)
    with suppress(OSError):
        near.shutdown(socket.SHUT_RDWR)
