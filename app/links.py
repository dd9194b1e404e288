"""OpenAPI links: which operations take the id that an answer carries; for generated clients and tests of sequences."""

from typing import Any


def links(status: int, parameter: str, *operation_ids: str) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of an endpoint whose answer has an `id` that these operations take as a path parameter."""
    return {
        status: {
            "links": {
                operation: {"operationId": operation, "parameters": {parameter: "$response.body#/id"}}
                for operation in operation_ids
            }
        }
    }
