"""The text/event-stream format, as far as the service uses it (WHATWG HTML, 9.2.6)."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One message of a stream; `id` is the last one the stream has set."""

    event: str
    data: str
    id: str


class Reader:
    """Messages out of the stream's bytes as they come; one that a broken connection cuts short never comes out."""

    def __init__(self) -> None:
        self._rest = b""
        self._event, self._id = "message", ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The messages that end in this chunk."""
        for line in self._lines(chunk):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                if self._data:
                    yield Message(self._event, "\n".join(self._data), self._id)
                self._event, self._data = "message", []
            elif field == "event":
                self._event = value
            elif field == "data":
                self._data.append(value)
            elif field == "id":
                self._id = value

    def _lines(self, chunk: bytes) -> list[str]:
        """Lines that are whole by now. They end in LF, CR or CR LF and nothing else: JSON may hold U+2028 as it is."""
        self._rest += chunk
        if self._rest.endswith(b"\r"):  # the LF of a CR LF may be in the next chunk
            return []
        *whole, self._rest = self._rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        return [line.decode("utf-8") for line in whole]
