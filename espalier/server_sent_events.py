"""The text/event-stream format, as far as the service uses it (WHATWG HTML, 9.2.6)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One message of a stream; `id` is the last one the stream has set."""

    event: str
    data: str
    id: str


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines of the stream. They end in LF, CR or CR LF and in nothing else: JSON may hold U+2028 as it is."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        if rest.endswith(b"\r"):  # the LF of a CR LF may be in the next chunk
            continue
        *whole, rest = rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            yield line.decode("utf-8")


def messages(chunks: Iterable[bytes]) -> Iterator[Message]:
    """Messages of the stream; one that a broken connection cut short is dropped, as the format demands."""
    event, last_id = "message", ""
    data: list[str] = []
    for line in lines(chunks):
        if not line:
            if data:
                yield Message(event, "\n".join(data), last_id)
            event, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                event = value
            case "data":
                data.append(value)
            case "id":
                last_id = value
