"""The parameters of TNN's layer types: one dataclass per family, whose fields stand as in the `.tnnproto`.

Each names the file of TNN's layer interpreters that reads it, in
https://github.com/Tencent/TNN/tree/f0cb081/source/tnn/interpreter/tnn/layer_interpreter.
"""

from __future__ import annotations

from dataclasses import dataclass

from conformance.tnn.fields import Parameters, amount, at_least, choice, counted, limit, plain, rest, size

EXPLICIT_PADS, SAME_PADS, VALID_PADS, OUTPUT_PADDED = -1, 0, 1, 3
NO_ACTIVATION, RELU, RELU6, SILU = 0, 1, 2, 256
ACTIVATIONS = (NO_ACTIVATION, RELU, RELU6, SILU)
MAX_POOLING, AVERAGE_POOLING = 0, 1
NEAREST, BILINEAR = 1, 2
NO_CONSTANT = -1
EDGE = 2


@dataclass(frozen=True)
class Windowed(Parameters):
    """Parameters of a window that moves over one to three axes: d, h and w, of those there are."""

    def along(self, name: str) -> tuple[int, ...]:
        """Return ``name_d``, ``name_h`` and ``name_w``, of those there are."""
        return tuple(value for axis in "dhw" if (value := getattr(self, f"{name}_{axis}", None)) is not None)

    @property
    def kernel(self) -> tuple[int, ...]:
        """The lengths of the window; all 0 where it is as large as the map."""
        return self.along("kernel")

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides."""
        return self.along("stride")

    @property
    def pads(self) -> tuple[int, ...]:
        """The pads, before and then after."""
        return 2 * self.along("pad")

    @property
    def dilations(self) -> tuple[int, ...]:
        """The dilations."""
        return self.along("dilation") or (1,) * len(self.kernel)


@dataclass(frozen=True)
class Convolution(Windowed):
    """Parameters of Convolution and Deconvolution; pads are the same before and after.

    Source: conv_layer_interpreter.cc. ``channels_per_group`` counts a convolution's inputs.
    """

    group: int = size()
    channels_per_group: int = size()
    output_channels: int = size()
    kernel_h: int = size()
    kernel_w: int = size()
    stride_h: int = size()
    stride_w: int = size()
    pad_h: int = amount()
    pad_w: int = amount()
    bias: int = choice(0, 1)
    pad_type: int = choice(EXPLICIT_PADS, SAME_PADS, VALID_PADS, OUTPUT_PADDED)
    dilation_h: int = size()
    dilation_w: int = size()
    activation: int | None = choice(*ACTIVATIONS, default=None)


@dataclass(frozen=True)
class Convolution1D(Windowed):
    """Parameters of Convolution1D, eleven in real files.

    Source: conv_1d_layer_interpreter.cc, which keeps the two pads in reverse: the second stands before.
    """

    group: int = size()
    channels_per_group: int = size()
    output_channels: int = size()
    kernel_w: int = size()
    stride_w: int = size()
    pad_after: int = amount()
    pad_before: int = amount()
    bias: int = choice(0, 1)
    pad_type: int = choice(EXPLICIT_PADS, SAME_PADS, VALID_PADS)
    dilation_w: int = size()
    activation: int | None = choice(*ACTIVATIONS, default=None)

    @property
    def pads(self) -> tuple[int, ...]:
        """The pads, before and then after."""
        return self.pad_before, self.pad_after


@dataclass(frozen=True)
class Convolution3D(Windowed):
    """Parameters of Convolution3D; source: conv_3d_layer_interpreter.cc."""

    group: int = size()
    channels_per_group: int = size()
    output_channels: int = size()
    kernel_d: int = size()
    kernel_h: int = size()
    kernel_w: int = size()
    stride_d: int = size()
    stride_h: int = size()
    stride_w: int = size()
    pad_d: int = amount()
    pad_h: int = amount()
    pad_w: int = amount()
    bias: int = choice(0, 1)
    pad_type: int = choice(EXPLICIT_PADS, SAME_PADS, VALID_PADS)
    dilation_d: int = size()
    dilation_h: int = size()
    dilation_w: int = size()
    activation: int | None = choice(*ACTIVATIONS, default=None)


AnyConvolution = Convolution | Convolution1D | Convolution3D


@dataclass(frozen=True)
class Pooling(Windowed):
    """Parameters of Pooling: a kernel of 0 × 0 pools the whole plane, ``adaptive`` pools to a given size,
    its kernel and strides being −1.

    Source: pooling_layer_interpreter.cc.
    """

    type: int = choice(MAX_POOLING, AVERAGE_POOLING)
    kernel_h: int = at_least(-1)
    kernel_w: int = at_least(-1)
    stride_h: int = at_least(-1)
    stride_w: int = at_least(-1)
    pad_h: int = amount()
    pad_w: int = amount()
    kernel_index_h: int = choice(-1)
    kernel_index_w: int = choice(-1)
    pad_type: int = choice(EXPLICIT_PADS, SAME_PADS, VALID_PADS)
    ceil: int = choice(0, 1)
    adaptive: int | None = choice(0, 1, default=None)
    output_w: int | None = plain(default=None)
    output_h: int | None = plain(default=None)


@dataclass(frozen=True)
class Pooling1D(Windowed):
    """Parameters of Pooling1D; source: pooling_1d_layer_interpreter.cc."""

    type: int = choice(MAX_POOLING, AVERAGE_POOLING)
    kernel_w: int = amount()
    stride_w: int = size()
    pad_w: int = amount()
    kernel_index_h: int = choice(-1)
    kernel_index_w: int = choice(-1)
    pad_type: int = choice(EXPLICIT_PADS, SAME_PADS, VALID_PADS)
    ceil: int = choice(0, 1)


@dataclass(frozen=True)
class Pooling3D(Windowed):
    """Parameters of Pooling3D; source: pooling_3d_layer_interpreter.cc."""

    type: int = choice(MAX_POOLING, AVERAGE_POOLING)
    kernel_d: int = amount()
    kernel_h: int = amount()
    kernel_w: int = amount()
    stride_d: int = size()
    stride_h: int = size()
    stride_w: int = size()
    pad_d: int = amount()
    pad_h: int = amount()
    pad_w: int = amount()
    kernel_index_d: int = choice(-1)
    kernel_index_h: int = choice(-1)
    kernel_index_w: int = choice(-1)
    pad_type: int = choice(EXPLICIT_PADS, SAME_PADS, VALID_PADS)
    ceil: int = choice(0, 1)


AnyPooling = Pooling | Pooling1D | Pooling3D


@dataclass(frozen=True)
class Upsample(Parameters):
    """Parameters of Upsample; the size, when given, has precedence over the scales.

    Source: upsample_layer_interpreter.cc.
    """

    mode: int = choice(NEAREST, BILINEAR)
    scale_h: float = plain()
    scale_w: float = plain()
    align_corners: int = choice(0, 1)
    output_h: int | None = amount(default=None)
    output_w: int | None = amount(default=None)


@dataclass(frozen=True)
class InnerProduct(Parameters):
    """Parameters of InnerProduct: x · Wᵀ + b over the axes from ``axis``.

    Source: inner_product_layer_interpreter.cc.
    """

    outputs: int = size()
    bias: int = choice(0, 1)
    transpose: int = choice(0, 1)
    axis: int = plain()


@dataclass(frozen=True)
class Binary(Parameters):
    """Parameters of arithmetic and comparisons: which operand is the layer's own constant, −1 for none.

    Source: add_layer_interpreter.cc and its like.
    """

    constant_operand: int | None = at_least(NO_CONSTANT, default=None)

    @property
    def has_constant(self) -> bool:
        """Whether one operand comes from the layer's resource."""
        return self.constant_operand is not None and self.constant_operand >= 0


@dataclass(frozen=True)
class Axis(Parameters):
    """Parameters of layers along one axis; source: softmax_layer_interpreter.cc and its like."""

    axis: int


@dataclass(frozen=True)
class SplitV(Parameters):
    """Parameters of SplitV; without sizes the parts are equal. Source: splitv_layer_interpreter.cc."""

    axis: int
    sizes: tuple[int, ...] = counted()


@dataclass(frozen=True)
class Reduce(Parameters):
    """Parameters of the reductions; without axes, over all. Source: reduce_op_interpreter.cc."""

    keepdims: int = choice(0, 1)
    axes: tuple[int, ...] = rest()


@dataclass(frozen=True)
class ArgMaxOrMin(Parameters):
    """Parameters of ArgMaxOrMin: mode 0 is the smallest. Source: arg_max_or_min_layer_interpreter.cc."""

    mode: int = choice(0, 1)
    axis: int = plain()
    keepdims: int = choice(0, 1)
    select_last_index: int = choice(0, 1)


@dataclass(frozen=True)
class TopK(Parameters):
    """Parameters of TopK; source: topk_layer_interpreter.cc."""

    axis: int = plain()
    largest: int = choice(0, 1)
    sorted: int = choice(0, 1)
    k: int = plain()


@dataclass(frozen=True)
class Permute(Parameters):
    """Parameters of Permute; source: permute_layer_interpreter.cc."""

    order: tuple[int, ...] = counted()


@dataclass(frozen=True)
class Axes(Parameters):
    """Parameters of Squeeze and Unsqueeze; source: squeeze_layer_interpreter.cc."""

    axes: tuple[int, ...] = counted()


@dataclass(frozen=True)
class Gather(Parameters):
    """Parameters of Gather: which of its operands the layer's resource holds.

    Source: gather_layer_interpreter.cc.
    """

    axis: int
    data_constant: int = choice(0, 1)
    indices_constant: int = choice(0, 1)


@dataclass(frozen=True)
class GatherND(Parameters):
    """Parameters of GatherND; source: gathernd_layer_interpreter.cc."""

    batch_dims: int = amount()


@dataclass(frozen=True)
class ScatterElements(Parameters):
    """Parameters of ScatterElements: 0 replaces, 1 adds. Source: scatter_elements_layer_interpreter.cc."""

    axis: int
    reduction: int = choice(0, 1)


@dataclass(frozen=True)
class Reshape(Parameters):
    """Parameters of Reshape: 0 copies the dimension, −1 infers it; type 0 is ONNX's row-major order.

    Source: reshape_layer_interpreter.cc.
    """

    axis: int
    axis_count: int
    dims: tuple[int, ...] = counted()
    type: int = choice(0, 1)


@dataclass(frozen=True)
class Expand(Parameters):
    """Parameters of Expand; source: expand_layer_interpreter.cc."""

    dims: tuple[int, ...] = counted()


@dataclass(frozen=True)
class Tile(Parameters):
    """Parameters of Tile; source: tile_layer_interpreter.cc."""

    repeats: tuple[int, ...] = rest()


@dataclass(frozen=True)
class StridedSliceV2(Parameters):
    """Parameters of StridedSliceV2, meaning those of ONNX's Slice; stride_slice_v2_layer_interpreter.cc."""

    begins: tuple[int, ...] = counted()
    ends: tuple[int, ...] = counted()
    axes: tuple[int, ...] = counted()
    strides: tuple[int, ...] = counted()


@dataclass(frozen=True)
class Pad(Parameters):
    """Parameters of Pad, of four axes; 0 pads by a constant, 1 reflects, 2 repeats the edge.

    Source: pad_layer_interpreter.cc, which skips the first two numbers.
    """

    skipped: int
    skipped_too: int
    top: int = plain()
    bottom: int = plain()
    left: int = plain()
    right: int = plain()
    channels_before: int = plain()
    channels_after: int = plain()
    type: int = choice(0, 1, 2, 3)
    value: float = plain()


@dataclass(frozen=True)
class PadV2(Parameters):
    """Parameters of PadV2: pads before and then after each axis. Source: padv2_layer_interpreter.cc."""

    pads: tuple[int, ...] = counted(each=2)
    type: int = choice(0, 1, 2, 3)
    value: float = plain()


@dataclass(frozen=True)
class Reorg(Parameters):
    """Parameters of Reorg: forward is depth to space; mode 0 is ONNX's DCR, 1 CRD.

    Source: reorg_layer_interpreter.cc.
    """

    stride: int = size()
    forward: int = choice(0, 1)
    run_with_output_dims: int = choice(0, 1)
    mode: int = choice(0, 1)


@dataclass(frozen=True)
class PixelShuffle(Parameters):
    """Parameters of PixelShuffle; source: pixel_shuffle_layer_interpreter.cc."""

    factor: int = size()


@dataclass(frozen=True)
class ShuffleChannel(Parameters):
    """Parameters of ShuffleChannel; source: shuffle_layer_interpreter.cc."""

    group: int = size()


@dataclass(frozen=True)
class Cast(Parameters):
    """Parameters of Cast, a number of TNN's DataType; source: cast_layer_interpreter.cc."""

    to: int = choice(*range(7))


@dataclass(frozen=True)
class OneHot(Parameters):
    """Parameters of OneHot; source: onehot_layer_interpreter.cc."""

    axis: int
    depth: int
    value_off: float | None = plain(default=None)
    value_on: float | None = plain(default=None)


@dataclass(frozen=True)
class BitShift(Parameters):
    """Parameters of BitShift: direction 1 is left. Source: bitshift_layer_interpreter.cc."""

    direction: int = choice(0, 1)
    bits: int = amount()


@dataclass(frozen=True)
class Histogram(Parameters):
    """Parameters of Histogram; source: histogram_layer_interpreter.cc."""

    depth: int = size()


@dataclass(frozen=True)
class HardSigmoid(Parameters):
    """Parameters of HardSigmoid and HardSwish: x · clip(alpha · y + beta, 0, 1).

    Source: hard_swish_layer_interpreter.cc.
    """

    alpha: float = plain()
    beta: float = plain()


@dataclass(frozen=True)
class Clip(Parameters):
    """Parameters of Clip; a limit left out is infinite. Source: clip_layer_interpreter.cc."""

    minimum: float = limit()
    maximum: float = limit()


@dataclass(frozen=True)
class Gelu(Parameters):
    """Parameters of GELU, which the runtime does not read: the converter writes one and packing drops it."""

    approximation: int | None = choice(0, 1, default=None)


@dataclass(frozen=True)
class Elu(Parameters):
    """Parameters of Elu; source: elu_layer_interpreter.cc."""

    alpha: float = plain()


@dataclass(frozen=True)
class Selu(Parameters):
    """Parameters of Selu; source: selu_layer_interpreter.cc."""

    alpha: float = plain()
    gamma: float = plain()


@dataclass(frozen=True)
class PReLU(Parameters):
    """Parameters of PReLU, LeakyRelu's too: one slope for all, or one per channel.

    Source: prelu_layer_interpreter.cc.
    """

    channel_shared: int = choice(0, 1)
    has_filler: int = choice(0, 1)


@dataclass(frozen=True)
class Power(Parameters):
    """Parameters of Power: (scale · x + shift) to the exponent. Source: pow_layer_interpreter.cc."""

    exponent: float = plain()
    scale: float = plain()
    shift: float = plain()


@dataclass(frozen=True)
class SignedMul(Parameters):
    """Parameters of SignedMul; source: signed_mul_layer_interpreter.cc."""

    alpha: float = plain()
    beta: float = plain()
    gamma: float = plain()


@dataclass(frozen=True)
class LayerNorm(Parameters):
    """Parameters of LayerNorm over as many of the last axes as its scale has.

    Source: layer_norm_layer_interpreter.cc. The number in the file, 0 for ONNX's own operator, is not used.
    """

    reduced_dims: int = amount()
    epsilon: float = plain()


@dataclass(frozen=True)
class InstanceNorm(Parameters):
    """Parameters of InstBatchNormCxx; source: instance_norm_layer_interpreter.cc."""

    channels: int = size()
    epsilon: float = plain()


@dataclass(frozen=True)
class GroupNorm(Parameters):
    """Parameters of GroupNorm; source: group_norm_layer_interpreter.cc."""

    groups: int = size()
    epsilon: float = plain()


@dataclass(frozen=True)
class LRN(Parameters):
    """Parameters of LRN; source: lrn_layer_interpreter.cc."""

    alpha: float = plain()
    beta: float = plain()
    bias: float = plain()
    length: int = size()


@dataclass(frozen=True)
class Normalize(Parameters):
    """Parameters of Normalize: x over its norm of order ``p``. Source: normalize_layer_interpreter.cc."""

    across_spatial: int = choice(0, 1)
    epsilon: float = plain()
    channel_shared: int = choice(0, 1)
    axis: int = plain()
    p: int = plain()


@dataclass(frozen=True)
class Einsum(Parameters):
    """Parameters of Einsum; the file writes ``;`` for the equation's commas.

    Source: einsum_layer_interpreter.cc.
    """

    equation: str


@dataclass(frozen=True)
class GridSample(Parameters):
    """Parameters of GridSample: mode 2 is bilinear, pad type 0 zeros.

    Source: gridsample_layer_interpreter.cc.
    """

    mode: int = choice(1, 2, 3)
    pad_type: int = choice(0, 1, 2)
    align_corners: int = choice(0, 1)


@dataclass(frozen=True)
class RoiAlign(Parameters):
    """Parameters of RoiAlign: mode 1 averages, 0 takes the maximum. Source: roialign_layer_interpreter.cc."""

    mode: int = choice(0, 1)
    output_height: int = size()
    output_width: int = size()
    sampling_ratio: int = amount()
    spatial_scale: float = plain()


@dataclass(frozen=True)
class LSTM(Parameters):
    """Parameters of LSTMONNX: direction 0 forward, 1 reverse, 2 both. Source: lstm_layer_interpreter.cc."""

    clip: float = plain()
    hidden_size: int = size()
    direction: int = choice(0, 1, 2)


@dataclass(frozen=True)
class NonMaxSuppression(Parameters):
    """Parameters of NonMaxSuppression; source: non_max_suppression_layer_interpreter.cc."""

    center_point_box: int = choice(0, 1)
    max_output_boxes_per_class: int = plain()
    iou_threshold: float = plain()
    score_threshold: float = plain()


@dataclass(frozen=True)
class PriorBox(Parameters):
    """Parameters of PriorBox; source: prior_box_layer_interpreter.cc."""

    min_sizes: tuple[float, ...] = counted()
    max_sizes: tuple[float, ...] = counted()
    clip: int = choice(0, 1)
    flip: int = choice(0, 1)
    variances: tuple[float, ...] = counted()
    aspect_ratios: tuple[float, ...] = counted()
    image_w: int = plain()
    image_h: int = plain()
    step_w: float = plain()
    step_h: float = plain()
    offset: float = plain()


@dataclass(frozen=True)
class DetectionOutput(Parameters):
    """Parameters of DetectionOutput; source: detection_output_interpreter.cc."""

    classes: int = size()
    share_location: int = choice(0, 1)
    background: int = plain()
    variance_encoded_in_target: int = choice(0, 1)
    code_type: int = plain()
    keep_top_k: int = plain()
    confidence_threshold: float = plain()
    overlap_threshold: float = plain()
    top_k: int = plain()
    eta: float = plain()
