"""A streaming reader of one multipart form: small text fields, and one file that goes straight to disk.

The framework's own form parser spools a file to a temporary file of its own, from which it would have to be read
again to be hashed and kept; here the parser's callbacks feed the file on its way in.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import Fault, InvalidRequest
from app.uploads.errors import UnsupportedUpload, UploadIncomplete, UploadTooLarge
from app.uploads.incoming import IncomingFile

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FILE_FIELD = "file"
MAX_PARTS = 32
LONGEST_BOUNDARY = 70
"""RFC 2046, section 5.1.1."""
MAX_FIELD_BYTES = 16 * 2**10
FORM_OVERHEAD_BYTES = 2**20  # all that is not the file


class FormReader:
    """Collects the text fields of a form and hands the bytes of its file on.

    `fields`: text by name; empty ones are left out, because browsers send every box of a form.
    `filename`: as the sender named the file, "" where it did not; None until a file has come.
    """

    def __init__(self, boundary: bytes) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self._parts = 0
        self._ended = False
        self._name = ""
        self._in_file = False
        self._header = bytearray()
        self._headers: dict[bytes, str] = {}
        self._header_value = bytearray()
        self._text = bytearray()
        self._file_bytes: list[bytes] = []
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open_part,
            "on_part_data": self._part_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    async def read(self, body: AsyncIterator[bytes], file: IncomingFile) -> None:
        """Read the form to its end. Raises UploadIncomplete, UploadTooLarge, InvalidRequest."""
        received_bytes = 0
        try:
            async for chunk in body:
                received_bytes += len(chunk)
                if received_bytes > file.max_bytes + FORM_OVERHEAD_BYTES:
                    raise UploadTooLarge(f"The form is larger than the {file.max_bytes:,} bytes accepted here.")
                self._parser.write(chunk)
                for piece in self._file_bytes:
                    await file.write(piece)
                self._file_bytes.clear()
        except FormParserError as error:
            raise UploadIncomplete(f"The form cannot be read: {error}.") from error
        if not self._ended:
            raise UploadIncomplete("The form stops before its closing boundary.")
        if self.filename is None:
            as_text = FILE_FIELD in self.fields
            raise wrong_field(FILE_FIELD, "Text instead of a file: write file=@PATH." if as_text else "Field required.")

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise wrong_field("", f"The form has more than {MAX_PARTS} fields.")
        self._headers = {}
        self._text = bytearray()

    def _end_header(self) -> None:
        self._headers[bytes(self._header).lower()] = self._header_value.decode("latin-1")
        self._header.clear()
        self._header_value.clear()

    def _open_part(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._in_file = b"filename" in options
        if self._in_file and self._name != FILE_FIELD:
            raise wrong_field(self._name, f"Not a file field: send the file as `{FILE_FIELD}`.")
        if self._in_file and self.filename is not None:
            raise wrong_field(FILE_FIELD, "Send one file per request.")
        if self._in_file:
            self.filename = options[b"filename"].decode("utf-8", "replace")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._file_bytes.append(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            raise wrong_field(self._name, f"Longer than {MAX_FIELD_BYTES} bytes.")

    def _end_part(self) -> None:
        if not self._in_file and self._text:
            self.fields[self._name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True


def form_reader(request: Request) -> FormReader:
    """A reader for the form in this request. Raises UnsupportedUpload where the body is no form."""
    content_type = request.headers.get("Content-Type")
    media_type, options = parse_options_header(content_type)
    if media_type != b"multipart/form-data":
        raise UnsupportedUpload(f"Content-Type is {content_type or 'missing'}; this path takes multipart/form-data.")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= LONGEST_BOUNDARY:
        raise UnsupportedUpload(f"The boundary in Content-Type has {len(boundary)} characters instead of 1 to 70.")
    return FormReader(boundary)


def wrong_field(name: str, message: str) -> InvalidRequest:
    location = f"body.{name}" if name else "body"
    return InvalidRequest(f"{location}: {message}", faults=[Fault(location=location, message=message)])
