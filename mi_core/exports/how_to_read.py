"""What to tell a reader who sees a kind of figure for the first time, with the formula and the paper."""

CAUSAL_TRACE = (
    "The subject of the prompt is corrupted, so that the model loses its answer. Then one clean value "
    "is put back, at one token and one layer, and the model runs on from there. A bright cell means: "
    "this value alone brings the answer back, so it carries what the corrupted run lacks. Early layers "
    "at the subject's last token are the early site, late layers at the last token the late site (Meng "
    "et al., 2022). Effect of a cell = its value minus that of the corrupted run; total effect = clean "
    "minus corrupted. A cell that stays dark may still matter together with others, and where a fact "
    "shows up does not say where to edit it (Hase et al., 2023)."
)
CURVE = (
    "One row of the heatmap as lines: how much of the answer comes back when the value at this token "
    "is put back at each layer. The dashed lines are the two runs between which a patch moves."
)
SEVERED = (
    "If a bar shrinks when MLPs are severed, the state at that layer works through later MLPs of the "
    "same token; if it does not shrink when attention is severed, later attention at that token is not "
    "needed (Meng et al., 2022, section 2)."
)
CELL = "What the model would say next: clean, corrupted, and with this one value patched."
SAMPLES = (
    "One point per draw of the noise. All cells use the same draws, so that a difference between two "
    "cells is not a difference of their noise."
)
AVERAGE = (
    "Causal traces of many prompts, averaged by the role of the restored token. Average indirect "
    "effect (AIE) = mean of restored minus corrupted; average total effect (ATE) = mean of clean minus "
    "corrupted. Differences are taken per prompt, between runs with the same noise, then averaged; "
    "nothing is clipped. Bands are 95 % bootstraps over prompts: they say how the mean would vary with "
    "other prompts of the same kind."
)
