"""Temporal query passing (paper 3.5, Figure 4): one frame's queries find the instances of another."""

from __future__ import annotations

from refimpl.errors import ConfigurationError, ShapeError
from refimpl.instance_decoder import heads, local_queries
from refimpl.model import MobileInst, dot_product
from refimpl.ops.operation import Array
from refimpl.scope import Scope


def passed_masks(network: MobileInst, global_queries: Array, mask_features: Array) -> Array:
    """M̃ of frame t+δ: Q_G of frame t replaces its own as the input of the local decoder.

    Parameters
    ----------
    network : MobileInst
    global_queries : (B, N, dim)
        Q_G of frame t, ``Outputs.global_queries``.
    mask_features : (B, dim, h, w)
        X_mask of frame t+δ, ``Outputs.mask_features``.

    Returns
    -------
    (B, N, h, w)
        Mask logits, for `refimpl.losses.temporal_losses`.

    Raises
    ------
    ConfigurationError
        The network is SparseInst, which has no queries.
    ShapeError
        The two are not of one batch and of the network's width.
    """
    if network.config.architecture != "mobileinst":
        raise ConfigurationError("SparseInst has no queries to pass; expected a MobileInst network")
    _check_fit(global_queries, mask_features, network.config.dim)
    w = Scope(network.weights)
    queries = local_queries(global_queries, mask_features, w / "instance_decoder", network.config)
    kernels = heads(queries, w / "instance_decoder", network.config)[2]  # (B, N, dim)
    return dot_product(kernels, mask_features, w / "masks")  # (B, N, h, w)


def _check_fit(q_g: Array, x_mask: Array, dim: int) -> None:
    """Raise `ShapeError` unless queries and mask features are of one batch and of width ``dim``."""
    ranks = q_g.ndim == 3 and x_mask.ndim == 4
    if not (ranks and q_g.shape[0] == x_mask.shape[0] and q_g.shape[2] == x_mask.shape[1] == dim):
        raise ShapeError(
            f"global_queries {q_g.shape} and mask_features {x_mask.shape} do not fit; "
            f"expected (B, N, {dim}) and (B, {dim}, h, w)"
        )
