"""What a user chooses for steering: where a vector comes from, where it is added, how much, what is read."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS, check_asked
from mi_core.analyses.plain import check_choice, check_text, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos

Source = Literal["prompts", "sets", "embedding", "unembedding", "file", "feature"]
Pool = Literal["last", "all"]
Site = Literal["resid_post", "attn_out", "mlp_out"]
Where = Literal["all", "last", "chosen"]
Queries = Literal["last", "later"]

COEFFICIENTS = (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
MAX_COEFFICIENTS = 200
MAX_CONTROLS = 100
MAX_COEFFICIENT = 1e6
MAX_VECTOR = 131_072
MAX_FEATURE_VECTOR = 2_000_000
MAX_PROMPTS = 200
MAX_CHARACTERS = 100_000


@dataclass(frozen=True, slots=True)
class SteeringInputs:
    """A vector added to the model's stream.

    Attributes:
        prompt: ends just before its answer.
        source: "prompts" = state of `positive` minus state of `negative`; "sets" = the same of means over two
            sets; "embedding" or "unembedding" of `token`; "file" = the numbers in `vector`; "feature" = those
            that a transcoder's feature writes to each layer, in `vector` too.
        positive: the prompt (for "sets": the prompts, one per line) that the vector points to.
        negative: what it points away from, likewise. Empty for "prompts": the prompt itself.
        pool: of each of these prompts the last token's state, or the mean over all its tokens (without the
            beginning-of-sequence token).
        token: text of one token; empty = the answer's, or without an answer the prompt's top token.
        vector: d_model numbers read from a file; of a feature d_model for every layer, layer after layer.
        vector_name: the file's name; or which feature it is, a sentence.
        site: what it is added to.
        layer: where; None = the middle layer.
        where: at which tokens of the prompt.
        chosen: positions, for where = "chosen".
        coefficients: doses of the dose curve, ascending; 0 = nothing is added.
        coefficient: the one dose of layer sweep, convergence and routing.
        controls: random directions of the same norm, for the dose curve.
        seed: of these directions.
        metric: whose value `wished` is.
        wished: value for which the dose is looked up; None = no wish.
        threshold: cosine from which a steered state counts as absorbed.
        queries: for routing: who reads, "last" = the last token, "later" = the mean over the last steered
            token and all after it.
        answer: text whose first token is read; None = the prompt's top token.
        distractor: text whose first token's logit is compared with the answer's; None = none.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    source: Source = "unembedding"
    positive: str = ""
    negative: str = ""
    pool: Pool = "last"
    token: str = ""
    vector: tuple[float, ...] = ()
    vector_name: str = ""
    site: Site = "resid_post"
    layer: int | None = None
    where: Where = "last"
    chosen: tuple[int, ...] = ()
    coefficients: tuple[float, ...] = COEFFICIENTS
    coefficient: float = 1.0
    controls: int = 10
    seed: int = 0
    metric: str = "probability"
    wished: float | None = 0.5
    threshold: float = 0.95
    queries: Queries = "last"
    answer: str | None = None
    distractor: str | None = None
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; what depends on the model is checked when it is known."""
        for name in ("vector", "chosen", "coefficients"):  # hashable, whoever wrote [..] in a notebook
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_asked(self)
        choices = (("source", Source), ("pool", Pool), ("site", Site), ("where", Where), ("queries", Queries))
        for name, options in choices:
            check_choice(name, getattr(self, name), get_args(options))
        check_choice("metric", self.metric, tuple(EFFECT_METRICS))
        if self.layer is not None:
            check_whole("layer", self.layer, 0, 1_000_000)
        check_whole("number of random controls", self.controls, 0, MAX_CONTROLS)
        check_whole("seed", self.seed, 0, 2**63 - 1)
        if not 0 < self.threshold <= 1:
            raise InputError(f"The threshold {self.threshold!r:.40} is no cosine", fix="Give 0 to 1")
        if self.wished is not None and not math.isfinite(self.wished):
            raise InputError("The wished value is not a number")
        self._check_doses()
        self._check_where()
        self._check_source()

    def _check_doses(self) -> None:
        doses = (*self.coefficients, self.coefficient)
        bad = [dose for dose in doses if not abs(dose) <= MAX_COEFFICIENT]
        if bad:
            raise InputError(
                f"The coefficient {bad[0]!r:.40} cannot be used", fix="Give numbers up to a million"
            )
        if not 1 <= len(self.coefficients) <= MAX_COEFFICIENTS:
            fix = f"Give 1 to {MAX_COEFFICIENTS}"
            raise InputError(f"There are {len(self.coefficients)} coefficients", fix=fix)
        if any(after <= before for before, after in pairwise(self.coefficients)):
            raise InputError("The coefficients do not ascend", fix="Give each once, the smallest first")

    def _check_where(self) -> None:
        if (self.where == "chosen") != bool(self.chosen):
            fix = "Give positions together with where = chosen, and only then"
            raise InputError("Positions and the choice of where do not fit together", fix=fix)
        for position in self.chosen:
            check_whole("position", position, 0, 1_000_000)
        if len(set(self.chosen)) < len(self.chosen):
            raise InputError("A position is given twice")

    def _check_source(self) -> None:
        if self.source in ("prompts", "sets"):
            check_text(
                "positive prompt", self.positive, MAX_CHARACTERS, "Give the prompt the vector points to"
            )
            if self.negative or self.source == "sets":
                check_text("negative prompt", self.negative, MAX_CHARACTERS, "Give what it points away from")
        elif self.positive or self.negative:
            fix = "Choose the source prompts or sets, or leave them out"
            raise InputError(f"Prompts do not belong to the source {self.source!r}", fix=fix)
        if self.source in ("embedding", "unembedding"):
            if self.token:
                check_text("token", self.token, 1000)
        elif self.token:
            raise InputError(f"A token does not belong to the source {self.source!r}")
        if (self.source in ("file", "feature")) != bool(self.vector):
            raise InputError(
                "A vector of numbers and the sources 'file' and 'feature' belong together",
                fix="Load a vector file, or take a feature's vector",
            )
        if self.vector:
            limit = MAX_VECTOR if self.source == "file" else MAX_FEATURE_VECTOR
            if not 1 <= len(self.vector) <= limit:
                raise InputError(
                    f"The vector has {len(self.vector)} numbers", fix="Load a vector from a file"
                )
            if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in self.vector):
                raise InputError("The vector contains NaN or an infinity", fix="Give finite numbers only")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SteeringInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that `SteeringInputs` refuses.
        """
        return inputs_from_dict(cls, values, "steering")


def prompt_lines(text: str, name: str) -> tuple[str, ...]:
    """The prompts of a set: one per line, empty lines left out.

    Raises:
        InputError: none, or too many.
    """
    found = tuple(line.rstrip("\r") for line in text.split("\n") if line.strip())
    if not 1 <= len(found) <= MAX_PROMPTS:
        raise InputError(
            f"The {name} set has {len(found)} prompts", fix=f"Give 1 to {MAX_PROMPTS}, one per line"
        )
    return found
