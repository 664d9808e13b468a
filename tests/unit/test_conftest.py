"""What tests/conftest.py promises: its guards guard, and every process gives a test the same name."""

import gzip
import socket

import jaxtyping
import pytest
import torch

from mi_core.engine.attention import softmax
from tests.conftest import pytest_make_parametrize_id
from tests.two_passes import agree


def test_a_wrong_shape_fails() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="row head query key"):
        softmax(torch.zeros(3, 3))


def test_a_connection_elsewhere_fails() -> None:
    with socket.socket() as connection, pytest.raises(ConnectionRefusedError, match="a test tried to reach"):
        connection.connect(("192.0.2.1", 80))  # an address kept for documentation


def test_a_connection_on_this_machine_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as connection:
        connection.connect(server.getsockname())


def test_packed_bytes_have_the_same_name_at_any_time() -> None:
    names = {pytest_make_parametrize_id(gzip.compress(b"{}", mtime=second)) for second in (1, 2**30)}
    assert names == {"22bytes"}
    assert pytest_make_parametrize_id("text") is None, "pytest names the others"


def test_two_passes_agree_only_up_to_the_last_bits() -> None:
    one = torch.tensor([0.5, -2.0, -torch.inf], dtype=torch.float64)
    assert agree(one, one + 1e-15)
    assert not agree(one, one + 1e-13)
    assert not agree(one, torch.tensor([0.5, -2.0, 0.0], dtype=torch.float64))
    assert not agree(one, one.float())
    assert not agree(one, one[:2])
