"""Edits while a text grows: which positions of a sequence of any length an edit acts on.

An edit was written for a prompt. On the sequence prompt + generated tokens it means:

- positions given: these positions of the prompt, at every step (their keys and values stay edited);
- positions None, `where` "prompt": every position of the prompt; "generated": every new token, when it is
  read; "all": both.

Attention squares address absolute positions. Keys that are given stay these keys for every later query; keys
None are all keys up to the query for a new token, and the keys of the prompt for a query in the prompt, so
that nothing that was computed once depends on what comes later. That is what makes a key-value cache exact.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from torch import Tensor

from mi_core.engine.edits import Edit, normalise
from mi_core.errors import EditError, InputError
from mi_core.model.model import LoadedModel
from mi_core.sites import site

Where = Literal["prompt", "generated", "all"]
WHERES: tuple[Where, ...] = get_args(Where)


def live_edits(
    model: LoadedModel, edits: Sequence[Edit], where: Where, n_prompt: int, n_pos: int
) -> list[Edit]:
    """The edits that act in a whole pass over the first `n_pos` tokens of prompt + generated tokens.

    Args:
        model: the loaded model.
        edits: as they were written for the prompt.
        where: what positions=None stands for.
        n_prompt: tokens of the prompt.
        n_pos: tokens of the sequence so far.

    Returns:
        Edits with explicit positions, in the order of `edits`; one that selects nothing yet is left out.

    Raises:
        SiteMissing: the model does not have a site or layer.
        EditError: an index is out of the prompt, or a value does not fit.
    """
    if where not in WHERES:
        raise InputError(f"{where!r} is no choice of where edits act", fix=f"Use one of {', '.join(WHERES)}")
    grown: list[Edit] = []
    for edit in edits:
        fixed = normalise(edit, model.structure, n_prompt)
        in_prompt = where != "generated" or fixed.positions is not None
        on_new = where != "prompt" and fixed.positions is None
        if on_new:
            _check_grows(fixed)
        if in_prompt:
            queries = fixed.positions or tuple(range(n_prompt))
            grown.append(_at(fixed, queries, n_prompt))
        new = range(n_prompt, n_pos) if on_new else range(0)
        if not fixed.square and new:
            grown.append(_at(fixed, tuple(new), n_prompt))
        elif fixed.square:
            grown += [_at(fixed, (query,), query + 1) for query in new]
    return grown


def _at(edit: Edit, positions: tuple[int, ...], n_keys: int) -> Edit:
    """The edit at these positions (queries); keys that were left open are the first `n_keys`."""
    keys = edit.keys if edit.keys is not None or not edit.square else tuple(range(n_keys))
    return replace(edit, positions=positions, keys=keys)


def by_position(edit: Edit) -> bool:
    """Whether an edit of all positions has one value per token of the prompt, and so none for others."""
    value = edit.value
    if edit.positions is not None or not isinstance(value, Tensor):
        return False
    from_end = 2 if edit.square else len(site(edit.site).axes)
    open_axes = [from_end, 1] if edit.square and edit.keys is None else [from_end]
    return any(value.dim() >= back and value.shape[-back] > 1 for back in open_axes)


def pinned_to_prompt(edits: Sequence[Edit], n_prompt: int) -> list[Edit]:
    """The same edits, those with a value for each token of the prompt at the prompt's positions only."""
    prompt = tuple(range(n_prompt))
    return [replace(edit, positions=prompt) if by_position(edit) else edit for edit in edits]


def _check_grows(edit: Edit) -> None:
    """A value that names every position of the prompt has none for a new token.

    Raises:
        EditError: it does.
    """
    if by_position(edit):
        raise EditError(
            f"The value of the edit at {edit.site!r} has one entry per token of the prompt",
            why="it would also act on new tokens, for which it has none",
            fix="Let it act on the prompt only, or give one value for all positions",
        )
