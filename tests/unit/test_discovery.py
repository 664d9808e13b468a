"""Models are found where they lie (bundled, in the hub's cache, in folders) by name, branch, tag, commit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mi_core.model.discovery import discover, find
from mi_core.model.hub_cache import hub_cache
from tests.found_models import COMMITS, CONFIG, cached, look, machine, make


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return machine(tmp_path, monkeypatch)


def test_every_source_is_listed_with_what_its_files_say(place: Path) -> None:
    make(place / "mine" / "one")
    cached(place / "cache", "org/model", COMMITS[0], refs=("main",))
    found = discover([place / "mine"], cache=place / "cache", assets=place / "assets")
    assert [(model.name, model.source) for model in found] == [
        ("atlas", "bundled"),
        (str(place / "mine" / "one"), "folder"),
        ("org/model", "cache"),
    ]
    for model in found:
        assert model.usable
        assert (model.model_type, model.architecture, model.dtype) == ("llama", "LlamaForCausalLM", "float32")
        assert model.parameters == 10
        assert model.bytes == sum(path.stat().st_size for path in Path(model.path).iterdir())
        assert look(place, model.name) == model
    assert (found[2].revision, found[2].commit) == ("main", COMMITS[0])
    assert found[0].describe().startswith("atlas · llama · 10 parameters · ")
    assert found[0].describe().endswith(" · bundled")
    assert found[0].config() == CONFIG
    assert found[0].need("float64").weights == 2 * found[0].need("float32").weights


def test_listing_imports_neither_torch_nor_transformers() -> None:
    code = """
import sys
from mi_core.model.discovery import discover
discover()
print({"torch", "transformers"} & {*sys.modules})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_folder_can_be_the_model_itself_and_may_be_missing(place: Path) -> None:
    make(place / "one")
    found = discover([place / "one", place / "nowhere"], cache=place / "nowhere", assets=place / "nowhere")
    assert [(model.name, model.usable, model.kind) for model in found] == [
        (str(place / "one"), True, ""),
        (str(place / "nowhere"), False, "missing"),
    ]


def test_the_bundled_model_of_this_repository_is_found_or_not_there_yet() -> None:
    for model in discover(cache=Path("/nonexistent")):
        assert model.source == "bundled"
        assert find(model.name, cache=Path("/nonexistent")).path == model.path


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/c", "HF_HOME": "/b"}, "/c"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/d"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
        ({"HOME": "/home/me"}, "/home/me/.cache/huggingface/hub"),
        ({"HOME": "/home/me", "HF_HOME": "~/hf"}, "/home/me/hf/hub"),
        ({"ROOT": "/r", "HF_HUB_CACHE": "$ROOT/x"}, "/r/x"),
    ],
)
def test_the_cache_is_where_the_hub_keeps_it(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert hub_cache() == Path(expected)


def test_main_comes_before_newer_snapshots_and_an_incomplete_main_after_usable_ones(place: Path) -> None:
    cache = place / "cache"
    cached(cache, "org/m", COMMITS[0], refs=("main",), age=100)
    cached(cache, "org/m", COMMITS[1], refs=("v2",))
    assert look(place, "org/m").commit == COMMITS[0]
    cached(cache, "org/half", COMMITS[0], refs=("main",), weights=False)
    cached(cache, "org/half", COMMITS[1], age=100)
    cached(cache, "org/half", COMMITS[2], age=50)
    assert look(place, "org/half").commit == COMMITS[2]
    assert [model.commit for model in discover(cache=cache, assets=place / "nowhere")] == [
        COMMITS[2],
        COMMITS[0],
    ]


@pytest.mark.parametrize(
    ("revision", "commit"), [("v2", 1), ("refs/pr/1", 2), (COMMITS[2], 2), (COMMITS[1][:8], 1), ("main", 0)]
)
def test_a_revision_is_a_branch_a_tag_or_a_commit(place: Path, revision: str, commit: int) -> None:
    for number, refs in enumerate((("main",), ("v2",), ("refs/pr/1",))):
        cached(place / "cache", "org/m", COMMITS[number], refs=refs)
    found = look(place, "org/m", revision)
    assert (found.commit, found.revision) == (COMMITS[commit], revision)


def test_what_is_no_transformers_model_is_not_listed(place: Path) -> None:
    cache = place / "cache"
    for name in ("datasets--org--d", "models--bad--..--x", "models--only--refs", ".locks", "version.txt"):
        (cache / name).mkdir()
    (cache / "models--org--gguf" / "snapshots" / COMMITS[0]).mkdir(parents=True)
    assert discover(cache=cache, assets=place / "nowhere") == []


def test_a_name_is_bundled_then_cached_then_a_folder_but_a_path_is_only_a_folder(place: Path) -> None:
    make(place / "here" / "atlas")
    make(place / "here" / "org" / "m")
    assert look(place, "atlas").source == "bundled"
    assert look(place, "./atlas").source == "folder"
    assert look(place, "org/m").source == "folder"
    cached(place / "cache", "org/m", COMMITS[0])
    assert look(place, "org/m").source == "cache"
    (place / "link").symlink_to(place / "here" / "atlas")
    assert look(place, str(place / "link")).usable


def test_the_home_folder_has_its_sign(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(place / "home" / "m")
    monkeypatch.setenv("HOME", str(place / "home"))
    assert look(place, "~/m").source == "folder"


def test_number_formats_of_weights(place: Path) -> None:
    folder = make(place / "assets" / "m", weights=False)
    save_file({"a": np.ones(3, np.float16), "mask": np.ones(2, np.bool_)}, folder / "model.safetensors")
    assert look(place, "m").dtype == "float16"
    assert look(place, "m").parameters == 3
    save_file({"a": np.ones(3, np.float16), "b": np.ones(2, np.float64)}, folder / "model.safetensors")
    assert look(place, "m").dtype == "mixed"
