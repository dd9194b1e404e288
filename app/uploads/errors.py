"""What can be wrong with an upload before anything has parsed it."""

from http import HTTPStatus

from app.errors import ApiError, InvalidRequest, StorageFull
from app.quotas import StoredBytesExceeded, TooManyInspections


class UploadTooLarge(ApiError):
    """The file is larger than this service accepts."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "upload_too_large"
    hint = "Send a smaller file; ESPALIER_MAX_UPLOAD_BYTES is the operator's to change."


class UploadIncomplete(ApiError):
    """The upload ended too early or is not a readable form."""

    status = HTTPStatus.BAD_REQUEST
    code = "upload_incomplete"
    hint = "Send it again; `curl -F file=@model.onnx` makes a correct form."


class DigestMismatch(ApiError):
    """The bytes that arrived are not the bytes that were announced."""

    status = HTTPStatus.BAD_REQUEST
    code = "digest_mismatch"
    hint = "Send the file again; if it happens twice, compute its sha256 anew."


class UnsupportedUpload(ApiError):
    """The request carries its file in a way this path does not take."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported_upload"
    hint = "Use `curl -F file=@FILE`, or PUT the bare bytes of the file to this path followed by /NAME."


class EmptyFile(ApiError):
    """The file is empty."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "empty_file"
    hint = "Check the path: the file that was sent has no bytes in it."


class UnsafeFormat(ApiError):
    """The file can run code when it is loaded; such files are never accepted."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "unsafe_format"
    hint = "Send the model as ONNX or safetensors, the data as an archive of images or an .npz."


class WrongFormat(ApiError):
    """The file is not of the format that was named."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "wrong_format"
    hint = "Check that it is the right file, and all of it: with a Repr-Digest header the service compares its SHA-256."


class TruncatedFile(ApiError):
    """A part of the file is missing."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "truncated_file"
    hint = "Copy or download the file again, compare its size with the original's, and send it anew."


UPLOAD_ERRORS = (
    UploadIncomplete,
    DigestMismatch,
    UploadTooLarge,
    UnsupportedUpload,
    InvalidRequest,
    EmptyFile,
    UnsafeFormat,
    WrongFormat,
    TruncatedFile,
    StorageFull,
    StoredBytesExceeded,
    TooManyInspections,
)
