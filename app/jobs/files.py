"""Sending a stored file: whole or a byte range of it, never through memory at once."""

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app import byte_ranges, etags, head
from app.uploads.digests import to_repr_digest
from models_store.blobs import BlobStore
from models_store.tables import JobArtifact

# For a page made by a job, which shows names that strangers chose: styles and inline pictures, but no script.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; sandbox; frame-ancestors 'none'"
)


def send(request: Request, artifact: JobArtifact, blobs: BlobStore, *, as_page: bool = False) -> Response:
    """The artifact as an attachment, or as a page to look at.

    A Range is answered with 206 (or all, where If-Range names another version), If-None-Match with 304.
    Raises RangeNotSatisfiable.
    """
    tag = f'"{artifact.sha256}"'
    headers = {
        **etags.REVALIDATE,
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Repr-Digest": to_repr_digest(artifact.sha256),
        "Content-Disposition": "inline" if as_page else f'attachment; filename="{quote(artifact.name)}"',
        "Content-Security-Policy": PAGE_POLICY,
    }
    if etags.is_current(request, tag):
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("Range") if request.headers.get("If-Range", tag) == tag else None
    part = byte_ranges.parse(wanted, artifact.size_bytes)
    start, end = part or (0, artifact.size_bytes)
    headers["Content-Length"] = str(end - start)
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.size_bytes}"
    if head.asked_for(request):
        return Response(status_code=206 if part else 200, headers=headers, media_type=artifact.media_type)
    return StreamingResponse(
        blobs.stream(artifact.blob_key, start, end),
        status_code=206 if part else 200,
        headers=headers,
        media_type=artifact.media_type,
    )
