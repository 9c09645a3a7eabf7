"""Audio: samples come back bit for bit from wav, and to 24 bits from flac; files stay what they are."""

from __future__ import annotations

import io
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from aimlite import Audio, CorruptionError
from objects.again import few, finished, unfinished
from objects.tensors import EagerTensor, TorchTensor

DTYPES = ["u1", "i2", "i4", "f4", "f8"]
SHAPES = st.integers(1, 40) | st.tuples(st.integers(1, 40), st.integers(2, 5))


def same(found: Any, expected: Any) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()  # NaN too


@few
@given(st.data(), st.sampled_from(DTYPES), SHAPES, st.integers(1, 2**31 - 1))
def test_wav_keeps_every_bit(data: Any, dtype: str, shape: Any, rate: int) -> None:
    samples = data.draw(arrays.arrays(dtype, shape))
    audio = Audio(samples, rate=rate, caption="a")
    for read in (audio, unfinished(audio), finished(audio)):
        found_rate, found = read.to_numpy()
        assert found_rate == rate == read.rate
        same(found, samples)
        assert read == audio
    assert audio.json() == {"caption": "a", "format": "wav", "rate": rate, "channels": 1 if samples.ndim == 1 else samples.shape[1]}


@few
@given(st.data(), st.sampled_from(["u1", "i2", "i4"]), SHAPES)
def test_flac_keeps_integers_of_24_bits(data: Any, dtype: str, shape: Any) -> None:
    samples = data.draw(arrays.arrays(dtype, shape))
    samples = samples & np.int32(-256) if dtype == "i4" else samples
    audio = Audio(samples, "flac", rate=8000)
    assert audio.data[:4] == b"fLaC"
    for read in (audio, unfinished(audio), finished(audio), Audio._from_item(*lazily(finished(audio)))):
        same(read.to_numpy()[1], samples)
        assert read == audio
        assert read.data == audio.data


def lazily(audio: Audio) -> tuple[dict[str, Any], Any]:
    header, payload = audio._to_item()
    return header, lambda: (header, payload)


@few
@given(arrays.arrays(st.sampled_from(["f4", "f8"]), st.integers(1, 40), elements=st.floats(-1, 1, width=32)))
def test_flac_rounds_floats_to_24_bits(samples: Any) -> None:
    audio = Audio(samples, "FLAC")
    found = audio.to_numpy()[1]
    assert found.dtype == samples.dtype
    assert np.abs(found - samples).max() <= 2**-23
    same(finished(audio).to_numpy()[1], found)


def test_which_axis_holds_the_channels() -> None:
    samples = np.arange(200, dtype="i2").reshape(100, 2)
    for given_samples in (samples, samples.T, TorchTensor(samples.T), EagerTensor(samples), np.asfortranarray(samples)):
        same(Audio(given_samples).to_numpy()[1], samples)
    same(Audio(samples[:, :1]).to_numpy()[1], samples[:, 0])
    same(Audio(TorchTensor(samples[:, :1].T)).to_numpy()[1], samples[:, 0])
    assert Audio(np.zeros(5, "f2")).to_numpy()[1].dtype == np.float32
    assert Audio(np.zeros(5, "i2")).rate == 22_500


@pytest.mark.parametrize(
    ("given_data", "options", "error", "told"),
    [
        (np.zeros(5, "i8"), {}, TypeError, "int64"),
        (np.zeros(5, "c8"), {}, TypeError, "complex64"),
        (np.zeros(5, "?"), {}, TypeError, "bool"),
        (np.zeros((2, 3, 4), "i2"), {}, ValueError, "(2, 3, 4)"),
        (np.zeros((40, 40), "i2"), {}, ValueError, "at most 32 channels"),
        (np.zeros(0, "i2"), {}, ValueError, "not empty"),
        (np.zeros(5, "i2"), {"format": "mp3"}, ValueError, "mp3 only as it is given"),
        (np.zeros(5, "i2"), {"format": "ogg"}, ValueError, "one of wav, flac, mp3"),
        (np.zeros(5, "i2"), {"rate": 0}, ValueError, "at least 1"),
        (np.zeros(5, "i2"), {"rate": 1.5}, TypeError, "integer"),
        (np.zeros(5, "i2"), {"caption": 5}, TypeError, "caption"),
        (np.ones(5, "i4"), {"format": "flac"}, ValueError, "24 bits"),
        (np.full(5, 1.5), {"format": "flac"}, ValueError, "from 1.5 to 1.5"),
        (np.full(5, np.nan), {"format": "flac"}, ValueError, "from nan"),
        (np.zeros((50, 9), "i2"), {"format": "flac"}, ValueError, "8 channels"),
        ([1, 2], {}, TypeError, "builtins.list"),
        (None, {}, TypeError, "NoneType"),
        (b"", {}, ValueError, "nothing"),
        (b"OggS", {}, ValueError, "OggS"),
        (b"<html>", {}, ValueError, "HTML"),
    ],
)
def test_wrong_input_is_told(given_data: Any, options: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error) as caught:
        Audio(given_data, **options)
    assert told in str(caught.value)


def written(form: str, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    tone = np.sin(np.arange(4000) / 9) / 2
    soundfile.write(buffer, np.stack([tone, -tone], 1), 16_000, format=form, subtype=subtype)
    return buffer.getvalue()


FILES = {
    "wav 16": written("WAV", "PCM_16"),
    "wav 24": written("WAV", "PCM_24"),
    "wav 8": written("WAV", "PCM_U8"),
    "wav float": written("WAV", "FLOAT"),
    "wav law": written("WAV", "ULAW"),
    "wav extensible": written("WAVEX", "PCM_16"),
    "flac 16": written("FLAC", "PCM_16"),
    "flac 24": written("FLAC", "PCM_24"),
    "mp3": written("MP3"),
    "mp3 id3": b"ID3\x04\0\0\0\0\0\x05hello" + written("MP3"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_stored_unchanged(name: str, tmp_path: Path) -> None:
    content = FILES[name]
    path = tmp_path / "sound"
    path.write_bytes(content)
    for given_data in (content, io.BytesIO(content), path, str(path), bytearray(content)):
        audio = Audio(given_data)
        assert audio._to_item()[1] == content == audio.get().read() == finished(audio).data
    assert (audio.format, audio.rate, audio.channels) == (name.split()[0], 16_000, 2)
    rate, samples = audio.to_numpy()
    assert rate == 16_000
    tone = np.sin(np.arange(4000) / 9) / 2
    full = {"u": 128, "i": 2 ** (8 * samples.dtype.itemsize - 1), "f": 1}[samples.dtype.kind]
    heard = samples.astype("f8") - (128 if samples.dtype.kind == "u" else 0)
    if name.startswith("mp3"):
        assert samples.ndim == 2
    else:
        assert np.abs(heard[:, 0] / full - tone).max() < 0.05


def test_what_the_standard_library_writes_and_reads() -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.arange(20, dtype="<i2").tobytes())
    same(Audio(buffer.getvalue()).to_numpy()[1], np.arange(20, dtype="i2").reshape(10, 2))
    with wave.open(Audio(np.arange(20, dtype="i2"), rate=123).get()) as file:
        assert (file.getframerate(), file.getnframes(), file.getsampwidth()) == (123, 20, 2)
    heard, rate = soundfile.read(Audio(np.linspace(-1, 1, 5), rate=123).get())
    assert (rate, heard.tolist()) == (123, [-1, -0.5, 0, 0.5, 1])


def test_what_files_tell_is_not_told_otherwise() -> None:
    assert Audio(FILES["wav 16"], "wav", rate=16_000).rate == 16_000
    with pytest.raises(ValueError, match="are wav, not mp3"):
        Audio(FILES["wav 16"], "mp3")
    with pytest.raises(ValueError, match="16000 samples a second, not 8000"):
        Audio(FILES["wav 16"], rate=8000)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("wav")])
def test_truncated_wav_files_are_refused(name: str) -> None:
    content = FILES[name]
    for length in [*range(12, 100, 7), *range(100, len(content) - 1, len(content) // 9)]:
        with pytest.raises(ValueError, match=r"truncated|damaged"):
            Audio(content[:length])


def test_a_wav_written_into_a_pipe_has_what_is_there() -> None:
    content = Audio(np.arange(20, dtype="i2")).data
    at = content.index(b"data") + 4
    same(Audio(content[:at] + b"\xff\xff\xff\xff" + content[at + 4 :]).to_numpy()[1], np.arange(20, dtype="i2"))


@few
@given(st.sampled_from(sorted(FILES)), st.data())
def test_damaged_files_are_refused_or_told_of_when_read(name: str, data: Any) -> None:
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 200) - 1))] = data.draw(st.integers(0, 255))
    try:
        audio = Audio(bytes(content[: data.draw(st.integers(0, len(content)))]))
    except ValueError:
        return
    try:
        audio.to_numpy()
    except CorruptionError:
        return


@few
@given(
    st.binary(max_size=100)
    | st.sampled_from([b"RIFF\0\0\0\0WAVEfmt ", b"fLaC", b"ID3", b"\xff\xfb"]).flatmap(
        lambda head: st.binary(max_size=80).map(head.__add__)
    )
)
def test_anything_is_audio_or_a_clear_error(content: bytes) -> None:
    try:
        Audio(content)
    except ValueError as error:
        assert "cannot be audio" in str(error)


def test_equality() -> None:
    samples = np.arange(20, dtype="i2")
    assert Audio(samples) == Audio(samples.copy()) == Audio(Audio(samples).data)
    assert Audio(samples) != Audio(samples + 1)
    assert Audio(samples) != Audio(samples, rate=8000)
    assert Audio(samples) != Audio(samples, caption="x")
    assert Audio(samples) != Audio(samples, "flac")
    assert Audio(samples) != 5
    assert repr(Audio(samples, rate=8000)) == "Audio(format='wav', rate=8000, channels=1)"


def test_items_that_do_not_fit_are_corrupt() -> None:
    for form in ("wav", "flac", "mp3"):
        audio = read({"format": form, "rate": 8000, "channels": 1, "dtype": "float32"}, b"RIFF....WAVE")
        with pytest.raises(CorruptionError):
            audio.to_numpy()
    audio = read({"format": "flac", "rate": 8000, "channels": 1, "raw": "wav"}, b"no")
    with pytest.raises(CorruptionError):
        audio.get()
    with pytest.raises(CorruptionError):
        read({"format": "wav", "rate": "fast", "channels": 1}, b"")


def read(header: dict[str, Any], payload: bytes) -> Audio:
    return Audio._from_item(header, lambda: (header, payload))


def test_without_soundfile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    samples = np.arange(20, dtype="i2")
    same(Audio(samples).to_numpy()[1], samples)
    audio = Audio(samples, "flac")
    same(audio.to_numpy()[1], samples)
    for read in (audio.get, Audio(FILES["mp3"]).to_numpy, Audio(FILES["flac 16"]).to_numpy):
        with pytest.raises(ImportError, match=r"needs soundfile: pip install 'aimlite-store\[media\]'"):
            read()
