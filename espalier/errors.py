"""What can go wrong between a user and the service; every message says what to do."""

from models_store.documents.event import JobError
from models_store.documents.inspection import Rejection
from models_store.documents.job import JobState


class EspalierError(Exception):
    """Base of this package's errors: a `code` for programs, a message and a `hint` for people."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class ServiceUnreachable(EspalierError):
    """Nothing answers at the service's address, or it stopped answering."""

    def __init__(self, url: str, reason: str, connected: bool = False) -> None:
        self.connected = connected  # it had answered a connection before
        super().__init__(
            "service_unreachable",
            f"no answer from {url}: {reason}",
            "Is the service running (`espalier serve`)? Name another one with --url or ESPALIER_URL.",
        )


class RequestRefused(EspalierError):
    """The service answered with an error (RFC 9457 problem+json)."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        hint: str,
        faults: tuple[str, ...] = (),
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(code, message, hint)
        self.status = status
        self.faults = faults
        self.retry_after_s = retry_after_s


class UploadRejected(EspalierError):
    """The service looked into an upload and will not work with it."""

    def __init__(self, rejection: Rejection) -> None:
        where = f" ({rejection.node})" if rejection.node else ""
        super().__init__(rejection.code, f"{rejection.message}{where}", rejection.hint)
        self.rejection = rejection


class JobFailed(EspalierError):
    """The job ended without a result."""

    def __init__(self, error: JobError) -> None:
        at = f"in stage {error.stage}: " if error.stage else ""
        super().__init__(error.code, f"{at}{error.message}", error.hint)
        self.error = error


class JobCancelled(EspalierError):
    """The job was cancelled before it had a result."""

    def __init__(self, job_id: str) -> None:
        super().__init__("job_cancelled", f"{job_id} was cancelled")


class NoSuchArtifact(EspalierError):
    """The job made no file of this name."""

    def __init__(self, job_id: str, name: str, existing: tuple[str, ...]) -> None:
        hint = f"It has: {', '.join(existing)}." if existing else "It has none; has it succeeded?"
        super().__init__("no_such_artifact", f"{job_id} has no file {name}", hint)


class NoFiles(EspalierError):
    """The job has nothing to download: it is not done, or did not come so far, or its files are forgotten."""

    def __init__(self, job_id: str, state: JobState, error: JobError | None) -> None:
        at = f"in stage {error.stage}: " if error and error.stage else ""
        why = f", {at}{error.message}" if error else ""
        hints = {
            JobState.FAILED: error.hint if error else "",
            JobState.CANCELLED: f"Try it again: espalier retry {job_id}.",
            JobState.SUCCEEDED: f"Files are kept for a while only; see its report: espalier report {job_id}.",
        }
        hint = hints.get(state, f"Follow it to its end: espalier watch {job_id}.")
        super().__init__("no_files", f"{job_id} has no files; its state is {state}{why}", hint)


class DigestMismatch(EspalierError):
    """What arrived is not what the service announced."""

    def __init__(self, name: str, announced: str, arrived: str) -> None:
        super().__init__(
            "digest_mismatch",
            f"{name} was announced with SHA-256 {announced} and arrived with {arrived}",
            "Download it again; if that repeats, something between here and the service changes files.",
        )


class TookTooLong(EspalierError):
    """A wait ended before what was waited for; the work itself goes on."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__("timeout", f"{what} after {seconds:.0f} s", "Wait longer, or look again later.")


class NotAnUpload(EspalierError):
    """The path cannot be sent as a model or a dataset."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__("not_an_upload", message, hint)
