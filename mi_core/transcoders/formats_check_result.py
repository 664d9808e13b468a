"""What a transcoder is, what it takes, and how well it fits a prompt: numbers, table, JSON."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import (
    check_choice,
    check_text,
    checks_from,
    damage_told,
    inputs_from_dict,
    inputs_to_dict,
    provenance_from,
    texts_from,
)
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Bos

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/transcoder_check", 1
MAX_PROMPT_CHARACTERS = 100_000
MAX_NAME = 1000
WRONG = 1.0
"""Unexplained share above which a transcoder does worse than saying nothing."""

_TEXTS = ("name", "format", "kind", "activation", "model_name", "reads", "writes", "fingerprint")
_SIZES = ("encoder_bytes", "decoder_bytes", "row_bytes", "promised_bytes", "resident_bytes", "read_bytes")
_BY_LAYER = ("layers", "n_features")
_BY_TARGET = {"targets": "int64", "unexplained": "float64"}


@dataclass(frozen=True, slots=True)
class TranscoderCheckInputs:
    """Which transcoder to look at.

    Attributes:
        prompt: any text; the fit is measured on it.
        transcoder: the one beside the model (empty), a folder, or a Hugging Face address in the cache.
        show_bos: whether leading special tokens count too.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    transcoder: str = ""
    show_bos: bool = False
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what could name nothing.

        Raises:
            InputError: an empty or endless prompt, or a name that is no text.
        """
        check_text("prompt", self.prompt, MAX_PROMPT_CHARACTERS, "Type a sentence")
        if not isinstance(self.transcoder, str) or len(self.transcoder) > MAX_NAME:
            raise InputError("The transcoder's name is no short text", fix="Give a folder or a hub address")
        check_choice("show_bos", self.show_bos, (True, False))
        check_choice("bos", self.bos, ("auto", "always", "never"))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TranscoderCheckInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "transcoder check")


@dataclass(frozen=True, slots=True, eq=False)
class TranscoderCheckResult:
    """A transcoder and how well it fits.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        name: of the transcoder.
        format: "CLT folder", "PLT folder", "Gemma Scope", "SAELens", ...
        kind: "clt", "plt" or "sae".
        activation: "ReLU", "JumpReLU" or "top-k (k = 16)".
        model_name: the model that it says it is for; "" = it does not say.
        reads: the place that its encoders read.
        writes: the place that its decoders write.
        fingerprint: identifies its files.
        layers: [layer] source layers.
        n_features: [layer] features of each.
        targets: [target] layers that are written.
        unexplained: [target] share of the variance of what was written that it does not explain; NaN where
            it was not measured.
        unexplained_all: the same over all targets together; NaN unless all were measured.
        encoder_bytes: all encoders as stored.
        decoder_bytes: all decoders as stored.
        row_bytes: decoder rows of one feature of the first layer.
        promised_bytes: memory that it takes at most.
        resident_bytes: memory that its encoders hold now.
        read_bytes: what has been read of its files since it was opened.
        local: whether everything can be read without the network.
        warnings: sentences to be read first.
        checks: the load self-test.
        cancelled: whether it was stopped (always False).
    """

    inputs: TranscoderCheckInputs
    provenance: Provenance | None
    name: str
    format: str
    kind: str
    activation: str
    model_name: str
    reads: str
    writes: str
    fingerprint: str
    layers: Int[np.ndarray, " layer"]
    n_features: Int[np.ndarray, " layer"]
    targets: Int[np.ndarray, " target"]
    unexplained: Float[np.ndarray, " target"]
    unexplained_all: float
    encoder_bytes: int
    decoder_bytes: int
    row_bytes: int
    promised_bytes: int
    resident_bytes: int
    read_bytes: int
    local: bool
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Refuse arrays of different lengths."""
        if self.layers.shape != self.n_features.shape or self.targets.shape != self.unexplained.shape:
            raise ValueError("layers and features, or targets and shares, differ in number")

    @property
    def wrong(self) -> tuple[int, ...]:
        """Target layers at which it does worse than saying the mean."""
        return tuple(int(layer) for layer in self.targets[self.unexplained > WRONG])

    @property
    def worst(self) -> int | None:
        """Target layer with the largest unexplained share; None where nothing was measured."""
        if np.isnan(self.unexplained).all():
            return None
        return int(self.targets[np.nanargmax(self.unexplained)])

    @property
    def has_fit(self) -> bool:
        """Whether the fit was measured."""
        return self.worst is not None

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one number per row: layer, metric, value, unit."""
        import pandas as pd

        rows: list[dict[str, Any]] = [
            {"layer": int(layer), "metric": "features", "value": int(count), "unit": "count"}
            for layer, count in zip(self.layers, self.n_features, strict=True)
        ]
        rows += [
            {"layer": int(layer), "metric": "unexplained", "value": float(value), "unit": "share of variance"}
            for layer, value in zip(self.targets, self.unexplained, strict=True)
        ]
        rows += [
            {"layer": None, "metric": name, "value": getattr(self, name), "unit": "bytes"} for name in _SIZES
        ]
        return pd.DataFrame(rows)

    def to_json(self) -> str:
        """JSON text: schema "lantern/transcoder_check", version, every field; no NaN."""
        all_of_it = self.unexplained_all
        return dump_record(SCHEMA, VERSION, {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            **{name: getattr(self, name) for name in (*_TEXTS, *_SIZES, "local", "cancelled")},
            **{name: encode_array(getattr(self, name)) for name in (*_BY_LAYER, *_BY_TARGET)},
            "unexplained_all": None if np.isnan(all_of_it) else all_of_it,
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str | bytes) -> "TranscoderCheckResult":
        """The inverse of `to_json`.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("transcoder check"):
            layers, targets = (len(record["layers"]),), (len(record["targets"]),)
            fields: dict[str, Any] = {
                name: decode_array(record[name], "int64", layers, name) for name in _BY_LAYER
            }
            for name, dtype in _BY_TARGET.items():
                fields[name] = decode_array(record[name], dtype, targets, name)
            fields |= {name: str(record[name]) for name in _TEXTS}
            fields |= {name: int(record[name]) for name in _SIZES}
            whole = record["unexplained_all"]
            return cls(
                inputs=TranscoderCheckInputs.from_dict(record["inputs"]),
                provenance=provenance_from(record["provenance"]),
                **fields,
                unexplained_all=float("nan") if whole is None else float(whole),
                local=bool(record["local"]),
                warnings=texts_from(record["warnings"]),
                checks=checks_from(record["checks"]),
                cancelled=bool(record["cancelled"]),
            )
