"""Stands in for GitHub and GitLab where there is none: takes commit statuses as their documents demand, and keeps them.

    python examples/commit_status_server.py PORT FILE

Each status that is right becomes a line of JSON in FILE; a wrong one is refused as the real host would.
GitHub: POST /repos/OWNER/REPO/statuses/SHA. GitLab: POST /projects/ID/statuses/SHA. Every token is right.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

GITHUB = re.compile(r"/repos/[^/]+/[^/]+/statuses/[0-9a-f]{40}")
GITLAB = re.compile(r"/projects/[^/]+/statuses/[0-9a-f]{40}")
GITHUB_STATES = {"error", "failure", "pending", "success"}
GITLAB_STATES = {"pending", "running", "success", "failed", "canceled", "skipped"}


def refusal(path: str, headers: dict[str, str], status: dict[str, str]) -> tuple[int, str] | None:
    """Status and message with which the host would refuse; None where it would not."""
    if GITHUB.fullmatch(path):
        if not re.fullmatch(r"(Bearer|token) \S+", headers.get("authorization", "")):
            return 401, "Requires authentication"
        if not headers.get("user-agent"):
            return 403, "Request forbidden by administrative rules: no User-Agent"
        if headers.get("accept") != "application/vnd.github+json" or "x-github-api-version" not in headers:
            return 415, "Send the recommended Accept and X-GitHub-Api-Version"
        if status.get("state") not in GITHUB_STATES:
            return 422, "state is not one of error, failure, pending, success"
        return (422, "description is too long") if len(status.get("description", "")) > 140 else None
    if GITLAB.fullmatch(path):
        if not headers.get("private-token"):
            return 401, "401 Unauthorized"
        if status.get("state") not in GITLAB_STATES:
            return 400, "state does not have a valid value"
        return (400, "description is too long") if len(status.get("description", "")) > 255 else None
    return 404, "Not Found"


class Host(BaseHTTPRequestHandler):
    """One request: a status of a commit."""

    file: Path

    def do_POST(self) -> None:
        status = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        refused = refusal(self.path, headers, status)
        if refused is None:
            with self.file.open("a") as file:
                file.write(json.dumps({"path": unquote(self.path), **status}) + "\n")
        code, message = refused or (201, "Created")
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"message": message}).encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


def server(port: int, file: Path) -> ThreadingHTTPServer:
    """A server on loopback that keeps statuses in `file`."""
    return ThreadingHTTPServer(("127.0.0.1", port), type("HostOfFile", (Host,), {"file": file}))


if __name__ == "__main__":
    server(int(sys.argv[1]), Path(sys.argv[2])).serve_forever()
