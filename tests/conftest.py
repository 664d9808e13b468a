"""What holds for every test: one thread, nothing of the user's, annotations are checked, nothing leaves this
machine."""

import ipaddress
import os
import socket
import tempfile
from pathlib import Path

import jaxtyping
import pytest

# Before torch is imported, and for processes that tests start: tiny models are slower with more threads, and
# several times slower when something else uses the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Models, labels and lenses that somebody has here change no test, and no test changes them.
_HOME = tempfile.TemporaryDirectory(prefix="lantern-tests-")
for name in ("HF_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
    os.environ[name] = str(Path(_HOME.name) / name)
for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "LANTERN_TOKEN"):
    os.environ.pop(name, None)

ROOT = Path(__file__).resolve().parents[1]


def modules_with_shapes() -> list[str]:
    """The modules of mi_core that state tensor shapes.

    Only they are checked while tests run: types of everything else are pyright's work, and wrapping every
    small function made the engine's tests three times slower (these modules: 1.8 times).
    """
    files = sorted((ROOT / "mi_core").rglob("*.py"))
    using = [path for path in files if "from jaxtyping import" in path.read_text(encoding="utf-8")]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in using]


jaxtyping.install_import_hook(modules_with_shapes(), "beartype.beartype")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes run the tests, a file stays in one of them: its tests share their models."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.path.as_posix()))


def pytest_make_parametrize_id(val: object) -> str | None:
    """The name of a parameter in a test's name: bytes by their length only.

    Packed bytes may hold the time at which they were packed, and processes that run the suite together must
    agree on the names of its tests.
    """
    return f"{len(val)}bytes" if isinstance(val, bytes) else None


def is_local(address: object) -> bool:
    """Whether a socket address stays on this machine."""
    if not isinstance(address, tuple):
        return True  # a unix socket
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return address[0] in ("", "localhost")


@pytest.fixture(autouse=True)
def _stay_on_this_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run offline: connecting anywhere else fails, unless the test is marked `network`."""
    if request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if not is_local(address):
            raise ConnectionRefusedError(f"a test tried to reach {address}")
        connect(self, address)  # type: ignore[arg-type]  # whatever the caller gave

    monkeypatch.setattr(socket.socket, "connect", guarded)
