"""Induction: random tokens said twice, as tokens (a text of them might be split otherwise)."""

from typing import Any

import numpy as np

from mi_core.analyses.head_scores_sequences import usable_tokens
from mi_core.analyses.tasks import Task, TaskPair
from mi_core.analyses.tasks_pairs import too_few
from mi_core.errors import InputError
from mi_core.tokens import Bos, tokenize

MIN_LENGTH, MAX_LENGTH = 4, 200


def draw_induction(tokenizer: Any, n: int, seed: int, length: int, bos: Bos) -> Task:
    """See `mi_core.analyses.tasks.induction_task`."""
    if isinstance(length, bool) or not isinstance(length, int) or not MIN_LENGTH <= length <= MAX_LENGTH:
        raise InputError(
            f"The length is {length!r:.40}", fix=f"Give a whole number from {MIN_LENGTH} to {MAX_LENGTH}"
        )
    probe = tokenize(tokenizer, "a", bos=bos)  # refuses where there is no tokenizer
    usable = usable_tokens(tokenizer, len(tokenizer))
    if len(usable) < 2 * length:
        raise too_few("Random sequences cannot be made", f"there are only {len(usable)} ordinary tokens")
    front, rng, pairs = probe.ids[: probe.bos], np.random.default_rng(seed), []
    said = length // 2  # tokens of the second copy that stand before its end
    for _ in range(n):
        drawn = rng.choice(usable, 2 * length, replace=False).tolist()
        once, other = drawn[:length], drawn[length:]
        end = len(front) + length + said
        # The wrong answer stands in the first copy as well, so that mere copying is not enough.
        wrong = once[int(rng.choice([i for i in range(length) if i not in (said, said + 1)]))]
        ids, counterfactual = (*front, *once, *once[: said + 1]), (*front, *other, *once[: said + 1])
        pairs.append(
            TaskPair(
                prompt=tokenizer.decode(list(ids[len(front) :])),
                counterfactual=tokenizer.decode(list(counterfactual[len(front) :])),
                answer=tokenizer.decode([once[said + 1]]),
                wrong=tokenizer.decode([wrong]),
                roles=(("before", len(front) + said), ("answer", len(front) + said + 1), ("end", end)),
                template="repeated tokens",
                ids=ids,
                counterfactual_ids=counterfactual,
                answer_id=once[said + 1],
                wrong_id=wrong,
            )
        )
    note = (
        f"{length} random tokens and the first {said + 1} of them again; the answer is what followed before "
        "(Olsson et al. 2022), the wrong answer another token of the first copy; counterfactual: another "
        "first copy, nothing repeats."
    )
    return Task("induction", tuple(pairs), note)
