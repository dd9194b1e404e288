"""The one base of every error of the engine that its user can act on."""

from __future__ import annotations


class EngineError(Exception):
    """What went wrong, under a stable code; what to do about it; and the ONNX node concerned, if one is."""

    def __init__(self, code: str, message: str, hint: str, node: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.node = node

    def __str__(self) -> str:
        at_node = f" (node {self.node!r})" if self.node is not None else ""
        return f"{self.message}{at_node} {self.hint}"
