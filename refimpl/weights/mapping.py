"""Weights: a mapping of names to arrays, read strictly from files or made from a seed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from refimpl.backbone import BackboneSpec
from refimpl.config import MobileInstConfig
from refimpl.forward import parameter_shapes
from refimpl.ops.operation import Array, is_fixed
from refimpl.trained import trained_config, trained_files
from refimpl.weights.check import check_weights
from refimpl.weights.files import read_arrays, write_arrays
from refimpl.weights.folding import fold_batch_norm
from refimpl.weights.hint import likely_configuration
from refimpl.weights.names import BACKBONE_PREFIX, CLASSIFIER_PREFIXES, backbone_prefix, canonical
from refimpl.weights.seeding import seeded_arrays


class Weights(Mapping[str, Array]):
    """The network's weights: a read-only mapping of names to arrays of one float dtype.

    Arrays that somebody could write into are copied.

    Examples
    --------
    >>> config = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5)
    >>> weights = Weights.seeded(config, seed=0)
    >>> weights["instance_decoder.queries"].shape, weights.dtype
    ((5, 32), dtype('float32'))
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = {name: _own(array) for name, array in arrays.items()}

    def __getitem__(self, name: str) -> Array:
        """Return the array of that name."""
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._arrays)

    def __len__(self) -> int:
        """Return how many arrays there are."""
        return len(self._arrays)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the arrays."""
        return next(iter(self._arrays.values())).dtype

    def astype(self, dtype: Any) -> Weights:
        """Return the same weights in another float dtype."""
        return Weights({name: _fixed(array.astype(dtype)) for name, array in self.items()})

    def folded(self) -> Weights:
        """Return the weights with every batch norm folded into its convolution."""
        return Weights(fold_batch_norm(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str], config: MobileInstConfig) -> Weights:
        """Read the weights of a whole network from ``.safetensors``, ``.npz`` or (with PyTorch) ``.pth``.

        Of SparseInst's backbone, parts that it does not use may be there or not.

        Raises
        ------
        FileError
            The file is missing, damaged or of another format.
        WeightsError
            Tensors are missing, extra, misshapen or not finite: one error that lists them all.
        MissingDependencyError
            The reader of that format is not installed.
        """
        arrays = canonical(read_arrays(path), config)
        check_weights(arrays, parameter_shapes(config), partial(likely_configuration, arrays, config))
        return cls(arrays)

    @classmethod
    def trained(cls, name: str = "scenes-tiny") -> Weights:
        """Read trained weights that came with the project, by name.

        `refimpl.trained.trained_config` has their configuration.

        float16 in the files, float32 here: the rounded weights are the weights.

        Raises
        ------
        ConfigurationError
            No trained weights have that name.
        FileError
            They are not installed, or a file is not the one that was shipped.

        Examples
        --------
        >>> Weights.trained("scenes-tiny")["instance_decoder.queries"].shape
        (20, 64)
        """
        config = trained_config(name)
        arrays = {key: array for path in trained_files(name) for key, array in read_arrays(path).items()}
        check_weights(arrays, parameter_shapes(config))
        return cls(arrays).astype(np.float32)

    @classmethod
    def load_backbone(
        cls, path: str | os.PathLike[str], config: MobileInstConfig, rest: Mapping[str, Array]
    ) -> Weights:
        """Read a public backbone checkpoint and take the other weights from ``rest``.

        The names may stand with or without ``backbone.``; the checkpoint's classifier or segmentation head is
        left out. ResNet-50 may have torchvision's names (`refimpl.weights.names.TORCHVISION_RESNET`), its
        batch norms apart or folded.

        Raises
        ------
        FileError, WeightsError, MissingDependencyError
            As `load`.
        """
        prefix, backbone = backbone_prefix(config), {}
        for name, array in read_arrays(path).items():
            name = name.removeprefix(prefix).removeprefix(BACKBONE_PREFIX)
            if not name.startswith(CLASSIFIER_PREFIXES):
                backbone[prefix + name] = array
        others = {name: array for name, array in rest.items() if not name.startswith(prefix)}
        dtype = next(iter(others.values())).dtype
        narrowed = {name: array.astype(dtype) for name, array in backbone.items()}
        arrays = {**canonical(narrowed, config), **others}
        check_weights(arrays, parameter_shapes(config), partial(likely_configuration, arrays, config))
        return cls(arrays)

    @classmethod
    def seeded(cls, config: MobileInstConfig, seed: int = 0, spec: BackboneSpec | None = None) -> Weights:
        """Make float32 weights from a seed, batch norms calibrated so that activations stay of order one.

        See `refimpl.weights.seeding`. A ``spec`` stands for the backbone that ``config`` names.
        """
        return cls(seeded_arrays(config, seed, spec))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``.safetensors`` or ``.npz``; the file appears whole or not at all.

        Raises
        ------
        FileError
            The suffix is neither, or the place cannot be written.
        """
        write_arrays(dict(self), path)


def _own(array: Array) -> Array:
    """Return an array that nobody else can write into."""
    array = np.asarray(array)
    return array if is_fixed(array) else _fixed(array.copy())


def _fixed(array: Array) -> Array:
    """Return an array that was just made, and nobody else has, read-only."""
    array.flags.writeable = False
    return array
