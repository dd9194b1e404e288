"""The stream format, however the network cuts it."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.server_sent_events import Message, Reader

STREAM = (
    b": keepalive\n\nretry: 1000\n\nid: 1\nevent: stage\ndata: {\"a\": 1}\n\n"
    b"id:2\r\ndata: first\r\ndata: second\r\n\r\ndata: third\r\rid: 3\ndata: cut off"
)  # fmt: skip
MESSAGES = [
    Message("stage", '{"a": 1}', "1"),
    Message("message", "first\nsecond", "2"),
    Message("message", "third", "2"),
]


def messages(chunks: list[bytes]) -> list[Message]:
    reader = Reader()
    return [message for chunk in chunks for message in reader.feed(chunk)]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_cut_gives_the_same_messages(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[start:end] for start, end in pairwise(edges)]
    assert messages(chunks) == MESSAGES


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_line_feeds_and_carriage_returns_end_a_line(separator):
    text = json.dumps({"message": f"a{separator}b"}, ensure_ascii=False)
    assert [message.data for message in messages([f"data: {text}\n\n".encode()])] == [text]
