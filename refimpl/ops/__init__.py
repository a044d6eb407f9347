"""The vocabulary: every operation that the network, its export and the replay of other graphs are made of.

Each is a pure function with the semantics of one ONNX operator, in its latest form: `conv` is Conv,
`reduce_mean` is ReduceMean. ONNX inputs are positional, None for an absent optional one; ONNX attributes
are keyword-only, with ONNX's names and defaults. Any float dtype in, the same dtype out. A Python number
among the operands takes the dtype of the tensor. The result is an array, or a tuple of arrays; it may be a
view of an operand, so nothing may be written into a result that is used again.

Arithmetic
    add sub mul div power mod neg absolute sign reciprocal sqrt exp log floor ceil round_half_even
    sin cos tan asin acos atan sinh cosh asinh acosh atanh
    maximum minimum sum_of mean_of
Comparisons and logic
    equal less less_or_equal greater greater_or_equal logical_and logical_or logical_xor logical_not where
    is_nan is_inf
Activations
    relu leaky_relu thresholded_relu prelu elu selu celu clip shrink sigmoid hard_sigmoid hard_swish swish
    mish softplus softsign tanh erf gelu softmax log_softmax hardmax
Bits
    bitwise_and bitwise_or bitwise_xor bitwise_not bit_shift
Products
    conv conv_transpose deform_conv mat_mul gemm einsum, and linear, composed of them
Pooling and resizing
    max_pool average_pool global_max_pool global_average_pool lp_pool global_lp_pool max_unpool col2_im
    resize, and, composed, adaptive_average_pool
Transformers
    attention rotary_embedding
Sampling and detection
    grid_sample roi_align non_max_suppression
Recurrent layers and transforms
    lstm gru rnn dft stft
Normalisation, at inference
    batch_normalization layer_normalization instance_normalization group_normalization rms_normalization
    mean_variance_normalization lp_normalization lrn
Reductions and selections
    reduce_sum reduce_mean reduce_prod reduce_max reduce_min reduce_l1 reduce_l2 reduce_sum_square
    reduce_log_sum reduce_log_sum_exp arg_max arg_min top_k cum_sum cum_prod
Making tensors
    constant constant_of_shape arange one_hot eye_like shape size non_zero
Arranging
    identity cast cast_like reshape transpose flatten squeeze unsqueeze concat split slice_ pad expand tile
    depth_to_space space_to_depth trilu
Indexing
    gather gather_elements gather_nd scatter_nd scatter_elements unique compress reverse_sequence
    tensor_scatter
Quantisation
    quantize_linear dequantize_linear dynamic_quantize_linear conv_integer mat_mul_integer q_linear_conv
    q_linear_mat_mul

The name is ONNX's in snake_case, except where that would shadow Python's: `absolute` Abs, `power` Pow,
`maximum` Max, `minimum` Min, `sum_of` Sum, `mean_of` Mean, `round_half_even` Round, `arange` Range,
`slice_` Slice, and `logical_and`, `logical_or`, `logical_xor`, `logical_not`. Outputs that only training
needs have a function of their own: `max_pool_with_indices`, `layer_normalization_with_statistics`.

`OPERATIONS` maps the ONNX name to the plain function. A call through the names of this module can be
intercepted (`intercepted`): recorded, counted, perturbed. To add an operation, write it in the file of its
family under ``@operation("OnnxName", Trait.EXACT)`` or whatever holds of it, name it here, and the official
ONNX cases of that operator run in the tests, of its traits too."""

from refimpl.ops.activation import (
    celu,
    clip,
    elu,
    erf,
    gelu,
    hard_sigmoid,
    hard_swish,
    hardmax,
    leaky_relu,
    log_softmax,
    mish,
    prelu,
    relu,
    selu,
    shrink,
    sigmoid,
    softmax,
    softplus,
    softsign,
    swish,
    tanh,
    thresholded_relu,
)
from refimpl.ops.bits import bit_shift, bitwise_and, bitwise_not, bitwise_or, bitwise_xor
from refimpl.ops.choosing import compress, reverse_sequence, tensor_scatter, unique
from refimpl.ops.convolution import conv
from refimpl.ops.deformable_convolution import deform_conv
from refimpl.ops.detection import non_max_suppression
from refimpl.ops.elementwise import (
    absolute,
    acos,
    acosh,
    add,
    asin,
    asinh,
    atan,
    atanh,
    ceil,
    cos,
    cosh,
    div,
    equal,
    exp,
    floor,
    greater,
    greater_or_equal,
    is_inf,
    is_nan,
    less,
    less_or_equal,
    log,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    mean_of,
    minimum,
    mod,
    mul,
    neg,
    power,
    reciprocal,
    round_half_even,
    sign,
    sin,
    sinh,
    sqrt,
    sub,
    sum_of,
    tan,
    where,
)
from refimpl.ops.fourier import dft, stft
from refimpl.ops.integer_products import conv_integer, mat_mul_integer, q_linear_conv, q_linear_mat_mul
from refimpl.ops.linear import einsum, gemm, linear, mat_mul
from refimpl.ops.normalization import (
    batch_normalization,
    group_normalization,
    instance_normalization,
    layer_normalization,
    layer_normalization_with_statistics,
    lp_normalization,
    lrn,
    mean_variance_normalization,
    rms_normalization,
)
from refimpl.ops.operation import (
    OPERATIONS,
    TRAITS,
    Array,
    Interceptor,
    Trait,
    active_interceptor,
    having,
    intercepted,
    operation,
)
from refimpl.ops.pooling import (
    adaptive_average_pool,
    average_pool,
    global_average_pool,
    global_lp_pool,
    global_max_pool,
    lp_pool,
    max_pool,
    max_pool_with_indices,
)
from refimpl.ops.quantization import dequantize_linear, dynamic_quantize_linear, quantize_linear
from refimpl.ops.recurrent import gru, lstm, rnn
from refimpl.ops.reduction import (
    arg_max,
    arg_min,
    cum_prod,
    cum_sum,
    reduce_l1,
    reduce_l2,
    reduce_log_sum,
    reduce_log_sum_exp,
    reduce_max,
    reduce_mean,
    reduce_min,
    reduce_prod,
    reduce_sum,
    reduce_sum_square,
    top_k,
)
from refimpl.ops.resize import resize
from refimpl.ops.sampling import grid_sample, roi_align
from refimpl.ops.shape import (
    ONNX_DTYPES,
    arange,
    cast,
    cast_like,
    concat,
    constant,
    constant_of_shape,
    depth_to_space,
    expand,
    eye_like,
    flatten,
    gather,
    gather_elements,
    gather_nd,
    identity,
    non_zero,
    one_hot,
    pad,
    reshape,
    scatter_elements,
    scatter_nd,
    shape,
    size,
    slice_,
    space_to_depth,
    split,
    squeeze,
    tile,
    transpose,
    trilu,
    unsqueeze,
)
from refimpl.ops.transformer import attention, rotary_embedding
from refimpl.ops.transposed_convolution import conv_transpose
from refimpl.ops.unfolding import col2_im, max_unpool

__all__ = [
    "ONNX_DTYPES",
    "OPERATIONS",
    "TRAITS",
    "Array",
    "Interceptor",
    "Trait",
    "absolute",
    "acos",
    "acosh",
    "active_interceptor",
    "adaptive_average_pool",
    "add",
    "arange",
    "arg_max",
    "arg_min",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "attention",
    "average_pool",
    "batch_normalization",
    "bit_shift",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "cast",
    "cast_like",
    "ceil",
    "celu",
    "clip",
    "col2_im",
    "compress",
    "concat",
    "constant",
    "constant_of_shape",
    "conv",
    "conv_integer",
    "conv_transpose",
    "cos",
    "cosh",
    "cum_prod",
    "cum_sum",
    "deform_conv",
    "depth_to_space",
    "dequantize_linear",
    "dft",
    "div",
    "dynamic_quantize_linear",
    "einsum",
    "elu",
    "equal",
    "erf",
    "exp",
    "expand",
    "eye_like",
    "flatten",
    "floor",
    "gather",
    "gather_elements",
    "gather_nd",
    "gelu",
    "gemm",
    "global_average_pool",
    "global_lp_pool",
    "global_max_pool",
    "greater",
    "greater_or_equal",
    "grid_sample",
    "group_normalization",
    "gru",
    "hard_sigmoid",
    "hard_swish",
    "hardmax",
    "having",
    "identity",
    "instance_normalization",
    "intercepted",
    "is_inf",
    "is_nan",
    "layer_normalization",
    "layer_normalization_with_statistics",
    "leaky_relu",
    "less",
    "less_or_equal",
    "linear",
    "log",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "lp_normalization",
    "lp_pool",
    "lrn",
    "lstm",
    "mat_mul",
    "mat_mul_integer",
    "max_pool",
    "max_pool_with_indices",
    "max_unpool",
    "maximum",
    "mean_of",
    "mean_variance_normalization",
    "minimum",
    "mish",
    "mod",
    "mul",
    "neg",
    "non_max_suppression",
    "non_zero",
    "one_hot",
    "operation",
    "pad",
    "power",
    "prelu",
    "q_linear_conv",
    "q_linear_mat_mul",
    "quantize_linear",
    "reciprocal",
    "reduce_l1",
    "reduce_l2",
    "reduce_log_sum",
    "reduce_log_sum_exp",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "reduce_sum_square",
    "relu",
    "reshape",
    "resize",
    "reverse_sequence",
    "rms_normalization",
    "rnn",
    "roi_align",
    "rotary_embedding",
    "round_half_even",
    "scatter_elements",
    "scatter_nd",
    "selu",
    "shape",
    "shrink",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "size",
    "slice_",
    "softmax",
    "softplus",
    "softsign",
    "space_to_depth",
    "split",
    "sqrt",
    "squeeze",
    "stft",
    "sub",
    "sum_of",
    "swish",
    "tan",
    "tanh",
    "tensor_scatter",
    "thresholded_relu",
    "tile",
    "top_k",
    "transpose",
    "trilu",
    "unique",
    "unsqueeze",
    "where",
]
