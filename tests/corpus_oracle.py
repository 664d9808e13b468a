"""A corpus pass done the slow way, and circuit-tracer's viewer in Python: both apart from Lantern's code."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mi_core.engine import observe
from mi_core.model.model import LoadedModel
from mi_core.transcoders.transcoder import Encoder, Transcoder
from tests.tiny import tiny
from tests.transcoders import MemorySource, tiny_clt, use
from tests.words import word_tokenizer

BOS = 0
TEXT = """The Eiffel Tower is in the city of Paris

The Space Needle is in downtown Seattle and Big Ben is in London
and the capital of Poland is Warsaw

Mary and John went to the store

Mary and John went to the city
When John gave a drink to Mary he was in Rome

the the the the the

Oslo

The capital of France is Paris and the capital of Italy is Rome and the capital of Spain is Madrid
"""


@cache
def worded(family: str = "llama") -> LoadedModel:
    """A tiny model that reads words and puts `<s>` first; with a transcoder of which one feature is dead."""
    model = replace(tiny(family), tokenizer=word_tokenizer(bos=True))
    model.transcoders = type(model.transcoders)()
    use(model, _with_dead(tiny_clt(model)))
    return model


def _with_dead(transcoder: Transcoder) -> Transcoder:
    source = transcoder.source
    assert isinstance(source, MemorySource)
    first = source.encoders[0]
    bias = first.b_enc.clone()
    bias[3] = -1e6
    source.encoders[0] = Encoder(first.stored, bias, first.threshold)
    return transcoder


def split_rows(model: LoadedModel, text: str, length: int) -> list[list[int]]:
    """Rows of a text, worked out with the tokenizer alone."""
    rows = []
    for document in text.strip().split("\n\n"):
        ids = model.tokenizer(document, add_special_tokens=False)["input_ids"]
        rows += [[BOS, *ids[i : i + length - 1]] for i in range(0, len(ids), length - 1)]
    return rows


def naive(model: LoadedModel, rows: list[list[int]]) -> dict[int, list[np.ndarray]]:
    """Per layer and row: [pos, feature] activations from the weights, BOS counted as 0."""
    transcoder = model.transcoders[""]
    found: dict[int, list[np.ndarray]] = {layer: [] for layer in transcoder.layers}
    for ids in rows:
        seen = observe(model, ids, ("resid_mid",))
        for layer in transcoder.layers:
            encoder = transcoder.source.encoder(layer)
            x = seen["resid_mid", layer].double().numpy()
            pre = x @ encoder.stored.double().numpy().T + encoder.b_enc.double().numpy()
            active = np.where(pre > encoder.threshold.double().numpy(), pre, 0.0)
            active[0] = 0.0
            found[layer].append(active)
    return found


class Viewer:
    """Reads features files as `frontend/assets/util.js` and `init-feature-examples.js` do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = json.loads(zlib.decompress((folder / "index.json.gz").read_bytes(), wbits=47))

    def load(self, cantor_number: int) -> dict[str, Any]:
        """A feature by its one number: unpair, look up, ask for an inclusive range, cut by the length."""
        w = math.floor((math.sqrt(8 * cantor_number + 1) - 1) / 2)
        feature = cantor_number - (w * w + w) // 2
        layer = w - feature
        entry = self.index[str(layer)]
        start, end = entry["offsets"][feature], entry["offsets"][feature + 1]
        whole = (self.folder / entry["filename"]).read_bytes()
        answer = whole[start : end + 1]  # "bytes=start-end": the end is included
        length = answer[0] | (answer[1] << 8) | (answer[2] << 16) | (answer[3] << 24)
        return json.loads(zlib.decompress(answer[4 : 4 + length], wbits=47))


def pair(layer: int, feature: int) -> int:
    """The number by which a graph's node names the feature."""
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def write_as_others(folder: Path, records: dict[int, list[dict[str, Any] | None]], *, as_list: bool) -> Path:
    """Features files as another program might write them: zlib, no dead features, perhaps a list as index."""
    folder.mkdir(parents=True)
    index = {}
    for layer, features in records.items():
        data, offsets = b"", [0]
        for one in features:
            if one is not None:
                packed = zlib.compress(json.dumps(one).encode())
                data += len(packed).to_bytes(4, "little") + packed
            offsets.append(len(data))
        (folder / f"part{layer}.bin").write_bytes(data)
        index[str(layer)] = {"filename": f"part{layer}.bin", "offsets": offsets}
    shown: Any = list(index.values()) if as_list else index
    (folder / "index.json.gz").write_bytes(gzip.compress(json.dumps(shown).encode()))
    return folder
