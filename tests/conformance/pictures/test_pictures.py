"""Reading pictures and network inputs, drawing and COCO results, checked by Pillow, NumPy and pycocotools."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from conformance.pictures.picture import (
    COCO_CATEGORY_IDS,
    annotate,
    coco_results,
    read_network_input,
    read_picture,
    write_picture,
    write_results,
)
from refimpl.errors import FileError, NonFiniteError, ShapeError
from refimpl.inference import Instances, preprocess

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
ORIENTATION = 0x0112
# What a viewer does to a stored picture, by the EXIF standard's orientation.
UPRIGHT = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: np.rot90,
}


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def instances(masks, labels=(0, 1), scores=(0.9, 0.5)):
    values = np.array(scores)
    return Instances(
        queries=np.arange(len(masks)),
        labels=np.array(labels),
        class_scores=values,
        maskness=np.ones_like(values),
        scores=values,
        masks=np.array(masks),
        class_margins=values,
        keep_margins=values,
        mask_margins=values,
        tied_pixels=np.zeros(len(masks), int),
    )


def test_colours_are_read_as_they_are(tmp_path):
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "a.png", COLOURS)), COLOURS)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path / "a.png", COLOURS, exif=exif)
    np.testing.assert_array_equal(read_picture(path), UPRIGHT[orientation](COLOURS))


def test_a_rotated_photograph_gives_the_same_input(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = saved(tmp_path / "a.png", np.rot90(COLOURS).copy(), exif=exif)
    np.testing.assert_array_equal(preprocess(read_picture(path))[0], preprocess(COLOURS)[0])


def test_grey_is_repeated(tmp_path):
    expected = np.repeat(COLOURS[:, :, :1], 3, axis=2)
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "a.png", COLOURS[:, :, 0])), expected)


@pytest.mark.parametrize("alpha", [0, 100, 255])
def test_alpha_is_dropped(tmp_path, alpha):
    rgba = np.concatenate([COLOURS, np.full((5, 7, 1), alpha, np.uint8)], axis=2)
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "a.png", rgba)), COLOURS)


def test_palette_is_looked_up(tmp_path):
    picture = Image.fromarray(COLOURS).quantize(8)
    picture.save(tmp_path / "a.png", transparency=0)
    expected = np.array(picture.getpalette()).reshape(-1, 3)[np.asarray(picture)]
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), expected)


def test_one_bit_is_black_and_white(tmp_path):
    bits = COLOURS[:, :, 0] > 127
    expected = np.repeat(np.where(bits, 255, 0)[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "a.png", bits)), expected)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_keep_the_upper_eight(tmp_path, suffix):
    deep = COLOURS[:, :, 0].astype(np.uint16) * 256 + COLOURS[:, :, 1]
    expected = np.repeat(COLOURS[:, :, :1], 3, axis=2)
    np.testing.assert_array_equal(read_picture(saved(tmp_path / f"a.{suffix}", deep)), expected)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(np.full((4, 6, 3), value, np.uint8)) for value in (40, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_picture(tmp_path / "a.gif"), np.full((4, 6, 3), 40))


def test_one_pixel(tmp_path):
    assert read_picture(saved(tmp_path / "a.png", COLOURS[:1, :1])).shape == (1, 1, 3)


@pytest.mark.parametrize("values", [np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70000, np.int32)])
def test_grey_without_a_brightness_is_refused(tmp_path, values):
    with pytest.raises(FileError, match="no defined brightness"):
        read_picture(saved(tmp_path / "a.tiff", values))


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tiff"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_pictures_are_one_named_line(tmp_path, suffix, share):
    path = saved(
        tmp_path / f"a.{suffix}", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(FileError, match="not a readable picture") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=40), st.integers(0, 200))
def test_damaged_pictures_are_read_or_named(tmp_path_factory, damage, place):
    data = io.BytesIO()
    Image.fromarray(COLOURS).save(data, "PNG")
    path = tmp_path_factory.mktemp("damaged") / "a.png"
    whole = data.getvalue()
    path.write_bytes(whole[:place] + damage + whole[place + len(damage) :])
    try:
        picture = read_picture(path)
    except FileError as error:
        message = str(error)
    else:
        message = str(picture.dtype)
    assert message == "uint8" or message.startswith(str(path))
    assert "\n" not in message


def test_what_is_no_picture_is_named(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, message in [
        ("text.png", "not a readable picture"),
        ("empty.png", "is empty"),
        ("x" * 300, "there is no readable file"),
        ("absent.png", "there is no readable file"),
        ("pipe", "there is no readable file"),
        (".", "there is no readable file"),
    ]:
        with pytest.raises(FileError, match=message):
            read_picture(tmp_path / name)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, side):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(FileError, match="more than 89478485 pixels; make it smaller"):
        read_picture(path)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_network_inputs_are_read_as_saved(tmp_path, dtype, order, version):
    images = np.asarray(np.random.default_rng(0).normal(size=(2, 3, 32, 64)).astype(dtype), order=order)
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array(file, images, version=version)
    read = read_network_input(tmp_path / "x.npy")
    np.testing.assert_array_equal(read, images)
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    assert read.flags.c_contiguous


def test_one_picture_becomes_a_batch(tmp_path):
    images = np.ones((3, 32, 64), np.float32)
    np.save(tmp_path / "x.npy", images)
    np.testing.assert_array_equal(read_network_input(tmp_path / "x.npy"), images[None])


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros((1, 32, 32, 3), np.float32), ShapeError, "channels last"),
        (np.zeros((32, 32), np.float32), ShapeError, r"has shape \(32, 32\)"),
        (np.zeros((1, 1, 3, 32, 32), np.float32), ShapeError, "B, 3, H, W"),
        (np.zeros((0, 3, 32, 32), np.float32), ShapeError, "B, 3, H, W"),
        (np.zeros((), np.float32), ShapeError, r"has shape \(\)"),
        (np.zeros((1, 3, 32, 32), np.uint8), ShapeError, "holds uint8"),
        (np.zeros((1, 3, 32, 32), complex), ShapeError, "holds complex128"),
        (np.full((1, 3, 32, 32), np.nan, np.float32), NonFiniteError, r"3072 elements .* \(0, 0, 0, 0\)"),
    ],
)
def test_arrays_that_are_no_network_input_are_named(tmp_path, array, error, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(error, match=message):
        read_network_input(tmp_path / "x.npy")


class Trap:
    """Raises when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_objects_are_not_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match="holds Python objects"):
        read_network_input(tmp_path / "x.npy")
    (tmp_path / "x.npy").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(FileError, match=r"not a \.npy file"):
        read_network_input(tmp_path / "x.npy")


def forged(shape, dtype="<f4", data=b""):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (forged("(1000000, 3, 3200, 3200)"), "claims shape .* bytes, but has 0"),
        (forged("(1, 3, 32, 32)", data=b"\0" * 12287), "12288 bytes, but has 12287"),
        (forged("(1, 3, 32, 32)", data=b"\0" * 12289), "12288 bytes, but has 12289"),
        (forged("(-1, -3, 32, 32)", data=b"\0" * 12288), "claims shape"),
        (forged("(1, 3, 32, 32)")[:20], "not a .npy file"),
        (b"\x93NUMPY\x09\x00" + forged("(1, 3, 32, 32)")[8:], "not a .npy file"),
        (forged("__import__('os').getcwd()"), "not a .npy file"),
        (b"PK\x03\x04", "not a .npy file"),
        (b"", "is empty"),
    ],
)
def test_forged_and_truncated_arrays_are_named(tmp_path, data, message):
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(FileError, match=message):
        read_network_input(tmp_path / "x.npy")


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_masks_are_decoded_by_pycocotools(height, width, seed):
    masks = np.random.default_rng(seed).random((2, height, width)) < 0.5
    masks[0, 0, 0], masks[1] = True, False
    (result,) = json.loads(json.dumps(coco_results(instances(masks), 7, (3, 4))))
    assert (result["image_id"], result["category_id"]) == (7, 3)
    np.testing.assert_array_equal(rle.decode(result["segmentation"]), masks[0])
    assert rle.area(result["segmentation"]) == masks[0].sum()


def test_results_load_in_pycocotools(tmp_path):
    masks = np.random.default_rng(0).random((2, 9, 11)) < 0.5
    write_results(tmp_path / "r.json", coco_results(instances(masks, labels=(0, 79)), 42, COCO_CATEGORY_IDS))
    coco = COCO()
    coco.dataset = {"images": [{"id": 42, "height": 9, "width": 11}], "categories": []}
    coco.createIndex()
    loaded = coco.loadRes(str(tmp_path / "r.json"))
    annotations = loaded.loadAnns(loaded.getAnnIds(imgIds=[42]))
    assert [annotation["category_id"] for annotation in annotations] == [1, 90]
    assert [annotation["score"] for annotation in annotations] == [0.9, 0.5]
    for annotation, mask in zip(annotations, masks, strict=True):
        np.testing.assert_array_equal(loaded.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum()


def test_coco_has_80_categories():
    """The published ids around every gap, by label: person, …, fire hydrant, stop sign, …, toothbrush."""
    labels = 0, 10, 11, 23, 24, 25, 26, 39, 40, 59, 60, 61, 62, 72, 73, 79
    ids = 1, 11, 13, 25, 27, 28, 31, 44, 46, 65, 67, 70, 72, 82, 84, 90
    assert len(COCO_CATEGORY_IDS) == 80
    assert tuple(COCO_CATEGORY_IDS[label] for label in labels) == ids


def test_only_shown_instances_change_the_picture():
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 20:30, 5:50] = masks[1, :10] = True
    picture = np.full((40, 60, 3), 128, np.uint8)
    drawn = annotate(picture, instances(masks, scores=(0.9, 0.3)), names=("", ""))
    assert (drawn[20:30, 5:50] != 128).any(axis=2).all()
    assert (drawn[:15] == 128).all()
    assert (picture == 128).all()
    np.testing.assert_array_equal(annotate(picture, instances(masks), above=1.0), picture)


def test_instances_without_a_pixel_and_pictures_of_one_are_drawn():
    drawn = annotate(COLOURS, instances(np.zeros((2, 5, 7), bool)), names=("cat", "dog"))
    assert drawn.shape == COLOURS.shape
    assert annotate(COLOURS[:1, :1], instances(np.ones((2, 1, 1), bool))).shape == (1, 1, 3)


def test_picture_is_written_as_png(tmp_path):
    write_picture(tmp_path / "out.png", COLOURS)
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), COLOURS)


def test_unwritable_paths_are_named(tmp_path):
    with pytest.raises(FileError, match="no folder"):
        write_picture(tmp_path / "absent" / "out.png", COLOURS)
    with pytest.raises(FileError, match="not a regular file"):
        write_results(tmp_path, [])


def test_a_palette_with_transparency_is_read_without_a_word(tmp_path: Path) -> None:
    palette = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).convert("P")
    palette.save(tmp_path / "p.png", transparency=bytes(range(256)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        read_picture(tmp_path / "p.png")
    assert not said
