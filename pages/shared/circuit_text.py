"""Formulas of the tab "Head circuits"."""

CLASSES_FORMULA = r"""
Let $d$ be the mean logit difference and $e = 0.05\,|d|$. A condition holds if the whole 95 % band does.

| class | all of |
|---|---|
| name mover | direct effect $> e$, attention to IO $> 0.1$ and above S1 and S2, copying score $> 0.5$ |
| negative name mover | direct effect $< -e$, the same attention, negative copying score $> 0.5$ |
| S-inhibition | path into the name movers' queries $< -e$, attention to S2 $> 0.1$ and above IO |
| backup | ablation alone $> -e$, ablation without the name movers $< -e$, and lower by $e$ than alone |
| duplicate token, induction, previous token | the habit on repeated random tokens $> 0.4$ |

Several roles at once, an open band, or an effect without a class: *unclear*. Wang et al. (2023), sections 3.1
to 3.4.
"""

TEST_FORMULA = r"""
$F(X)$ = mean logit difference with all heads outside $X$ ablated. Faithfulness: $F(C) / F(M)$. Completeness:
$F(C \setminus K)$ against $F(M \setminus K)$ for parts $K$ of the circuit $C$. Wang et al. (2023), section 4.
"""

PATHS_FORMULA = r"""
$z_{s} \leftarrow z_{s}(\text{counterfactual})$, every other $z \leftarrow z(\text{clean})$; what arrives at
the receiver's input is set in a second, clean run. Effect: logit difference then minus clean. Wang et al.
(2023), appendix B; Goldowsky-Dill et al. (2023), section 2.
"""

CIRCUIT_METHOD = """
A task is a set of prompt pairs with a right and a wrong answer; the score is the logit difference. Every head
is measured on it: direct effect, attention to roles, whether it copies what it reads, what ablating it
changes (alone, and without the name movers), what it tells the name movers' queries, and its habits on
repeated random tokens. A class is given only if every number that it asks for holds with its whole 95 % band;
several classes at once, or an effect that no class explains, are *unclear*. Path patching is exact: one head
speaks as in the counterfactual prompt, all other heads are frozen, one receiver may answer. The circuit is
then tested: alone (faithfulness), without parts (completeness), against random circuits of its size.

On Atlas, the bundled model, no head is a name mover: its induction heads look at both names alike, and heads
of layer 0 that look at the second mention of the subject decide between them, through the MLPs.
"""
