"""How long audio and video last, from their headers, without decoding a sample."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from mutagen import flac, mp3, mp4, oggflac, oggopus, oggvorbis, wave

from shared.media.sniff import FLAC, M4A, MOV, MP3, MP4, OGG, WAV, MediaKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from _typeshed import WriteableBuffer
    from mutagen import ogg

    from shared.object_store.port import Held

# What honest headers need is far below: a film of an hour has a few thousand boxes and some 100 KiB
# of tables that are read, and a cover picture of a few MiB may stand before the sound.
_MAX_READS: Final = 20_000
_MAX_BYTES: Final = 16 * 1024 * 1024
# What claims to last longer is not believed: no file of the size that is stored does.
_MAX_S: Final = 7 * 24 * 3600.0


class _TooMuchReading(OSError):
    """A file asks its reader for more than any honest file does."""


class _Rationed(io.RawIOBase):
    """A file that can be read for a while: so a parser ends, whatever the bytes tell it to do."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._reads = _MAX_READS
        self._bytes = _MAX_BYTES

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes from the beginning. Asked in loops, so it counts as reading."""
        self._take(0)
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """To a place; counts as reading."""
        self._take(0)
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        """At most what is left of the ration; never all that a header claims there is."""
        wanted = self._bytes + 1 if size is None or size < 0 else min(size, self._bytes + 1)
        data = self._file.read(wanted)
        self._take(len(data))
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As `read`."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _take(self, size_bytes: int) -> None:
        self._reads -= 1
        self._bytes -= size_bytes
        if self._reads < 0 or self._bytes < 0:
            raise _TooMuchReading


def duration_s(path: Path | Held, kind: MediaKind) -> float | None:
    """Seconds; None for what has no duration, or does not tell, or is not to be believed.

    The library tells it of a film by its sound: of a silent one it does not. Reads at most 16 MiB
    in at most 20,000 steps, whatever the bytes say: to be called in a thread, by few at a time.
    """
    if (reader := _READERS.get(kind)) is None:
        return None
    try:
        with path.open("rb") as file:
            seconds = round(reader(_Rationed(file)), 3)
    except Exception:  # noqa: BLE001 - a parser over hostile bytes raises what it likes
        return None
    return seconds if 0 < seconds <= _MAX_S else None


def _of_ogg(file: _Rationed) -> float:
    """The codec is named by the first page; mutagen has a class for each."""
    head = file.read(256)
    kinds: tuple[tuple[bytes, type[ogg.OggFileType]], ...] = (
        (b"\x01vorbis", oggvorbis.OggVorbis),
        (b"OpusHead", oggopus.OggOpus),
        (b"\x7fFLAC", oggflac.OggFLAC),
    )
    file.seek(0)
    for name, reader in kinds:
        if name in head:
            return _length(reader(file))
    raise ValueError("a codec that is not known here")


def _length(of: object) -> float:
    # Mutagen is typed in part: its classes say nothing of their `info`.
    return float(cast("Any", of).info.length)


# Mutagen's readers themselves: so no other format is tried than the one that was sniffed.
_READERS: Final[dict[MediaKind, Callable[[_Rationed], float]]] = {
    MP3: lambda file: float(cast("Any", mp3.MPEGInfo)(file).length),
    WAV: lambda file: _length(wave.WAVE(file)),
    FLAC: lambda file: _length(flac.FLAC(file)),
    OGG: _of_ogg,
    MP4: lambda file: _length(mp4.MP4(file)),
    M4A: lambda file: _length(mp4.MP4(file)),
    MOV: lambda file: _length(mp4.MP4(file)),
}
