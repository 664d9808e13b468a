"""What training a tuned lens returns: the translators, the course of the training, the quality. CPU numpy."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.analyses.tuned_lens import TunedLens
from mi_core.analyses.tuned_lens_inputs import TunedLensTrainInputs
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/tuned_lens_train", 1
UNIT = "nats per token"

PER_LAYER = (
    "plain_kl", "plain_low", "plain_high", "tuned_kl", "tuned_low", "tuned_high",
    "gain", "gain_low", "gain_high",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TextCounts:
    """Tokens and contexts of the three parts of the text.

    Attributes:
        training_tokens: that were there to learn from.
        training_contexts: see above.
        stopping_tokens: that decided which step is kept.
        stopping_contexts: see above.
        validation_tokens: on which the quality was measured.
        validation_contexts: see above.
        seen_tokens: that were learnt from, repetitions counted.
    """

    training_tokens: int
    training_contexts: int
    stopping_tokens: int
    stopping_contexts: int
    validation_tokens: int
    validation_contexts: int
    seen_tokens: int

    @property
    def rounds(self) -> float:
        """How often the training text was read."""
        return self.seen_tokens / self.training_tokens


@dataclass(frozen=True, slots=True, eq=False)
class TunedLensTrainResult:
    """A trained (or only measured) tuned lens and how good it is. Layer l reads what enters block l.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions, seed.
        n_layers: translators.
        loss: KL on each step's batch, before the step, in nats per token.
        checked_steps: steps (done so far) at which the stopping text was read.
        stopping_kl: KL on the stopping text then.
        best_step: per layer the step whose translator was kept: the best of `checked_steps`.
        plain_kl: KL(model || plain lens) on the validation text.
        plain_low: its 95 % band over contexts.
        plain_high: see above.
        tuned_kl: KL(model || tuned lens) on the same text.
        tuned_low: its band.
        tuned_high: see above.
        gain: plain minus tuned, above 0 where the tuned lens is better.
        gain_low: its band, from paired differences.
        gain_high: see above.
        counts: how much text.
        fingerprint: of the translators.
        saved_to: folder that the lens was saved in; "" = not saved.
        lens: the translators; None in a result that was read from a record (they are in the lens' folder).
        warnings: sentences to be read before the figure.
        checks: identities tried.
        seconds: duration.
        cancelled: whether the user stopped it; the best until then was kept.
    """

    inputs: TunedLensTrainInputs
    provenance: Provenance | None
    n_layers: int
    loss: Float[np.ndarray, "step layer"]
    checked_steps: Int[np.ndarray, "check"]
    stopping_kl: Float[np.ndarray, "check layer"]
    best_step: Int[np.ndarray, "layer"]
    plain_kl: Float[np.ndarray, "layer"]
    plain_low: Float[np.ndarray, "layer"]
    plain_high: Float[np.ndarray, "layer"]
    tuned_kl: Float[np.ndarray, "layer"]
    tuned_low: Float[np.ndarray, "layer"]
    tuned_high: Float[np.ndarray, "layer"]
    gain: Float[np.ndarray, "layer"]
    gain_low: Float[np.ndarray, "layer"]
    gain_high: Float[np.ndarray, "layer"]
    counts: TextCounts
    fingerprint: str
    saved_to: str = ""
    lens: TunedLens | None = None
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Every array has one column per layer."""
        layers, checks = (self.n_layers,), len(self.checked_steps)
        shapes = {name: getattr(self, name).shape for name in (*PER_LAYER, "best_step")}
        wrong = [name for name, shape in shapes.items() if shape != layers]
        if (
            self.loss.ndim != 2
            or self.loss.shape[1:] != layers
            or self.stopping_kl.shape != (checks, *layers)
        ):
            wrong.append("loss or stopping_kl")
        if wrong or (self.lens is not None and self.lens.n_layers != self.n_layers):
            raise ValueError(f"{self.n_layers} layers do not fit {wrong or 'the lens'}")

    @property
    def worse_layers(self) -> tuple[int, ...]:
        """Layers at which the tuned lens is worse than the plain one on the validation text."""
        return tuple(int(layer) for layer in np.flatnonzero(self.gain < 0))

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number.

        Columns: text ("validation", "stopping", "training"), lens ("plain", "tuned", "plain - tuned"), site,
            layer, step, value, low, high (95 % band), unit, tokens.
        """
        import pandas as pd

        return pd.DataFrame([*self._validation_rows(), *self._course_rows()])

    def _validation_rows(self) -> list[dict[str, Any]]:
        rows = []
        for lens, name in (("plain", "plain"), ("tuned", "tuned"), ("plain - tuned", "gain")):
            value, low, high = self.plain_kl, self.plain_low, self.plain_high
            if name != "plain":
                value = self.tuned_kl if name == "tuned" else self.gain
                low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
            for layer in range(self.n_layers):
                step = None if name == "plain" else int(self.best_step[layer])
                cell = _row("validation", lens, layer, step, float(value[layer]))
                band = {"low": float(low[layer]), "high": float(high[layer])}
                rows.append({**cell, **band, "unit": UNIT, "tokens": self.counts.validation_tokens})
        return rows

    def _course_rows(self) -> list[dict[str, Any]]:
        """The stopping text at every check, and the batches (of about as many tokens as asked for)."""
        courses = (
            ("stopping", self.checked_steps.tolist(), self.stopping_kl, self.counts.stopping_tokens),
            ("training", range(len(self.loss)), self.loss, self.inputs.batch_tokens),
        )
        nothing = float("nan")
        return [
            {
                **_row(text, "tuned", layer, int(step), float(values[index, layer])),
                **{"low": nothing, "high": nothing, "unit": UNIT, "tokens": tokens},
            }
            for text, steps, values, tokens in courses
            for index, step in enumerate(steps)
            for layer in range(self.n_layers)
        ]

    def to_json(self) -> str:
        """JSON text: schema "lantern/tuned_lens_train", version, every field but the translators; no NaN."""
        arrays = ("loss", "checked_steps", "stopping_kl", "best_step", *PER_LAYER)
        fields = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "n_layers": self.n_layers,
            "unit": UNIT,
            **{name: encode_array(getattr(self, name)) for name in arrays},
            "counts": asdict(self.counts),
            "fingerprint": self.fingerprint,
            "saved_to": self.saved_to,
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        }
        return dump_record(SCHEMA, VERSION, fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "TunedLensTrainResult":
        """The inverse of `to_json`; `lens` is None.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("training"):
            return _build(record)


def _row(text: str, lens: str, layer: int, step: int | None, value: float) -> dict[str, Any]:
    return {"text": text, "lens": lens, "site": "resid_pre", "layer": layer, "step": step, "value": value}


def _build(record: Mapping[str, Any]) -> TunedLensTrainResult:
    n_layers = int(record["n_layers"])
    steps, checks = len(record["loss"]), len(record["checked_steps"])
    per_layer: dict[str, Any] = {
        name: decode_array(record[name], "float64", (n_layers,), name) for name in PER_LAYER
    }
    return TunedLensTrainResult(
        inputs=TunedLensTrainInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        n_layers=n_layers,
        loss=decode_array(record["loss"], "float64", (steps, n_layers), "loss"),
        checked_steps=decode_array(record["checked_steps"], "int64", (checks,), "checked_steps"),
        stopping_kl=decode_array(record["stopping_kl"], "float64", (checks, n_layers), "stopping_kl"),
        best_step=decode_array(record["best_step"], "int64", (n_layers,), "best_step"),
        **per_layer,
        counts=TextCounts(**{name: int(value) for name, value in record["counts"].items()}),
        fingerprint=str(record["fingerprint"]),
        saved_to=str(record["saved_to"]),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )
