"""The formula of steering by features, in Markdown."""

STEER_FORMULA = r"""
$$
y_m[p] \leftarrow y_m[p] + \sum_{f} c_f[p]\, W_\text{dec}^{f \to m}
\qquad\text{at every token } p \text{ that is named, as long as the text grows}
$$

$$
c_f[p] = \begin{cases} s & \text{add } s \\ -s & \text{suppress } s \\
a^\text{to} - a_f[p] & \text{set, scale, ablate} \end{cases}
\qquad
\mathrm{KL}_s = \sum_v P(v)\,\log\frac{P(v)}{P_{\text{steered}}(v)}
$$

- $y_m$: what the transcoder writes at layer $m$
- $a_f[p]$: the activation that the encoder reads at token $p$, with the edits of earlier layers and tokens
  acting; it is read anew at every new token
- $\mathrm{KL}_s$: after the prompt and the default tokens before step $s$
"""
