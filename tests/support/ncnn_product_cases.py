"""Layers of ncnn that multiply, pool, resize and carry on, each in the ways that its parameters allow."""

from __future__ import annotations

from collections.abc import Iterator

from ncnn_layer_cases import Case, half, of, plain, tagged, weighed

ACTIVATIONS = (*("9=1", "9=2 -23310=1,0.1", "9=3 -23310=2,-0.5,0.7", "9=4", "9=5", "9=6 -23310=2,0.2,0.5"),)


def _convolutions() -> Iterator[Case]:
    flat, deep, row = (3, 8, 9), (2, 5, 6, 7), (3, 11)
    for way in (
        *("", "4=1", "4=1 14=2", "4=1 14=2 15=0 16=3", "3=2 4=1", "3=2 13=3 4=1", "2=2 4=2", "2=2 12=1 4=1"),
        *(
            "4=-233",
            "4=-234",
            "4=-233 3=2",
            "4=-234 3=2",
            "4=-234 3=3 2=2",
            "4=1 18=0.7",
            "4=-233 18=-0.5 3=2",
        ),
        *ACTIVATIONS,
    ):
        yield weighed(f"Convolution 0=4 1=3 5=1 6=108 {way}", flat, tagged(108), plain(4))
        yield weighed(f"Convolution1D 0=4 1=3 5=1 6=36 {way}", row, tagged(36), plain(4))
        yield weighed(f"ConvolutionDepthWise 0=3 1=3 5=1 6=27 7=3 {way}", flat, tagged(27), plain(3))
        yield weighed(f"ConvolutionDepthWise1D 0=3 1=3 5=1 6=9 7=3 {way}", row, tagged(9), plain(3))
        yield weighed(f"Convolution3D 0=4 1=3 5=1 6=216 {way}", deep, tagged(216), plain(4))
        yield weighed(f"ConvolutionDepthWise3D 0=2 1=3 5=1 6=54 7=2 {way}", deep, tagged(54), plain(2))
    yield weighed("Convolution 0=4 1=2 11=3 6=72", flat, tagged(72))
    yield weighed("ConvolutionDepthWise 0=8 1=3 6=144 7=2 4=1", (4, 6, 7), tagged(144))
    yield weighed("ConvolutionDepthWise1D 0=8 1=3 6=48 7=2 4=1", (4, 9), tagged(48))
    yield weighed("ConvolutionDepthWise3D 0=8 1=3 6=432 7=2 4=1", (4, 5, 6, 7), tagged(432))
    yield weighed("Convolution3D 0=4 1=3 11=2 21=1 24=1 14=0 4=2 17=0 6=48", deep, tagged(48))
    yield weighed("Convolution3D 0=4 1=3 13=2 23=3 22=2 6=216", (2, 9, 6, 7), tagged(216))
    yield of("Convolution 19=1 5=1 4=1 0=4 1=3", flat, (4, 3, 3, 3), (4,))
    yield of("Convolution 19=1 4=-233 0=4 1=3", flat, (4, 3, 3, 2))
    yield of("Convolution1D 19=1 5=1 4=1 0=4 1=3", row, (4, 3, 3), (4,))
    yield of("ConvolutionDepthWise 19=1 5=1 4=1 0=4 1=3 7=2", (4, 6, 7), (4, 2, 3, 3), (4,))
    yield of("ConvolutionDepthWise1D 19=1 5=1 4=1 0=4 1=3 7=2", (4, 9), (4, 2, 3), (4,))


def _deconvolutions() -> Iterator[Case]:
    flat, deep, row = (3, 4, 5), (2, 3, 4, 5), (3, 6)
    for way in (
        *(
            "",
            "3=2",
            "3=2 4=1",
            "3=2 4=1 18=1",
            "3=2 18=1",
            "2=2 4=1",
            "4=1 15=0",
            "3=3 18=2 4=1",
            *ACTIVATIONS,
        ),
    ):
        yield weighed(f"Deconvolution 0=4 1=3 5=1 6=108 {way}", flat, tagged(108), plain(4))
        yield weighed(f"Deconvolution1D 0=4 1=3 5=1 6=36 {way}", row, tagged(36), plain(4))
        yield weighed(f"DeconvolutionDepthWise 0=3 1=3 5=1 6=27 7=3 {way}", flat, tagged(27), plain(3))
        yield weighed(f"DeconvolutionDepthWise1D 0=3 1=3 5=1 6=9 7=3 {way}", row, tagged(9), plain(3))
        yield weighed(f"Deconvolution3D 0=4 1=3 5=1 6=216 {way}", deep, tagged(216), plain(4))
        yield weighed(f"DeconvolutionDepthWise3D 0=2 1=3 5=1 6=54 7=2 {way}", deep, tagged(54), plain(2))
    for pad in (-233, -234):
        yield weighed(f"Deconvolution 0=4 1=3 3=2 4={pad} 20=10 21=8 6=108", flat, tagged(108))
        yield weighed(f"Deconvolution1D 0=4 1=3 3=2 4={pad} 20=12 6=36", row, tagged(36))
        yield weighed(f"Deconvolution3D 0=4 1=3 3=2 4={pad} 25=10 26=8 27=6 6=216", deep, tagged(216))
        yield weighed(f"DeconvolutionDepthWise 0=3 1=3 3=2 4={pad} 20=10 21=8 6=27 7=3", flat, tagged(27))
    yield weighed("Deconvolution 0=4 1=2 11=3 3=2 13=1 4=1 14=0 18=1 19=0 6=72", flat, tagged(72))
    yield weighed("DeconvolutionDepthWise 0=6 1=3 3=2 6=108 7=2", (4, 4, 5), tagged(108))
    yield weighed("DeconvolutionDepthWise1D 0=6 1=3 3=2 6=36 7=2", (4, 5), tagged(36))
    yield weighed("DeconvolutionDepthWise3D 0=6 1=3 3=2 6=324 7=2", (4, 3, 4, 5), tagged(324))
    yield of("Deconvolution 28=1 5=1 3=2 0=4 1=3", flat, (3, 4, 3, 3), (4,))
    yield of("Deconvolution1D 28=1 5=1 3=2 0=4 1=3", row, (3, 4, 3), (4,))
    yield of("DeconvolutionDepthWise 28=1 5=1 3=2 0=6 1=3 7=2", (4, 4, 5), (4, 3, 3, 3), (6,))


def _windows_askew() -> Iterator[Case]:
    for way, out in (("", (6, 7)), ("4=1", (8, 9)), ("3=2 4=1", (4, 5))):
        shapes = ((3, 8, 9), (18, *out))
        line = f"DeformableConv2D 0=4 1=3 5=1 6=108 {way}"
        yield weighed(line, shapes, tagged(108), plain(4))
        yield weighed(line, (*shapes, (9, *out)), tagged(108), plain(4))
    yield of("Fold 1=3 20=8 21=6", (27, 24))
    yield of("Fold 1=3 4=1 3=2 20=8 21=6", (27, 12))
    yield of("Fold 1=2 11=3 2=2 12=1 20=8 21=6", (12, 24))
    for way in ("", "4=1", "4=1 3=2 13=1", "2=2 4=2 14=1", "4=-233 3=2", "4=-234 3=2", "4=1 18=0.5", "11=2"):
        yield of(f"Unfold 1=3 {way}", (2, 6, 7))


def _pooling() -> Iterator[Case]:
    for kind in (0, 1):
        for way in (
            *(
                "1=2 2=2",
                "1=3 2=2",
                "1=3 2=2 3=1",
                "1=3 2=2 3=1 5=1",
                "1=3 2=1 3=1 5=1",
                "1=3 2=2 5=2",
                "1=3 2=2 5=3",
            ),
            *("1=2 2=2 5=2", "1=4 2=3 5=3", "1=3 2=2 3=1 14=0 5=1", "4=1", "7=1 8=1", "7=1 8=3", "7=1 8=4"),
            *("1=3 2=2 3=1 6=1", "1=3 2=2 3=1 5=1 6=1", "1=3 2=2 5=2 6=1", "1=3 2=2 6=1"),
        ):
            yield of(f"Pooling 0={kind} {way}", (4, 8, 9))
            yield of(f"Pooling1D 0={kind} {way}", (4, 9))
            yield of(f"Pooling3D 0={kind} {way}", (3, 6, 8, 9))
        for way in ("1=3 11=2 2=2 12=1 3=1 13=0", "7=1 8=3 18=-233", "7=1 8=-233 18=4", "7=1 8=9 18=8"):
            yield of(f"Pooling 0={kind} {way}", (4, 8, 9))
        for way in ("1=3 11=2 21=1 2=2 12=1 22=1", "7=1 8=3 18=-233 28=2", "1=3 3=1 23=0 16=1 14=0 5=1"):
            yield of(f"Pooling3D 0={kind} {way}", (3, 6, 8, 9))
        yield of(f"Pooling 0={kind} 1=3 2=2 3=1", (16, 12, 13))


def _sampling() -> Iterator[Case]:
    for kind in (1, 2, 3):
        for way in (
            *(
                "1=2.0 2=2.0",
                "1=1.5 2=2.5",
                "1=0.5 2=0.7",
                "3=9 4=11",
                "3=4 4=5",
                "3=12 4=14",
                "3=7 4=6",
                "3=6 4=12",
            ),
            *("3=9 4=11 6=1", "1=1.5 2=2.5 6=1", '9="*(0w,2),+(0h,3)"', '9="11"', "1=1.3 2=0.9"),
        ):
            yield of(f"Interp 0={kind} {way}", (3, 6, 7))
            yield of(f"Interp 0={kind} {way}", (5, 7))
        yield of(f"Interp 0={kind} 5=1", (3, 6, 7), (2, 9, 5))
        yield of(f"Interp 0={kind} 5=1 6=1", (3, 6, 7), (2, 12, 14))
        yield of(f"Interp 0={kind} 3=4 4=5", (6,))
        yield of(f"Interp 0={kind} 1=3.0 2=2.0", (6,))
        for outside in (1, 2, 3):
            for aligned in (0, 1):
                yield of(f"GridSample 0={kind} 1={outside} 2={aligned}", (3, 6, 7), (4, 5, 2), draw="unit")
                yield of(
                    f"GridSample 0={kind} 1={outside} 2={aligned} 3=1", (3, 6, 7), (2, 4, 5), draw="unit"
                )
                yield of(f"GridSample 0={kind} 1={outside} 2={aligned}", (3, 6, 7), (4, 5, 2))
    for way in ("", "3=2", "4=1", "3=2 4=1", "2=0.5"):
        yield of(f"ROIAlign 0=3 1=2 5=1 {way}", (3, 8, 9), (4,), draw="box")


def _recurrent() -> Iterator[Case]:
    for kind, gates, shifts in (("LSTM", 4, 4), ("GRU", 3, 4), ("RNN", 1, 1)):
        for way in (0, 1, 2):
            ways = 2 if way == 2 else 1
            weights = tagged(gates * 5 * 3 * ways), tagged(shifts * 5 * ways), tagged(gates * 25 * ways)
            line = f"{kind} 0=5 1={gates * 15 * ways} 2={way}"
            yield weighed(line, (6, 3), *weights)
            states = 2 if kind == "LSTM" else 1
            carried = ((ways, 5),) * states
            yield weighed(line, ((6, 3), *carried), *weights, tops=1 + states)
            yield weighed(line, (6, 3), *weights, tops=1 + states)


def _matrices() -> Iterator[Case]:
    for way in ("", *ACTIVATIONS):
        yield weighed(f"InnerProduct 0=4 1=1 2=28 {way}", (7,), tagged(28), plain(4))
    yield weighed("InnerProduct 0=4 2=28", (5, 7), tagged(28))
    yield weighed("InnerProduct 0=4 2=140", (5, 7), tagged(140))
    yield weighed("InnerProduct 0=4 2=672", (2, 3, 28), tagged(672))
    yield weighed("InnerProduct 0=4 2=28", (1, 7), tagged(28))
    for first, second in (
        *(
            ((4,), (4,)),
            ((4,), (4, 5)),
            ((3, 4), (4,)),
            ((3, 4), (4, 5)),
            ((4,), (2, 4, 5)),
            ((2, 3, 4), (4,)),
        ),
        *(((2, 3, 4), (2, 4, 5)), ((3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((1, 3, 4), (2, 4, 5))),
        *(((2, 3, 4, 5), (2, 3, 5, 4)), ((3, 4, 5), (2, 3, 5, 4)), ((2, 3, 4, 5), (1, 3, 5, 4))),
        *(((5,), (2, 3, 5, 4)), ((2, 3, 4, 5), (5,)), ((4, 5), (2, 3, 5, 4)), ((2, 3, 4, 5), (5, 4))),
    ):
        yield of("MatMul", first, second)
        turned = (*second[:-2], second[-1], second[-2]) if len(second) > 1 else second
        yield of("MatMul 0=1", first, turned)
    yield from _gemms()


def _gemms() -> Iterator[Case]:
    for turned in ("", "2=1", "3=1", "2=1 3=1"):
        a, b = (4, 3) if "2=1" in turned else (3, 4), (5, 4) if "3=1" in turned else (4, 5)
        for way in ("", "0=0.5", "14=1", "11=1", "11=1 14=1"):
            yield of(f"Gemm {turned} {way}", a, b)
        for added in ((1,), (3,), (5,), (3, 1), (3, 5), (1, 5)):
            yield of(f"Gemm {turned} 0=0.5 1=0.7", a, b, added)
        given = "7=3 8=5 9=4"
        yield weighed(f"Gemm {turned} {given} 4=1", b, tagged(12))
        yield weighed(f"Gemm {turned} {given} 5=1", a, tagged(20))
        yield weighed(f"Gemm {turned} {given} 5=1 14=1 0=0.5 1=0.7", (a, (3, 5)), tagged(20))
        for spread, count in ((-1, 0), (0, 1), (1, 3), (2, 3), (3, 15), (4, 5)):
            weights = [tagged(20)] + [tagged(count)] * bool(count)
            yield weighed(f"Gemm {turned} {given} 5=1 6=1 10={spread} 0=0.5 1=0.7", a, *weights)
    yield of("Gemm", (3, 1, 4), (4, 5))
    yield of("Gemm", (4, 4), (4, 4), (4,))
    yield weighed("Gemm 4=1 5=1 7=3 8=5 9=4", (3, 5), tagged(12), tagged(20))


def _attention() -> Iterator[Case]:
    own = [tagged(64), plain(8)] * 4
    yield weighed("MultiHeadAttention 0=8 1=2 2=64", (5, 8), *own)
    yield weighed("MultiHeadAttention 0=8 1=2 2=64 6=0.3", ((5, 8), (6, 8)), *own)
    yield weighed("MultiHeadAttention 0=8 1=2 2=64 5=1", ((5, 8), (5, 5)), *own)
    yield weighed("MultiHeadAttention 0=8 1=2 2=64 5=1", ((5, 8), (2, 5, 5)), *own)
    other = [tagged(48), plain(8), tagged(24), plain(8), tagged(32), plain(8), tagged(48), plain(6)]
    yield weighed("MultiHeadAttention 0=8 1=2 2=48 3=3 4=4", ((5, 6), (7, 3), (7, 4)), *other)
    yield weighed("MultiHeadAttention 0=8 1=4 2=48 3=3 4=4 5=1", ((5, 6), (7, 3), (7, 4), (5, 7)), *other)
    for groups in (4, 2, 1):
        heads, key, value = (4, 5, 6), (groups, 7, 6), (groups, 7, 3)
        yield of("SDPA", heads, key, value)
        yield of("SDPA 6=0.3", heads, key, value)
        for mask in ((5, 7), (1, 5, 7), (4, 5, 7)):
            yield of("SDPA 5=1", heads, key, value, mask)
    for interleaved in (0, 1):
        yield of(f"RotaryEmbed 0={interleaved}", (3, 5, 8), (5, 4), (5, 4))


def _halves() -> Iterator[Case]:
    yield weighed("Convolution 0=4 1=3 5=1 6=108 9=1", (3, 8, 9), half(108), plain(4))
    yield weighed("Deconvolution 0=4 1=3 5=1 6=108 9=1", (3, 4, 5), half(108), plain(4))
    yield weighed("DeconvolutionDepthWise1D 0=6 1=3 3=2 6=36 7=2 9=1", (4, 5), half(36))
    yield weighed("InnerProduct 0=4 1=1 2=28 9=1", (1, 7), half(28), plain(4))
    yield weighed("Gemm 5=1 6=1 7=3 8=5 9=4 10=3", (3, 4), half(20), half(15))
    yield weighed("LSTM 0=5 1=60 2=1", (7, 3), half(60), half(20), half(100))
    yield weighed("GRU 0=5 1=45 2=1", (7, 3), half(45), half(20), half(75))
    yield Case("MemoryData 0=7 1=5 21=0", (), (half(35),))


GROUPS = (
    _halves,
    _convolutions,
    _deconvolutions,
    _windows_askew,
    _pooling,
    _sampling,
    _recurrent,
    _matrices,
    _attention,
)
