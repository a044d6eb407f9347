"""Which public function of the reference has a golden, and who confirmed it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import refimpl
from golden import DATA
from golden.store import Entry, read_manifest

_REFUSES = "refuses bad arguments"
_GEOMETRY = "where the windows of Conv and the poolings are"
_MACHINERY = "registers, names and records operations"
_HARD = "draws up scenes; the scenes' goldens are of the plain kind"
_SPLIT = "names the scenes of the held-out split"
_WITHIN = "part of what has goldens: the attentions and the decoder"
_TRAINED = "finds trained weights and refuses altered ones"
_RIVALS = "part of the trackers of Table 2"
_DETECTS = "chooses among predictions"
TESTED = {
    "refimpl.ops.operation.is_fixed": (
        "it tells of memory, and makes no tensor",
        "refimpl/test_ops_convolution.py::test_weights_that_nobody_can_change_are_transformed_once",
    ),
    "refimpl.matrix_nms.solo_instances": (
        _DETECTS,
        "refimpl/test_matrix_nms.py::test_instances_of_drawn_predictions",
    ),
    "refimpl.matrix_nms.best_of_neighbours": (
        _DETECTS,
        "refimpl/test_matrix_nms.py::test_the_best_of_neighbours_is_found_cell_by_cell",
    ),
    "refimpl.matrix_nms.matrix_decay": (
        _DETECTS,
        "refimpl/test_matrix_nms.py::test_decay_is_that_of_pairs_one_by_one",
    ),
    **{
        f"refimpl.{name}": (_DETECTS, f"refimpl/test_two_stage_pytorch.py::{test}")
        for name, test in (
            ("maskrcnn.region_features", "test_the_second_stage"),
            ("maskrcnn.classified_regions", "test_the_second_stage"),
            ("maskrcnn.masked_regions", "test_the_second_stage"),
            ("maskrcnn.ask_for_heads", "test_names_and_shapes_are_torchvisions"),
            ("two_stage.maskrcnn_instances", "test_instances"),
            ("two_stage.anchors", "test_anchors_are_torchvisions"),
            ("two_stage.proposals", "test_the_second_stage"),
            ("two_stage.decoded", "test_instances"),
            ("two_stage.clipped", "test_instances"),
            ("two_stage.level_of", "test_the_second_stage"),
            ("two_stage.paste", "test_instances"),
        )
    },
    **{
        f"refimpl.maskrcnn.{name}": (_DETECTS, f"refimpl/test_two_stage.py::{test}")
        for name, test in (
            ("sampled", "test_heads_in_one_graph_are_those_of_each_level"),
            ("assigned_features", "test_heads_in_one_graph_are_those_of_each_level"),
            ("region_heads", "test_heads_in_one_graph_are_those_of_each_level"),
            ("least_area", "test_areas_change_levels_where_sides_do"),
        )
    },
    "refimpl.rival_pictures.preparation_of": (
        "says how a rival's input is made",
        "refimpl/test_rival_pictures.py::test_means_and_order_of_channels",
    ),
    "refimpl.rival_pictures.instances_of": (
        _DETECTS,
        "refimpl/test_rival_pictures.py::test_every_rival_goes_from_picture_to_instances",
    ),
    "refimpl.fast_nms.yolact_instances": (
        _DETECTS,
        "refimpl/test_fast_nms.py::test_instances_of_drawn_predictions",
    ),
    "refimpl.fast_nms.prior_boxes": (_DETECTS, "refimpl/test_fast_nms.py::test_priors_are_those_of_loops"),
    "refimpl.fast_nms.decoded": (_DETECTS, "refimpl/test_fast_nms.py::test_boxes_by_hand"),
    "refimpl.fast_nms.fast_nms": (_DETECTS, "refimpl/test_fast_nms.py::test_what_remains_is_that_of_loops"),
    "refimpl.fast_nms.cropped": (_DETECTS, "refimpl/test_fast_nms.py::test_masks_are_cropped_cell_by_cell"),
    "refimpl.dynamic_masks.condinst_instances": (
        _DETECTS,
        "refimpl/test_dynamic_masks.py::test_instances_of_drawn_predictions",
    ),
    "refimpl.dynamic_masks.candidates": (
        _DETECTS,
        "refimpl/test_dynamic_masks.py::test_candidates_are_those_of_loops",
    ),
    "refimpl.dynamic_masks.locations": (
        _DETECTS,
        "refimpl/test_dynamic_masks.py::test_locations_are_the_middles_of_strides",
    ),
    "refimpl.dynamic_masks.dynamic_masks": (
        _DETECTS,
        "refimpl/test_dynamic_masks.py::test_a_mask_is_three_layers_pixel_by_pixel",
    ),
    "refimpl.box_nms.suppressed": (
        _DETECTS,
        "refimpl/test_dynamic_masks.py::test_what_remains_is_what_a_search_finds",
    ),
    "refimpl.inference.resize_plane": (
        "is Resize on one plane",
        "refimpl/test_dynamic_masks.py::test_masks_are_resized_to_the_picture",
    ),
    "refimpl.weights.names.backbone_prefix": (
        "names weights in files",
        "refimpl/test_rival_networks.py::test_weights_have_public_names",
    ),
    "refimpl.assembly.picture_of": (_REFUSES, "refimpl/test_matrix_nms.py::test_outputs_that_do_not_fit"),
    "refimpl.assembly.masks_of_picture": (
        "is what `refimpl.inference.postprocess` does",
        "refimpl/test_matrix_nms.py::test_masks_are_those_of_the_queries",
    ),
    "refimpl.model.build_network": (
        "chooses the class",
        "refimpl/test_rival_networks.py::test_a_rival_is_no_network_of_queries",
    ),
    "refimpl.forward.output_names": (
        "lists the fields of the outputs",
        "refimpl/test_rival_networks.py::test_a_rival_gives_the_outputs_that_it_names",
    ),
    "refimpl.association.require_kernels": (
        _REFUSES,
        "refimpl/test_tracker.py::test_non_finite_kernels_are_named",
    ),
    "refimpl.detections.box_overlaps": (_RIVALS, "refimpl/test_rivals.py::test_overlaps_by_hand"),
    "refimpl.detections.mask_overlaps": (_RIVALS, "refimpl/test_rivals.py::test_overlaps_by_hand"),
    "refimpl.matching.check_target": (_REFUSES, "refimpl/test_matching.py::test_bad_targets_are_named"),
    "refimpl.model.check_images": (_REFUSES, "refimpl/test_weights.py::test_impossible_images_are_named"),
    "refimpl.predictions.check_predictions": (
        _REFUSES,
        "refimpl/test_inference.py::test_outputs_that_do_not_fit_are_named",
    ),
    "refimpl.predictions.require_finite": (
        _REFUSES,
        "refimpl/test_inference.py::test_outputs_that_are_not_finite_are_named",
    ),
    "refimpl.attention.attend": (
        _WITHIN,
        "refimpl/test_attention.py::test_attention_is_a_weighted_mean_of_the_values",
    ),
    "refimpl.attention.attend_positions": (
        _WITHIN,
        "refimpl/test_attention.py::test_the_channels_of_a_head_lie_side_by_side",
    ),
    "refimpl.attention.split_channels": (_WITHIN, "refimpl/test_attention.py::test_heads_of_maps"),
    "refimpl.attention.merge_heads": (_WITHIN, "refimpl/test_attention.py::test_heads_of_tokens"),
    "refimpl.attention.swap_heads": (_WITHIN, "refimpl/test_attention.py::test_heads_of_tokens"),
    "refimpl.attention.swap_last": (
        _WITHIN,
        "refimpl/test_attention.py::test_attention_is_a_weighted_mean_of_the_values",
    ),
    "refimpl.layers.to_tokens": (_WITHIN, "refimpl/test_attention.py::test_tokens_are_positions_row_by_row"),
    "refimpl.instance_decoder.global_queries": (
        _WITHIN,
        "refimpl/test_query_passing.py::test_a_frame_passing_to_itself_finds_its_own_masks",
    ),
    "refimpl.instance_decoder.local_queries": (
        _WITHIN,
        "refimpl/test_query_passing.py::test_a_frame_passing_to_itself_finds_its_own_masks",
    ),
    "refimpl.weights.files.write_arrays": (
        "writes files",
        "refimpl/test_weights.py::test_saved_and_loaded_weights_are_the_same_bits",
    ),
    "refimpl.weights.seeding.seeded_arrays": (
        "draws weights",
        "refimpl/test_weights.py::test_activations_are_of_order_one_through_all_stages",
    ),
    "refimpl.hard_scenes.folded": (
        _HARD,
        "refimpl/test_hard_scenes.py::test_walks_turn_back_as_symmetric_padding_does",
    ),
    "refimpl.hard_scenes.triangle_wave": (
        _HARD,
        "refimpl/test_hard_scenes.py::test_changes_go_back_and_forth_as_a_triangle",
    ),
    "refimpl.hard_scenes.make_hard_scene": (
        _HARD,
        "refimpl/test_hard_scenes.py::test_masks_are_the_painters",
    ),
    "refimpl.scenes.choose": (_HARD, "refimpl/test_hard_scenes.py::test_masks_are_the_painters"),
    "refimpl.held_out.held_out_picture": (
        _SPLIT,
        "refimpl/test_held_out.py::test_the_truth_is_what_is_rendered",
    ),
    "refimpl.held_out.held_out_video": (
        _SPLIT,
        "refimpl/test_held_out.py::test_a_track_seen_in_few_frames_is_not_asked_for",
    ),
    "refimpl.held_out.picture_seed": (
        _SPLIT,
        "refimpl/test_held_out.py::test_seeds_of_the_split_are_its_own",
    ),
    "refimpl.held_out.video_seed": (_SPLIT, "refimpl/test_held_out.py::test_seeds_of_the_split_are_its_own"),
    "refimpl.held_out.area_enough": (
        _SPLIT,
        "refimpl/test_held_out.py::test_a_track_seen_in_few_frames_is_not_asked_for",
    ),
    "refimpl.held_out.seen_enough": (_SPLIT, "refimpl/test_held_out.py::test_the_truth_is_what_is_rendered"),
    "refimpl.trained.trained_folder": (
        _TRAINED,
        "golden/test_trained.py::test_without_the_package_that_holds_them_it_says_so",
    ),
    "refimpl.trained.trained_sets": (
        _TRAINED,
        "golden/test_trained.py::test_every_set_is_there_small_and_as_rounded",
    ),
    "refimpl.trained.trained_files": (_TRAINED, "golden/test_trained.py::test_one_altered_byte_is_refused"),
    "refimpl.trained.trained_config": (_TRAINED, "golden/test_trained.py::test_pytorch_computes_the_same"),
    "refimpl.trained.is_trained": (
        _TRAINED,
        "golden/test_trained.py::test_a_trained_set_brings_its_own_configuration",
    ),
    "refimpl.weights.files.check_save_name": (
        _REFUSES,
        "refimpl/test_weights.py::test_another_suffix_is_refused_either_way",
    ),
    "refimpl.weights.check.check_weights": (
        _REFUSES,
        "refimpl/test_weights.py::test_one_error_lists_all_problems",
    ),
    "refimpl.weights.check.with_folded": (
        "names weights in files",
        "refimpl/test_weights.py::test_folded_weights_are_saved_and_loaded",
    ),
    "refimpl.weights.hint.likely_configuration": (
        "names the preset that weights fit",
        "refimpl/test_weights.py::test_the_configuration_of_other_weights_is_named",
    ),
    "refimpl.weights.hint.recognised_configuration": (
        "names the preset that weights fit",
        "conformance/cli/test_errors.py::test_a_forgotten_model_is_recognised_and_that_is_said",
    ),
    "refimpl.errors.first_of": (
        "shortens a list in a message",
        "refimpl/test_weights.py::test_one_error_lists_all_problems",
    ),
    "refimpl.weights.files.read_arrays": (
        "reads files, PyTorch's too",
        "refimpl/test_weights.py::test_a_pytorch_checkpoint_is_read",
    ),
    "refimpl.weights.npy_header.check_claim": (
        _REFUSES,
        "refimpl/test_weights.py::test_a_zip_bomb_is_not_unpacked",
    ),
    "refimpl.ops.convolution.convolve": (
        "Conv by its definition",
        "refimpl/test_ops_convolution.py::test_the_fast_ways_are_the_definition",
    ),
    "refimpl.ops.fast_convolution.correlate": (
        "Conv in less time",
        "refimpl/test_ops_convolution.py::test_the_fast_ways_are_the_definition",
    ),
    "refimpl.ops.winograd.winograd": (
        "Conv of float32 in less time",
        "refimpl/test_ops_convolution.py::test_winograds_way_is_exact_of_whole_numbers",
    ),
    "refimpl.ops.winograd.winograd_pays": (
        "chooses Winograd's way",
        "refimpl/test_ops_convolution.py::test_the_truth_is_not_computed_by_winograds_way",
    ),
    "refimpl.ops.convolution.check_operands": (
        _REFUSES,
        "refimpl/test_ops_convolution.py::test_operands_that_do_not_fit_are_named",
    ),
    "refimpl.ops.windows.padding": (
        _GEOMETRY,
        "refimpl/test_ops_convolution.py::test_same_padding_is_what_onnx_computes",
    ),
    "refimpl.ops.windows.copied": (_GEOMETRY, "refimpl/test_ops_convolution.py::test_windows_are_numpys"),
    "refimpl.ops.windows.padded": (_GEOMETRY, "refimpl/test_ops_convolution.py::test_windows_are_numpys"),
    "refimpl.ops.windows.sliding_windows": (
        _GEOMETRY,
        "refimpl/test_ops_convolution.py::test_windows_are_numpys",
    ),
    "refimpl.ops.windows.split_padding": (
        _GEOMETRY,
        "refimpl/test_ops_convolution.py::test_same_padding_is_what_onnx_computes",
    ),
    "refimpl.ops.windows.per_axis": (
        _REFUSES,
        "refimpl/test_ops_convolution.py::test_operands_that_do_not_fit_are_named",
    ),
    "refimpl.ops.elementwise.tensors": (
        "numbers in the dtype of a tensor",
        "refimpl/test_ops_elementwise.py::test_scalars_take_the_dtype_of_the_tensor",
    ),
    "refimpl.ops.operation.operation": (
        _MACHINERY,
        "refimpl/test_ops_vocabulary.py::test_attributes_and_defaults_are_onnxs",
    ),
    "refimpl.ops.operation.intercepted": (
        _MACHINERY,
        "refimpl/test_recording.py::test_nested_recording_is_undone_after_an_error",
    ),
    "refimpl.ops.operation.active_interceptor": (
        _MACHINERY,
        "refimpl/test_recording.py::test_nested_recording_is_undone_after_an_error",
    ),
    "refimpl.ops.operation.having": (
        _MACHINERY,
        "conformance/graph/test_traits.py::test_every_operation_declares_whether_it_rounds_and_has_official_calls",
    ),
    "refimpl.recording.record_call": (
        _MACHINERY,
        "refimpl/test_recording.py::test_a_function_of_several_inputs_is_recorded_with_its_literals",
    ),
    "refimpl.scope.block": (_MACHINERY, "refimpl/test_recording.py::test_names_come_from_the_weight_scope"),
    "refimpl.recording.record": (_MACHINERY, "golden/test_golden_judge.py::test_onnx_runtime_passes"),
}
"""Function that gives no numbers to compare → what it does instead, and the test that holds it to it."""


@dataclass(frozen=True)
class Row:
    """One public function: the goldens it took part in and who confirmed them, or what tests it instead."""

    function: str
    goldens: tuple[str, ...]
    sources: tuple[str, ...]
    reason: str = ""
    test: str = ""


def coverage(folder: Path = DATA) -> list[Row]:
    """Return a row for every public function of the reference."""
    known = _by_function(read_manifest(folder))
    return [_row(name, known) for name in sorted(set(public_functions()))]


def public_functions() -> Iterator[str]:
    """Yield the full name of every public function, by the module that defines it."""
    for module in pkgutil.walk_packages(refimpl.__path__, "refimpl."):
        for name, value in vars(importlib.import_module(module.name)).items():
            plain = inspect.unwrap(value) if callable(value) else value
            if inspect.isfunction(plain) and plain.__module__ == module.name and not name.startswith("_"):
                yield f"{module.name}.{name}"


def _by_function(entries: tuple[Entry, ...]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        for name in (entry.record["producer"]["function"], *entry.record["covers"]):
            found.setdefault(_defined(name), []).append(entry)
    return found


def _defined(name: str) -> str:
    """Return the name under the module that defines the function: `refimpl.ops.conv` is convolution's."""
    module, _, function = name.rpartition(".")
    value = getattr(importlib.import_module(module), function, None)
    return f"{inspect.unwrap(value).__module__}.{function}" if callable(value) else name


def _row(function: str, known: dict[str, list[Entry]]) -> Row:
    entries = known.get(function, [])
    sources = {c["source"].partition(",")[0] for entry in entries for c in entry.record["confirmed_by"]}
    reason, test = ("", "") if entries else TESTED.get(function, ("", ""))
    names = tuple(entry.name for entry in entries)
    return Row(function, names, tuple(sorted(sources)), reason, test and f"tests/{test}")
