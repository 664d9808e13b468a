"""Result -> Vega-Lite specification: plain dictionaries over inline data, nothing process-global.

A builder returns a specification without looks; `theme.styled` merges in a theme and a size, for the screen
and for paper alike. In a notebook, `altair.Chart.from_dict(styled(spec))` makes an Altair chart of it.
There are no statistics here: every number is one of the result's.
"""
