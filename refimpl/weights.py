"""Weights: read strictly from files, or made reproducibly from a seed with activations of order one."""

from __future__ import annotations

import math
import os
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from refimpl.checkpoint_names import BACKBONE_PREFIX, CLASSIFIER_PREFIXES, canonical
from refimpl.config import MobileInstConfig
from refimpl.errors import FileError, MissingDependencyError
from refimpl.folding import fold_batch_norm
from refimpl.inference import preprocess
from refimpl.model import MobileInst, parameter_shapes
from refimpl.npy_header import check_claim
from refimpl.ops.operation import OPERATIONS, Array, intercepted
from refimpl.trained import trained_config, trained_files
from refimpl.weights_check import check_weights
from refimpl.weights_hint import likely_configuration

IGNORED_SUFFIX = "num_batches_tracked"


class Weights(Mapping[str, Array]):
    """The network's weights: a read-only mapping of names to arrays of one float dtype.

    Examples
    --------
    >>> config = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5)
    >>> weights = Weights.seeded(config, seed=0)
    >>> weights["instance_decoder.queries"].shape, weights.dtype
    ((5, 32), dtype('float32'))
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = {name: _read_only(array) for name, array in arrays.items()}

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
        return Weights({name: array.astype(dtype) for name, array in self.items()})

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
        left out. ResNet-50 may have torchvision's names (`refimpl.checkpoint_names.TORCHVISION_RESNET`), its
        batch norms apart or folded.

        Raises
        ------
        FileError, WeightsError, MissingDependencyError
            As `load`.
        """
        backbone = {}
        for name, array in read_arrays(path).items():
            name = name.removeprefix(BACKBONE_PREFIX)
            if not name.startswith(CLASSIFIER_PREFIXES):
                backbone[BACKBONE_PREFIX + name] = array
        others = {name: array for name, array in rest.items() if not name.startswith(BACKBONE_PREFIX)}
        dtype = next(iter(others.values())).dtype
        narrowed = {name: array.astype(dtype) for name, array in backbone.items()}
        arrays = {**canonical(narrowed, config), **others}
        check_weights(arrays, parameter_shapes(config), partial(likely_configuration, arrays, config))
        return cls(arrays)

    @classmethod
    def seeded(cls, config: MobileInstConfig, seed: int = 0) -> Weights:
        """Make float32 weights from a seed, batch norms calibrated so that activations stay of order one.

        The running statistics are those of a forward pass over rendered pictures and white noise, rounded to
        12 bits so that another BLAS gives the same weights.
        """
        # Brings scipy.optimize, which `import refimpl` need not wait for.
        from refimpl.scenes import render_picture

        rng = np.random.default_rng(seed)
        arrays = {name: _initial(name, shape, rng) for name, shape in parameter_shapes(config).items()}
        # One picture has too few tokens at 1/64: the statistics would not fit another. Without the noise,
        # channels that see only fine detail would explode on a noisy input.
        scenes = [render_picture(*CALIBRATION_SIZE, seed + i) for i in range(CALIBRATION_PICTURES)]
        pictures = np.concatenate([preprocess(scene, sizing="native")[0] for scene in scenes])
        images = np.concatenate([pictures, rng.standard_normal((1, *pictures.shape[1:]))])
        wide = {name: array.astype(np.float64) for name, array in arrays.items()}
        with intercepted(_Calibrator()):
            MobileInst(config, wide)(images)
        statistics = {name: array for name, array in wide.items() if ".running_" in name}
        return cls({**arrays, **{name: array.astype(np.float32) for name, array in statistics.items()}})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``.safetensors`` or ``.npz``; the file appears whole or not at all.

        Raises
        ------
        FileError
            The suffix is neither, or the place cannot be written.
        """
        check_save_name(path)
        write = _WRITERS[Path(path).suffix]
        _write_whole(Path(path), lambda temporary: write(dict(self), temporary))


CALIBRATION_PICTURES = 4
CALIBRATION_SIZE = (192, 192)


class _Calibrator:
    """An interceptor that sets each batch norm's statistics to those of the tensor it is given."""

    def call(self, name: str, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
        if name == "BatchNormalization":
            x, _, _, mean, variance = inputs
            mean[...] = _round_to_bits(x.mean(axis=(0, 2, 3)), 12)
            variance[...] = _round_to_bits(x.var(axis=(0, 2, 3)), 12)
        return OPERATIONS[name](*inputs, **attributes)

    def block(self, path: str, compute: Callable[[], Any]) -> Any:
        return compute()


def _round_to_bits(x: Array, bits: int) -> Array:
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.round(np.ldexp(fraction, bits)), exponent - bits)


def _initial(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """He-scaled normal weights; scales around one, biases around zero."""
    if name.endswith("running_mean"):
        values = np.zeros(shape)
    elif name.endswith("running_var"):
        values = np.ones(shape)
    elif len(shape) == 1 and name.endswith("weight"):
        # TopFormer's attention has no 1/√d: half-size queries and keys keep its softmax from saturating.
        values = rng.uniform(0.8, 1.2, shape) * (0.5 if ".to_q." in name or ".to_k." in name else 1.0)
    elif len(shape) == 1:
        values = 0.1 * rng.standard_normal(shape)
    elif name.endswith(("queries", "pos_embed")):
        values = rng.standard_normal(shape)
    else:
        values = rng.standard_normal(shape) * math.sqrt(_gain(name) / math.prod(shape[1:]))
    return values.astype(np.float32)


def _gain(name: str) -> float:
    # Kernels are multiplied with as many mask features as they have channels: small ones keep masks near one.
    if name.endswith(("kernel_head.2.weight", "mask_kernel.weight")):
        return 0.01
    if "in_proj" in name:
        return 0.25
    return 1.0 if any(part in name for part in _WITHOUT_RELU) else 2.0


_WITHOUT_RELU = (
    "out_proj",
    "_head.weight",
    "cls_score",
    "fpn_laterals",
    "fpn_outputs",
    "fusion",
    "projection",
)


def _read_only(array: Array) -> Array:
    array = np.asarray(array).view()
    array.flags.writeable = False
    return array


# Files.


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read every array of a ``.safetensors``, ``.npz`` or ``.pth`` file, without ``num_batches_tracked``.

    Raises
    ------
    FileError
        The file is missing, empty, damaged or of another format.
    MissingDependencyError
        The reader of that format is not installed.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise FileError(f"{path} is no weights file: the name must end in {', '.join(_READERS)}")
    if not path.is_file():
        raise FileError(f"weights file {path} does not exist")
    arrays = _READERS[path.suffix](path)
    return {name: array for name, array in arrays.items() if not name.endswith(IGNORED_SUFFIX)}


def _read_safetensors(path: Path) -> dict[str, Array]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingDependencyError(
            "reading .safetensors needs the package safetensors: pip install safetensors"
        ) from error
    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, TypeError, KeyError, OSError) as error:
        raise FileError(f"{path} is not a readable .safetensors file: {error}") from error


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_npz_members(archive, path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, RuntimeError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} is not a readable .npz file of plain arrays: {error}") from error


LARGEST_INFLATED = 2**28
MOST_INFLATION = 200
"""A member that is larger and was deflated by more is no array of numbers anyone computed."""


def _check_npz_members(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse what NumPy would read without asking: arrays of one name, and those far larger than the file."""
    names = Counter(member.filename.removesuffix(".npy") for member in archive.infolist())
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise FileError(f"{path} holds {', '.join(map(repr, twice))} more than once")
    for member in archive.infolist():
        if member.file_size > max(LARGEST_INFLATED, MOST_INFLATION * member.compress_size):
            raise FileError(
                f"{path}: {member.filename} inflates {member.compress_size} bytes to {member.file_size}; "
                "save the arrays uncompressed"
            )
        with archive.open(member) as file:
            check_claim(file, member.file_size, f"{path}: {member.filename}")


def _read_pth(path: Path) -> dict[str, Array]:
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "reading .pth needs PyTorch: pip install 'mobileinst-reference[torch]', "
            "or convert the file to .safetensors"
        ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many unrelated types on damaged files
        # PyTorch's own message advises to load the file with weights_only=False, which would execute it.
        raise FileError(
            f"{path} is damaged or holds more than plain tensors; save the model's state_dict() again"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise FileError(f"{path} holds no state dict: expected a mapping of names to tensors")
    # NumPy has no bfloat16; float32 holds its values exactly.
    return {
        name: (value.detach().float() if value.dtype == torch.bfloat16 else value.detach()).numpy()
        for name, value in state.items()
    }


_READERS: dict[str, Callable[[Path], dict[str, Array]]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_pth,
    ".pt": _read_pth,
}


def _save_safetensors(arrays: dict[str, Array], path: Path) -> None:
    from safetensors.numpy import save

    # Not `save_file`, whose files none but their owner may read.
    path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def _save_npz(arrays: dict[str, Array], path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, **cast(Any, arrays))


_WRITERS: dict[str, Callable[[dict[str, Array], Path], None]] = {
    ".safetensors": _save_safetensors,
    ".npz": _save_npz,
}


def check_save_name(path: str | os.PathLike[str]) -> None:
    """Raise `FileError` unless a file of that name can hold weights: ``.safetensors`` or ``.npz``."""
    if Path(path).suffix not in _WRITERS:
        raise FileError(f"cannot save weights as {path}: the name must end in {' or '.join(_WRITERS)}")


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            write(temporary)
            temporary.replace(path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error}") from error
