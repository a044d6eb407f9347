"""Official ONNX node cases that are left out, each for a reason; the table of docs/vocabulary.md."""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Mapping
from unittest.mock import patch

from onnx.backend.test.case import base
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase

OPERATORS_LEFT_OUT: dict[str, str] = {
    "losses and optimisers, of training": """
        SoftmaxCrossEntropyLoss Adagrad Adam Momentum
    """,
    "results that are random": "Bernoulli RandomUniformLike",
    "text": "RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer LabelEncoder",
    "decoding of pictures": "ImageDecoder",
    "classical machine learning, of the domain ai.onnx.ml": "ArrayFeatureExtractor Binarizer TreeEnsemble",
    "signal processing": "MelWeightMatrix",
    "bits of floats, which a wider replay has not": "BitCast",
    "no bound derived yet": "Det",
}
"""Reason → operators outside the vocabulary; none of their cases is run."""

LEFT_OUT: dict[str, str] = {
    "training: batch statistics, or random masks": """
        test_batchnorm_epsilon_training_mode
        test_batchnorm_example_training_mode
        test_training_dropout
        test_training_dropout_default
        test_training_dropout_default_mask
        test_training_dropout_mask
        test_training_dropout_zero_ratio
        test_training_dropout_zero_ratio_mask
    """,
    "sequences and optionals as what a graph takes or gives": """
        test_identity_opt
        test_identity_sequence
        test_if_opt
        test_if_seq
        test_loop13_seq
        test_loop16_seq_none
        test_optional_get_element_optional_sequence
        test_optional_get_element_optional_tensor
        test_optional_get_element_sequence
        test_optional_has_element_empty_optional_input
        test_optional_has_element_optional_input
        test_optional_has_element_tensor_input
        test_sequence_insert_at_back
        test_sequence_insert_at_front
        test_sequence_map_add_1_sequence_1_tensor
        test_sequence_map_add_1_sequence_1_tensor_expanded
        test_sequence_map_add_2_sequences
        test_sequence_map_add_2_sequences_expanded
        test_sequence_map_extract_shapes
        test_sequence_map_extract_shapes_expanded
        test_sequence_map_identity_1_sequence
        test_sequence_map_identity_1_sequence_1_tensor
        test_sequence_map_identity_1_sequence_1_tensor_expanded
        test_sequence_map_identity_1_sequence_expanded
        test_sequence_map_identity_2_sequences
        test_sequence_map_identity_2_sequences_expanded
        test_split_to_sequence_1
        test_split_to_sequence_2
        test_split_to_sequence_nokeepdims
    """,
    "Scan of operator set 8, which has batches": "test_scan_sum",
    "operator set 1; older than 7 are not read": """
        test_not_2d
        test_not_3d
        test_not_4d
    """,
    "float8 types, which NumPy does not have": """
        test_cast_FLOAT16_to_FLOAT8E4M3FN
        test_cast_FLOAT16_to_FLOAT8E4M3FNUZ
        test_cast_FLOAT16_to_FLOAT8E5M2
        test_cast_FLOAT16_to_FLOAT8E5M2FNUZ
        test_cast_FLOAT_to_FLOAT8E4M3FN
        test_cast_FLOAT_to_FLOAT8E4M3FNUZ
        test_cast_FLOAT_to_FLOAT8E5M2
        test_cast_FLOAT_to_FLOAT8E5M2FNUZ
        test_cast_e8m0_FLOAT16_to_FLOAT8E8M0
        test_cast_e8m0_FLOAT_to_FLOAT8E8M0
        test_cast_no_saturate_FLOAT16_to_FLOAT8E4M3FN
        test_cast_no_saturate_FLOAT16_to_FLOAT8E4M3FNUZ
        test_cast_no_saturate_FLOAT16_to_FLOAT8E5M2
        test_cast_no_saturate_FLOAT16_to_FLOAT8E5M2FNUZ
        test_cast_no_saturate_FLOAT_to_FLOAT8E4M3FN
        test_cast_no_saturate_FLOAT_to_FLOAT8E4M3FNUZ
        test_cast_no_saturate_FLOAT_to_FLOAT8E5M2
        test_cast_no_saturate_FLOAT_to_FLOAT8E5M2FNUZ
        test_castlike_FLOAT16_to_FLOAT8E4M3FN
        test_castlike_FLOAT16_to_FLOAT8E4M3FNUZ
        test_castlike_FLOAT16_to_FLOAT8E4M3FNUZ_expanded
        test_castlike_FLOAT16_to_FLOAT8E4M3FN_expanded
        test_castlike_FLOAT16_to_FLOAT8E5M2
        test_castlike_FLOAT16_to_FLOAT8E5M2FNUZ
        test_castlike_FLOAT16_to_FLOAT8E5M2FNUZ_expanded
        test_castlike_FLOAT16_to_FLOAT8E5M2_expanded
        test_castlike_FLOAT_to_FLOAT8E4M3FN
        test_castlike_FLOAT_to_FLOAT8E4M3FNUZ
        test_castlike_FLOAT_to_FLOAT8E4M3FNUZ_expanded
        test_castlike_FLOAT_to_FLOAT8E4M3FN_expanded
        test_castlike_FLOAT_to_FLOAT8E5M2
        test_castlike_FLOAT_to_FLOAT8E5M2FNUZ
        test_castlike_FLOAT_to_FLOAT8E5M2FNUZ_expanded
        test_castlike_FLOAT_to_FLOAT8E5M2_expanded
        test_castlike_no_saturate_FLOAT16_to_FLOAT8E4M3FNUZ_expanded
        test_castlike_no_saturate_FLOAT16_to_FLOAT8E4M3FN_expanded
        test_castlike_no_saturate_FLOAT16_to_FLOAT8E5M2FNUZ_expanded
        test_castlike_no_saturate_FLOAT16_to_FLOAT8E5M2_expanded
        test_castlike_no_saturate_FLOAT_to_FLOAT8E4M3FNUZ_expanded
        test_castlike_no_saturate_FLOAT_to_FLOAT8E4M3FN_expanded
        test_castlike_no_saturate_FLOAT_to_FLOAT8E5M2FNUZ_expanded
        test_castlike_no_saturate_FLOAT_to_FLOAT8E5M2_expanded
        test_dequantizelinear_e4m3fn
        test_dequantizelinear_e4m3fn_float16
        test_dequantizelinear_e4m3fn_zero_point
        test_dequantizelinear_e5m2
        test_quantizelinear_e4m3fn
        test_quantizelinear_e5m2
    """,
    "2- and 4-bit types, which NumPy does not have": """
        test_cast_FLOAT16_to_FLOAT4E2M1
        test_cast_FLOAT16_to_INT2
        test_cast_FLOAT16_to_INT4
        test_cast_FLOAT16_to_UINT2
        test_cast_FLOAT16_to_UINT4
        test_cast_FLOAT_to_FLOAT4E2M1
        test_cast_FLOAT_to_INT2
        test_cast_FLOAT_to_INT4
        test_cast_FLOAT_to_UINT2
        test_cast_FLOAT_to_UINT4
        test_castlike_FLOAT16_to_FLOAT4E2M1_expanded
        test_castlike_FLOAT16_to_INT2_expanded
        test_castlike_FLOAT16_to_INT4_expanded
        test_castlike_FLOAT16_to_UINT2_expanded
        test_castlike_FLOAT16_to_UINT4_expanded
        test_castlike_FLOAT_to_FLOAT4E2M1_expanded
        test_castlike_FLOAT_to_INT2_expanded
        test_castlike_FLOAT_to_INT4_expanded
        test_castlike_FLOAT_to_UINT2_expanded
        test_castlike_FLOAT_to_UINT4_expanded
        test_dequantizelinear_float4e2m1
        test_quantizelinear_float4e2m1
        test_quantizelinear_int2
        test_quantizelinear_int4
        test_quantizelinear_uint2
        test_quantizelinear_uint4
    """,
    "bfloat16, which NumPy does not have": """
        test_attention_3d_causal_bf16
        test_attention_3d_causal_bf16_expanded
        test_attention_4d_attn_mask_causal_bf16
        test_attention_4d_causal_bf16
        test_attention_4d_causal_padded_kv_bf16
        test_attention_4d_padded_kv_bf16
        test_attention_4d_attn_mask_causal_bf16_expanded
        test_attention_4d_causal_bf16_expanded
        test_attention_4d_causal_padded_kv_bf16_expanded
        test_attention_4d_padded_kv_bf16_expanded
        test_cast_FLOAT_to_BFLOAT16
        test_castlike_FLOAT_to_BFLOAT16_expanded
        test_celu_bfloat16_expanded
        test_einsum_sum_bfloat16
        test_range_bfloat16_type_positive_delta_expanded
    """,
}
"""Not run at all."""

WITHOUT_CASES = {"GlobalLpPool"}
"""Operators of the vocabulary that ONNX has no node case of."""

LEFT_OUT_IN_FLOAT64: dict[str, str] = {
    "a tie in float32, 0.5 / (5 / 255) = 25.5, that float64 rounds the other way": """
        test_dynamicquantizelinear
        test_dynamicquantizelinear_expanded
    """,
    "zeros that float32's rounding makes 2e-7, compared within 1e-7": """
        test_dft_inverse
        test_dft_inverse_opset19
    """,
}
"""Run in float32 only, though all their floats are."""


@functools.cache
def official_cases() -> dict[str, TestCase]:
    """Return ONNX's node cases by name."""
    # ONNX reads the source of each case for its documentation, which takes as long as many a case.
    with warnings.catch_warnings(), patch.object(base, "process_snippet", lambda *_: ("", "")):
        # ONNX overflows on purpose while it makes its cases.
        warnings.simplefilter("ignore")
        return {case.name: case for case in collect_testcases(None) if case.model is not None}


def reasons(cases: Mapping[str, TestCase]) -> dict[str, str]:
    """Return case → why it is left out, of those that are."""
    operators = {name: reason for reason, names in OPERATORS_LEFT_OUT.items() for name in names.split()}
    listed = {name: reason for reason, names in LEFT_OUT.items() for name in names.split()}
    found = {name: reason for name, reason in listed.items() if name in cases}
    for name, case in cases.items():
        assert case.model is not None
        outside = [operators[node.op_type] for node in case.model.graph.node if node.op_type in operators]
        if outside:
            found[name] = outside[0]
    return found


def table(cases: Mapping[str, TestCase]) -> str:
    """Return the reasons, how many cases each leaves out, and the operators, as Markdown."""
    counts = Counter(reasons(cases).values())
    rows = [
        f"| {reason} | {count} | {' '.join(OPERATORS_LEFT_OUT.get(reason, '').split())} |"
        for reason, count in counts.most_common()
    ]
    left = sum(counts.values())
    said = f"{len(cases)} cases: {len(cases) - left} pass, {left} are left out."
    return "\n".join([said, "", "| reason | cases | operators |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(table(official_cases()))
