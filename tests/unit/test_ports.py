"""A server that cannot start says why, before it starts."""

import socket

import pytest

from crackseg.errors import CracksegError
from crackseg.ports import check_port


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CracksegError, match=f"port {port} of 127.0.0.1 cannot be used.*choose another --port"):
            check_port("127.0.0.1", port)
