"""Faults of convolutions and linear layers: padding, orientation, groups, bias."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.faults.catalogue import Rewriting, Site, Variant, fault


def _kernel(site: Site) -> np.ndarray | None:
    weight = site.constant(1)
    return weight if weight is not None and weight.ndim == 4 else None


@fault(
    "convolution/padded at the end",
    "Conv",
    source="TensorNets: SAME pads the end more in TensorFlow, both ends alike elsewhere, "
    "https://github.com/taehoonlee/tensornets/issues/25",
)
def same_padding(site: Site) -> Iterator[Variant]:
    """TensorFlow's SAME padding: an odd row or column goes to the end."""
    pads, strides = site.attribute("pads", (0, 0, 0, 0)), site.attribute("strides", (1, 1))
    if _kernel(site) is not None and len(pads) == 4 and max(strides) > 1 and pads[0] == pads[2] > 0:
        yield site.changed("SAME_UPPER", pads=(pads[0] - 1, pads[1] - 1, pads[2] + 1, pads[3] + 1))


@fault(
    "convolution/padded with the border",
    "Conv",
    source="SpeechBrain: Conv reflected the border, whatever its padding_mode, "
    "https://github.com/speechbrain/speechbrain/issues/125",
)
def padding_mode(site: Site) -> Iterator[Variant]:
    """The border is repeated, or reflected, instead of padding with zeros."""
    pads = site.attribute("pads", (0, 0, 0, 0))
    if _kernel(site) is None or not any(pads):
        return
    amounts = np.asarray([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
    for mode in ("edge", "reflect"):
        if all(size > pad for size, pad in zip(site.shape(0)[2:], pads, strict=False)):
            rewriting = Rewriting(site)
            padded = rewriting.apply("Pad", site.call.inputs[0], amounts, mode=mode)
            yield rewriting.same(mode, {0: padded}, pads=(0, 0, 0, 0))


@fault(
    "convolution/kernel flipped",
    "Conv",
    source="Keras: Theano flips kernels, TensorFlow does not, "
    "https://github.com/keras-team/keras/issues/3015",
)
def kernel_flipped(site: Site) -> Iterator[Variant]:
    """A true convolution instead of a cross-correlation."""
    weight = _kernel(site)
    if weight is not None and weight.shape[2] * weight.shape[3] > 1:
        yield site.fed("both axes", {1: np.ascontiguousarray(weight[:, :, ::-1, ::-1])})


@fault(
    "convolution/kernel transposed",
    "Conv",
    source="VoxelMorph: all axes of a Keras kernel reversed for PyTorch, "
    "https://github.com/voxelmorph/voxelmorph/issues/425",
)
def kernel_transposed(site: Site) -> Iterator[Variant]:
    """Height and width of the kernel are exchanged."""
    weight = _kernel(site)
    if weight is not None and weight.shape[2] == weight.shape[3] > 1:
        yield site.fed("(W, H)", {1: np.ascontiguousarray(weight.transpose(0, 1, 3, 2))})


@fault(
    "convolution/channels in and out exchanged",
    "Conv",
    source="TVM, conv2d_transpose: I and O of the kernel's layout mixed up, "
    "https://github.com/apache/tvm/pull/9336",
)
def weight_transposed(site: Site) -> Iterator[Variant]:
    """Weights read as (in, out)."""
    weight = _kernel(site)
    if weight is not None and weight.shape[0] == weight.shape[1] > 1:
        yield site.fed("(in, out)", {1: np.ascontiguousarray(weight.transpose(1, 0, 2, 3))})


@fault(
    "convolution/linear weight transposed",
    "MatMul",
    "Gemm",
    source="LLMs from scratch: a weight of (out, in) used as (in, out), "
    "https://github.com/rasbt/LLMs-from-scratch/issues/857",
)
def linear_transposed(site: Site) -> Iterator[Variant]:
    """A square weight matrix used without, or with one more, transpose."""
    weight = site.constant(1)
    if weight is not None and weight.ndim == 2 and weight.shape[0] == weight.shape[1] > 1:
        yield site.fed("transposed", {1: np.ascontiguousarray(weight.T)})


@fault(
    "convolution/groups interleaved",
    "Conv",
    source="Zhang et al., ShuffleNet (2018), §3.1: channels of a grouped convolution, "
    "https://arxiv.org/abs/1707.01083",
)
def groups_interleaved(site: Site) -> Iterator[Variant]:
    """Output channels are ordered (n, group) instead of (group, n)."""
    weight, groups = _kernel(site), site.attribute("group", 1)
    if weight is None or not 1 < groups < weight.shape[0]:
        return
    channels = np.arange(weight.shape[0]).reshape(groups, -1).T.ravel()
    yield site.after("(n, group)", "Gather", channels.astype(np.int64), axis=1)


@fault(
    "convolution/depthwise channels shifted",
    "Conv",
    source="ExecuTorch: depthwise kernels handed on in another layout, "
    "https://github.com/pytorch/executorch/pull/17423",
)
def depthwise_shifted(site: Site) -> Iterator[Variant]:
    """Each channel of a depthwise convolution gets its neighbour's kernel."""
    weight, groups = _kernel(site), site.attribute("group", 1)
    if weight is not None and groups == weight.shape[0] > 1:
        yield site.fed("by one", {1: np.roll(weight, 1, axis=0)})


@fault(
    "convolution/dilated",
    "Conv",
    source="Chen et al., DeepLab (2017): stride replaced by dilation, https://arxiv.org/abs/1606.00915",
)
def dilated(site: Site) -> Iterator[Variant]:
    """Dilation 2, padded to the same size."""
    weight, pads = _kernel(site), site.attribute("pads", (0, 0, 0, 0))
    if weight is not None and weight.shape[2] > 1 and pads[0] == weight.shape[2] // 2:
        yield site.changed("dilation 2", dilations=(2, 2), pads=tuple(2 * pad for pad in pads))


@fault(
    "convolution/dilation ignored",
    "Conv",
    source="OpenVINO: the second of two dilations not read, "
    "https://github.com/openvinotoolkit/openvino/issues/65",
)
def dilation_ignored(site: Site) -> Iterator[Variant]:
    """A dilated kernel is applied undilated, padded to the same size."""
    dilations, weight = site.attribute("dilations", (1, 1)), _kernel(site)
    if weight is not None and max(dilations) > 1 and weight.shape[2] % 2:
        pad = weight.shape[2] // 2
        yield site.changed("dilation 1", dilations=(1, 1), pads=(pad,) * 4)


@fault(
    "convolution/bias missing",
    "Conv",
    "Add",
    "Gemm",
    source="PyTorch: load_state_dict(strict=False) leaves weights out silently, "
    "https://github.com/pytorch/examples/issues/1029",
)
def bias_missing(site: Site) -> Iterator[Variant]:
    """The bias is left out."""
    index = _bias(site)
    if index is not None:
        constant = site.constant(index)
        assert constant is not None
        yield site.fed("0", {index: np.zeros_like(constant)})


@fault(
    "convolution/bias added twice",
    "Conv",
    "Add",
    "Gemm",
    source="Jacob et al., Quantization and Training of Neural Networks (2018), §3.2: a bias folded and kept, "
    "https://arxiv.org/abs/1712.05877",
)
def bias_twice(site: Site) -> Iterator[Variant]:
    """The bias is added twice."""
    index = _bias(site)
    if index is not None:
        constant = site.constant(index)
        assert constant is not None
        yield site.fed("twice", {index: 2 * constant})


def _bias(site: Site) -> int | None:
    """Return which operand is a bias: a vector."""
    for index in (2,) if site.call.op_type != "Add" else (0, 1):
        constant = site.constant(index)
        if constant is not None and constant.ndim == 1 and constant.any():
            return index
    return None
