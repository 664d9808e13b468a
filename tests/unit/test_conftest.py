"""The two guards of tests/conftest.py do guard."""

import socket

import jaxtyping
import pytest
import torch

from mi_core.engine.attention import softmax


def test_a_wrong_shape_fails() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="row head query key"):
        softmax(torch.zeros(3, 3))


def test_a_connection_elsewhere_fails() -> None:
    with socket.socket() as connection, pytest.raises(ConnectionRefusedError, match="a test tried to reach"):
        connection.connect(("192.0.2.1", 80))  # an address kept for documentation


def test_a_connection_on_this_machine_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as connection:
        connection.connect(server.getsockname())
