"""What an API key may do."""

from enum import StrEnum


class Scope(StrEnum):
    """A key may do what its scopes name; none implies another."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    INSTANCE = "instance"

    @property
    def meaning(self) -> str:
        return {
            Scope.READ: "look at what the project has",
            Scope.WRITE: "upload, start, change and delete",
            Scope.ADMIN: "make and revoke the project's keys, and read its audit log",
            Scope.INSTANCE: "make projects: for whoever runs the service",
        }[self]
