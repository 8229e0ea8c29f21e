"""Ports of this machine."""

from __future__ import annotations

import socket

from crackseg.errors import CracksegError


def check_port(host: str, port: int) -> None:
    """Raise CracksegError if nothing can listen on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CracksegError(
                f"port {port} of {host} cannot be used ({error.strerror}); choose another --port"
            ) from error
