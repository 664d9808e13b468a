"""Formulas and papers of the methods, shown beside figures and on the help page, in Markdown."""

ROME = (
    "[Meng et al. 2022, *Locating and Editing Factual Associations in GPT*](https://arxiv.org/abs/2202.05262)"
)
ZHANG_NANDA = (
    "[Zhang & Nanda 2023, *Towards Best Practices of Activation Patching*](https://arxiv.org/abs/2309.16042)"
)
HEIMERSHEIM = (
    "[Heimersheim & Nanda 2024, *How to use and interpret activation patching*]"
    "(https://arxiv.org/abs/2404.15255)"
)
HASE = "[Hase et al. 2023, *Does Localization Inform Editing?*](https://arxiv.org/abs/2301.04213)"

TRACE_FORMULA = rf"""
$$
P[l, t] = \frac1n \sum_{{i=1}}^{{n}}
P\big(\text{{answer}} \mid \text{{corrupted run }} i,\; h_t^{{(l)}} \leftarrow \text{{clean}}\big)
$$

- indirect effect = $P[l,t] - P_\text{{corrupted}}$, total effect = $P_\text{{clean}} - P_\text{{corrupted}}$
- recovered share = indirect effect / total effect (0 = corrupted run, 1 = clean run)
- KL recovery =
  $1 - \mathrm{{KL}}(\text{{clean}}\|\text{{patched}}) / \mathrm{{KL}}(\text{{clean}}\|\text{{corrupted}})$

Method: {ROME}.
"""

AVERAGE_FORMULA = rf"""
$$
\text{{AIE}}[r, l] = \underset{{\text{{prompts, tokens of role }} r}}{{\text{{mean}}}}
\big(P[l, t] - P_\text{{corrupted}}\big),
\qquad
\text{{ATE}} = \underset{{\text{{prompts}}}}{{\text{{mean}}}}
\big(P_\text{{clean}} - P_\text{{corrupted}}\big)
$$

Only prompts that the model answers correctly count. Method: {ROME}, figure 2.
"""

TRACE_METHOD = f"""
**Question.** Where, by layer and token, does the model carry what it needs for its answer?

**What is done.** The prompt is run once as it is (*clean*) and once spoilt (*corrupted*). Then, cell by cell,
one value of the other run is put in at one token and one layer, and the rest of the model runs on from there.
*Clean into corrupted* (denoising) asks what is enough to bring the answer back; *corrupted into clean*
(noising) asks what the answer cannot do without. The two need not agree.

**Corruption.** Either noise is added to the embeddings of the subject's tokens (3 standard deviations of the
model's embedding outputs, ten draws, the same draws in every cell), or a second prompt of equal length takes
the place of the first. Noise leaves the distribution that the model was trained on; a second prompt does not,
but only shows what differs between the two prompts. {ZHANG_NANDA} recommend swapped prompts and the logit
difference.

**What is restored.** *State*: the residual stream after a block. *Attention*, *MLP*: what that module adds to
the stream, in a window of layers if you like. *Single heads*: one head's output. *Severed*: the state is
restored while the token's later attention (or MLP) outputs are held at their corrupted values.

{TRACE_FORMULA}

**Limits.** A bright cell is enough for the answer in this corrupted run; it need not be needed, and it need
not be where an edit would work ({HASE}). A dark cell may matter together with others. Windows amplify
effects, and on a small model they cover most layers. When the corruption is weak, shares are divided by a
small number: look at differences. How to choose: {HEIMERSHEIM}.
"""

AVERAGE_METHOD = f"""
Causal traces of many prompts, averaged by six roles of tokens: first, middle and last token of the subject,
the first token after it, further tokens, the last token. A one-token subject counts as first and last. Only
prompts that the model answers correctly count; the others are listed. Bands are 95 % bootstraps over prompts,
paired with each prompt's own corrupted run.

{AVERAGE_FORMULA}
"""
