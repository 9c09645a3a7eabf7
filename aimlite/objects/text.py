"""A text."""

from __future__ import annotations

from typing import Any, ClassVar

from aimlite.errors import CorruptionError
from aimlite.objects.tracked import TrackedObject


class Text(TrackedObject):
    """One text: any str, lone surrogates too. Raises TypeError for what is no str."""

    kind = "texts"
    _fields: ClassVar[dict[str, type]] = {"length": int}

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a text is a str, not {type(text).__name__} {text!r:.100}")
        self._set({"length": len(text)}, text.encode("utf-8", "surrogatepass"))

    @property
    def data(self) -> str:
        """The text."""
        try:
            return self._bytes().decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise CorruptionError(f"a text is not UTF-8: {error}") from None

    def json(self) -> dict[str, Any]:
        """{'data'}."""
        return {"data": self.data}

    def __len__(self) -> int:
        """How many characters; told without reading them."""
        length: int = self._header["length"]
        return length

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return self.data

    def __repr__(self) -> str:
        text = self.data
        return f"Text({text!r})" if len(text) <= 60 else f"Text({text[:57]!r}…, {len(text)} characters)"
