"""What a user chooses for a text that is continued with features edited; see `feature_generation_run`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mi_core.analyses.generation_inputs import GenerationInputs, Where
from mi_core.analyses.plain import check_text, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos
from mi_core.transcoders.feature_edits import FeatureEdit, parse_feature_edits
from mi_core.transcoders.names import Feature

MAX_LIST_CHARACTERS = 20_000
_FIX = "Write for example L5F102:add=2, L3F7:suppress=1, L2F9:set=4"


@dataclass(frozen=True, slots=True)
class FeatureGenerationInputs:
    """What to continue, and which features are edited meanwhile.

    Attributes:
        prompt: the text that is continued.
        features: the edits, such as "L5F102:add=2, L3F7:suppress=1, L2F9:set=4": all act together. Their
            places are chosen by `where`, so they name no tokens.
        where: whether they act on the prompt's tokens (but leading special ones), on generated tokens, or on
            both.
        transcoder: "" = the one bundled with the model; else a folder or a Hugging Face id.
        steps: how many tokens to add at most.
        temperature: logits are divided by it before a token is drawn; 0 = greedy.
        top_p: draw from the fewest likeliest tokens that together have this probability.
        seeds: one pair of continuations for each; greedy decoding has no use for more than one.
        stop_at_end: whether an end-of-text token ends a continuation.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    features: str = ""
    where: Where = "all"
    transcoder: str = ""
    steps: int = 20
    temperature: float = 0.0
    top_p: float = 1.0
    seeds: tuple[int, ...] = (0,)
    stop_at_end: bool = True
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        if isinstance(self.seeds, list):  # hashable, whoever wrote [..] in a notebook
            object.__setattr__(self, "seeds", tuple(self.seeds))
        check_text("list of features", self.features or " ", MAX_LIST_CHARACTERS)
        for edit in self.edits:
            if edit.positions is not None:
                why = "where all edits act is chosen once for all"
                raise InputError(f"{edit.text} names tokens", why=why, fix=_FIX)
        _ = self.plain  # refuses the rest

    @property
    def edits(self) -> tuple[FeatureEdit, ...]:
        """The list, read.

        Raises:
            InputError: naming the first piece that cannot be read, with an example of what can stand here.
        """
        try:
            return parse_feature_edits(self.features)
        except InputError as error:
            raise InputError(error.what, why=error.why, fix=_FIX) from error

    @property
    def held(self) -> tuple[FeatureEdit, ...]:
        """Those whose push depends on the activation at every token: set, scale and ablate."""
        return tuple(edit for edit in self.edits if edit.needs_present)

    @property
    def weights(self) -> dict[Feature, float]:
        """Feature -> how many times its decoder rows are added by add and suppress, which add up."""
        found: dict[Feature, float] = {}
        for edit in self.edits:
            if edit.needs_present:
                continue
            sign = -1.0 if edit.mode == "suppress" else 1.0
            found[edit.feature] = found.get(edit.feature, 0.0) + sign * (edit.value or 0.0)
        return found

    @property
    def plain(self) -> GenerationInputs:
        """Length and sampling; edits at the prompt have positions, so "generated" is right for the others."""
        return GenerationInputs(
            prompt=self.prompt,
            where="prompt" if self.where == "prompt" else "generated",
            steps=self.steps,
            temperature=self.temperature,
            top_p=self.top_p,
            seeds=self.seeds,
            stop_at_end=self.stop_at_end,
            bos=self.bos,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FeatureGenerationInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "steering by features")
