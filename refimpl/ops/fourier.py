"""Discrete Fourier transforms; complex numbers stand in a last axis of length 2, real ones of length 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from refimpl.errors import ShapeError
from refimpl.ops.operation import OPERATIONS, Array, Trait, operation


def _complex(x: Array) -> Array:
    """Return the numbers of the last axis, complex if it is of length 2."""
    if x.shape[-1] not in (1, 2):
        raise ShapeError(f"data of shape {x.shape}; expected a last axis of length 1 or 2")
    wide = x.astype(np.promote_types(x.dtype, np.float32), copy=False)
    return np.asarray(wide[..., 0] if x.shape[-1] == 1 else wide[..., 0] + 1j * wide[..., 1])


def _pairs(x: Array, dtype: np.dtype[np.floating]) -> Array:
    """Return real numbers in a last axis of length 1, complex ones of length 2."""
    parts = [x.real, x.imag] if np.iscomplexobj(x) else [x]
    return np.stack(parts, axis=-1).astype(dtype, copy=False)


@operation("DFT", Trait.ROUNDS)
def dft(
    x: Array,
    dft_length: ArrayLike | None = None,
    axis: ArrayLike | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Array:
    """Return the discrete Fourier transform along an axis. ONNX DFT.

    Parameters
    ----------
    x : array (…, 1) of real or (…, 2) of complex numbers
    dft_length : integer, optional
        Data is cut or filled with zeros to this length.
    axis : integer, optional
        The last but one by default.
    inverse : int
        With ``onesided``, of half a spectrum, and the result is real.
    onesided : int
        The first half of the spectrum, of real data.

    Returns
    -------
    array (…, 2), or (…, 1) if real
    """
    along = -2 if axis is None else int(np.asarray(axis).reshape(-1)[0])
    along = along % x.ndim
    given = None if dft_length is None else int(np.asarray(dft_length).reshape(-1)[0])
    data = _complex(x)
    if inverse and onesided:
        return _pairs(np.fft.irfft(data, given, along), x.dtype)
    spectrum = (np.fft.ifft if inverse else np.fft.fft)(data, given, along)
    if onesided:
        half = (given or data.shape[along]) // 2 + 1
        spectrum = np.take(spectrum, np.arange(half), along)
    return _pairs(spectrum, x.dtype)


def frames(signal: Array, step: int, window: Array | None, length: int) -> Array:
    """Return the windowed frames of a signal (B, L, 1 or 2), as (B, frames, length, 1 or 2)."""
    starts = np.arange((signal.shape[1] - length) // step + 1) * step
    cut = signal[:, starts[:, None] + np.arange(length)]
    return cut if window is None else np.asarray(cut * window[:, None])


@operation("STFT", Trait.ROUNDS)
def stft(
    signal: Array,
    frame_step: ArrayLike,
    window: Array | None = None,
    frame_length: ArrayLike | None = None,
    *,
    onesided: int = 1,
) -> Array:
    """Return the Fourier transforms of a signal's frames. ONNX STFT.

    Parameters
    ----------
    signal : array (B, L, 1) of real or (B, L, 2) of complex numbers
    frame_step : integer
    window : array (length,), optional
    frame_length : integer, optional
        That of the window by default.
    onesided : int
        The first half of each spectrum.

    Returns
    -------
    array (B, frames, frequencies, 2)
    """
    if window is None and frame_length is None:
        raise ShapeError("STFT needs a window or the length of its frames")
    length = len(window) if window is not None else int(np.asarray(frame_length).reshape(-1)[0])
    step = int(np.asarray(frame_step).reshape(-1)[0])
    cut = frames(signal, step, window, length)
    return OPERATIONS["DFT"](cut, onesided=onesided)
