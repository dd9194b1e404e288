"""What both clients know of requests and answers, without sending any."""

import os
import uuid
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from espalier.errors import EspalierError, RequestRefused, ServiceUnreachable

DEFAULT_URL = "http://127.0.0.1:8000"
IDEMPOTENCY_KEY = "Idempotency-Key"
IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "DELETE")
CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 120.0
STREAM_SILENCE_S = 60.0  # the service sends a comment at least every 15 s
ANSWER_TIMEOUT = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
STREAM_TIMEOUT = httpx.Timeout(STREAM_SILENCE_S, connect=CONNECT_TIMEOUT_S)
RETRY_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
LONGEST_RETRY_AFTER_S = 30.0


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that carries a key; None: that of the environment variable ESPALIER_API_KEY, if there is one."""
    key = (os.environ.get("ESPALIER_API_KEY", "") if api_key is None else api_key).strip()
    return {"Authorization": f"Bearer {key}"} if key else {}


def once() -> dict[str, str]:
    """The header that makes a creation repeatable."""
    return {IDEMPOTENCY_KEY: str(uuid.uuid4())}


def pause_before_repeating(request: httpx.Request, error: EspalierError, failures: int) -> float | None:
    """Seconds after which to send the request again, `failures` times refused by now; None: not again.

    Only where sending it twice does what sending it once does, and where the next answer may differ: not where nobody
    listens, which no second's wait mends.
    """
    if failures > len(RETRY_PAUSES_S) or not _repeatable(request):
        return None
    pause = RETRY_PAUSES_S[failures - 1]
    if isinstance(error, ServiceUnreachable):
        return pause if error.connected else None
    return _pause_after(error, pause) if isinstance(error, RequestRefused) else None


def pause_before_resuming(error: EspalierError, pause: float) -> float | None:
    """Seconds, `pause` at least, after which to take up what broke off or was put off; None: not again.

    It was under way, so somebody who does not listen may do so again.
    """
    return _pause_after(error, pause) if isinstance(error, RequestRefused) else pause


def _pause_after(error: RequestRefused, pause: float) -> float | None:
    passing = error.status in (429, 502, 503, 504) or error.code == "idempotency_key_in_flight"
    return max(pause, error.retry_after_s) if passing and error.retry_after_s <= LONGEST_RETRY_AFTER_S else None


def _repeatable(request: httpx.Request) -> bool:
    return request.method in IDEMPOTENT or IDEMPOTENCY_KEY in request.headers


def unreachable(url: str, error: httpx.TransportError) -> ServiceUnreachable:
    connected = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    return ServiceUnreachable(url, str(error) or type(error).__name__, connected)


def refusal(response: httpx.Response) -> RequestRefused:
    """A problem document as an exception; a proxy's plain page is an answer too."""
    is_problem = response.headers.get("Content-Type", "").startswith("application/problem+json")
    problem = response.json() if is_problem and response.content else {}
    return RequestRefused(
        status=response.status_code,
        code=problem.get("code", f"http_{response.status_code}"),
        message=problem.get("detail")
        or problem.get("title")
        or f"HTTP {response.status_code} {response.reason_phrase}",
        hint=problem.get("hint", ""),
        faults=tuple(f"{fault['location']}: {fault['message']}" for fault in problem.get("errors", ())),
        retry_after_s=_seconds(response.headers.get("Retry-After", "")),
    )


def _seconds(retry_after: str) -> float:
    """Of a Retry-After header, which holds seconds or a time (RFC 9110, 10.2.3); 0 where it holds neither."""
    if retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
