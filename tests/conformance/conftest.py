"""Most of these tests judge the same few networks, whose weights cost more to make than many a verdict."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from refimpl import MobileInstConfig, topformer
from refimpl.backbone import BACKBONE_SPECS, BackboneSpec
from refimpl.ops.operation import Array
from refimpl.weights import mapping

MOST_BYTES = 2**28
KEPT: dict[str, dict[str, Array]] = {}


def size(arrays: dict[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())


@pytest.fixture(scope="module", autouse=True)
def kept_weights() -> Iterator[None]:
    """Keep seeded weights between tests, those used last up to a limit; none of them can be written to."""
    make = mapping.seeded_arrays

    def kept(config: MobileInstConfig, seed: int, spec: BackboneSpec | None = None) -> dict[str, Array]:
        key = repr((config, seed, spec or BACKBONE_SPECS[config.backbone], topformer.TRANSFORMER_BLOCKS))
        KEPT[key] = KEPT.pop(key, None) or make(config, seed, spec)
        while len(KEPT) > 1 and sum(map(size, KEPT.values())) > MOST_BYTES:
            del KEPT[next(iter(KEPT))]
        return KEPT[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapping, "seeded_arrays", kept)
        yield
