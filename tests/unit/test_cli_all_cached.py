"""`--all-cached`: a command on every model of this machine."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mi_core.analyses import (
    CausalTraceResult,
)
from mi_core.cli import main
from mi_core.engine.holder import ModelHolder
from tests.disk import save_model

PROMPT = "The Space Needle is in downtown"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("cli") / "m")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def machine(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with two cached models that work, one that does not, and no bundled one."""
    cache = tmp_path / "hub"
    for name in ("models--some--one", "models--some--two", "models--some--broken"):
        commit = cache / name / "snapshots" / ("a" * 40)
        commit.parent.mkdir(parents=True)
        shutil.copytree(folder, commit)
        (cache / name / "refs").mkdir()
        (cache / name / "refs" / "main").write_text("a" * 40)
    broken = cache / "models--some--broken" / "snapshots" / ("a" * 40)
    (broken / "model.safetensors").unlink()
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("mi_core.model.discovery.ASSETS", tmp_path / "no-assets")
    return cache


ALL = ["causal-trace", "--all-cached", "--prompt", PROMPT, "--subject", "Space", "--samples", "1"]


def test_all_cached_models_are_analysed_one_after_the_other(
    machine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    fetch = ModelHolder.get

    def get(holder: ModelHolder, *arguments: Any, **options: Any) -> Any:
        model = fetch(holder, *arguments, **options)
        held.append(model)
        assert sum(isinstance(one.hf, torch.nn.Module) for one in held) == 1  # the others were freed
        return model

    monkeypatch.setattr(ModelHolder, "get", get)
    out = tmp_path / "results"
    out.mkdir()
    code, _, err = said(capsys, *ALL, "--output", str(out))
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == ["some_one.json", "some_two.json"]
    assert "some/broken: It cannot be used" in err
    for path in out.iterdir():
        result = CausalTraceResult.from_json(path.read_text())
        assert result.provenance is not None
        assert result.provenance.model.replace("/", "_") == path.stem
    assert len(held) == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--all-cached writes one file per model: '-' is not a folder."),
        (["--output", "/nowhere"], "--all-cached writes one file per model: '/nowhere' is not a folder."),
        (["--model", "atlas"], "--all-cached and --model exclude each other. Leave one of them out."),
        (["--model=atlas"], "--all-cached and --model exclude each other. Leave one of them out."),
    ],
)
def test_what_all_cached_refuses(
    machine: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *ALL, *more)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {message}")


def test_a_prompt_that_fits_no_model_is_an_error(
    machine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = said(capsys, *ALL[:-4], "--subject", "Paris", "--output", str(tmp_path))
    assert code == 2
    assert "some/one: 'Paris' is not in the prompt." in err
    assert err.splitlines()[-1] == "error: None of 3 models gave a result: see above."


LOOKS = {"inspect": (), "attention": ("--prompt", "A b"), "logit-lens": ("--prompt", "A b"), "neurons": (),
         "attribution": ("--prompt", "A b")}  # fmt: skip


@pytest.mark.parametrize("command", LOOKS)
def test_what_only_looks_runs_on_every_model_without_further_settings(
    machine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    out = tmp_path / "results"
    out.mkdir()
    code, _, err = said(capsys, command, "--all-cached", *LOOKS[command], "--output", str(out))
    assert code == 0, err
    assert sorted(path.name for path in out.iterdir()) == ["some_one.json", "some_two.json"]
    schemas = {json.loads(path.read_text())["schema"] for path in out.iterdir()}
    assert len(schemas) == 1
