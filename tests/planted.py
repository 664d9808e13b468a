"""A gpt2-shaped model with hand-written weights: a whole name-moving circuit and an induction pair, known.

The stream is a direct sum of orthogonal subspaces, all orthogonal to the mean direction so that LayerNorm's
centring leaves them alone. MLPs and the other heads are random and write where nobody reads. Every head that
does not find what it looks for rests on `<s>`, whose value is zero. Prompts are
"Mary and John went so John gave it to" -> Mary.

    L0H0 previous token      writes the token before into `previous`
    L0H1 duplicate token     looks at the same token before; writes it into `seen`
    L1H0 induction           looks where `previous` is its own token; copies that token to `out`
    L1H1 S-inhibition        from the last token to the name that was seen before; writes it into `inhibited`
    L2H0 name mover          from the last token to names that are not inhibited; copies to `out`
    L2H1 negative            the same with a smaller, opposite sign
    L3H0 backup              as the name mover, but not to names that are in `out` already
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from mi_core.analyses.path_patching_rows import Group
from mi_core.engine import build_model
from mi_core.model.model import LoadedModel

NAMES = ("Mary", "John", "Tom", "Anna", "Paul", "Kate", "Jack", "Lucy")
FILLERS = ("and", "went", "so", "gave", "it", "to", "then", "was", "ran")
WORDS = ("<s>", "</s>", "<unk>", *NAMES, *FILLERS)
N_POS, D_HEAD, N_HEADS, N_LAYERS = 24, 44, 4, 4
D_MODEL = D_HEAD * N_HEADS
N_WORDS, N_NAMES, FIRST_NAME = len(WORDS), len(NAMES), 3

CLASSES = {
    (0, 0): "previous token",
    (0, 1): "duplicate token",
    (1, 0): "induction",
    (1, 1): "S-inhibition",
    (2, 0): "name mover",
    (2, 1): "negative name mover",
    (3, 0): "backup",
}
"""What was planted; all other heads are nothing."""

_SIZES = {
    "token": N_WORDS,
    "position": N_POS,
    "previous": N_WORDS,
    "seen": N_WORDS,
    "inhibited": N_NAMES,
    "out": N_WORDS,
    "nowhere": 20,
}
_SHARP = 3.0
_REST = 8.0


def _subspaces() -> dict[str, np.ndarray]:
    """Name -> orthonormal rows [size, d_model]."""
    draw = np.random.default_rng(0).normal(size=(D_MODEL, sum(_SIZES.values())))
    basis, _ = np.linalg.qr(np.concatenate([np.ones((D_MODEL, 1)), draw], 1))
    found, start = {}, 1
    for name, size in _SIZES.items():
        found[name] = basis[:, start : start + size].T
        start += size
    return found


SPACE = _subspaces()
NAME_TOKENS = slice(FIRST_NAME, FIRST_NAME + N_NAMES)
WORD_TOKENS = slice(FIRST_NAME, N_WORDS)
BOS_TOKEN = SPACE["token"][0]
END_TOKEN = SPACE["token"][WORDS.index("to")]


class _Head:
    """Weights of a head as they are written down, one line per dimension of the head."""

    def __init__(self) -> None:
        self.query, self.key = np.zeros((D_MODEL, D_HEAD)), np.zeros((D_MODEL, D_HEAD))
        self.value, self.output = np.zeros((D_MODEL, D_HEAD)), np.zeros((D_HEAD, D_MODEL))
        self.query_bias = np.zeros(D_HEAD)
        self.used = 0

    def match(self, query: np.ndarray, key: np.ndarray, strength: float = _SHARP) -> "_Head":
        """Score a query and a key by the product of these directions [n, d_model], dimension by dimension."""
        where = slice(self.used, self.used + len(query))
        self.query[:, where] += strength * query.T
        self.key[:, where] += key.T
        self.used += len(query)
        return self

    def rest(self, strength: float = _REST) -> "_Head":
        """Every query looks at <s> a little."""
        self.key[:, self.used] = BOS_TOKEN
        self.query_bias[self.used] = strength
        self.used += 1
        assert self.used <= D_HEAD
        return self

    def move(self, read: np.ndarray, write: np.ndarray, strength: float) -> "_Head":
        """Copy from one subspace to another."""
        self.value[:, : len(read)] = read.T
        self.output[: len(write)] = strength * write
        return self


def _heads() -> dict[tuple[int, int], _Head]:
    token, position, names = SPACE["token"], SPACE["position"], SPACE["token"][NAME_TOKENS]
    words, out = token[WORD_TOKENS], SPACE["out"]
    ends = np.repeat(END_TOKEN[None], 1, 0)
    any_name = names.sum(0, keepdims=True)
    any_seen = SPACE["seen"][NAME_TOKENS].sum(0, keepdims=True)
    return {
        (0, 0): _Head()
        .match(position[1:], position[:-1], 6.0)
        .move(words, SPACE["previous"][WORD_TOKENS], 0.1),
        (0, 1): _Head()
        .match(words, words)
        .match(position, position, -6.0)
        .rest()
        .move(words, SPACE["seen"][WORD_TOKENS], 0.1),
        (1, 0): _Head()
        .match(words, SPACE["previous"][WORD_TOKENS])
        .rest()
        .move(words, out[WORD_TOKENS], 0.1),
        (1, 1): _Head()
        .match(ends, any_seen)
        .rest()
        .move(SPACE["seen"][NAME_TOKENS], SPACE["inhibited"], 0.15),
        (2, 0): _Head()
        .match(ends, any_name)
        .match(SPACE["inhibited"], names, -6.0)
        .rest()
        .move(names, out[NAME_TOKENS], 0.3),
        (2, 1): _Head()
        .match(ends, any_name)
        .match(SPACE["inhibited"], names, -6.0)
        .rest()
        .move(names, out[NAME_TOKENS], -0.1),
        (3, 0): _Head()
        .match(ends, any_name)
        .match(SPACE["inhibited"] + out[NAME_TOKENS], names, -6.0)
        .rest()
        .move(names, out[NAME_TOKENS], 0.1),
    }


def _idle(generator: np.random.Generator) -> _Head:
    """Random attention, and a little written where nobody reads it."""
    head = _Head()
    head.query, head.key, head.value = (generator.normal(size=(D_MODEL, D_HEAD)) * 0.1 for _ in range(3))
    head.output = 0.01 * generator.normal(size=(D_HEAD, len(SPACE["nowhere"]))) @ SPACE["nowhere"]
    return head


def _all_heads() -> dict[tuple[int, int], _Head]:
    planted, generator = _heads(), np.random.default_rng(1)
    places = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
    return {place: planted.get(place) or _idle(generator) for place in places}


def _write_mlp(mlp: Any, generator: np.random.Generator) -> None:
    nowhere = generator.normal(size=(4, len(SPACE["nowhere"]))) @ SPACE["nowhere"]
    mlp.c_fc.weight.data[:] = torch.tensor(generator.normal(size=(D_MODEL, 4)) * 0.1)
    mlp.c_proj.weight.data[:] = torch.tensor(0.02 * nowhere)


def planted_hf() -> Any:
    """The Hugging Face model, float64."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"attn_implementation": "eager"}
    hf: Any = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=N_WORDS,
            n_positions=N_POS,
            n_embd=D_MODEL,
            n_layer=N_LAYERS,
            n_head=N_HEADS,
            n_inner=4,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=1,
            **settings,
        )
    ).eval()
    for parameter in hf.parameters():
        parameter.data.zero_()
    hf = hf.double()
    inside = hf.transformer
    inside.wte.weight.data[:] = torch.tensor(SPACE["token"])
    inside.wpe.weight.data[:] = torch.tensor(SPACE["position"])
    hf.lm_head.weight.data[:] = torch.tensor(SPACE["out"])
    for norm in (inside.ln_f, *(norm for block in inside.h for norm in (block.ln_1, block.ln_2))):
        norm.weight.data.fill_(1.0)
    generator = np.random.default_rng(2)
    for block in inside.h:
        _write_mlp(block.mlp, generator)
    for (layer, head), weights in _all_heads().items():
        attention, mine = inside.h[layer].attn, slice(head * D_HEAD, (head + 1) * D_HEAD)
        for index, matrix in enumerate((weights.query, weights.key, weights.value)):
            columns = slice(index * D_MODEL + mine.start, index * D_MODEL + mine.stop)
            attention.c_attn.weight.data[:, columns] = torch.tensor(matrix)
        attention.c_attn.bias.data[mine] = torch.tensor(weights.query_bias)
        attention.c_proj.weight.data[mine] = torch.tensor(weights.output)
    count = sum(parameter.numel() for parameter in hf.parameters())
    assert count < 600_000, f"{count} parameters: not tiny"
    return hf


@cache
def planted_tokenizer() -> Any:
    """One token per word, `<s>` in front."""
    pieces = {("▁" if index >= FIRST_NAME else "") + word: index for index, word in enumerate(WORDS)}
    backend = Tokenizer(WordLevel(pieces, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@cache
def planted_model() -> LoadedModel:
    """The model, proved; shared by tests that only read it."""
    return build_model(planted_hf(), planted_tokenizer())


ROLES = {"IO": 1, "S1": 3, "S2": 6, "end": 9}
ROLES_BABA = {"S1": 1, "IO": 3, "S2": 6, "end": 9}


def sentence(first: str, second: str, third: str) -> str:
    """A prompt of the task."""
    return f"{first} and {second} went so {third} gave it to"


def planted_group(n: int = 24, seed: int = 0, *, indirect_first: bool = True) -> Group:
    """Prompts with different names and their counterfactuals with three other names."""
    generator = np.random.default_rng(seed)
    clean, other, answers, wrong = [], [], [], []
    for _ in range(n):
        io, subject, a, b, c = (NAMES[i] for i in generator.permutation(N_NAMES)[:5])
        clean.append(sentence(*((io, subject) if indirect_first else (subject, io)), subject))
        other.append(sentence(a, b, c))
        answers.append(WORDS.index(io))
        wrong.append(WORDS.index(subject))
    return Group(
        ids(clean),
        ids(other),
        torch.tensor(answers),
        torch.tensor(wrong),
        ROLES if indirect_first else ROLES_BABA,
        np.arange(n),
    )


def ids(prompts: list[str]) -> torch.Tensor:
    """Token ids, `<s>` in front."""
    return torch.tensor([planted_tokenizer()(prompt)["input_ids"] for prompt in prompts])
