"""`lint`: what in an ONNX file will break, or silently change, on the way to TNN."""

from __future__ import annotations

from typing import Any

from conformance.graph.findings import CHANGES, FAILS, Finding
from conformance.graph.onnx_file import Source as OnnxSource
from conformance.graph.onnx_file import read_model
from conformance.tnn.registry import lost_settings
from conformance.tnn.traps import LATEST_OPSET, OLDEST_OPSET, TRAPS, Source, source_of
from refimpl.errors import ConfigurationError, FileError, MobileInstError
from refimpl.graph import Node

TARGETS = ("tnn",)


def lint(model: OnnxSource, target: str = "tnn") -> list[Finding]:
    """Return what in a model will break or silently change on ``target``, in graph order.

    Parameters
    ----------
    model
        A path, bytes or a loaded model; it may hold any operator.
    target
        "tnn".

    Raises
    ------
    FileError
        The file is missing or no ONNX model, or a node in it is malformed.
    ConfigurationError
        Another target.
    """
    if target not in TARGETS:
        raise ConfigurationError(f"target {target!r}; known: {', '.join(TARGETS)}")
    source = source_of(read_model(model))
    findings = [*_opset_findings(source), *_input_findings(source)]
    for node in source.nodes:
        findings += _node_findings(source, node)
    return findings


def _node_findings(source: Source, node: Node) -> list[Finding]:
    subject = f"{node.op_type} {node.name!r}"
    try:
        caught = [trap for trap in TRAPS if trap.catches(source, node)]
        lost = list(lost_settings(node, source.opset))
    except (IndexError, TypeError, ValueError, MobileInstError) as error:
        raise FileError(
            f"{subject}: malformed operands or attributes ({error}); export the model again"
        ) from error
    return [
        *(Finding(trap.rule, subject, trap.severity, trap.happens, trap.instead) for trap in caught),
        *(_attribute_finding(node, subject, *setting) for setting in lost),
    ]


def _attribute_finding(node: Node, subject: str, name: str, meant: Any, taken: Any) -> Finding:
    if name in node.attributes:
        happens = f"the converter does not read {name} ({meant}); TNN takes {taken}"
        instead = f"express it without {name}"
    else:
        happens = f"the converter takes {name} for {taken} where the file leaves it at ONNX's {meant}"
        instead = f"write {name} explicitly, if the converter reads it"
    return Finding("attribute", subject, CHANGES, happens, instead)


def _opset_findings(source: Source) -> list[Finding]:
    if OLDEST_OPSET <= source.opset <= LATEST_OPSET:
        return []
    happens = f"the model is of opset {source.opset}; the converter takes {OLDEST_OPSET} to {LATEST_OPSET}"
    return [Finding("opset", "model", FAILS, happens, "export with opset_version=17")]


def _input_findings(source: Source) -> list[Finding]:
    return [
        Finding(
            "dynamic-input",
            f"input {name!r}",
            FAILS,
            f"its shape is {source.shapes.get(name, 'unknown')}; TNN needs every length",
            "export with fixed sizes, without dynamic_axes or dynamic_shapes",
        )
        for name in source.inputs
        if source.static_shape(name) is None
    ]
