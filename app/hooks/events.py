"""What an inbound event says, once its signature holds: one function per sender.

GitHub signs the body (`X-Hub-Signature-256`) and nothing else, so a replay is told by the body. GitLab's signing token
and generic senders sign as Standard Webhooks demand: identifier, time and body; they have to be recent, and a replay is
told by the identifier.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from app.errors import ApiError
from app.pipelines.schemas import NewRun
from models_store.documents.faults import sentences
from models_store.documents.pipeline import Trigger

Source = Literal["github", "gitlab", "generic"]
BRANCH = "refs/heads/"
NO_COMMIT = "0" * 40  # as "after" of a branch that was deleted
PULL_ACTIONS = ("opened", "reopened", "synchronize", "ready_for_review")
MERGE_ACTIONS = ("open", "reopen", "update")


class BadSignature(ApiError):
    """The event is not signed with the pipeline's secret."""

    status = HTTPStatus.UNAUTHORIZED
    code = "bad_signature"
    hint = "Set the sender's secret (GitHub) or signing token (GitLab) to the one shown when the pipeline was made."


class UnreadableEvent(ApiError):
    """The event is signed, and is not of the form that its sender documents."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "unreadable_event"
    hint = "Send events as application/json, of the form that /docs describes beside this path."


@dataclass(frozen=True)
class Event:
    """A signed event: `ignored` says why it starts nothing, "" where it does."""

    key: str
    trigger: Trigger
    run: NewRun
    branch: str = ""
    ignored: str = ""


def read(source: Source, headers: Mapping[str, str], body: bytes, secret: str) -> Event:
    """Raises BadSignature, UnreadableEvent."""
    readers: dict[str, Callable[[Mapping[str, str], bytes, str], Event]] = {
        "github": _github,
        "gitlab": _gitlab,
        "generic": _generic,
    }
    try:
        return readers[source](headers, body, secret)
    except ValidationError as error:
        told = "; ".join(sentences(error.errors()))
        raise UnreadableEvent(f"The event of {source} has another form: {told}.") from error
    except KeyError as error:
        raise UnreadableEvent(f"The event of {source} has another form: {error.args[0]!r} is missing.") from error
    except (TypeError, AttributeError) as error:
        raise UnreadableEvent(f"The event of {source} has another form: {type(error).__name__}.") from error


def _github(headers: Mapping[str, str], body: bytes, secret: str) -> Event:
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), headers.get("x-hub-signature-256", "").encode()):
        raise BadSignature("X-Hub-Signature-256 is missing or wrong.")
    kind, payload = headers.get("x-github-event", ""), _json(body)
    key = f"github/{hashlib.sha256(body).hexdigest()}"
    repository = payload.get("repository", {}).get("full_name", "")
    if kind == "push":
        ref, sha = payload["ref"], payload["after"]
        ignored = "the branch was deleted" if payload.get("deleted") or sha == NO_COMMIT else ""
        return _event(key, "github", kind, repository, ref, sha, ref.removeprefix(BRANCH), ignored)
    if kind == "pull_request":
        head, action = payload["pull_request"]["head"], payload["action"]
        ignored = "" if action in PULL_ACTIONS else f"the action is {action!a}"
        return _event(key, "github", kind, repository, head["ref"], head["sha"], head["ref"], ignored)
    return _event(key, "github", kind, repository, "", None, "", f"{kind or 'unnamed'} events start nothing")


def _gitlab(headers: Mapping[str, str], body: bytes, secret: str) -> Event:
    key = f"gitlab/{_verified(headers, body, secret)}"
    kind, payload = headers.get("x-gitlab-event", ""), _json(body)
    repository = payload.get("project", {}).get("path_with_namespace", "")
    if kind == "Push Hook":
        ref, sha = payload["ref"], payload["after"]
        ignored = "the branch was deleted" if sha == NO_COMMIT else ""
        return _event(key, "gitlab", kind, repository, ref, sha, ref.removeprefix(BRANCH), ignored)
    if kind == "Merge Request Hook":
        request = payload["object_attributes"]
        action, branch = request.get("action", ""), request["source_branch"]
        # An "update" without "oldrev" changed the title or a label, not the code.
        same_code = action == "update" and "oldrev" not in request
        ignored = "" if action in MERGE_ACTIONS and not same_code else f"the action is {(action or 'unknown')!a}"
        return _event(key, "gitlab", kind, repository, branch, request["last_commit"]["id"], branch, ignored)
    return _event(key, "gitlab", kind, repository, "", None, "", f"{kind or 'unnamed'} events start nothing")


def _generic(headers: Mapping[str, str], body: bytes, secret: str) -> Event:
    key = f"generic/{_verified(headers, body, secret)}"
    payload = _json(body)
    run = NewRun.model_validate(payload.get("data", {}))
    return Event(
        key,
        Trigger(source="generic", event=payload["type"], repository=run.repository, ref=run.ref, sha=run.sha),
        run,
        branch=run.ref.removeprefix(BRANCH),
    )


def _verified(headers: Mapping[str, str], body: bytes, secret: str) -> str:
    """The identifier of a message that is signed and recent."""
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError) as error:  # ValueError: a signature that is no base64, or no UTF-8
        raise BadSignature(f"webhook-id, webhook-timestamp and webhook-signature do not fit: {error}.") from error
    return headers["webhook-id"][:200]


def _json(body: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableEvent("The body is not JSON, or nested too deeply.") from error
    if not isinstance(payload, dict):
        raise UnreadableEvent("The body is not a JSON object.")
    return payload


def _event(
    key: str, source: Source, kind: str, repository: str, ref: str, sha: str | None, branch: str, ignored: str
) -> Event:
    commit = None if ignored else sha
    return Event(
        key, Trigger(source=source, event=kind, repository=repository, ref=ref, sha=commit), NewRun(), branch, ignored
    )
