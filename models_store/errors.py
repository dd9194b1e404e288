"""What the store refuses, and why."""


class StoreError(Exception):
    """Base of every error of the store."""


class LeaseLost(StoreError):
    """The claim is no longer this worker's: another attempt owns the job, or it has ended. Stop, and write nothing."""


class InUse(StoreError):
    """What was to be deleted has not ended, or a job that has not ended still needs it."""


class NotFound(StoreError):
    """No row with this id."""


class DatabaseUnavailable(StoreError):
    """The database cannot be reached."""


class SchemaOutdated(StoreError):
    """The database is reachable, and its tables are not those of this version."""


class BlobMissing(StoreError):
    """No blob under this key."""


class BlobCorrupt(StoreError):
    """A stored blob's bytes do not have the digest that names it."""


class BlobsUnavailable(StoreError):
    """The blob store cannot be reached or written."""


class KeyReused(StoreError):
    """The idempotency key was used for another request."""


class KeyInFlight(StoreError):
    """Another request with this idempotency key has not been answered yet."""


class TargetRefused(StoreError):
    """This service does not call that URL."""


class UploadHeld(StoreError):
    """Another request is sending bytes for the upload."""


class UploadMoved(StoreError):
    """The upload stands at another offset than the bytes begin at, or another request took it over."""


class NameTaken(StoreError):
    """Another row has this name, which only one may have."""


class KeyRefused(StoreError):
    """Base of what can be wrong with an API key; which key was meant, and of which project, where that is known."""

    def __init__(self, message: str, key_id: str | None = None, project_id: str | None = None) -> None:
        super().__init__(message)
        self.key_id = key_id
        self.project_id = project_id


class KeyUnknown(KeyRefused):
    """No key has this text."""


class KeyExpired(KeyRefused):
    """The key, or its secret, was valid once."""


class KeyRevoked(KeyRefused):
    """The key was taken back."""


class LinkRefused(StoreError):
    """Base of what can be wrong with a shared link."""


class LinkForged(LinkRefused):
    """Nobody signed such a link."""


class LinkExpired(LinkRefused):
    """The link was good once."""


class LinkRevoked(LinkRefused):
    """The link would be good, but for the key or the project that it belongs to."""


class QuotaExceeded(StoreError):
    """The project may not have more of this; `retry_after_s` where that will change by itself."""

    def __init__(self, quota: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.quota = quota
        self.retry_after_s = retry_after_s
