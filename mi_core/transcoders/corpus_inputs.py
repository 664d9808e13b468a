"""What a user chooses for a pass of a transcoder over a corpus."""

from dataclasses import dataclass
from typing import Any

from mi_core.analyses.plain import check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError

MAX_EXAMPLES, MAX_GROUPS, MAX_SAMPLED, MAX_AROUND, MAX_WORDS = 100, 20, 400, 2000, 100


@dataclass(frozen=True, slots=True)
class CorpusPassInputs:
    """Run a text through model and transcoder and write features files.

    Attributes:
        text: "diverse" (Lantern's own texts), or a file: .txt (blank lines separate documents) or .jsonl (one
            document per line, as {"text": ...}).
        transcoder: "" = the one beside the model; else its name, folder or Hugging Face id.
        save_to: folder for the files; "" = `features` beside the transcoder if that is a folder of yours,
            else in your data folder. It is replaced as a whole, and refused if it holds anything else.
        row: tokens of a row at most, BOS included; longer documents are split.
        max_tokens: tokens that count at most; 0 = all.
        top: strongest examples per feature, one per row, and no beginning of a row twice.
        groups: equal parts of a feature's active tokens, from strong to weak, of which examples are shown.
        per_group: examples of each part.
        sampled: active tokens per feature that are drawn at random: for the groups, and for what is active
            with it.
        around: tokens kept on each side of an example.
        words: tokens that a feature writes most and least, how many of each; 0 = none.
        max_bytes: size that the files must not exceed; examples are cut until they fit. 0 =
            no limit.
        seed: of the draw.
    """

    text: str = "diverse"
    transcoder: str = ""
    save_to: str = ""
    row: int = 128
    max_tokens: int = 0
    top: int = 10
    groups: int = 5
    per_group: int = 3
    sampled: int = 40
    around: int = 32
    words: int = 10
    max_bytes: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no pass could make sense of."""
        for name in ("text", "transcoder", "save_to"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"The {name} is no text")
        if not self.text:
            raise InputError("No text is given", fix='Give a file, or "diverse"')
        check_whole("length of a row", self.row, 4, 100_000)
        check_whole("limit of tokens", self.max_tokens, 0, 10**12)
        check_whole("number of strongest examples", self.top, 1, MAX_EXAMPLES)
        check_whole("number of groups", self.groups, 0, MAX_GROUPS)
        check_whole("number of examples per group", self.per_group, 0, MAX_EXAMPLES)
        check_whole("number of sampled tokens", self.sampled, 1, MAX_SAMPLED)
        check_whole("number of tokens around", self.around, 0, MAX_AROUND)
        check_whole("number of words", self.words, 0, MAX_WORDS)
        check_whole("size limit", self.max_bytes, 0, 10**15)
        check_whole("seed", self.seed, 0, 2**32 - 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CorpusPassInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "corpus pass")
