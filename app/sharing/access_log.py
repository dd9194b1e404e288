"""Keeps signatures out of the log of requests: whoever reads it could open the files."""

import logging

from models_store.shared_links import PREFIX


class WithoutSignatures(logging.Filter):
    """For the logger `uvicorn.access`, whose third argument is path and query."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and len(record.args) > 2:
            client, method, path, *rest = record.args
            if isinstance(path, str) and path.startswith(PREFIX):
                record.args = (client, method, path.partition("?")[0], *rest)
        return True
