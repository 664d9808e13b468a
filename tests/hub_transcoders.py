"""Transcoders of every format in a repository on a small local server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mi_core.transcoders.folder import LocalFolder
from mi_core.transcoders.folder_find import find_folder
from mi_core.transcoders.formats import open_folder
from mi_core.transcoders.hub_plan import Plan, ask_plan, known_plan
from mi_core.transcoders.hub_reference import parse_reference
from mi_core.transcoders.transcoder import Transcoder
from tests.range_hub import RangeHub
from tests.tiny import tiny
from tests.transcoder_files import (
    write_gemma_scope,
    write_gemma_scope_2,
    write_gemma_scope_2_clt,
    write_plt,
    write_sae_lens,
)
from tests.transcoder_numbers import D, F, Numbers, numbers

X = np.random.default_rng(1).normal(size=(4, 6, D))
DECODER = F * D * 4
NAME = "org/gemma-transcoders"
LAYER = 2


def plt(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=False, jump=True, skip=True)
    return write_plt(n, folder, writes="hook_mlp_out"), n


def plt_top_k(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=False, k=3)
    return write_plt(n, folder, writes="hook_mlp_out"), n


def sae_lens(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=False, jump=True, centred=True)
    return write_sae_lens(n, folder), n


def sae_lens_skip(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=False, skip=True)
    write_sae_lens(n, folder, hook="ln2.hook_normalized", architecture="skip_transcoder")
    for path in folder.rglob("cfg.json"):
        cfg = json.loads(path.read_text())
        out = cfg["hook_name"].replace("ln2.hook_normalized", "hook_mlp_out")
        path.write_text(json.dumps({**cfg, "hook_name_out": out, "apply_b_dec_to_input": False}))
    return folder, n


def gemma_scope(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=False, jump=True)
    return write_gemma_scope(n, folder), n


def gemma_scope_2(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=False, jump=True, skip=True)
    return write_gemma_scope_2(n, folder), n


def gemma_scope_2_clt(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=True, jump=True, unused=True)
    return write_gemma_scope_2_clt(n, folder), n


Writer = Callable[[Path], tuple[Path, Numbers]]
FORMATS: tuple[Writer, ...] = (
    plt, plt_top_k, sae_lens, sae_lens_skip, gemma_scope, gemma_scope_2, gemma_scope_2_clt
)  # fmt: skip


def publish(hub: RangeHub, folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    hub.repos[NAME] = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    return hub.repos[NAME]


def plan_of(hub: RangeHub, name: str = NAME) -> Plan:
    return ask_plan(parse_reference(name), endpoint=hub.address)


def opened(hub: RangeHub, name: str = NAME) -> Transcoder:
    return open_folder(find_folder(name, (), endpoint=hub.address), tiny("gemma2"))


def whole(folder: Path) -> Transcoder:
    """The same from the folder as it was published."""
    return open_folder(LocalFolder(folder, NAME), tiny("gemma2"))


def weights(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.endswith((".safetensors", ".npz"))}


def decoder_bytes(n: Numbers, write: Writer) -> int:
    """Of the fixtures' layer; Gemma Scope 2's CLT also has the unused targets before it."""
    return DECODER * (n.n_layers if write is gemma_scope_2_clt else 1)


def plan_without_network() -> Plan:
    plan = known_plan(parse_reference(NAME))
    assert plan is not None
    return plan
