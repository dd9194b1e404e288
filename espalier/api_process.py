"""`python -m espalier.api_process FD`: the API on a listening socket that `espalier serve` has opened."""

import socket
import sys

import uvicorn

CLOSE_STREAMS_AFTER_S = 3  # event streams have no end of their own while a job runs


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(
        "app.main:create_app", factory=True, access_log=False, timeout_graceful_shutdown=CLOSE_STREAMS_AFTER_S
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
