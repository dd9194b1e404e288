"""What can go wrong with an upload in pieces."""

from http import HTTPStatus

from app.errors import ApiError


class UploadNotFound(ApiError):
    """There is no such upload."""

    status = HTTPStatus.NOT_FOUND
    code = "upload_not_found"
    hint = "Begin a new one with POST /v1/uploads."


class UploadExpired(ApiError):
    """The upload was not continued in time, and what had arrived is gone."""

    status = HTTPStatus.GONE
    code = "upload_expired"
    hint = "Begin a new one with POST /v1/uploads; the Upload-Expires header says until when it lasts."


class OffsetMismatch(ApiError):
    """The bytes do not begin where the upload stands."""

    status = HTTPStatus.CONFLICT
    code = "offset_mismatch"
    hint = "Ask with HEAD for Upload-Offset, and go on from there."


class UploadEnded(ApiError):
    """The upload is whole and takes no more bytes."""

    status = HTTPStatus.CONFLICT
    code = "upload_ended"
    hint = "GET /v1/uploads/{id} says what became of it."


class PiecesGone(ApiError):
    """The storage has lost bytes of the upload."""

    status = HTTPStatus.CONFLICT
    code = "pieces_gone"
    hint = "Begin a new one with POST /v1/uploads."


class UploadLocked(ApiError):
    """Another request is sending bytes for this upload right now, or making the whole of it a model or dataset."""

    status = HTTPStatus.LOCKED
    code = "upload_locked"
    hint = "Wait as long as Retry-After says, ask with HEAD for Upload-Offset, and go on from there."


class TooManyPieces(ApiError):
    """The upload came in too many small pieces."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "too_many_pieces"
    hint = "Send larger pieces, best the whole rest of the file in one request."


class UnsupportedChecksum(ApiError):
    """The Upload-Checksum header cannot be checked."""

    status = HTTPStatus.BAD_REQUEST
    code = "unsupported_checksum"
    hint = "Send `Upload-Checksum: sha256 BASE64`, or leave it out."


class ChecksumMismatch(ApiError):
    """The bytes that arrived are not those of the checksum; none of them were kept."""

    status = 460  # tus 1.0, "Checksum"
    code = "checksum_mismatch"
    hint = "Send the same bytes again, from the same offset."
