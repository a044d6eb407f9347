"""A runtime that is right node by node and wrong when it optimises: which optimiser, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import narrow_network
import onnx
import onnx_models
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions
from conformance.candidates.onnx_runtime_optimizers import names_in_library
from conformance.graph import onnx_export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.judge.fusions import parts, smallest_fixing
from conformance.judge.network import verify
from conformance.pictures.graph_inputs import graph_inputs
from refimpl.errors import CandidateError
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")

RESIDUAL = OnnxGraph.load(onnx_models.residual_network())
SHAPE = ["1x3x32x32"]


class WrongFusion(OnnxRuntimeGraph):
    """ONNX Runtime with an optimiser that takes the ReLU after an addition for a leaky one."""

    optimizer = "NchwcTransformer"

    def _session(self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions) -> Any:
        wrong = onnx.ModelProto()
        wrong.CopyFrom(model)
        if options.level != "disabled" and self.optimizer not in options.disabled_optimizers:
            sums = {name for node in wrong.graph.node if node.op_type == "Add" for name in node.output}
            for node in wrong.graph.node:
                if node.op_type == "Relu" and node.input[0] in sums:
                    node.op_type = "LeakyRelu"
        return super()._session(wrong, feeds, replace(options, threads=1))


def test_the_optimiser_and_the_smallest_part_are_found() -> None:
    report = verify_graph(WrongFusion(RESIDUAL), graph_inputs(RESIDUAL, shapes=SHAPE))
    assert report.verdict == "fail"
    (item,) = report.inputs
    assert all(row.verdict == "pass" for row in item.nodes)
    first_add = next(node for node in RESIDUAL.nodes if node.op_type == "Add")
    relu = next(node for node in RESIDUAL.nodes if first_add.outputs[0] in node.inputs)
    expected = f"alone is wrong, by {WrongFusion.optimizer} at {relu.name};"
    assert expected in report.headline()


def test_a_fusion_that_no_known_optimiser_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WrongFusion, "optimizer", "of another runtime")
    report = verify_graph(WrongFusion(RESIDUAL), graph_inputs(RESIDUAL, shapes=SHAPE))
    assert "alone is wrong, whichever optimiser is disabled at" in report.headline()


def test_a_rule_is_named_and_not_the_set_that_it_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    class WrongRule(WrongFusion):
        def _session(
            self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions
        ) -> Any:
            # What one set of rules does not do, the other does.
            sets = {"Level1_RuleBasedTransformer", "Level2_RuleBasedTransformer"}
            whole = sets.issubset(options.disabled_optimizers)
            disabled = (*options.disabled_optimizers, *[self.optimizer] * whole)
            return super()._session(model, feeds, replace(options, disabled_optimizers=disabled))

    monkeypatch.setattr(WrongFusion, "optimizer", "ConvBNFusion")
    report = verify_graph(WrongRule(RESIDUAL), graph_inputs(RESIDUAL, shapes=SHAPE))
    assert "alone is wrong, by ConvBNFusion at " in report.headline()


class WrongSlope(OnnxRuntimeGraph):
    """ONNX Runtime whose fused leaky ReLUs have a slope that is a little off."""

    def _session(self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions) -> Any:
        wrong = onnx.ModelProto()
        wrong.CopyFrom(model)
        if options.level != "disabled" and "ConvActivationFusion" not in options.disabled_optimizers:
            for node in (node for node in wrong.graph.node if node.op_type == "LeakyRelu"):
                node.attribute[0].f *= 1 + 5e-5
        return super()._session(wrong, feeds, replace(options, threads=1))


def test_a_fusion_that_is_a_little_off_is_seen_though_the_outputs_hide_it() -> None:
    graph = OnnxGraph.load(onnx_models.leaky_network(19))
    report = verify_graph(WrongSlope(graph), graph_inputs(graph))
    (item,) = report.inputs
    assert {row.verdict for row in [*item.outputs, *item.nodes]} == {"pass"}
    assert "alone is wrong, by ConvActivationFusion at conv_0_node, leakyrelu_1_node;" in report.headline()
    verify_graph(OnnxRuntimeGraph(graph), graph_inputs(graph)).raise_on_failure()


def test_what_crashes_only_optimised_is_judged_unoptimised() -> None:
    class Crashing(OnnxRuntimeGraph):
        def _run(
            self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions
        ) -> dict[str, Array]:
            if options.level != "disabled" and "ConvActivationFusion" not in options.disabled_optimizers:
                raise CandidateError("it crashes: its process was ended by SIGSEGV")
            return super()._run(model, feeds, options)

    report = verify_graph(Crashing(RESIDUAL), graph_inputs(RESIDUAL, shapes=SHAPE))
    (item,) = report.inputs
    assert report.verdict == "fail"
    assert {row.verdict for row in [*item.outputs, *item.nodes]} == {"pass"}
    assert "SIGSEGV; its optimised run alone does, without ConvActivationFusion it runs" in report.headline()


def test_what_crashes_in_any_case_is_no_wrong_optimiser() -> None:
    class Crashing(OnnxRuntimeGraph):
        def _run(
            self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions
        ) -> dict[str, Array]:
            raise CandidateError("it crashes: its process was ended by SIGSEGV")

    report = verify_graph(Crashing(RESIDUAL), graph_inputs(RESIDUAL, shapes=SHAPE))
    assert "SIGSEGV" in report.headline()
    assert "optimised" not in report.headline()


def test_the_installed_runtimes_own_names() -> None:
    graph = OnnxRuntimeGraph(RESIDUAL, RuntimeOptions(threads=1))
    assert {"Level1_RuleBasedTransformer", "ConvActivationFusion"} <= {*graph.optimizers()}
    assert "ConvActivationFusion" not in graph.without(["ConvActivationFusion"]).optimizers()
    # Pad_Fusion and others were in no list that was written by hand.
    assert {"ConvBNFusion", "Pad_Fusion", "GemmTransposeFusion", "DivMulFusion"} <= {*names_in_library()}


def test_a_wrong_node_is_no_wrong_fusion() -> None:
    class WrongNode(OnnxRuntimeGraph):
        def _run(
            self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions
        ) -> dict[str, Array]:
            results = super()._run(model, feeds, options)
            return {name: array * (2 if "gemm" in name else 1) for name, array in results.items()}

    report = verify_graph(WrongNode(RESIDUAL), graph_inputs(RESIDUAL, shapes=SHAPE))
    assert report.verdict == "fail"
    assert "optimised run alone" not in report.headline()


@given(st.sets(st.integers(0, 40), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_the_smallest_list_that_fixes(needed: set[int]) -> None:
    names = [str(i) for i in range(41)]

    def fixes(kept: Sequence[str]) -> bool:
        return needed <= {int(name) for name in kept}

    assert {int(name) for name in smallest_fixing(names, fixes)} == needed
    assert smallest_fixing(names, lambda kept: False) == []


def test_parts_are_connected_and_in_order() -> None:
    order = {node.name: place for place, node in enumerate(RESIDUAL.nodes)}
    for part in parts(RESIDUAL, 3):
        assert [order[node.name] for node in part] == sorted(order[node.name] for node in part)
        for node in part[:-1]:
            used = {name for other in part for name in other.inputs}
            assert used.intersection(node.outputs)


def test_a_wrong_fusion_of_the_network() -> None:
    graph = OnnxGraph.load(onnx_export.export(narrow_network.network(), narrow_network.picture()))
    candidate = OnnxRuntimeCandidate(graph)
    candidate.model = WrongFusion(graph)
    scenes = {"scene": narrow_network.picture()}
    report = verify(candidate, narrow_network.CONFIG, narrow_network.weights(), scenes)
    assert f"alone is wrong, by {WrongFusion.optimizer} at " in report.headline()
