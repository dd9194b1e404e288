"""What GitHub and GitLab are told about a commit: address, headers and body of one status.

GitHub: POST /repos/{owner}/{repo}/statuses/{sha}; state is pending, success, failure or error; description at most
140 characters. GitLab: POST /projects/{id}/statuses/{sha}; state is pending, running, success, failed or canceled;
description at most 255 characters.
"""

import json
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from models_store.documents.pipeline import RunState

Host = Literal["github", "gitlab"]

STATES: dict[Host, dict[RunState, str]] = {
    "github": {
        RunState.RUNNING: "pending",
        RunState.PASSED: "success",
        RunState.FAILED: "failure",
        RunState.ERRORED: "error",
    },
    "gitlab": {
        RunState.RUNNING: "running",
        RunState.PASSED: "success",
        RunState.FAILED: "failed",
        RunState.ERRORED: "failed",
    },
}
LONGEST_DESCRIPTION: dict[Host, int] = {"github": 140, "gitlab": 255}
USER_AGENT = "Espalier/1"


@dataclass(frozen=True)
class Status:
    """One status of one commit."""

    host: Host
    base_url: str
    repository: str
    sha: str
    state: RunState
    context: str
    description: str
    target_url: str | None

    def url(self) -> str:
        base = self.base_url.rstrip("/")
        if self.host == "github":
            return f"{base}/repos/{quote(self.repository)}/statuses/{self.sha}"
        return f"{base}/projects/{quote(self.repository, safe='')}/statuses/{self.sha}"

    def body(self) -> str:
        longest = LONGEST_DESCRIPTION[self.host]
        short = self.description if len(self.description) <= longest else self.description[: longest - 1] + "…"
        document = {"state": STATES[self.host][self.state], "description": short}
        document["context" if self.host == "github" else "name"] = self.context
        if self.target_url:
            document["target_url"] = self.target_url
        return json.dumps(document)


def headers(host: str, token: str) -> dict[str, str]:
    """What the host demands of a call."""
    common = {"Content-Type": "application/json", "User-Agent": USER_AGENT}
    if host == "gitlab":
        return common | {"PRIVATE-TOKEN": token}
    return common | {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "X-GitHub-Api-Version": "2022-11-28",
    }
