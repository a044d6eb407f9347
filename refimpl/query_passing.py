"""Temporal query passing (paper 3.5, Figure 4): one frame's queries find the instances of another."""

from __future__ import annotations

from refimpl.errors import ConfigurationError, ShapeError
from refimpl.instance_decoder import decode, heads, local_features
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
    dim = network.config.dim
    if (
        global_queries.ndim != 3
        or mask_features.ndim != 4
        or not (
            global_queries.shape[0] == mask_features.shape[0]
            and global_queries.shape[2] == mask_features.shape[1] == dim
        )
    ):
        raise ShapeError(
            f"global_queries {global_queries.shape} and mask_features {mask_features.shape} do not fit; "
            f"expected (B, N, {dim}) and (B, {dim}, h, w)"
        )
    w = Scope(network.weights)
    kernels = _passed_kernels(network, global_queries, mask_features, w / "instance_decoder")
    return dot_product(kernels, mask_features, w / "masks")


def _passed_kernels(network: MobileInst, queries: Array, mask_features: Array, w: Scope) -> Array:
    """Kernels (B, N, dim) of the passed queries after the local decoder."""
    config = network.config
    if config.local_layers:
        local = local_features(mask_features, w / "local_features", config.local_pooling)  # X_L
        queries = decode(queries, local, w / "local_decoder", config.local_layers, config.num_heads)
    return heads(queries, w, config)[2]
