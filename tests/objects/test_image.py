"""Images: what is given comes back, from pixels and from the finished file alike."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image as pillow

from aimlite import CorruptionError, Image, convert_to_image_list
from objects.again import few, finished, unfinished
from objects.tensors import EagerTensor, TorchTensor

DTYPES = st.sampled_from(["u1", "u2", "?"])
SIDE = st.integers(5, 20)  # no side that could be channels


def same(found: Any, expected: Any) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert (found == expected).all()


@st.composite
def given_arrays(draw: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(what is given, what comes back)."""
    dtype, height, width, channels, first = (
        draw(DTYPES),
        draw(SIDE),
        draw(SIDE),
        draw(st.sampled_from([0, 1, 2, 3, 4])),
        draw(st.booleans()),
    )
    array = draw(arrays.arrays(dtype, (height, width, channels) if channels else (height, width)))
    back = array[:, :, 0] if channels == 1 else array
    if dtype == "?" and channels > 1:
        back = back.astype("u1") * np.uint8(255)
    return (array.transpose(2, 0, 1) if channels and first else array), back


@few
@given(given_arrays())
def test_every_shape_and_dtype_comes_back(case: tuple[Any, Any]) -> None:
    array, back = case
    image = Image(array, caption="a ∆")
    assert (image.height, image.width, image.format, image.caption) == (*back.shape[:2], "png", "a ∆")
    for read in (image, unfinished(image), finished(image)):
        same(read.to_numpy(), back)
        assert read == image
        assert read.json() == {"caption": "a ∆", "format": "png", "width": back.shape[1], "height": back.shape[0]}
        assert read.to_pil_image().size == image.size
    assert finished(image).data == image.data


@few
@given(arrays.arrays(st.sampled_from(["f2", "f4", "f8"]), st.tuples(SIDE, SIDE), elements=st.floats(0, 1, width=16)))
def test_floats_come_back_as_bytes(array: Any) -> None:
    expected = np.rint(array.astype("f8") * 255)
    assert (np.abs(Image(array).to_numpy() - expected) <= 1).all()  # float32 rounds halves otherwise
    same(finished(Image(array)).to_numpy(), Image(array).to_numpy())


@few
@given(arrays.arrays("u1", (6, 7)))
def test_bytes_as_floats_are_the_bytes(array: Any) -> None:
    for dtype in ("f4", "f8"):
        same(Image(array.astype(dtype) / 255).to_numpy(), array)


def test_an_ambiguous_shape_is_hwc_and_of_a_torch_tensor_chw() -> None:
    array = np.arange(3 * 4 * 3, dtype="u1").reshape(3, 4, 3)
    same(Image(array).to_numpy(), array)
    same(Image(EagerTensor(array)).to_numpy(), array)
    same(Image(TorchTensor(array)).to_numpy(), array.transpose(1, 2, 0))
    same(Image(TorchTensor(np.ones((8, 9, 3), "u1"))).to_numpy(), np.ones((8, 9, 3), "u1"))
    assert Image(TorchTensor(np.full((3, 8, 9), 0.5, "f4"), dtype="torch.bfloat16")).to_numpy().max() == 128


@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_memory_layout_does_not_matter(layout: str) -> None:
    array = np.arange(2 * 10 * 24, dtype="u1").reshape(20, 24)
    given = {"C": array, "F": np.asfortranarray(array), "strided": np.repeat(np.repeat(array, 2, 0), 3, 1)[::2, ::3]}[layout]
    same(Image(given).to_numpy(), array)
    same(Image(given > 99).to_numpy(), array > 99)


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        (np.zeros((5, 6), "i8"), TypeError, "shape (5, 6) and int64"),
        (np.zeros((5, 6), "c8"), TypeError, "complex64"),
        (np.zeros((5, 6), "u4"), TypeError, "uint32"),
        (np.zeros(5, "u1"), ValueError, "shape (5,)"),
        (np.zeros((5, 6, 7), "u1"), ValueError, "shape (5, 6, 7)"),
        (np.zeros((2, 3, 6, 7), "u1"), ValueError, "convert_to_image_list"),
        (np.zeros((0, 6), "u1"), ValueError, "not empty"),
        (np.full((5, 6), 1.5), ValueError, "from 1.5 to 1.5"),
        (np.full((5, 6), -0.5), ValueError, "from -0.5"),
        (np.full((5, 6), np.nan), ValueError, "from nan"),
        ([[0, 255]], TypeError, "builtins.list"),
        (None, TypeError, "NoneType"),
        (5, TypeError, "builtins.int"),
        (io.StringIO("text"), TypeError, "binary mode"),
    ],
)
def test_wrong_input_is_told_with_what_is_accepted(given: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error) as caught:
        Image(given)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"quality": 0}, ValueError),
        ({"quality": 101}, ValueError),
        ({"quality": 50.5}, TypeError),
        ({"quality": True}, TypeError),
        ({"format": "bmp"}, ValueError),
        ({"format": 5}, TypeError),
        ({"format": "gif"}, ValueError),
        ({"optimize": 1}, TypeError),
        ({"caption": 5}, TypeError),
        ({"caption": "\ud800"}, ValueError),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Image(np.zeros((5, 6), "u1"), **options)
    with pytest.raises(ValueError, match="8 bits"):
        Image(np.zeros((5, 6), "u2"), format="jpeg")
    with pytest.raises(ValueError, match="65535"):
        Image(np.zeros((1, 70_000), "u1"), format="jpg")


@pytest.mark.parametrize("form", ["jpeg", "jpg", "JPG", "webp", "png"])
@pytest.mark.parametrize("channels", [0, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["u1", "?"])
def test_formats(form: str, channels: int, dtype: str) -> None:
    array = (np.indices((16, 24)).sum(0) > 20).astype(dtype) * np.array(1 if dtype == "?" else 200, dtype)
    array = np.stack([array] * channels, -1) if channels else array
    image = Image(array, format=form, quality=80, optimize=True)
    assert image.format == {"jpg": "jpeg", "JPG": "jpeg"}.get(form, form)
    read = finished(image)
    assert read.to_pil_image().format == image.format.upper()
    assert read == image == unfinished(image)
    same(read.to_numpy(), image.to_numpy())
    assert read.data == image.data


def test_quality_changes_the_bytes_and_a_jpeg_shows_white_where_nothing_is() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), "u1")
    assert len(Image(noise, format="jpeg", quality=10).data) < len(Image(noise, format="jpeg", quality=95).data)
    assert (Image(np.zeros((8, 8, 4), "u1"), format="jpeg").to_numpy() == 255).all()


def encoded(form: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    pillow.new(mode, (30, 20), 1).save(buffer, form, **options)
    return buffer.getvalue()


def animation(form: str = "gif") -> bytes:
    frames = [pillow.new("RGB", (30, 20), (80 * n, 0, 0)) for n in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:], duration=50)
    return buffer.getvalue()


FILES = {
    "png": encoded("png"),
    "palette": encoded("png", "P"),
    "jpeg": encoded("jpeg"),
    "progressive": encoded("jpeg", progressive=True),
    "gif": encoded("gif", "P"),
    "webp": encoded("webp"),
    "lossless": encoded("webp", lossless=True),
    "animated gif": animation(),
    "animated webp": animation("webp"),
    "animated png": animation("png"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["bytes", "bytearray", "memoryview", "BytesIO", "file", "path", "text path"])
def test_files_are_stored_unchanged(name: str, how: str, tmp_path: Path) -> None:
    content = FILES[name]
    path = tmp_path / "picture.of-no-known-kind"
    path.write_bytes(content)
    with open(path, "rb") as file:
        given = {
            "bytes": content,
            "bytearray": bytearray(content),
            "memoryview": memoryview(content),
            "BytesIO": io.BytesIO(content),
            "file": file,
            "path": path,
            "text path": str(path),
        }[how]
        image = Image(given)
    assert image._to_item()[1] == content == image.data == finished(image).data
    expected = {"palette": "png", "progressive": "jpeg", "lossless": "webp"}.get(name, name.rpartition(" ")[2])
    assert (image.format, image.size) == (expected, (30, 20))
    assert image.to_numpy().shape[:2] == (20, 30)


@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_refused(name: str) -> None:
    content = FILES[name]
    for length in range(12, len(content) - (2 if "gif" in name else 1), max(1, len(content) // 40)):
        if name == "animated gif" and length > len(FILES["gif"]) - 1:
            break  # whole pictures, only fewer
        with pytest.raises(ValueError):
            Image(content[:length])


@few
@given(st.sampled_from(sorted(FILES)), st.data())
def test_damaged_files_are_refused_or_told_of_when_read(name: str, data: Any) -> None:
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = Image(bytes(content))
    except ValueError:
        return
    try:
        image.to_numpy()
    except CorruptionError:
        return


@few
@given(
    st.binary(max_size=200)
    | st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8X", b"II*\0", b"BM"]).flatmap(
        lambda head: st.binary(max_size=100).map(head.__add__)
    )
)
def test_anything_is_an_image_or_a_clear_error(content: bytes) -> None:
    try:
        Image(content)
    except ValueError as error:
        assert "cannot be" in str(error) or "at most" in str(error) or "has pixels" in str(error)


@pytest.mark.parametrize(
    "text", ["<svg onload='alert(1)'/>", "<?xml version='1.0'?><svg/>", "<!doctype html><script>1</script>", " \n<HTML>", ""]
)
def test_texts_are_no_images(text: str) -> None:
    with pytest.raises(ValueError, match=r"look like (SVG|HTML|XML|nothing)"):
        Image(text.encode())


def png_of_size(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_decompression_bombs_are_refused() -> None:
    with pytest.raises(ValueError, match="89,478,485"):
        Image(png_of_size(60_000, 60_000))
    with pytest.raises(ValueError, match=r"0 ×|× 0"):
        Image(png_of_size(0, 5))
    with pytest.raises(CorruptionError):  # says more pixels than it has
        Image(png_of_size(9_000, 9_000)).to_numpy()
    header = {"format": "png", "width": 9, "height": 9}  # and what is stored says more than its header
    with pytest.raises(CorruptionError, match="16,000 × 16,000 pixels, where 89,478,485 are the most"):
        Image._from_item(header, lambda: (header, png_of_size(16_000, 16_000, 16, 2))).to_numpy()
    bomb = io.BytesIO()
    pillow.new("1", (20_000, 20_000)).save(bomb, "tiff", compression="group4")
    with pytest.raises(ValueError):
        Image(bomb.getvalue())


def test_another_format_than_the_file_has() -> None:
    assert Image(FILES["png"], format="jpg").format == "jpeg"
    assert finished(Image(FILES["jpeg"], format="png")).to_numpy().shape == (20, 30, 3)
    assert Image(encoded("bmp")).format == "png"
    assert Image(encoded("tiff", "I;16")).to_numpy().dtype == np.uint16
    assert Image(FILES["animated gif"], format="webp").to_pil_image().n_frames == 3
    with pytest.raises(ValueError, match="animation"):
        Image(FILES["animated gif"], format="jpeg")


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "La", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "F"]
)
def test_every_mode_of_pillow(mode: str) -> None:
    given = pillow.new(
        "RGBA" if mode in ("RGBa", "PA") else "LA" if mode == "La" else mode, (9, 7), 1 if mode in ("I", "I;16", "1", "F") else 0
    )
    given = given if given.mode == mode else given.convert(mode)
    image = Image(given)
    back = finished(image).to_pil_image()
    assert back.size == (9, 7)
    if mode in ("1", "L", "LA", "RGB", "RGBA"):
        assert back.mode == mode
        assert back.tobytes() == given.tobytes()
    elif mode == "La":
        assert back.mode == "LA"
    elif mode != "F":
        assert back.convert("RGB").tobytes() == given.convert("RGB").tobytes()
    assert image == Image(given)


def test_pillow_images_of_other_values() -> None:
    with pytest.raises(ValueError, match="from 0 to 65,535"):
        Image(pillow.new("I", (2, 2), 70_000))
    with pytest.raises(ValueError, match="from 0 to 1"):
        Image(pillow.new("F", (2, 2), 7.0))
    same(Image(pillow.new("I;16", (9, 7), 65_535)).to_numpy(), np.full((7, 9), 65_535, "u2"))
    see_through = pillow.new("P", (9, 7), 3)
    see_through.info["transparency"] = 3
    assert (Image(see_through).to_numpy()[:, :, 3] == 0).all()


def test_animated_images_of_pillow_stay_animated() -> None:
    for name in ("animated gif", "animated webp"):
        image = Image(pillow.open(io.BytesIO(FILES[name])))
        assert (image.format, image.to_pil_image().n_frames) == ("gif", 3)


def test_matplotlib_figures() -> None:
    from matplotlib.figure import Figure

    figure = Figure((2, 1), dpi=50)
    figure.subplots().plot([1, 2, 3])
    image = Image(figure, format="png")
    assert (image.format, image.size) == ("png", (100, 50))
    assert Image(figure, format="webp").format == "webp"


def test_equality_and_captions() -> None:
    array = np.arange(48, dtype="u1").reshape(6, 8)
    assert Image(array) == Image(array.copy())
    assert Image(array) == Image(finished(Image(array)).data)
    assert Image(array) != Image(array + 1)
    assert Image(array) != Image(array, caption="x")
    assert Image(array) != Image(array, format="jpeg")
    assert Image(array) != "an image"
    image = Image(array)
    image.caption = "later"
    assert unfinished(image).caption == "later"
    with pytest.raises(TypeError):
        image.caption = 5  # type: ignore[assignment]
    with pytest.raises(TypeError):
        hash(image)
    assert repr(image) == "Image(caption='later', format='png', width=8, height=6)"


def test_batches() -> None:
    batch = np.random.default_rng(0).integers(0, 255, (4, 8, 9, 3), "u1")
    assert convert_to_image_list(batch, ["a", "b", "c", "d"])[2] == Image(batch[2], "c")
    assert convert_to_image_list(list(batch), np.arange(4), format="jpeg")[1] == Image(batch[1], "1", format="jpeg")
    assert convert_to_image_list(TorchTensor(np.ones((4, 3, 8, 9), "f4")))[0].size == (9, 8)
    assert convert_to_image_list([FILES["png"]])[0].format == "png"
    with pytest.raises(ValueError, match="3 labels for 4 images"):
        convert_to_image_list(batch, [1, 2, 3])
    with pytest.raises(ValueError, match="NHW"):
        convert_to_image_list(np.zeros((3, 8)))


@pytest.mark.parametrize(
    "header",
    [{}, {"format": "png", "width": 5}, {"format": 5, "width": 5, "height": 5}, {"format": "png", "width": -1, "height": 5}],
)
def test_headers_that_no_image_has(header: dict[str, Any]) -> None:
    with pytest.raises(CorruptionError):
        Image._from_item(header, lambda: (header, b""))


@pytest.mark.parametrize(
    "header",
    [
        {"raw": "RGB"},
        {"raw": "wav"},
        {"raw": 5},
        {"raw": []},
        {"raw": "RGB", "width": 1 << 62},
        {"raw": "RGB", "format": "../x"},
        {"raw": "L", "quality": "high", "format": "jpeg"},
        {},
    ],
)
def test_items_that_do_not_fit_are_corrupt_and_stop_no_merge(header: dict[str, Any]) -> None:
    from aimlite.storage.media import finish

    whole = {"format": "png", "width": 5, "height": 4, **header}
    finish(whole, b"too short")
    image = Image._from_item(whole, lambda: (whole, b"too short"))
    with pytest.raises(CorruptionError):
        image.to_pil_image()
    with pytest.raises(CorruptionError):
        image.to_numpy()


def test_payloads_are_loaded_when_they_are_looked_at() -> None:
    image = Image(np.zeros((5, 6), "u1"), caption="dark")
    header, payload = image._to_item()
    loads: list[int] = []
    read = Image._from_item(header, lambda: (loads.append(1), (header, payload))[1])
    assert (read.caption, read.size, read.format, repr(read)) == ("dark", (6, 5), "png", repr(image))
    assert not loads
    read.to_numpy()
    assert loads == [1]


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    array = np.zeros((5, 6, 3), "u1")
    whole, deep = Image(FILES["jpeg"]), Image(np.zeros((5, 6, 3), "u2"))
    for name in [name for name in sys.modules if name == "PIL" or name.startswith("PIL.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    image = Image(array)
    from aimlite.storage.media import finish

    assert finish(*image._to_item()) == image._to_item()
    same(image.to_numpy(), array)
    same(finished(deep).to_numpy(), np.zeros((5, 6, 3), "u2"))
    assert whole.data == FILES["jpeg"] == Image(FILES["jpeg"]).data
    for read in (image.to_pil_image, whole.to_pil_image, whole.to_numpy, lambda: image.data, lambda: Image(FILES["png"], format="jpeg")):
        with pytest.raises(ImportError, match=r"needs Pillow: pip install 'aimlite-store\[media\]'"):
            read()
