"""Which samples should share a label: a sparse similarity from nearest neighbours (arXiv 2404.03446).

Only the symmetric part S + S^T enters the objective, and only through products with the plan, at O(N k K).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from lab.clustering.sp2ot.arrays import Arrays, is_tensor


def knn_similarity(X: Any, k: int = 20, *, bandwidth: float = 2.0) -> sp.csr_matrix:
    r"""Similarity of each sample to its k nearest others; zero diagonal, not symmetric, entries in [0, 1].

    .. math:: S_{ij} = e^{-\|x_i-x_j\|^2/(2h^2d)},\qquad j\in\mathrm{kNN}(i).

    Parameters
    ----------
    X : array (N, d)
        Features, finite; NumPy, torch or nested lists.
    k : int >= 1
        Neighbours per sample; more than N - 1 means all others.
    bandwidth : float > 0
        h. Squared distances are divided by d, so h has the unit of one feature; 2 suits features of variance 1.

    Returns
    -------
    S : scipy CSR (N, N)
        min(k, N - 1) entries per row, in the dtype of X.

    Raises
    ------
    ValueError
        X is not (N >= 2, d >= 1) or not finite; k < 1; bandwidth <= 0.

    Examples
    --------
    >>> knn_similarity([[0.0], [0.1], [5.0]], k=1).toarray().round(3)
    array([[0.   , 0.999, 0.   ],
           [0.999, 0.   , 0.   ],
           [0.   , 0.05 , 0.   ]])
    """
    X = np.asarray(X.detach().cpu() if is_tensor(X) else X)
    if X.ndim != 2 or X.shape[0] < 2 or X.shape[1] < 1:
        raise ValueError(f"X has shape {X.shape}: it must be (N, d) features of at least 2 samples")
    X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
    if not np.isfinite(X).all():
        raise ValueError("X has entries that are NaN or infinite: impute or drop them")
    if k < 1:
        raise ValueError(f"k={k!r} must be at least 1 neighbour")
    if not 0 < bandwidth < np.inf:
        raise ValueError(f"bandwidth={bandwidth!r} must be positive and finite")
    from sklearn.neighbors import NearestNeighbors

    n, d = X.shape
    k = min(int(k), n - 1)
    distance, neighbour = NearestNeighbors(n_neighbors=k).fit(X).kneighbors()
    # S_ij = exp(-|x_i - x_j|^2 / (2 h^2 d)), (N, k)
    weights = np.exp(-(distance**2) / (2.0 * bandwidth**2 * d))
    S = sp.csr_matrix((weights.astype(X.dtype).ravel(), neighbour.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    S.sort_indices()
    return S


def as_csr(S: Any, n: int) -> sp.csr_matrix:
    """``S`` (scipy sparse, dense array or torch tensor of either kind) as scipy CSR; checked: (n, n), finite, >= 0."""
    if is_tensor(S):
        S = S.detach().cpu()
        if str(S.layout) != "torch.strided":
            coo = S.to_sparse_coo().coalesce()
            S = sp.coo_matrix((coo.values().numpy(), coo.indices().numpy()), shape=tuple(S.shape))
        else:
            S = S.numpy()
    if not sp.issparse(S):
        S = np.asarray(S)
    if S.shape != (n, n):
        raise ValueError(f"S has shape {tuple(S.shape)}: it must be ({n}, {n}), samples by samples, to match M")
    S = sp.csr_matrix(S)
    if not np.isfinite(S.data).all():
        raise ValueError("S has a similarity that is NaN or infinite: make it finite")
    if S.nnz and S.data.min() < 0:
        raise ValueError(f"S has the negative entry {float(S.data.min())!r}: similarities must be >= 0")
    return S


def symmetrised(S: sp.csr_matrix, psd_shift: bool) -> tuple[sp.csr_matrix, float]:
    """``T = S + S^T`` and the shift c: with ``psd_shift`` T + 2cI, where c is the smallest shift of S that Gershgorin's
    discs prove sufficient for (S + S^T) / 2 + cI to be positive semidefinite."""
    T = sp.csr_matrix(S + S.T)
    if not psd_shift:
        return T, 0.0
    diagonal = T.diagonal()
    # Gershgorin: every eigenvalue of T is at least min_i (T_ii - sum_{j != i} T_ij); c is half of what is missing to 0
    c = max(0.0, float((np.asarray(T.sum(1)).ravel() - 2 * diagonal).max()) / 2)
    return sp.csr_matrix(T + 2 * c * sp.identity(T.shape[0], format="csr", dtype=T.dtype)), c


def on_device(T: sp.csr_matrix, arrays: Arrays) -> Any:
    """scipy CSR as a sparse matrix that multiplies plans of ``arrays``: itself, or a torch sparse CSR tensor."""
    T = T.astype(np.float32 if arrays.eps > 1e-10 else np.float64)
    if arrays.device is None:
        return T
    index = [arrays.xp.as_tensor(x, dtype=arrays.xp.int64) for x in (T.indptr, T.indices)]
    values = arrays.xp.as_tensor(T.data)
    return arrays.xp.sparse_csr_tensor(*index, values, size=T.shape, device=arrays.device, check_invariants=False)
