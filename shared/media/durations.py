"""How long sound lasts, from its header, without decoding a sample. Films: see `films.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from mutagen import flac, mp3, mp4, oggflac, oggopus, oggvorbis, wave

from shared.media.rationed import Rationed
from shared.media.sniff import FLAC, M4A, MP3, OGG, WAV, MediaKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mutagen import ogg

    from shared.object_store.port import Held

# What claims to last longer is not believed: no file of the size that is stored does.
LONGEST_S: Final = 7 * 24 * 3600.0


def duration_s(path: Path | Held, kind: MediaKind) -> float | None:
    """Seconds; None for what has no duration, or does not tell, or is not to be believed.

    Reads at most 16 MiB in at most 20,000 steps, whatever the bytes say: to be called in a thread,
    by few at a time.
    """
    if (reader := _READERS.get(kind)) is None:
        return None
    try:
        with path.open("rb") as file:
            seconds = round(reader(Rationed(file)), 3)
    except Exception:  # noqa: BLE001 - a parser over hostile bytes raises what it likes
        return None
    return seconds if 0 < seconds <= LONGEST_S else None


def _of_ogg(file: Rationed) -> float:
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
_READERS: Final[dict[MediaKind, Callable[[Rationed], float]]] = {
    MP3: lambda file: float(cast("Any", mp3.MPEGInfo)(file).length),
    WAV: lambda file: _length(wave.WAVE(file)),
    FLAC: lambda file: _length(flac.FLAC(file)),
    OGG: _of_ogg,
    M4A: lambda file: _length(mp4.MP4(file)),
}
