"""One POST to a stranger's address: looked up once, no redirects, and bounded in time and in what is read."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from models_store import targets
from models_store.errors import TargetRefused
from models_store.targets import Rules, Target
from models_store.webhooks import Outcome

CONNECT_TIMEOUT_S = 5.0
TIMEOUT_S = 15.0  # for all of it, however slowly the answer drips
READ_BYTES = 4096


class _Connection(http.client.HTTPConnection):
    """Connects to the address that was checked, and to no other that the name might have by now."""

    def __init__(self, target: Target, address: str) -> None:
        super().__init__(target.host, target.port, timeout=CONNECT_TIMEOUT_S)
        self._target = target
        self._address = address
        self._wire: socket.socket | None = None
        self._cut = False

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self._target.port), CONNECT_TIMEOUT_S)
        plain.settimeout(TIMEOUT_S)
        self._hold(plain)
        if self._target.secure:
            # The wrapper takes the wire away from `plain`: the handshake comes when `cut` can reach it again.
            context, name = ssl.create_default_context(), self._target.host
            secure = context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
            self._hold(secure)
            secure.do_handshake()

    def _hold(self, wire: socket.socket) -> None:
        """Use that socket from now on. Raises TimeoutError where `cut` came before it."""
        self.sock = wire
        self._wire = wire  # http.client forgets its socket once the answer's headers have come
        if self._cut:
            raise TimeoutError("cut off while connecting")

    def cut(self) -> None:
        """End it from another thread."""
        self._cut = True  # before the look at the wire: `_hold` does both the other way round
        if self._wire is not None:
            with suppress(OSError):
                # Not SSLSocket's own, which goes on in the clear with what the other thread is just sending.
                socket.socket.shutdown(self._wire, socket.SHUT_RDWR)


def post(url: str, headers: Mapping[str, str], body: bytes, rules: Rules) -> Outcome:
    """Send it once; every failure is an outcome and none an exception."""
    began = time.monotonic()

    def took_ms() -> int:
        return round((time.monotonic() - began) * 1000)

    try:
        target = targets.parse(url, rules)
        connection = _Connection(target, targets.resolve(target, rules))
    except TargetRefused as error:
        return Outcome(took_ms(), error=f"refused: {error}")
    except OSError as error:
        return Outcome(took_ms(), error=f"unknown host: {error}")
    watchdog = threading.Timer(TIMEOUT_S, connection.cut)
    watchdog.start()
    try:
        connection.request("POST", target.path, body, {**headers, "Connection": "close"})
        response = connection.getresponse()
        answer = response.read(READ_BYTES).decode("utf-8", "replace").replace("\0", "\ufffd")
        return Outcome(took_ms(), status=response.status, answer=answer)
    except (OSError, http.client.HTTPException) as error:
        late = took_ms() >= TIMEOUT_S * 1000
        reason = f"no answer within {TIMEOUT_S:g} s" if late else f"{type(error).__name__}: {error}"
        return Outcome(took_ms(), error=reason)
    finally:
        watchdog.cancel()
        connection.close()
