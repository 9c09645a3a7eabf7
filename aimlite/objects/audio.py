"""A sound. Given as samples it is a wav file that keeps them exactly, or a flac; given as a file it stays that file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, ClassVar

from aimlite.errors import CorruptionError
from aimlite.objects import sound
from aimlite.objects.given import as_array, content, demand_items, is_array, is_tensor
from aimlite.objects.pictures import looks_like
from aimlite.objects.tracked import Captioned, checked_caption, missing
from aimlite.storage.loading import load
from aimlite.storage.media import finish, is_finished

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMATS = ("wav", "flac", "mp3")
ACCEPTED = "samples [n] or [n, channels] (a torch tensor: [channels, n]) of uint8, int16, int32, float32 or float64"
DEFAULT_RATE = 22_500
_MAX_CHANNELS = 32
MAX_SAMPLES = 1 << 29  # of all channels; wav tells its bytes in 32 bits
_FLAC_CHANNELS, _FLAC_RATE = 8, 655_350


class Audio(Captioned):
    """One sound.

    data: a path, bytes or a binary file of wav, flac or mp3, stored unchanged; or an array or tensor of samples, [n] or [n, channels] (a
    torch tensor: [channels, n]), of uint8, int16, int32, float32 or float64 (float16 becomes float32). Where an array has more than 32
    columns and at most 32 rows, its rows are the channels.
    format: of samples 'wav' (exact; the default) or 'flac' (smaller; integers of at most 24 bits are exact, floats from -1 to 1 are
    rounded to 24 bits); of bytes what they are, or ''. caption: what it is. rate: samples a second, 22,500 when not given; files tell
    theirs.

    Raises TypeError, ValueError, OSError.
    """

    kind = "audios"
    _fields: ClassVar[dict[str, type]] = {"format": str, "rate": int, "channels": int}

    def __init__(self, data: Any, format: str = "", caption: str = "", rate: int | None = None) -> None:
        form = _checked_format(format)
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int)):
            raise TypeError(f"rate is an integer, samples a second, not {type(rate).__name__} {rate!r:.100}")
        if rate is not None and not 1 <= rate <= 2**31 - 1:
            raise ValueError(f"rate is a number of samples a second of at least 1, not {rate}")
        text = checked_caption(caption)
        given = None if is_array(data) else content(data, "Audio")
        if given is not None:
            self._take_file(*given, form, text, rate)
        elif is_array(data):
            demand_items(data, MAX_SAMPLES, "audio")
            self._take_samples(_samples(as_array(data), is_tensor(data)), form or "wav", text, rate or DEFAULT_RATE)
        else:
            raise TypeError(f"audio is a path, bytes, or {ACCEPTED}; not {type(data).__module__}.{type(data).__qualname__}")

    def _take_file(self, data: bytes, what: str, form: str, caption: str, rate: int | None) -> None:
        try:
            found = sound.sniff(data)
        except ValueError as error:
            raise ValueError(f"{what} cannot be audio: {error}") from None
        if found is None:
            raise ValueError(f"{what} cannot be audio: wav, flac or mp3; they look like {looks_like(data)}")
        if form and form != found.format:
            raise ValueError(f"{what} are {found.format}, not {form}: leave `format` out; files are stored as they are")
        if rate is not None and rate != found.rate:
            raise ValueError(f"{what} have {found.rate} samples a second, not {rate}: leave `rate` out; files tell theirs")
        self._set({"format": found.format, "rate": found.rate, "channels": found.channels, "caption": caption}, data)

    def _take_samples(self, samples: NDArray[Any], form: str, caption: str, rate: int) -> None:
        if form == "mp3":
            raise ValueError("samples are stored as wav or flac; mp3 only as it is given, as a file or bytes")
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        header: dict[str, Any] = {"format": form, "rate": rate, "channels": channels, "caption": caption}
        if form == "flac":
            if channels > _FLAC_CHANNELS or rate > _FLAC_RATE:
                raise ValueError(
                    f"flac holds at most {_FLAC_CHANNELS} channels and {_FLAC_RATE:,} samples a second, not {channels} and {rate:,}"
                )
            header.update(raw="wav", dtype=samples.dtype.name)
            samples = _for_flac(samples)
        self._set(header, sound.encode_wav(samples, rate))

    @property
    def format(self) -> str:
        """'wav', 'flac' or 'mp3'."""
        form: str = self._header["format"]
        return form

    @property
    def rate(self) -> int:
        """Samples a second."""
        rate: int = self._header["rate"]
        return rate

    @property
    def channels(self) -> int:
        channels: int = self._header["channels"]
        return channels

    @property
    def data(self) -> bytes:
        """The file: wav, flac or mp3. Raises ImportError where it is to be flac, is not yet, and soundfile is absent."""
        header, payload = finish(*self._to_item())
        if is_finished(header):
            return payload
        _soundfile("flac")
        raise CorruptionError("the samples of audio are no wav file that can become flac")

    def get(self) -> io.BytesIO:
        """`data` as a file."""
        return io.BytesIO(self.data)

    def json(self) -> dict[str, Any]:
        """{'caption', 'format', 'rate', 'channels'}."""
        return {"caption": self.caption, "format": self.format, "rate": self.rate, "channels": self.channels}

    def to_numpy(self) -> tuple[int, NDArray[Any]]:
        """(rate, samples): [n] of one channel, else [n, channels].

        Samples given as an array have the dtype that they had, and the values but for floats in flac. Those of a file: uint8, int16,
        int32, float32, float64 as wav keeps them, 24 bits in the upper ones of int32; of flac int16 or int32; of mp3 float32.
        Raises ImportError where soundfile is needed (flac, mp3, wav of other codings) and absent; CorruptionError.
        """
        header, payload = self._to_item()
        dtype = header.get("dtype")
        try:
            wave = self.format == "wav" or header.get("raw") == "wav"
            samples = sound.decode_wav(payload) if wave else None
            if samples is None:
                samples = _decoded(payload, self.format)
            if dtype is not None:
                samples = _as_given(samples, dtype)
        except (ValueError, RuntimeError) as error:  # soundfile's errors are RuntimeErrors
            raise CorruptionError(f"{self.format} of {len(payload)} bytes cannot be decoded: {error}") from error
        return self.rate, samples

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Audio):
            return NotImplemented
        if self.json() != other.json():
            return False
        mine, others = self._to_item(), other._to_item()
        return mine == others or finish(*mine) == finish(*others)

    __hash__ = None  # type: ignore[assignment]


def _checked_format(form: str | None) -> str:
    if form is None or form == "":
        return ""
    if not isinstance(form, str):
        raise TypeError(f"format is one of {', '.join(FORMATS)}, not {type(form).__name__} {form!r:.100}")
    if form.lower() not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}, not {form!r:.100}")
    return form.lower()


def _samples(array: NDArray[Any], channels_first: bool) -> NDArray[Any]:
    """[n] or [n, channels]."""
    load("numpy")
    import numpy as np

    got = f"an array of shape {array.shape} and {array.dtype}"
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype.name not in sound.DTYPES:
        raise TypeError(f"audio is {ACCEPTED}; this is {got}")
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"audio is {ACCEPTED}, and not empty; this is {got}")
    if array.ndim == 2:
        rows, columns = array.shape
        if channels_first or (columns > _MAX_CHANNELS >= rows):
            array = array.T
        if array.shape[1] > _MAX_CHANNELS:
            raise ValueError(f"audio has at most {_MAX_CHANNELS} channels; this is {got}")
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _for_flac(samples: NDArray[Any]) -> NDArray[Any]:
    """uint8, int16, or int32 whose lower 8 bits are 0. Raises ValueError."""
    load("numpy")
    import numpy as np

    if samples.dtype.kind == "f":
        low, high = float(samples.min()), float(samples.max())
        if not (low >= -1 and high <= 1):  # NaN too
            raise ValueError(f"floats to be stored as flac lie from -1 to 1; these lie from {low:g} to {high:g}: scale them, or use wav")
        wide = np.clip(np.rint(samples.astype(np.float64) * 2**23), -(2**23), 2**23 - 1)
        return wide.astype(np.int32) << 8
    if samples.dtype == np.int32 and bool(np.any(samples & 0xFF)):
        raise ValueError("flac holds 24 bits, the upper ones of int32; in these samples the lower 8 are not 0: use wav")
    return samples


def _as_given(samples: NDArray[Any], dtype: str) -> NDArray[Any]:
    """What flac kept as the dtype that was given."""
    load("numpy")
    import numpy as np

    if dtype not in sound.DTYPES:
        raise ValueError(f"no dtype {dtype!r:.20}")
    if samples.dtype.name == dtype:
        return samples
    if dtype == "uint8":
        return ((samples >> 8) + 128).astype(np.uint8)
    if dtype.startswith("float"):
        return (samples / 2**31).astype(dtype)
    return samples.astype(dtype)


def _decoded(payload: bytes, form: str) -> NDArray[Any]:
    library = _soundfile(f"to_numpy() of {form}")
    with library.SoundFile(io.BytesIO(payload)) as file:
        if form == "flac":
            dtype = "int16" if file.subtype in ("PCM_S8", "PCM_16") else "int32"
        else:
            dtype = "float32"
        samples: NDArray[Any] = file.read(dtype=dtype)
    return samples


def _soundfile(what: str) -> Any:
    try:
        load("soundfile")
        import soundfile
    except (ImportError, OSError) as error:  # OSError: its C library is not there
        raise missing("soundfile", what) from error
    return soundfile
