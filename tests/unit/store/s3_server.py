"""A small S3-compatible server for tests: objects, ranges, multipart uploads and listing, in memory.

It stands for the other end of the wire, which is not ours; what it answers follows the S3 API reference. It does not
check signatures.
"""

import hashlib
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class S3Server(ThreadingHTTPServer):
    """`objects` maps "bucket/key" to bytes; `refuse` makes every request fail with 403."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.modified: dict[str, datetime] = defaultdict(lambda: datetime.now(UTC))
        self.parts: dict[str, dict[int, bytes]] = {}
        self.requests: list[str] = []
        self.refuse = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3Server

    def _dispatch(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.server.requests.append(f"{self.command} {self.path}")
        if self.server.refuse:
            return self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        return getattr(self, f"_{self.command.lower()}")(unquote(parts.path).strip("/"), query, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _dispatch

    def _put(self, key: str, query: dict[str, str], body: bytes) -> None:
        if "partNumber" in query:
            self.server.parts[query["uploadId"]][int(query["partNumber"])] = body
        elif source := self.headers.get("x-amz-copy-source"):
            return self._copy(unquote(source).strip("/"), key)
        else:
            self.server.objects[key] = body
            self.server.modified[key] = datetime.now(UTC)
        self._answer(200, headers={"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'})

    def _copy(self, source: str, key: str) -> None:
        if source not in self.server.objects:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        self.server.objects[key] = self.server.objects[source]
        self.server.modified[key] = datetime.now(UTC)
        self._answer(200, b"<CopyObjectResult><ETag>whole</ETag></CopyObjectResult>")

    def _post(self, key: str, query: dict[str, str], _body: bytes) -> None:
        if "uploads" in query:
            upload = uuid.uuid4().hex
            self.server.parts[upload] = {}
            return self._answer(
                200,
                f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>".encode(),
            )
        if "uploadId" in query:
            pieces = self.server.parts.pop(query["uploadId"])
            self.server.objects[key] = b"".join(pieces[number] for number in sorted(pieces))
            self.server.modified[key] = datetime.now(UTC)
            return self._answer(
                200, b'<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>'
            )
        return self._delete_many(key, _body)

    def _delete_many(self, bucket: str, body: bytes) -> None:
        keys = [piece.split(b"</Key>")[0].decode() for piece in body.split(b"<Key>")[1:]]
        for key in keys:
            self.server.objects.pop(f"{bucket}/{key}", None)
        deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def _get(self, key: str, query: dict[str, str], _body: bytes) -> None:
        if query.get("list-type") == "2":
            return self._list(key, query)
        content = self.server.objects.get(key)
        if content is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        headers = {"ETag": '"whole"', "Last-Modified": format_datetime(self.server.modified[key], usegmt=True)}
        wanted = self.headers.get("Range")
        if wanted is None:
            return self._answer(200, content, headers)
        first, last = wanted.removeprefix("bytes=").split("-")
        start, end = int(first), min(int(last), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return self._answer(206, content[start : end + 1], headers)

    _head = _get

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        prefix = f"{bucket}/{query.get('prefix', '')}"
        found = [key for key in sorted(self.server.objects) if key.startswith(prefix)]
        contents = "".join(
            f"<Contents><Key>{escape(key.split('/', 1)[1])}</Key><Size>{len(self.server.objects[key])}</Size>"
            f"<LastModified>{self.server.modified[key]:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            "<ETag>whole</ETag></Contents>"
            for key in found
        )
        self._answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode())

    def _delete(self, key: str, _query: dict[str, str], _body: bytes) -> None:
        self.server.objects.pop(key, None)
        self._answer(204)

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet: a failing test shows `requests`."""


@contextmanager
def running() -> Iterator[S3Server]:
    server = S3Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
