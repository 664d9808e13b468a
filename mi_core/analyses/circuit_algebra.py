"""Exact algebra of low-rank circuits W = A B (A [d_model r], B [r d_model]) without making W. Torch, float64.

SVD:        A = Q_a R_a, B^T = Q_b R_b, R_a R_b^T = U S V^T  =>  W = (Q_a U) S (Q_b V)^T
norm:       ||A B||_F^2 = trace((A^T A) (B B^T))
eigenvalues of G A B (G any matrix): those of the small B G A, and zeros
"""

import torch
from jaxtyping import Float
from torch import Tensor


def low_rank_svd(
    left: Float[Tensor, "rows r"], right: Float[Tensor, "r columns"]
) -> tuple[Float[Tensor, "rows s"], Float[Tensor, "s"], Float[Tensor, "columns s"]]:
    """Singular value decomposition of a product, through its factors.

    Returns:
        (U, S, V) with left @ right = U @ diag(S) @ V.T and S in falling order, as many as the smallest side.
    """
    of_rows, small_left = torch.linalg.qr(left)
    of_columns, small_right = torch.linalg.qr(right.T)
    u, s, vh = torch.linalg.svd(small_left @ small_right.T, full_matrices=False)
    return of_rows @ u, s, of_columns @ vh.T


def frobenius(left: Float[Tensor, "*head rows r"], right: Float[Tensor, "*head r columns"]) -> Tensor:
    """Frobenius norm of each product, from the two small Gram matrices."""
    gram = (left.transpose(-1, -2) @ left) * (right @ right.transpose(-1, -2)).transpose(-1, -2)
    return gram.sum((-1, -2)).clamp_min(0.0).sqrt()
