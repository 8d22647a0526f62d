"""How pixels are made, from the samples of a file to the network's input; plain values for the checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

EDITION = 2
"""Of the rules by which files are decoded.

Edition 1 is how earlier versions did it, and how their checkpoints are still read: 16-bit samples keep their high byte,
"white is zero" is heeded for 8 bits only, repaired JPEG files are accepted.
"""
FRAMINGS = ("crop", "pad", "squash")
STORED_MARGIN = 1.15
"""Room for the random and centre crops of the augmentation, which runs after decoding."""


def stored_size(image_size: int) -> int:
    """Return the side of the square that is decoded from files for a network input of `image_size`."""
    return round(STORED_MARGIN * image_size)


@dataclass(frozen=True)
class Decoding:
    """What decides the stored square of a file.

    Attributes:
        size: side of the square in pixels.
        channels: 1 (gray) or 3 (RGB).
        framing: "crop" (the centre square), "pad" (all of the image, black bars) or "squash" (all of it, distorted).
        black, white: ends of the range of files with more than 8 bits; None for the ends of the file's own type.
        largest: largest value of a set that fills a depth such as 12 bits; files with larger ones are of another
            depth. None where nothing is known.
        depths: depths that may occur, as `intensity.Samples` names them; None for any.
        dicom_window: centre and width that replace the windows of DICOM files, or None.
        edition: of the rules, see `EDITION`.
    """

    size: int
    channels: int
    framing: str = "crop"
    black: float | None = None
    white: float | None = None
    largest: float | None = None
    depths: tuple[str, ...] | None = None
    dicom_window: tuple[float, float] | None = None
    edition: int = EDITION

    def __post_init__(self) -> None:
        """Refuse values that no data set gives: they come from a damaged checkpoint."""
        optional = (self.black, self.white, self.largest, *(self.dicom_window or ()))
        numbers = [number for number in optional if number is not None]
        sound = (
            all(type(count) is int and count > 0 for count in (self.size, self.channels, self.edition))
            and self.channels in (1, 3)
            and self.edition <= EDITION
            and self.framing in FRAMINGS
            and all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
            and (self.black is None) == (self.white is None)
            and (self.black is None or self.white is None or self.black < self.white)
            and (self.dicom_window is None or (len(self.dicom_window) == 2 and self.dicom_window[1] > 0))
            and (self.depths is None or all(isinstance(depth, str) for depth in self.depths))
        )
        if not sound:
            raise ValueError(f"no way to decode images: {self}")

    def range_text(self) -> str:
        """Say which values become black and white."""
        if self.edition == 1:
            return "high byte of 16-bit samples"
        return "the range of the type" if self.black is None else f"{self.black:g} to {self.white:g}"


@dataclass(frozen=True)
class Preprocessing:
    """What decides the network's input for an image.

    Attributes:
        source: where the run's own images came from, "memory" or "files".
        decoding: of files; images in memory are resized to its size.
        image_size: side of the network's input in pixels.
        shown: share of the stored square's side that the view of evaluation shows.
        mean: per channel, of pixel values in [0, 1], from the training subset.
        std: the same, > 0.
    """

    source: str
    decoding: Decoding
    image_size: int
    shown: float
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that no data set gives: they come from a damaged checkpoint."""
        statistics = (self.mean, self.std)
        sound = (
            self.source in ("memory", "files")
            and type(self.image_size) is int
            and self.image_size > 0
            and isinstance(self.shown, int | float)
            and 0 < self.shown <= 1
            and all(len(values) in (0, self.decoding.channels) for values in statistics)
            and all(isinstance(value, int | float) and math.isfinite(value) for value in (*self.mean, *self.std))
            and all(value > 0 for value in self.std)
        )
        if not sound:
            raise ValueError(f"no way to prepare images: {self}")

    def as_dict(self) -> dict[str, object]:
        """Return plain values for the checkpoint."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, object]) -> Preprocessing:
        """Read what `as_dict` gave.

        Raises:
            ValueError: the values describe no preprocessing.
        """
        try:
            decoding = Decoding(**_tuples(values["decoding"]))  # type: ignore[arg-type]  # checked by its own method
            names = {field.name for field in fields(Preprocessing)} - {"decoding"}
            return Preprocessing(decoding=decoding, **_tuples({name: values[name] for name in names}))  # type: ignore[arg-type]
        except (TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"no way to prepare images ({type(error).__name__}: {error})") from None


def preprocessing_of_earlier_versions(
    name: str, image_size: int, channels: int, stored: int | None, mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocessing:
    """Return the preprocessing of a checkpoint that does not hold it.

    Args:
        name: of the data set, which then decided whether there was a margin.
        image_size: side of the network's input in pixels.
        channels: 1 or 3.
        stored: `--stored-size`, or None.
        mean: per channel.
        std: per channel.
    """
    memory = name in ("digits", "fashion", "ukbb-cardiac") or name.endswith("mnist")
    size = image_size if memory else stored or stored_size(image_size)
    decoding = Decoding(size, channels, edition=1)
    return Preprocessing("memory" if memory else "files", decoding, image_size, image_size / size, mean, std)


def _tuples(values: object) -> dict[str, object]:
    """Turn lists into tuples: a checkpoint may hold either."""
    assert isinstance(values, Mapping), "a part of the preprocessing is no mapping"
    return {str(name): tuple(value) if isinstance(value, list) else value for name, value in values.items()}
