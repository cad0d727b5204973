"""Picture files of unknown origin -> squares of pixels, or one of a few reasons why not."""

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from recloom.errors import DataError, MissingExtraError

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
"""What is opened. Others that Pillow knows run programs (EPS) or are little tried."""
MOST_PIXELS = 64_000_000
"""A larger picture is refused before it is unpacked: a few kilobytes may unpack to gigabytes."""
MOST_BYTES = 100_000_000
NO_FILE = "no such file"
NOT_ALLOWED = "the file may not be read"
ADDRESS = "a web address, which is not fetched; download it and name the file"
NO_PICTURE = f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
TOO_LARGE = f"more than {MOST_PIXELS // 1_000_000} million pixels or {MOST_BYTES // 1_000_000} MB"
DAMAGED = "damaged"
_ORIENTATION = 0x0112
"""Where a photograph's own notes say which way up it is."""


class PictureError(DataError):
    """A picture that cannot be used; the message is the reason, the same for all that it holds for."""


def picture_path(cell: str) -> Path:
    """Return the file that a cell of the catalogue's `image` column names: a path, or an address that begins file:.

    Raises:
        PictureError: It names something on the web.
    """
    if cell.lower().startswith("file:"):
        return Path(unquote(urlsplit(cell).path))
    if is_address(cell):
        raise PictureError(ADDRESS)
    return Path(cell).expanduser()


def is_address(cell: str) -> bool:
    """Whether a cell of the `image` column names something on the web, or holds the picture itself."""
    return cell.startswith("//") or cell.lower().startswith(("http:", "https:", "ftp:", "data:"))


def check_picture_file(path: Path) -> None:
    """Make sure that a path is one of a file that is not too large.

    Raises:
        PictureError: It is not.
    """
    try:
        # Of a device or a pipe, reading might never end.
        num_bytes = path.stat().st_size if path.is_file() else None
    except PermissionError:
        raise PictureError(NOT_ALLOWED) from None
    except (OSError, ValueError):  # a name that is too long, or has a zero in it
        num_bytes = None
    if num_bytes is None:
        raise PictureError(NO_FILE)
    if num_bytes > MOST_BYTES:
        raise PictureError(TOO_LARGE)


def read_picture(path: Path, size: int) -> np.ndarray:
    """Read the square in the middle of a picture; of an animation, of its first frame.

    Transparent parts are white, grey and CMYK become RGB, and a photograph stands upright as its camera says.

    Args:
        path: A file.
        size: Pixels along each side of the square.

    Returns:
        Red, green and blue, uint8 of shape (size, size, 3).

    Raises:
        PictureError: It is no picture, a damaged one, or too large.
        MissingExtraError: Pillow is not installed.
    """
    check_picture_file(path)
    image_module, operations = _pillow()
    try:
        image = image_module.open(path, formats=FORMATS)
    except image_module.DecompressionBombError:
        raise PictureError(TOO_LARGE) from None
    except PermissionError:
        raise PictureError(NOT_ALLOWED) from None
    except FileNotFoundError:
        raise PictureError(NO_FILE) from None
    except image_module.UnidentifiedImageError:
        raise PictureError(NO_PICTURE) from None
    except Exception:
        raise PictureError(DAMAGED) from None
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise PictureError(TOO_LARGE)
        try:
            return _square(image, size, operations)
        except Exception:  # Pillow raises whatever a damaged file leads to
            raise PictureError(DAMAGED) from None


def _square(image: Any, size: int, operations: Any) -> np.ndarray:
    side = min(image.size)
    # A photograph of many megapixels need not be unpacked whole; formats other than JPEG take no notice.
    image.draft(None, (2 * size * image.width // side, 2 * size * image.height // side))
    image.load()
    upright = _upright(image, operations)
    side = min(upright.size)
    left, top = (upright.width - side) // 2, (upright.height - side) // 2
    # Cut before anything else: a strip a pixel high would otherwise grow to gigabytes.
    square = _colours(upright.crop((left, top, left + side, top + side))).resize((size, size), reducing_gap=3.0)
    return np.asarray(square, dtype=np.uint8)


def _upright(image: Any, operations: Any) -> Any:
    try:
        return operations.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image
    except Exception:  # notes of the camera that make no sense say nothing about the picture
        return image


def _colours(image: Any) -> Any:
    """Turn a picture of any kind into RGB, on white."""
    if image.mode.startswith("I") or image.mode == "F":
        # Greys of 16 bits and more: Pillow would cut them off at 255.
        grey = np.asarray(image, dtype=np.float64)
        scale = 255 / 65_535 if grey.max(initial=0) > 255 else 255 if 0 < grey.max(initial=0) <= 1 else 1
        return image_of((grey * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        solid = image.convert("RGBA")
        white = image_of(np.full((image.height, image.width, 4), 255, dtype=np.uint8))
        white.alpha_composite(solid)
        return white.convert("RGB")
    return image.convert("RGB")


def image_of(pixels: np.ndarray) -> Any:
    """Return pixels as an image of Pillow's."""
    return _pillow()[0].fromarray(pixels)


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise MissingExtraError("images", "reading pictures") from None
    return Image, ImageOps
