"""Which transcoders can be opened, and how their fit is checked; for the help page, in Markdown."""

SOURCE_METHOD = r"""
Type a folder, or an address on the Hugging Face hub (`owner/name`, with `/folder` and `@revision` if wanted).
The first three formats are circuit-tracer's.

| Format | Files | Read as |
|---|---|---|
| CLT folder | `W_enc_0.safetensors`, `W_dec_0.safetensors`, ... | `W_dec_l[f, j]` writes to layer l + j |
| PLT folder | `layer_0.safetensors`, ... and `config.yaml` | either orientation of `W_dec`; `x @ W_skip.T` |
| list of files | `config.yaml` with `transcoders:` | one file per layer, also of other repositories |
| Gemma Scope, first | `layer_0/.../params.npz` | the stream normalised without the norm's gain |
| Gemma Scope 2 | `params.safetensors`, `config.json` | hooks as the config names them |
| Gemma Scope 2, CLT | `params_layer_0.safetensors`, ... | `w_dec[f, m]` writes to layer m |
| SAELens | `cfg.json` with `sae_weights.safetensors` | what is prepared in another way is refused |

A JumpReLU exactly where there are thresholds. Shapes and keys are checked before a number is used; what is
missing or does not fit is named with file, key, expected and found shape. Pickles are never opened.

**The load self-test.** Files cannot tell whether a transcoder reads the right place of the right model. On
every prompt, $\sum_t \lVert y_t - \hat y_t\rVert^2 / \sum_t \lVert y_t - \bar y\rVert^2$ is
shown per layer: 0 = everything is explained, 1 = no better than the mean; above 1 it says *wrong hooks or
wrong model* in red.

**From the hub** nothing is asked unless you press a button: first the list of files with sizes, then what you
choose: encoders (what is active), decoders (what is written), layers. Where one file holds a whole layer
(PLT, Gemma Scope, SAELens), its header is read with the list, and the encoder is fetched as a part of it; a
compressed archive, or a server that sends only whole files, leaves only the whole. Instead of fetching
decoders, the rows of single features can be read by HTTP range (117 KiB of 26.5 GiB for one feature of
Gemma's CLT); what was read stays on disk.
"""
