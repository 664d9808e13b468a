"""Which places of the model can be read and changed, and what was proved when it was loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from pages.shared.model_inspection import inspection
from pages.shared.running import duration
from pages.shared.session import chosen_about
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses import InspectResult
    from mi_core.analyses.inspect_parts import SiteInfo
    from pages.shared.hub import About


def draw_sites_tab() -> None:
    """Sites with their shapes, and the probe's report."""
    about = chosen_about()
    result = inspection(about)
    if about is None or result is None:
        return
    _draw_sites(result)
    _draw_proofs(about, result)


def _draw_sites(result: InspectResult) -> None:
    missing = [site for site in result.sites if site.missing]
    st.subheader("Sites")
    st.caption(
        f"{len(result.sites) - len(missing)} of {len(result.sites)} sites can be read and changed on this "
        "model. Shapes are for one prompt of pos tokens."
    )
    for site in missing:
        st.info(f"**{plain(site.name)}** is not available: {plain(site.missing)}.", icon=":material/block:")
    st.dataframe(
        {
            "site": [site.name for site in result.sites],
            "available": [not site.missing for site in result.sites],
            "shape here": [_shape(site) for site in result.sites],
            "layers": [site.layers for site in result.sites],
            "meaning": [site.meaning for site in result.sites],
            "TransformerLens name": [site.full_name for site in result.sites],
        },
        hide_index=True,
        height="content",
        alt="Sites of this model with their shapes.",
    )


def _shape(site: SiteInfo) -> str:
    """`pos, head 12, d_head 64`."""
    parts = zip(site.axes, site.sizes, strict=True)
    return ", ".join(axis if size is None else f"{axis} {size:,}" for axis, size in parts)


def _draw_proofs(about: About, result: InspectResult) -> None:
    passed = sum(proof.passed for proof in result.proofs)
    st.subheader("Proofs at load")
    st.caption(
        f"{passed} of {len(result.proofs)} held, in {duration(about.report.seconds)}. What fails is switched "
        f"off. Sweeps {'replay single layers' if result.replay else 'run the whole model for every variant'}."
    )
    for proof in result.proofs:
        if not proof.passed:
            off = f" Switched off: {plain(', '.join(proof.switched_off))}." if proof.switched_off else ""
            st.warning(f"**{plain(proof.name)}** did not hold: {plain(proof.detail)}.{off}")
    st.dataframe(
        {
            "held": [proof.passed for proof in result.proofs],
            "what was proved": [proof.name for proof in result.proofs],
            "figure": [proof.detail for proof in result.proofs],
        },
        hide_index=True,
        height="content",
        alt="Checks of the load-time probe.",
    )
