"""Layers of ncnn in the ways that their parameters allow: a line of a ``.param``, weights, operands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Weight:
    """An array of a ``.bin``.

    Attributes
    ----------
    count
    tagged
        Whether its format is told before it.
    draw
        Where its numbers are from, as a case's.
    """

    count: int
    tagged: bool
    draw: str = "normal"


@dataclass(frozen=True)
class Case:
    """A layer.

    Attributes
    ----------
    line
        Its kind and its parameters.
    shapes
        Of its operands, without a batch.
    weights
    draw
        "normal", "positive" from 0.5 to 2, "unit" within ±0.9, "above" from 1.1 to 3, "words" 0 to 11, and
        of a weight "half" for float16 and "integers".
    tops
        How many blobs it makes.
    """

    line: str
    shapes: tuple[Shape, ...]
    weights: tuple[Weight, ...] = ()
    draw: str = "normal"
    tops: int = 1


def tagged(count: int) -> Weight:
    """Return a weight of type 0."""
    return Weight(count, True)


def half(count: int) -> Weight:
    """Return a weight of type 0 that is stored in float16."""
    return Weight(count, True, "half")


def plain(count: int, draw: str = "normal") -> Weight:
    """Return a weight of type 1."""
    return Weight(count, False, draw)


def of(line: str, *shapes: Shape, draw: str = "normal", tops: int = 1) -> Case:
    """Return a layer without weights."""
    return Case(line, shapes, (), draw, tops)


def weighed(line: str, shape: Shape | tuple[Shape, ...], *weights: Weight, tops: int = 1) -> Case:
    """Return a layer with weights."""
    several = tuple(each for each in shape if isinstance(each, tuple))
    sides = tuple(each for each in shape if isinstance(each, int))
    return Case(line, several or (sides,), weights, "normal", tops)


V, M, B, D = (7,), (5, 7), (4, 5, 7), (3, 4, 5, 6)
EVERY = (V, M, B, D)


def _by_number() -> Iterator[Case]:
    for line in (
        *(
            "AbsVal",
            "BNLL",
            "CELU",
            "CELU 0=0.7",
            "Clip 0=-0.5 1=0.8",
            "Clip 1=0.3",
            "Dropout",
            "Dropout 0=0.5",
        ),
        *("ELU", "ELU 0=1.3", "Erf", "Exp", "Exp 0=2.0 1=0.5 2=0.1", "Exp 1=0.5", "GELU", "GELU 0=1"),
        *("HardSigmoid", "HardSigmoid 0=0.3 1=0.4", "HardSwish", "HardSwish 0=0.1666667 1=0.5", "Mish"),
        *("Noop", "Packing", "DeepCopy", "ReLU", "ReLU 0=0.1", "SELU", "SELU 0=1.5 1=1.2"),
        *(
            "Shrink",
            "Shrink 0=0.2 1=0.3",
            "Sigmoid",
            "Softplus",
            "Swish",
            "TanH",
            "Threshold 0=0.3",
            "Threshold",
        ),
        *("Power", "Power 0=2.0 1=0.7 2=0.3", "Flatten"),
    ):
        for shape in EVERY if line in ("ELU", "Flatten", "ReLU", "Swish") else (B,):
            yield of(line, shape)


def _by_number_of_few() -> Iterator[Case]:
    for line in ("Log", "Log 0=10.0 1=2.0 2=0.5", "Log 1=2.0", "Power 0=0.5"):
        yield of(line, B, draw="positive")
    for kind in range(28):
        special = {
            5: "positive",
            6: "positive",
            8: "positive",
            15: "positive",
            17: "positive",
            27: "positive",
        }
        special |= {12: "unit", 13: "unit", 26: "unit", 25: "above"}
        yield of(f"UnaryOp 0={kind}", B, draw=special.get(kind, "normal"))
    for slopes, shape in ((1, V), (7, V), (5, M), (1, B), (4, B), (3, D)):
        yield weighed(f"PReLU 0={slopes}", shape, plain(slopes))


def _binary() -> Iterator[Case]:
    for kind in range(19):
        draw = "positive" if kind in (6, 9) else "normal"
        yield of(f"BinaryOp 0={kind}", B, B, draw=draw)
        yield of(f"BinaryOp 0={kind} 1=1 2=1.7", B, draw=draw)
    for first, second in (
        *((M, (5,)), (M, (7,)), (B, (4,)), (B, (7,)), (B, (4, 5)), (D, (3,)), (D, (6,)), (D, (3, 4))),
        *((D, (3, 4, 5)), (B, (1,)), (M, (1,)), (V, (1,)), (B, (4, 1, 1)), (B, (1, 5, 7)), (B, (1, 1, 7))),
        *(
            (M, (5, 1)),
            (M, (1, 7)),
            (D, (1, 4, 1, 6)),
            ((5, 5), (5,)),
            ((4, 1, 7), (1, 5, 1)),
            (B, (4, 5, 1)),
        ),
    ):
        yield of("BinaryOp 0=1", first, second)
        yield of("BinaryOp 0=1", second, first)
        yield of("BinaryOp 0=8", first, second, draw="positive")
    for line in ("Eltwise", "Eltwise 0=1", "Eltwise 0=1 -23301=3,0.5,-1.0,2.0", "Eltwise 0=2"):
        yield of(line, B, B, B)
        yield of(line, M, M, M)
    yield of("Eltwise 0=1 1=0.5,-1.0,2.0", B, B, B)


def _affine() -> Iterator[Case]:
    for shape in EVERY:
        size = shape[0]
        yield weighed(f"Scale 0={size}", shape, plain(size))
        yield weighed(f"Scale 0={size} 1=1", shape, plain(size), plain(size))
        yield of("Scale 0=-233", shape, (size,))
        yield weighed(f"Bias 0={size}", shape, plain(size))
        yield weighed(
            f"BatchNorm 0={size} 1=0.01",
            shape,
            plain(size),
            plain(size),
            plain(size, "positive"),
            plain(size),
        )


def _reductions() -> Iterator[Case]:
    for kind in range(11):
        draw = "positive" if kind == 9 else "normal"
        for shape, axes in (
            (V, (0,)),
            (M, (0,)),
            (M, (-1,)),
            (B, (1, 2)),
            (B, (0, -1)),
            (D, (1,)),
            (D, (0, 2, 3)),
        ):
            for keeps in (0, 1):
                listed = f"-23303={len(axes)},{','.join(map(str, axes))}"
                yield of(f"Reduction 0={kind} 1=0 {listed} 4={keeps} 5=1", shape, draw=draw)
        yield of(f"Reduction 0={kind}", B, draw=draw)
        yield of(f"Reduction 0={kind} 1=0 -23303=2,2,3 4=1 5=1", B, draw=draw)
        yield of(f"Reduction 0={kind} 1=0 2=0.5", B, draw=draw)
        yield of(f"Reduction 0={kind} 4=1 2=0.5", D, draw=draw)
    for shape in EVERY:
        for axis in range(-len(shape), len(shape)):
            yield of(f"Softmax 0={axis} 1=1", shape)
            yield of(f"CumulativeSum 0={axis}", shape)
    for shape, axis in (((8,), 0), ((6, 4), 0), ((6, 4), -1), ((4, 6, 8), 0), ((4, 6, 8), 1), ((4, 6, 8), 2)):
        yield of(f"GLU 0={axis}", shape)
    for axis in range(4):
        yield of(f"GLU 0={axis}", (2, 4, 6, 8))
    for equation, shapes in (
        *(("im,jm->ij", ((3, 4), (5, 4))), ("ijm,ikm->ijk", ((2, 3, 4), (2, 5, 4)))),
        *(
            ("ii", ((4, 4),)),
            ("imn->i", ((2, 3, 4),)),
            ("ji->ij", ((2, 3),)),
            ("imn,jm->ij", ((2, 3, 4), (5, 3))),
        ),
    ):
        yield of(f"Einsum -23300={len(equation)},{','.join(str(ord(sign)) for sign in equation)}", *shapes)


def _norms() -> Iterator[Case]:
    for shape in ((6,), (6, 5), (6, 5, 7), (6, 3, 5, 4)):
        for groups in (1, 2, 3):
            yield weighed(f"GroupNorm 0={groups} 1=6 2=0.01", shape, plain(6), plain(6))
        yield of("GroupNorm 0=2 1=6 3=0", shape)
    for shape in (M, B, D):
        size = shape[0]
        yield weighed(f"InstanceNorm 0={size} 1=0.01", shape, plain(size), plain(size))
        yield of(f"InstanceNorm 0={size} 2=0", shape)
    for shape, size in ((V, 7), (M, 7), (B, 7), (B, 35), (D, 6), (D, 30), (D, 120)):
        yield weighed(f"LayerNorm 0={size} 1=0.01", shape, plain(size), plain(size))
        yield of(f"LayerNorm 0={size} 2=0", shape)
        yield weighed(f"RMSNorm 0={size} 1=0.01", shape, plain(size))
        yield of(f"RMSNorm 0={size} 2=0", shape)
    for line in (
        "LRN",
        "LRN 1=3 2=0.5 3=0.6 4=2.0",
        "LRN 1=4 2=0.7",
        "LRN 0=1 1=3",
        "LRN 0=1 1=5 2=0.5 3=0.6 4=2.0",
    ):
        yield of(line, (9, 5, 7))
    for shape in EVERY:
        for line in ("MVN", "MVN 0=1", "MVN 0=1 1=1 2=0.1", "MVN 1=1"):
            yield of(line, shape)
        channels = shape[0] if len(shape) > 2 else 1
        for spatial, over, mode in (
            (0, 1, 0),
            (1, 1, 1),
            (1, 0, 2),
            (0, 1, 2),
            (0, 1, 1),
            (1, 1, 2),
            (0, 0, 0),
        ):
            how = f"0={spatial} 4={over} 9={mode} 2=0.01"
            yield weighed(f"Normalize {how} 1=1 3=1", shape, plain(1))
            yield weighed(f"Normalize {how} 3={channels}", shape, plain(channels))
    for shape in (B, D):
        yield of("StatisticsPooling", shape)
        yield of("StatisticsPooling 0=1", shape)


def _shapes() -> Iterator[Case]:
    for shape, orders in ((V, 1), (M, 2), (B, 6), (D, 24)):
        for order in range(orders):
            yield of(f"Permute 0={order}", shape)
    for line in (
        *(
            "Reshape 0=-1",
            "Reshape 0=7 1=20",
            "Reshape 0=0 1=-1",
            "Reshape 0=-1 1=10",
            "Reshape 0=0 1=0 2=-1",
        ),
        *("Reshape 0=-1 1=2 2=10", "Reshape 0=7 1=5 11=2 2=2", "Reshape 0=0 1=-1 11=2 2=2"),
        *('Reshape 6="0w,-1"', 'Reshape 6="*(0w,0h),0c"', 'Reshape 6="//(0c,2),2,0h,0w"', 'Reshape 6="-1"'),
        *('Reshape 6="0w,+(0h,-(0c,4)),-1"', "Reshape 0=-1 1=0 11=1 2=0"),
    ):
        yield of(line, B)
    yield of("Reshape 0=-1 1=0 2=1", M)
    yield of("Reshape 0=0 1=0 11=0 2=0", D)
    yield of("Reshape 0=0 1=-1", D)
    yield of('Reshape 6="1w,1h,-1"', B, (2, 35))


def _other_shapes() -> Iterator[Case]:
    for line in (
        "Squeeze -23303=1,1",
        "Squeeze -23303=2,0,-1",
        "Squeeze 0=1",
        "Squeeze 0=1 1=1 2=1",
        "Squeeze 2=1",
    ):
        for shape in ((1, 5, 1), (4, 1, 7), (1, 1, 7), (1, 1, 1)):
            yield of(line, shape)
    for line in ("Squeeze 11=1", "Squeeze -23303=2,1,3", "Squeeze 0=1 1=1 11=1 2=1"):
        yield of(line, (3, 1, 5, 1))
    for shape, axes in (
        (V, "1,0"),
        (V, "1,1"),
        (V, "2,0,2"),
        (M, "1,0"),
        (M, "1,-1"),
        (M, "2,1,2"),
        (B, "1,1"),
        (B, "1,-1"),
    ):
        yield of(f"ExpandDims -23303={axes}", shape)
    for line in ("PixelShuffle 0=2", "PixelShuffle 0=2 1=1"):
        yield of(line, (8, 3, 5))
    for line in ("Reorg 0=2", "Reorg 0=2 1=1"):
        yield of(line, (3, 4, 6))
        yield of(line, (3, 5, 7))
    for line in ("ShuffleChannel 0=2", "ShuffleChannel 0=2 1=1", "ShuffleChannel 0=3"):
        yield of(line, (6, 3, 5))
    for line in ("Diag", "Diag 0=1", "Diag 0=-2", "Diag 0=3"):
        yield of(line, V)
        yield of(line, M)
        yield of(line, (7, 5))
    for sizes in ("0=7", "0=7 1=5", "0=7 1=5 2=4", "0=6 1=5 11=4 2=3"):
        count = {"0=7": 7, "0=7 1=5": 35, "0=7 1=5 2=4": 140}.get(sizes, 360)
        yield Case(f"MemoryData {sizes}", (), (plain(count),))
        yield Case(f"MemoryData {sizes} 21=0", (), (tagged(count),))


def _parts() -> Iterator[Case]:
    for shape in EVERY:
        for axis in range(-len(shape), len(shape)):
            yield of(f"Concat 0={axis}", shape, shape)
            yield of(f"Slice -23300=3,2,-233,-233 1={axis}", (8, 9, 7, 6)[: len(shape)], tops=3)
            yield of(f"Slice -23302=2,2,-2 1={axis}", (8, 9, 7, 6)[: len(shape)], tops=3)
            yield of(f"Flip -23300=1,{axis}", shape)
            yield of(f"Tile 0={axis} 1=3", shape) if axis >= 0 else of("Noop", shape)
    yield of("Flip -23300=2,0,-1", B)
    yield of("Split", B, tops=2)
    yield of("Flip 0=1,", B)


def _tiles_and_crops() -> Iterator[Case]:
    for shape, counts in ((V, "1,2"), (V, "2,2,3"), (M, "2,2,3"), (M, "1,2"), (M, "3,2,1,3"), (B, "3,2,1,3")):
        yield of(f"Tile -23302={counts}", shape)
    for shape, counts in ((B, "2,2,3"), (B, "4,2,3,1,2"), (D, "3,2,1,2"), (D, "4,1,2,1,3"), (M, "4,2,3,1,2")):
        yield of(f"Tile -23302={counts}", shape)
    for line in (
        *(
            "Crop 0=1 1=2 2=1 3=4 4=2 5=2",
            "Crop 0=1 1=2 2=1 3=-233 4=-233 5=-233",
            "Crop 3=3 4=-233 5=2 6=2 8=1",
        ),
        *("Crop 0=1 3=-233 4=-233 5=-233 6=1 7=2", "Crop -23309=1,1 -23310=1,-1 -23311=1,2"),
        *("Crop -23309=3,1,0,2 -23310=3,3,4,-233", "Crop -23309=2,-3,1 -23310=2,-1,0 -23311=2,-1,1"),
        *('Crop 19="1,1" 20="-(0h,1),6" 21="1,2"', "Crop -23309=2,-233,1 -23310=2,2,100 -23311=2,0,2"),
    ):
        yield of(line, B)
    yield of("Crop 0=1 3=4", V)
    yield of("Crop 0=1 1=1 3=4 4=-233", M)
    yield of("Crop 0=1 1=1 13=1 2=1 3=4 4=-233 14=2 5=1", D)
    yield of("Crop -23309=2,1,-3 -23310=2,3,-1 -23311=2,1,3", D)
    yield of("Crop -23309=2,0,1 -23310=2,3,4 -23311=2,0,-1", M)
    for shape, other in (
        (V, (4,)),
        (M, (3, 4)),
        (B, (2, 3, 4)),
        (B, (3, 4)),
        (D, (2, 2, 3, 4)),
        (D, (2, 3, 4)),
    ):
        yield of("Crop 0=1 1=1", shape, other)
    for shape, other in ((V, (4,)), (M, (3, 4)), (B, (2, 3, 4)), (D, (2, 2, 3, 4)), (B, B)):
        yield of("CopyTo 0=1 1=1 2=1 13=1", shape, other)
    yield of("CopyTo -23309=2,1,-5 -23311=2,0,-1", B, (2, 5, 4))


def _paddings_and_words() -> Iterator[Case]:
    for kind in range(3):
        yield of(f"Padding 2=2 3=1 4={kind} 5=0.5", V)
        for shape in (M, B):
            yield of(f"Padding 0=1 1=2 2=3 3=1 4={kind} 5=0.5", shape)
        for shape in (B, D):
            yield of(f"Padding 0=1 1=2 2=3 3=1 4={kind} 5=0.5 7=1 8=2", shape)
    yield weighed("Padding 0=1 1=2 2=3 3=1 6=4", B, plain(4))
    yield weighed("Padding 0=1 1=2 2=3 3=1 7=1 8=1 6=6", B, plain(6))
    yield weighed("Padding 0=1 1=2 2=3 3=1 7=1 8=1 6=3", D, plain(3))
    words = (11,)
    yield Case("Embed 0=5 1=9 3=45", (words,), (tagged(45),), "words")
    held = Weight(45, True, "integers")
    yield Case("Embed 0=5 1=9 2=1 3=45 18=1", (words,), (held, plain(5), plain(1, "positive")), "words")
    yield Case("Embed 0=5 1=9 2=1 3=45", (words,), (tagged(45), plain(5)), "words")


GROUPS = (
    *(_by_number, _by_number_of_few, _binary, _affine, _reductions, _norms, _shapes, _other_shapes),
    *(_parts, _tiles_and_crops, _paddings_and_words),
)
