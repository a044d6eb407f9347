"""For every mode of every command, command lines that together give all of its options."""

from __future__ import annotations

import functools
import itertools
import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import typer
from narrow_network import CONFIG, OPTIONS, exported, network, picture, weights
from onnx import TensorProto, helper
from PIL import Image
from tnn_converter import converted
from tnn_data import file, unpacked

import conformance.cli
from conformance.cli import bench, cache, check_tracker, evaluate, explain, faults, track, verify_tnn
from conformance.cli.convert import Convert
from conformance.cli.cost import NetworkCost, PaperCost
from conformance.cli.derive import Derive
from conformance.cli.explain_model import ModelTable
from conformance.cli.export import Export
from conformance.cli.job import Job
from conformance.cli.lint import Lint
from conformance.cli.losses import Losses
from conformance.cli.matrix import Matrix
from conformance.cli.run import Run
from conformance.cli.sweep import SweepJob
from conformance.cli.verify_against import AgainstVerdict
from conformance.cli.verify_graph import GraphVerdict
from conformance.cli.verify_network import NetworkVerdict
from conformance.cli.verify_recorded import RecordedVerdict
from conformance.cli.walk import Walk
from conformance.graph.onnx_export import export, export_reuse
from conformance.tnn.export import for_tnn
from conformance.tnn.graph import write_graph
from conformance.tnn.text import write_output
from golden import cli as golden
from golden.learning import cli as learning
from refimpl import MobileInst, Weights
from refimpl.trained import trained_folder

STAND_IN = Path(__file__).parent / "tnn_stand_in.py"
PYTHON = shlex.quote(sys.executable)
RUNNER = shlex.quote(f"{shlex.quote(sys.executable)} {shlex.quote(str(STAND_IN))}")
SMALL = shlex.join(OPTIONS)

FOUR_CLASSES = replace(CONFIG, num_classes=4)
JSON = "--json j.json --force"
REPORTS = "--json j.json --html h --junit x --markdown m --force"
PHONE = f"--runner {RUNNER} --adb --serial s --library lib.so --timeout 60"
FORMATS = "--arithmetic float32 --storage float32"
NETWORKS = (f"{SMALL} --weights w.npz --backbone-weights b.npz", f"{SMALL} --seed 1 --backbone-weights b.npz")
TRACKER = (
    "--count 2 --keyframe-interval 2 --method greedy --birth 0.5 --death 0.1 --keep 0.1 --output out "
    "--resume --animate --video-id 2"
)
SEEDED = f"{SMALL} --seed 1 --size 64x96"
FOUR = SMALL.replace("num_classes=7", "num_classes=4")
HELD_OUT = f"--weights w4.npz {FOUR} --count 2"
FAULTS = "resize --network topformer-tiny"

EXAMPLES: dict[type[Job], list[str]] = {
    RecordedVerdict: [f"verify --recorded rec --all-steps {REPORTS}"],
    verify_tnn.TnnConversion: [f"verify t.tnnproto --against t.onnx --seed 1 --all-steps {JSON}"],
    verify_tnn.TnnSurvey: [f"verify t.tnnproto u.tnnproto --seed 1 {JSON}"],
    verify_tnn.TnnDump: [
        f"verify d.tnnproto --dump dump --input d.txt --all-steps --arithmetic float32 {JSON}"
    ],
    verify_tnn.TnnRuns: [
        f"verify {given} --arithmetic float32 --keep-outputs kept {PHONE} {JSON}"
        for given in ("t.tnnproto --input t.txt", "u.tnnproto --seed 3")
    ],
    verify_tnn.TnnNetwork: [
        f"verify n.tnnproto {given} --input x.npy --input x2.npy --frames --all-steps --arithmetic float32 "
        f"{ran} {REPORTS}"
        for given in NETWORKS
        for ran in ("--dump n.out", PHONE)
    ],
    AgainstVerdict: [
        f"verify g.onnx --against {before} --input g.npy --shape 2x3 --seed 1 --all-steps "
        f"--no-cache {REPORTS}"
        for before in ("g.onnx", "pytorch:m.pt2 --trust --timeout 60")
    ],
    GraphVerdict: [
        "verify g.onnx --graph-only --input g.npy --shape 2x3 --seed 1 --threads 1 --all-steps "
        f"--candidate onnxruntime:level=all --interpreter {PYTHON} --reproduce rep --no-cache {FORMATS} "
        f"{REPORTS} --timeout 60",
        "verify g.onnx --graph-only --input g.npy --shape 2x3 --seed 1 --all-steps "
        f"--candidate pytorch:m.pt2 --trust --no-cache {FORMATS} {REPORTS} --timeout 60",
    ],
    NetworkVerdict: [
        f"verify n.onnx {given} --input p.png --input x.npy {joined} --size 64x96 --threads 1 --all-steps "
        f"--candidate onnxruntime:level=all --interpreter {PYTHON} --reproduce rep --no-cache {FORMATS} "
        f"{REPORTS} --timeout 60"
        for given in NETWORKS
        for joined in ("--batch", "--frames")
    ]
    + [
        f"verify {given} --input p.png --input x.npy {joined} --size 64x96 --all-steps "
        f"--candidate pytorch:m.pt2 --trust --reproduce rep --no-cache {FORMATS} {REPORTS} --timeout 60"
        for given in NETWORKS
        for joined in ("--batch", "--frames")
    ],
    Convert: [
        "convert t.onnx c.param --to ncnn --precision float16 --force",
        "convert t.onnx c.pte --to executorch --precision float32 --delegate xnnpack --force",
        "convert pytorch:m.pt2 t.pte --to executorch --shape x=1x3x8x8 --trust --precision float32 "
        "--delegate xnnpack --force",
    ],
    Matrix: [
        f"matrix {given} --interpreter {PYTHON} --no-cache --html h --markdown m {JSON}"
        for network in NETWORKS
        for given in (f"{network} --size 64x96", f"n.onnx {network}")
    ],
    SweepJob: [
        f"sweep {judged} {given} --inputs film --size 64x96 --share 0.5 {FORMATS} --timeout 60 --no-cache "
        f"{where} --output swept --resume --html h {JSON}"
        for given in NETWORKS
        for judged in ("n.onnx --candidate onnxruntime:level=all", "--candidate pytorch:m.pt2 --trust")
        for where in ("--workers 1", "--scheduler tcp://localhost:1")
    ],
    Export: [
        f"export e.onnx {given} --size 64x96 --batch-size 2 --video {how} --save-weights s.npz --force"
        for given in NETWORKS
        for how in ("--fold", "--target tnn")
    ]
    + [
        f"export e.onnx {given} --size 64x96 --batch-size 2 --target qnn --quantize a8w8 --calibrate p.png "
        "--save-weights s.npz --force"
        for given in NETWORKS
    ]
    + [
        f"export e.onnx {given} --size 64x96 --regions 3 --fold --save-weights s.npz --force"
        for given in NETWORKS
    ],
    Lint: [f"lint t.onnx --target tnn {JSON}"],
    Run: [
        f"run p.png --output o.png --results r.json --force {given} {sizing} --keep 0 --draw 0 --image-id 3"
        for given in NETWORKS
        for sizing in ("--size 64x96", "--sizing native")
    ],
    Derive: [
        f"derive 'masks[0,1,2,3]' p.png {given} --size 64x96 --depth 1 --terms 3 --digits 17 {JSON}"
        for given in NETWORKS
    ],
    ModelTable: [f"explain t.onnx --shape x=4x16 --all-steps --html h {JSON}"],
    explain.PresetList: [f"explain --list {JSON}"],
    explain.NetworkTable: [f"explain {SEEDED} --all-steps --deviations --html h {JSON}"],
    Walk: [f"walk film --count 2 {given} --size 64x96 --html h --force" for given in NETWORKS],
    PaperCost: [f"cost --paper {JSON}"],
    NetworkCost: [f"cost {SMALL} --size 64x96 --gflops 60 --gbps 12 {JSON}"],
    bench.BenchVideo: [f"bench --video {SEEDED} --threads 1 --repeats 1 {JSON}"],
    bench.BenchJudge: [f"bench --judge {SEEDED} --threads 1 --repeats 1 {JSON}"],
    bench.BenchProfile: [f"bench --profile {SEEDED} --threads 1 --repeats 1 {JSON}"],
    bench.BenchTracking: [f"bench --tracking {SEEDED} --threads 1 --repeats 1 {JSON}"],
    bench.Bench: [f"bench {SEEDED} --threads 1 --repeats 1 {JSON}"],
    Losses: [f"losses --demo {SEEDED} {JSON}"],
    cache.CacheContents: [f"cache --clear {JSON}"],
    faults.Catalogue: ["faults --list"],
    faults.FaultyModels: [f"faults {FAULTS} --write wrong {JSON}"],
    faults.PlantedErrors: [
        "faults --planted 1 --network topformer-tiny --candidate onnxruntime:level=basic --quantize a8w8 "
        f"--seed 1 {JSON}",
        f"faults --planted 1 --candidate onnxruntime --interpreter {PYTHON} {JSON}",
    ],
    faults.LeftOutScore: [
        f"faults {FAULTS} --leave-one-out --pictures 0 --seed 1 --workers 1 --exporter own {JSON}"
    ],
    faults.QuickScore: [f"faults {FAULTS} --quick --pictures 0 --seed 1 --workers 1 --exporter own {JSON}"],
    faults.FullScore: [f"faults {FAULTS} --pictures 0 --per-fault 1 --workers 1 --exporter own {JSON}"],
    track.OracleDemo: [f"track --demo --oracle {TRACKER} {JSON}"],
    track.Demo: [
        f"track --demo {TRACKER} {given} {JSON}"
        for given in (
            f"{FOUR} --weights w4.npz --backbone-weights b.npz",
            f"{FOUR} --seed 1 --backbone-weights b.npz",
            "--onnx kd.onnx rd.onnx --threads 1",
        )
    ],
    track.VideoTrack: [
        f"track film {TRACKER} {given} {sizing} {JSON}"
        for given in (*NETWORKS, "--onnx k.onnx r.onnx --threads 1")
        for sizing in ("--size 64x96", "--sizing native")
    ],
    evaluate.ResultComparison: [f"evaluate --compare a.json b.json {JSON}"],
    evaluate.ResultFiles: [f"evaluate coco --gt gt.json --dt a.json {JSON}"],
    evaluate.HeldOutPictures: [f"evaluate scenes-val {HELD_OUT} --write held {JSON}"],
    evaluate.HeldOutVideos: [
        f"evaluate scenes-val --videos {HELD_OUT} -T 3 {way} --write held {JSON}"
        for way in ("--method greedy --dot-product", "--true-association")
    ],
    evaluate.HeldOutRivals: [f"evaluate scenes-val --rivals {HELD_OUT} {JSON}"],
    evaluate.HeldOutDeployment: [f"evaluate scenes-val --deployment {HELD_OUT} {JSON}"],
    evaluate.HeldOutWorst: [f"evaluate scenes-val --worst worst.png {HELD_OUT} --force"],
    learning.Train: [
        f"golden train run --kind pairs {length} --batch-size 2 --learning-rate 0.001 --warmup 2 --seed 1 "
        f"--association 0.1 --start w.npz {SMALL} --threads 1 --until 2 --ship mine --ship-to shipped"
        for length in ("--steps 3", "--minutes 1")
    ],
    learning.Curve: [
        "golden curve c.svg --force --trained scenes-tiny",
        "golden curve c.svg --force --log l.csv",
    ],
    check_tracker.KnownBadCheck: [f"check-tracker --known-bad --examples 1 --seed 1 {JSON}"],
    check_tracker.RivalCheck: [
        f"check-tracker --rival crossvis --only one_to_one --only equivariance --skip equivariance "
        f"--examples 1 --seed 1 {JSON}"
    ],
    check_tracker.RivalTable: [
        f"check-tracker --rivals --only gap --only twins --skip gap --examples 1 --seed 1 {JSON}"
    ],
    check_tracker.CommandCheck: [
        f"check-tracker --command {tracker} --method greedy --precision float32 {chosen} --test python "
        f"--examples 1 --seed 1 --timeout 60 --junit t.xml {JSON}"
        for tracker in [f"'{sys.executable} tracker.py'"]
        for chosen in ("--only one_to_one --only equivariance --skip equivariance",)
    ],
    check_tracker.OwnCheck: [
        "check-tracker --self --method greedy --precision float32 --only one_to_one --only equivariance "
        f"--skip equivariance --test python --examples 1 --seed 1 --junit t.xml {JSON}"
    ],
    golden.Build: ["golden build --data set"],
    golden.Check: [f"golden check --data set {JSON}"],
    golden.Judge: [f"golden judge port --only 'operations/*' --data set --all {JSON}"],
    golden.Export: ["golden export exported --format npy --only 'operations/*' --data set"],
    golden.Coverage: [f"golden coverage --data set {JSON}"],
}
"""The mode → its command lines. Each two of its options stand in one of them or refuse each other."""


TRACKER = """
import json, sys
for line in sys.stdin:
    count = len(json.loads(line).get("previous", []))
    print(json.dumps({"permutation": list(range(count))}), flush=True)
"""
"""A tracker that takes every two keyframes for the same."""


def write_inputs(folder: Path) -> None:
    """Write every file that the command lines read."""
    weights().save(folder / "w.npz")
    Weights.seeded(FOUR_CLASSES, 0).save(folder / "w4.npz")
    backbone = {name: array for name, array in weights().items() if name.startswith("backbone.")}
    np.savez(folder / "b.npz", **backbone)
    np.save(folder / "x.npy", picture())
    np.save(folder / "x2.npy", picture(2)[1:])
    Image.new("RGB", (96, 64), (9, 99, 200)).save(folder / "p.png")
    onnx.save(exported(), folder / "n.onnx")
    _write_tnn(folder)
    _write_graph(folder)
    of_scenes = MobileInst(FOUR_CLASSES, Weights.seeded(FOUR_CLASSES, 0))
    large = np.zeros((1, 3, 192, 320), np.float32)
    for used, images, suffix in ((network(), picture(), ""), (of_scenes, large, "d")):
        onnx.save(export(used, images), folder / f"k{suffix}.onnx")
        onnx.save(export_reuse(used, images), folder / f"r{suffix}.onnx")
    (folder / "film").mkdir()
    for index in range(2):
        Image.new("RGB", (96, 64), (99 * index, 9, 9)).save(folder / "film" / f"{index}.png")
    _write_results(folder)
    for name in ("rec", "port", "set"):
        (folder / name).mkdir()
    (folder / "lib.so").touch()
    (folder / "tracker.py").write_text(TRACKER)
    (folder / "l.csv").write_text((trained_folder() / "scenes-tiny.csv").read_text())


def _write_tnn(folder: Path) -> None:
    folded = MobileInst(CONFIG, Weights(weights()).folded().astype(np.float32))
    write_graph(converted(for_tnn(export(folded, picture()))), folder / "n.tnnproto")
    write_output(folder / "n.out", {"masks": np.zeros((1, 2), np.float32)})
    for source, name in (("gemm", "t"), ("gemm", "u"), ("mha", "d")):
        for suffix in (".tnnproto", ".tnnmodel", ".onnx"):
            shutil.copy(file(source, suffix), folder / f"{name}{suffix}")
    shutil.copy(file("gemm", ".in.txt"), folder / "t.txt")
    shutil.copy(file("mha", ".in.txt"), folder / "d.txt")
    shutil.copytree(unpacked("mha_dumps") / "mha_dumps" / "dump_mha_x86", folder / "dump")


def _write_graph(folder: Path) -> None:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "ab"]
    added = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", infos, [added])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "g.onnx")
    np.save(folder / "g.npy", np.ones((2, 3), np.float32))


def _write_results(folder: Path) -> None:
    box = {"size": [4, 4], "counts": [0, 16]}
    truth = {
        "images": [{"id": 1, "height": 4, "width": 4}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "area": 16,
                "bbox": [0, 0, 4, 4],
                "segmentation": box,
            }
        ],
    }
    found = [{"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": box}]
    (folder / "gt.json").write_text(json.dumps(truth))
    for name in ("a.json", "b.json"):
        (folder / name).write_text(json.dumps(found))


# Commands as they are.


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every command with its words."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from walk(inner, (*words, name))
    else:
        yield " ".join(words), command


COMMANDS = dict(walk(typer.main.get_command(conformance.cli.app)))
MODES = {mode: name for name, command in COMMANDS.items() for mode in getattr(command.callback, "modes", ())}


def modes_of(name: str) -> tuple[type[Job], ...]:
    """Return the modes of a command."""
    modes: tuple[type[Job], ...] = COMMANDS[name].callback.modes
    return modes


@functools.cache
def chunks(line: str) -> dict[str, list[str]]:
    """Return the words of a command line by the option they belong to; arguments under the empty name."""
    words = shlex.split(line)
    name = next(name for name in COMMANDS if words[: len(name.split())] == name.split())
    parameters = {flag: each for each in COMMANDS[name].params for flag in each.opts}
    found: dict[str, list[str]] = {"": name.split()}
    rest = iter(words[len(name.split()) :])
    for word in rest:
        flag, sign, _ = word.partition("=")
        if flag not in parameters or not flag.startswith("-"):
            found[""].append(word)
            continue
        parameter = parameters[flag]
        count = 0 if sign or parameter.is_flag else parameter.nargs
        found.setdefault(parameter.name, []).extend([word, *itertools.islice(rest, count)])
    return found
