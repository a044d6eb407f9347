"""TNN's layer types: what each looks like in the two files.

One entry for each type that the converter can write, or that the runtime makes of them. Their parameters are
in `conformance.tnn.parameters`, what they compute in `conformance.tnn.meaning`. Source: the types and numbers
of https://github.com/Tencent/TNN/blob/f0cb081/source/tnn/core/layer_type.cc and layer_type.h, the converters
of https://github.com/Tencent/TNN/tree/f0cb081/tools/onnx2tnn/src/core/layer, and real files.
"""

from __future__ import annotations

from dataclasses import dataclass

from conformance.tnn import parameters
from conformance.tnn.fields import Parameters
from conformance.tnn.parameters import Axes, Axis, Binary, Reduce
from refimpl.errors import UnsupportedOperationError


@dataclass(frozen=True)
class LayerType:
    """What a layer type looks like in the files.

    Attributes
    ----------
    type_id
        The number the runtime gives to it in the `.tnnmodel`.
    parameters
        The class of its parameters.
    inputs, outputs
        Smallest and largest number of blobs.
    payload
        Which payload the `.tnnmodel` holds for it ("" when none).
    """

    type_id: int
    parameters: type[Parameters] = Parameters
    inputs: tuple[int, int] = (1, 1)
    outputs: tuple[int, int] = (1, 1)
    payload: str = ""


_MANY = 2**31 - 1


def _binary(type_id: int) -> LayerType:
    return LayerType(type_id, Binary, inputs=(1, 2), payload="constant")


LAYER_TYPES: dict[str, LayerType] = {
    # Windows and products
    "Convolution": LayerType(1, parameters.Convolution, payload="convolution"),
    "Convolution1D": LayerType(203, parameters.Convolution1D, payload="convolution"),
    "Convolution3D": LayerType(201, parameters.Convolution3D, payload="convolution"),
    "Deconvolution": LayerType(22, parameters.Convolution, payload="convolution"),
    "Pooling": LayerType(4, parameters.Pooling),
    "Pooling1D": LayerType(204, parameters.Pooling1D),
    "Pooling3D": LayerType(202, parameters.Pooling3D),
    "Upsample": LayerType(149, parameters.Upsample, inputs=(1, 4)),
    "InnerProduct": LayerType(19, parameters.InnerProduct, payload="inner product"),
    "MatMul": _binary(105),
    "Einsum": LayerType(321, parameters.Einsum, inputs=(1, _MANY)),
    "LSTMONNX": LayerType(310, parameters.LSTM, inputs=(3, 6), outputs=(1, 3)),
    # Arithmetic and comparisons
    "Add": _binary(38),
    "Sub": _binary(108),
    "Mul": _binary(42),
    "Div": _binary(175),
    "Maximum": LayerType(137, Binary, inputs=(1, _MANY), payload="constant"),
    "Minimum": LayerType(140, Binary, inputs=(1, _MANY), payload="constant"),
    "And": _binary(332),
    "Greater": _binary(333),
    "Less": _binary(334),
    "Equal": _binary(324),
    "Not": LayerType(329),
    "Where": LayerType(325, inputs=(3, 3)),
    "Power": LayerType(69, parameters.Power),
    "BitShift": LayerType(313, parameters.BitShift),
    # Functions of one element
    "Abs": LayerType(41),
    "Acos": LayerType(179),
    "Asin": LayerType(181),
    "Atan": LayerType(183),
    "Ceil": LayerType(195),
    "Cos": LayerType(178),
    "Erf": LayerType(307),
    "Exp": LayerType(141),
    "Floor": LayerType(186),
    "Log": LayerType(184),
    "Neg": LayerType(70),
    "Reciprocal": LayerType(185),
    "Rsqrt": LayerType(138),
    "Sign": LayerType(176),
    "Sin": LayerType(180),
    "Sqrt": LayerType(130),
    "Tan": LayerType(182),
    "Tanh": LayerType(39),
    # Activations
    "Clip": LayerType(171, parameters.Clip),
    "Elu": LayerType(132, parameters.Elu),
    "GELU": LayerType(327, parameters.Gelu),
    "HardSigmoid": LayerType(172, parameters.HardSigmoid),
    "HardSwish": LayerType(173, parameters.HardSigmoid, inputs=(1, 2)),
    "LogSigmoid": LayerType(147),
    "LogSoftmax": LayerType(330, Axis),
    "PReLU": LayerType(35, parameters.PReLU, payload="slope"),
    "ReLU": LayerType(5),
    "ReLU6": LayerType(125),
    "Selu": LayerType(187, parameters.Selu),
    "Sigmoid": LayerType(23),
    "SignedMul": LayerType(196, parameters.SignedMul),
    "SoftmaxCaffe": LayerType(21, Axis),
    "Softplus": LayerType(174),
    "Softsign": LayerType(320),
    "Swish": LayerType(401, inputs=(1, 2)),
    # Normalisation
    "BatchNormCxx": LayerType(2, payload="scale and bias"),
    "GroupNorm": LayerType(318, parameters.GroupNorm, inputs=(3, 3)),
    "InstBatchNormCxx": LayerType(43, parameters.InstanceNorm, payload="scale and bias"),
    "LayerNorm": LayerType(326, parameters.LayerNorm, inputs=(3, 3)),
    "LRN": LayerType(12, parameters.LRN),
    "Normalize": LayerType(45, parameters.Normalize),
    # Reductions and selections
    "ReduceL1": LayerType(188, Reduce),
    "ReduceL2": LayerType(189, Reduce),
    "ReduceLogSum": LayerType(190, Reduce),
    "ReduceLogSumExp": LayerType(191, Reduce),
    "ReduceMax": LayerType(177, Reduce),
    "ReduceMean": LayerType(169, Reduce),
    "ReduceMin": LayerType(192, Reduce),
    "ReduceProd": LayerType(193, Reduce),
    "ReduceSum": LayerType(133, Reduce),
    "ReduceSumSquare": LayerType(194, Reduce),
    "ArgMaxOrMin": LayerType(199, parameters.ArgMaxOrMin),
    "TopK": LayerType(328, parameters.TopK, outputs=(1, 2)),
    "Histogram": LayerType(314, parameters.Histogram),
    "NonMaxSuppression": LayerType(335, parameters.NonMaxSuppression, inputs=(2, 2)),
    "NonZero": LayerType(309),
    # Making and arranging tensors
    "Cast": LayerType(103, parameters.Cast),
    "Concat": LayerType(8, Axis, inputs=(1, _MANY)),
    "ConstantOfShape": LayerType(308, payload="value"),
    "Expand": LayerType(304, parameters.Expand, inputs=(1, 2)),
    "Flatten": LayerType(10, Axis),
    "OneHot": LayerType(319, parameters.OneHot, inputs=(1, 3)),
    "Pad": LayerType(44, parameters.Pad),
    "PadV2": LayerType(316, parameters.PadV2, inputs=(1, 3)),
    "Permute": LayerType(32, parameters.Permute),
    "PixelShuffle": LayerType(303, parameters.PixelShuffle),
    "Range": LayerType(311, inputs=(3, 3)),
    "Reorg": LayerType(131, parameters.Reorg),
    "Reshape": LayerType(9, parameters.Reshape, inputs=(1, 2)),
    "Shape": LayerType(72),
    "ShuffleChannel": LayerType(63, parameters.ShuffleChannel),
    "Size": LayerType(312),
    "SplitV": LayerType(153, parameters.SplitV, outputs=(1, _MANY)),
    "Squeeze": LayerType(118, Axes),
    "StridedSliceV2": LayerType(306, parameters.StridedSliceV2, inputs=(1, 5)),
    "Tile": LayerType(148, parameters.Tile, inputs=(1, 2)),
    "Unsqueeze": LayerType(164, Axes),
    # Indexing
    "Gather": LayerType(104, parameters.Gather, inputs=(0, 2), payload="gather"),
    "GatherND": LayerType(315, parameters.GatherND, inputs=(2, 2)),
    "GridSample": LayerType(323, parameters.GridSample, inputs=(2, 2)),
    "RoiAlign": LayerType(317, parameters.RoiAlign, inputs=(3, 3)),
    "Scatter": LayerType(336, Axis, inputs=(2, 3), payload="scatter"),
    "ScatterElements": LayerType(331, parameters.ScatterElements, inputs=(3, 3)),
    "ScatterND": LayerType(305, inputs=(1, 3), payload="scatter"),
    # Of ONNX dialects
    "DetectionOutput": LayerType(34, parameters.DetectionOutput, inputs=(1, _MANY)),
    "HDRGuide": LayerType(302, payload="colour curves"),
    "Inverse": LayerType(322),
    "PriorBox": LayerType(33, parameters.PriorBox, inputs=(1, 2)),
}
"""Every layer type that is read and written back."""


def layer_type(name: str, where: str) -> LayerType:
    """Return the description of layer type ``name``.

    Raises
    ------
    UnsupportedOperationError
        A type outside `LAYER_TYPES`; ``where`` says in which file and layer.
    """
    if name not in LAYER_TYPES:
        raise UnsupportedOperationError(
            f"{where}: unknown layer type {name!r}. Known: {', '.join(sorted(LAYER_TYPES))}. "
            "Rewrite the operation in the source model with these (see `mobileinst lint --target tnn`) and "
            "convert again."
        )
    return LAYER_TYPES[name]
