"""A picture. Given as pixels it stays pixels until the merge helper compresses it; given as a file it stays that file."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from aimlite.errors import CorruptionError
from aimlite.objects import pixels
from aimlite.objects.given import as_array, content, demand_items, is_array, is_matplotlib, is_of, is_tensor, listed
from aimlite.objects.pictures import MAX_PIXELS, Picture, looks_like, sniff
from aimlite.objects.tracked import MAX_LIST, Captioned, checked_caption, missing
from aimlite.storage import png16
from aimlite.storage.loading import load
from aimlite.storage.media import DEEP_COLOURS, PILLOW, PIXEL_BITS, finish, is_finished

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image as pillow

FORMATS = ("png", "jpeg", "webp", "gif")
_MAX_SIDE = {"jpeg": 65_535, "webp": 16_383, "png": 2**31 - 1}
# Of what else Pillow reads: no format that another program is started for (EPS), or whose bytes say little of what they are.
_READABLE = ("BMP", "TIFF", "PPM", "JPEG2000", "ICO")
_SAME_VALUES = {
    "P": "RGB",
    "PA": "RGBA",
    "La": "LA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "LAB": "RGB",
    "HSV": "RGB",
}


class Image(Captioned):
    """One picture, with or without animation.

    image: a Pillow image; a path, bytes or a binary file; an array or tensor, HW, HWC or CHW with 1 to 4 channels, of uint8, uint16,
    bool, or floats from 0 to 1; a matplotlib figure. Where the shape of an array could be HWC and CHW it is HWC, of a torch tensor CHW.
    caption: what it shows. format: 'png', 'jpeg' ('jpg'), 'webp', or 'gif' for what is a GIF already; None keeps the format of a file,
    and is png for all else. quality: 1 to 100, of jpeg and webp. optimize: take longer for fewer bytes.

    Bytes and files of png, jpeg, webp and gif are stored unchanged, unless another format is asked for. Raises TypeError, ValueError,
    OSError, and ImportError where Pillow is needed and absent.
    """

    kind = "images"
    _fields: ClassVar[dict[str, type]] = {"format": str, "width": int, "height": int}

    def __init__(self, image: Any, caption: str = "", format: str | None = None, quality: int = 90, optimize: bool = False) -> None:
        form = _checked_format(format)
        if isinstance(quality, bool) or not isinstance(quality, int):
            raise TypeError(f"quality is an integer from 1 to 100, not {type(quality).__name__} {quality!r:.100}")
        if not 1 <= quality <= 100:
            raise ValueError(f"quality is an integer from 1 to 100, not {quality}")
        if not isinstance(optimize, bool):
            raise TypeError(f"optimize is True or False, not {optimize!r:.100}")
        self._take(image, _Wanted(form, quality, optimize, checked_caption(caption)))

    def _take(self, image: Any, wanted: _Wanted) -> None:
        if is_of(image, "PIL.Image", "Image"):
            self._take_pillow(image, wanted)
        elif is_matplotlib(image):
            buffer = io.BytesIO()
            image.savefig(buffer, format="png", pil_kwargs={"compress_level": 1})
            self._take_file(buffer.getvalue(), "the matplotlib figure", wanted)
        elif is_array(image):
            demand_items(image, 4 * MAX_PIXELS, "an image")
            self._take_pixels(pixels.from_array(as_array(image), is_tensor(image)), wanted)
        elif (given := content(image, "Image")) is not None:
            self._take_file(*given, wanted)
        else:
            raise TypeError(
                f"an image is a Pillow image, a path, bytes, an array or tensor ({pixels.ACCEPTED}), or a matplotlib figure; "
                f"not {type(image).__module__}.{type(image).__qualname__}"
            )

    def _take_pixels(self, given: pixels.Pixels, wanted: _Wanted) -> None:
        form = wanted.format or "png"
        layout, width, height, data = given
        if form == "gif":
            raise ValueError("only what is a GIF already is stored as gif; an image of pixels as png, jpeg or webp")
        _check_size(width, height)
        if max(width, height) > _MAX_SIDE[form]:
            raise ValueError(f"{form} holds images of at most {_MAX_SIDE[form]} pixels a side, not {width} × {height}")
        if form != "png" and (layout == "I;16" or layout in DEEP_COLOURS):
            raise ValueError(f"{form} holds 8 bits a channel: store uint16 as png, or convert it to uint8")
        header = {"format": form, "width": width, "height": height, "caption": wanted.caption, "raw": layout}
        if form != "png":
            header["quality"] = wanted.quality
        if wanted.optimize:
            header["optimize"] = True
        self._set(header, data)

    def _take_file(self, data: bytes, what: str, wanted: _Wanted) -> None:
        try:
            found = sniff(data)
        except ValueError as error:
            raise ValueError(f"{what} cannot be an image: {error}") from None
        if found is not None and (found.width == 0 or found.height == 0):
            raise ValueError(f"{what} cannot be an image: {found.format} of {found.width} × {found.height} pixels")
        if found is not None:
            _check_size(found.width, found.height)
        if found is not None and wanted.format in (None, found.format):
            self._set_file(found, data, wanted)
        else:
            self._take_pillow(_decoded(data, what, found), wanted)

    def _set_file(self, found: Picture, data: bytes, wanted: _Wanted) -> None:
        self._set({"format": found.format, "width": found.width, "height": found.height, "caption": wanted.caption}, data)

    def _take_pillow(self, image: pillow.Image, wanted: _Wanted) -> None:
        _check_size(*image.size)
        if getattr(image, "n_frames", 1) > 1 and getattr(image, "is_animated", False):
            self._take_animation(image, wanted)
        else:
            self._take_pixels(_pillow_pixels(image), wanted)

    def _take_animation(self, image: pillow.Image, wanted: _Wanted) -> None:
        form = wanted.format or "gif"
        if form == "jpeg":
            raise ValueError("jpeg holds no animation: store it as gif, webp or png")
        buffer = io.BytesIO()
        options: dict[str, Any] = {"webp": {"quality": wanted.quality}}.get(form, {})
        image.save(buffer, form, save_all=True, optimize=wanted.optimize, **options)
        found = sniff(buffer.getvalue())
        assert found is not None
        self._set_file(found, buffer.getvalue(), wanted)

    @property
    def format(self) -> str:
        """'png', 'jpeg', 'webp' or 'gif'."""
        form: str = self._header["format"]
        return form

    @property
    def width(self) -> int:
        """In pixels."""
        width: int = self._header["width"]
        return width

    @property
    def height(self) -> int:
        """In pixels."""
        height: int = self._header["height"]
        return height

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    @property
    def data(self) -> bytes:
        """The file: png, jpeg, webp or gif. Raises ImportError where it is still pixels and Pillow is absent."""
        return self._file(*self._to_item())

    def _file(self, header: dict[str, Any], payload: bytes) -> bytes:
        header, payload = finish(header, payload)
        if is_finished(header):
            return payload
        _pillow("the file of an image that was tracked as pixels")
        raw = f"{header['raw']!r:.20}"
        raise CorruptionError(f"the pixels of an image are not {self.width} × {self.height} of {raw}, or cannot be {self.format}")

    def json(self) -> dict[str, Any]:
        """{'caption', 'format', 'width', 'height'}."""
        return {"caption": self.caption, "format": self.format, "width": self.width, "height": self.height}

    def to_pil_image(self) -> pillow.Image:
        """A Pillow image; an animated one can be sought through. Colours of 16 bits a channel come as 8 bits, as Pillow has no more:
        `to_numpy` has them all. Raises ImportError without Pillow, CorruptionError for a file that cannot be decoded."""
        return self._picture(*self._to_item())

    def _picture(self, header: dict[str, Any], payload: bytes) -> pillow.Image:
        library = _pillow("to_pil_image()")
        if _is_raw(header) and self.format == "png":
            return _pillow_of(self._raw_pixels(header, payload))
        data = self._file(header, payload)
        try:
            image: pillow.Image = library.open(io.BytesIO(data), formats=(self.format,))
            image.load()
        except Exception as error:  # whatever a decoder trips over
            raise CorruptionError(f"a {self.format:.20} of {len(data)} bytes cannot be decoded: {type(error).__name__}: {error}") from error
        return image

    def to_numpy(self) -> NDArray[Any]:
        """uint8[height, width] of grey, uint8[height, width, 2, 3 or 4] of colours and with transparency; uint16 where it has 16 bits,
        bool[height, width] where it has one. Of an animation the first picture.

        What was given as an array and stored as png comes back as it was, floats as uint8. Raises as `to_pil_image`; an array stored as
        png needs no Pillow before it is merged.
        """
        header, payload = self._to_item()
        if _is_raw(header) and self.format == "png":
            return pixels.to_array(self._raw_pixels(header, payload))
        if self.format == "png":
            try:
                deep = png16.decode(self._file(header, payload), MAX_PIXELS)
            except ValueError as error:
                raise CorruptionError(f"a png of {len(payload)} bytes cannot be decoded: {error}") from error
            if deep is not None and deep.shape[2] > 1:
                return deep
        return pixels.to_array(_pillow_pixels(self._picture(header, payload)))

    def _raw_pixels(self, header: dict[str, Any], payload: bytes) -> pixels.Pixels:
        found = pixels.Pixels(header["raw"], self.width, self.height, payload)
        try:
            pixels.to_array(found)
        except (ValueError, TypeError) as error:
            raise CorruptionError(f"the pixels of an image do not fit: {error}") from None
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Image):
            return NotImplemented
        if self.json() != other.json():
            return False
        mine, others = self._to_item(), other._to_item()
        return mine == others or finish(*mine) == finish(*others)

    __hash__ = None  # type: ignore[assignment]


class _Wanted:
    """How an image is to be stored. format: None where it does not matter."""

    def __init__(self, format: str | None, quality: int, optimize: bool, caption: str) -> None:
        self.format, self.quality, self.optimize, self.caption = format, quality, optimize, caption


def convert_to_image_list(images: Any, labels: Iterable[Any] | None = None, **options: Any) -> list[Image]:
    """A list of Images, as `track` takes it, of a batch.

    images: an array or tensor NHW, NHWC or NCHW, or an iterable of whatever `Image` takes. labels: as many; a label's text becomes the
    caption. options: `format`, `quality`, `optimize` of each. Raises as `Image`; ValueError where the numbers differ.
    """
    if is_array(images) and len(images.shape) not in (3, 4):
        raise ValueError(f"a batch of images is NHW, NHWC or NCHW, not an array of shape {tuple(images.shape)}")
    batch = list(images) if is_array(images) else listed(images, "a batch of images", MAX_LIST)
    if labels is None:
        return [Image(image, **options) for image in batch]
    captions = [_label(label) for label in labels]
    if len(captions) != len(batch):
        raise ValueError(f"{len(captions)} labels for {len(batch)} images")
    return [Image(image, caption, **options) for image, caption in zip(batch, captions, strict=True)]


def _label(label: Any) -> str:
    return str(label.item() if hasattr(label, "item") and not isinstance(label, str) else label)


def _checked_format(form: str | None) -> str | None:
    if form is None:
        return None
    if not isinstance(form, str):
        raise TypeError(f"format is one of {', '.join(FORMATS)}, not {type(form).__name__} {form!r:.100}")
    plain = "jpeg" if form.lower() == "jpg" else form.lower()
    if plain not in FORMATS:
        raise ValueError(f"format is one of png, jpeg (jpg), webp, gif, not {form!r:.100}")
    return plain


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"an image has at most {MAX_PIXELS:,} pixels; this has {width:,} × {height:,}")
    if not width * height:
        raise ValueError(f"an image has pixels; this has {width} × {height}")


def _pillow(what: str) -> Any:
    try:
        load(*PILLOW)
        from PIL import Image as library
    except ImportError as error:
        raise missing("Pillow", what) from error
    return library


def _decoded(data: bytes, what: str, found: Picture | None) -> pillow.Image:
    """A Pillow image of bytes that are to be stored in another form. Raises ValueError."""
    if found is None and looks_like(data).startswith(("SVG", "HTML", "XML", "PDF", "nothing")):
        raise ValueError(f"{what} cannot be an image: png, jpeg, webp, gif, or what Pillow can read; they look like {looks_like(data)}")
    library = _pillow(f"an image of {what if found is None else found.format + ' in another format'}")
    try:
        image: pillow.Image = library.open(io.BytesIO(data), formats=_READABLE if found is None else (found.format,))
        _check_size(*image.size)
        image.load()
    except library.UnidentifiedImageError:
        raise ValueError(f"{what} cannot be an image: png, jpeg, webp, gif, or what Pillow can read; they are {looks_like(data)}") from None
    except Exception as error:  # whatever a decoder trips over
        raise ValueError(f"{what} cannot be an image: {type(error).__name__}: {error}") from error
    return image


def _pillow_pixels(image: pillow.Image) -> pixels.Pixels:
    """Its pixels in a layout that keeps their values. Raises ValueError."""
    load("numpy")
    import numpy as np

    mode = image.mode
    if mode.startswith("I") or mode == "F":  # integers of 16 and 32 bits, floats
        array = np.asarray(image)
        if array.dtype.kind == "i":
            low, high = int(array.min()), int(array.max())
            if low < 0 or high > 65_535:
                raise ValueError(f"integers of an image lie from 0 to 65,535; those of this one, of mode {mode}, lie from {low} to {high}")
            array = array.astype(np.uint16)
        return pixels.from_array(array, False)
    if mode in ("P", "L", "RGB", "1") and "transparency" in image.info:
        image = image.convert("LA" if mode in ("L", "1") else "RGBA")
    elif mode in _SAME_VALUES:
        image = image.convert(_SAME_VALUES[mode])
    elif mode not in PIXEL_BITS:
        raise ValueError(f"an image of Pillow's mode {mode!r} is not taken; convert it, say to 'RGB'")
    return pixels.Pixels(image.mode, image.width, image.height, image.tobytes())


def _pillow_of(given: pixels.Pixels) -> pillow.Image:
    library = _pillow("to_pil_image()")
    layout, width, height, data = given
    if layout not in DEEP_COLOURS:
        image: pillow.Image = library.frombytes(layout, (width, height), data)
        return image
    array = (pixels.to_array(given) >> 8).astype("u1")
    return library.frombytes(layout[:-3], (width, height), array.tobytes())  # type: ignore[no-any-return]


def _is_raw(header: dict[str, Any]) -> bool:
    """Whether an item holds pixels of a layout that there is."""
    return isinstance(header.get("raw"), str) and header["raw"] in PIXEL_BITS
