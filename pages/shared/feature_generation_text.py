"""The formula of steering by features, in Markdown."""

STEER_FORMULA = r"""
$$
y_m[p] \leftarrow y_m[p] + \sum_{f} c_f[p]\, W_\text{dec}^{f \to m}
$$

$$
c_f[p] = \begin{cases} s & \text{add } s \\ -s & \text{suppress } s \\
a^\text{to} - a_f[p] & \text{set, scale, ablate} \end{cases}
\qquad
\mathrm{KL}_s = \sum_v P(v)\,\log\frac{P(v)}{P_{\text{steered}}(v)}
$$

- $y_m[p]$: what the transcoder writes at layer $m$ and token $p$: at every token that is acted on, as long
  as the text grows
- $a_f[p]$: the activation that the encoder reads at token $p$, with the edits of earlier layers and tokens
  acting; it is read anew at every new token
- $\mathrm{KL}_s$: after the prompt and the default tokens before step $s$
"""
