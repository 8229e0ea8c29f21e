"""Decode photographs of any kind into upright RGB of 8 bits, or raise an error that names the file.

Sizes are checked in the header, before a decompression bomb can be decoded.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageCms

from crackseg.data.images.damage import (
    Damaged,
    JpegStructure,
    WatchedJpeg,
    check_container,
    check_jpeg,
    check_png,
    fill_scans,
)
from crackseg.data.images.kinds import FORMATS, HEAD_BYTES, IMAGE_EXTENSIONS, recognise, why_unread
from crackseg.data.images.value_range import to_8_bits
from crackseg.errors import CracksegError

MAX_PIXELS = 250_000_000  # 12,000 x 9,000 fits; 30,000 x 30,000 is refused

Image.MAX_IMAGE_PIXELS = None  # our own limit below says more than Pillow's warning
warnings.filterwarnings("ignore", module=r"PIL\.")  # they name no file; what matters is found here
# Of warnings (a damaged EXIF block), too, what matters is found here.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
_WHITE = (255, 255, 255, 255)
_TURNED = (5, 6, 7, 8)  # EXIF: width and height change places
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GREY_FILL = 128  # what libjpeg puts where data are missing
_TIFF = {
    "photometric": 262, "bits": 258, "subfile": 254, "sub_ifds": 330, "max_value": 281, "max_sample": 341, "dng": 50706,
}  # fmt: skip


class Decoded(NamedTuple):
    """Decoded photograph.

    Attributes:
        image_HW3: uint8 (H, W, 3), RGB, upright.
        remarks: what was decided about it, e.g. the full scale of its values; each a part of a sentence.
    """

    image_HW3: np.ndarray
    remarks: tuple[str, ...] = ()

    @property
    def remark(self) -> str:
        """Remarks in one line, as in tables, headers and pages; "" if there is none."""
        return "; ".join(self.remarks)


def decode_photograph(content: bytes, *, name: str = "image", max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an encoded photograph.

    Args:
        content: the file's bytes.
        name: what errors call it, e.g. its path.
        max_pixels: refuse more than this many pixels, before decoding.
    Raises:
        CracksegError: empty, no image, a kind that is not read, damaged, cut short, too large, or of unknown range.
    """
    image = open_image(content, name, max_pixels)
    with decoding(name):
        if image.format == "PNG":
            content = check_png(content)
            image = open_image(content, name, max_pixels)
        turn, remarks = read_orientation(image), _remark_frames(image)
        values, why = _decode_values(image, content, name)
        remarks += [why] if why else []
        return Decoded(_turn(values, turn), tuple(remarks))


def decode_image(content: bytes, *, name: str = "image", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a photograph as uint8 (H, W, 3), RGB, upright; see :func:`decode_photograph`."""
    return decode_photograph(content, name=name, max_pixels=max_pixels).image_HW3


def decode_stored(content: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, str]:
    """Decode a file without turning its values into others: palettes, alpha channels and 16 bits stay.

    Returns:
        The image, upright, in the file's own mode, and the file's format as Pillow calls it.
    """
    image = open_image(content, name, max_pixels)
    with decoding(name):
        if image.format == "PNG":
            image = open_image(check_png(content), name, max_pixels)
        turn, image_format = read_orientation(image), image.format or ""
        image = _load(image, content)
        return (image.transpose(_TRANSPOSED[turn]) if turn > 1 else image), image_format


def open_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image, of which only the header is read.

    Raises:
        CracksegError: empty, no image, a kind that is not read, or over ``max_pixels``.
    """
    if not content:
        raise CracksegError(f"{name}: the file is empty (0 bytes)")
    head = content[:HEAD_BYTES]
    if reason := why_unread(name, head):
        raise CracksegError(f"{name}: {reason}")
    formats: tuple[str, ...] = FORMATS
    if recognise(head) == "HEIF":
        _add_heif(name)
        formats = ("HEIF",)
    try:
        image = Image.open(io.BytesIO(content), formats=formats)
    except Exception as error:  # of a damaged header, Pillow's readers raise whatever they stumble over
        if recognise(head) == "JPEG" and (bits := _bits_of_jpeg(content)) != 8:
            raise CracksegError(f"{name}: a JPEG of {bits} bits; save it as TIFF or PNG of 16 bits") from error
        if (kind := recognise(head)) in ("AVIF", "HEIF"):  # their decoders read all parts at once
            raise CracksegError(
                f"{name}: the image is damaged or cut short ({kind}: {_in_one_line(error)}); fetch it again"
            ) from error
        raise CracksegError(
            f"{name}: not an image that can be read; expected one of {', '.join(IMAGE_EXTENSIONS)}"
        ) from error
    width, height = image.size
    if width * height > max_pixels:
        raise CracksegError(
            f"{name}: {width} x {height} pixels are {width * height / 1e6:.0f} megapixels, over the limit of "
            f"{max_pixels / 1e6:.0f}; cut the image into parts first"
        )
    return image


def read_orientation(image: Image.Image) -> int:
    """Read how EXIF says the picture is turned: 1 to 8, and 1 where it says nothing or nothing that can be read."""
    try:
        # Of a PNG, Pillow decodes the whole picture to look for EXIF behind it.
        known = image.format == "PNG" and _ends_with_its_data(image)
        turn = (Image.Image.getexif(image) if known else image.getexif()).get(0x0112, 1)
    except Exception:  # a damaged block of EXIF; the picture itself may be whole
        return 1
    return turn if turn in range(1, 9) else 1


def _ends_with_its_data(image: Image.Image) -> bool:
    """Tell if nothing but the end mark follows the data of a PNG that was opened by :func:`open_image`."""
    stream = getattr(image, "fp", None)
    if not isinstance(stream, io.BytesIO):
        return False
    content = stream.getvalue()
    last = content.rfind(b"IDAT")
    if last < 4:
        return False
    end = last + 8 + int.from_bytes(content[last - 4 : last], "big")
    return content[end + 4 : end + 8] == b"IEND"


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height in pixels after turning, from the header."""
    width, height = image.size
    return (height, width) if read_orientation(image) in _TURNED else (width, height)


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turn any error of a decoder into one that names the file."""
    try:
        yield
    except CracksegError as error:
        raise error if name in str(error) else CracksegError(f"{name}: {error}") from error
    except MemoryError as error:
        raise CracksegError(f"{name}: decoding it takes more memory than there is") from error
    except Exception as error:  # decoders raise a dozen classes: OSError, SyntaxError, struct.error ...
        detail = _in_one_line(error)
        raise CracksegError(f"{name}: the image is damaged or cut short ({detail}); fetch it again") from error


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _decode_values(image: Image.Image, content: bytes, name: str) -> tuple[np.ndarray, str | None]:
    """Decode to uint8 (H, W, 3), RGB, as stored (not turned), and a remark on the values' scale."""
    sixteen_bits = _bits_per_channel(image, content) == 16
    if (
        image.format == "PNG"
        and image.mode in ("RGB", "L", "RGBA", "LA", "I;16")
        and "transparency" not in image.info
    ):
        # OpenCV decodes PNG faster, and keeps the 16 bits of colours, of which Pillow gives 8.
        flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
        values = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        if values is not None and (values.dtype == np.uint8) != sixteen_bits:
            return _finish(_to_rgb(values), None)
    loaded = _load(image, content)
    if sixteen_bits and image.mode.startswith(("RGB", "L")) and image.format == "TIFF":
        values = cv2.imdecode(
            np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
        )
        if values is None or values.dtype != np.uint16 or values.shape[:2] != image.size[::-1]:
            raise CracksegError(f"{name}: 16-bit colours in a form that is not read; save it as PNG or as 8 bits")
        return _finish(_to_rgb(values), _full_scale(image))
    if loaded.mode.startswith(("I", "F")):
        values = np.asarray(loaded)
        if values.dtype.byteorder == ">":
            values = values.astype(values.dtype.newbyteorder("="))
        grey, remark = to_8_bits(values, full_scale=_full_scale(image))
        # White is 0, which Pillow minds in 8 bits only.
        if image.format == "TIFF" and _tag(image, "photometric") == 0:
            grey = 255 - grey
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), remark
    if loaded.mode == "LAB":
        transform = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        converted = ImageCms.applyTransform(loaded, transform)
        assert converted is not None
        loaded = converted
    if loaded.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in loaded.info:
        # On white: what lies under full transparency is arbitrary and often black.
        premultiplied = {"RGBa": "RGBA", "La": "LA"}.get(loaded.mode)
        rgba = (loaded.convert(premultiplied) if premultiplied else loaded).convert("RGBA")
        loaded = Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba)
    return np.asarray(loaded if loaded.mode == "RGB" else loaded.convert("RGB")), None


def _to_rgb(values: np.ndarray) -> np.ndarray:
    """Turn OpenCV's grey, BGR or BGRA into RGB or RGBA."""
    if values.ndim == 2:
        return cv2.cvtColor(values, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(values, cv2.COLOR_BGR2RGB if values.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def _finish(values: np.ndarray, full_scale: float | None) -> tuple[np.ndarray, str | None]:
    """Bring RGB or RGBA of 8 or 16 bits to RGB of 8, transparency on white."""
    if values.shape[2] == 3:
        return to_8_bits(values, full_scale=full_scale)
    alpha, white = values[..., 3:], np.iinfo(values.dtype).max
    rgb, remark = to_8_bits(np.ascontiguousarray(values[..., :3]), full_scale=full_scale)
    if (alpha == white).all():
        return rgb, remark
    cover = alpha.astype(np.float32) / np.float32(white)
    return np.rint(rgb * cover + 255 * (1 - cover)).astype(np.uint8), remark


def _load(image: Image.Image, content: bytes) -> Image.Image:
    """Decode an opened image's pixels; :class:`Damaged` for what decoders pass over."""
    if image.format in ("JPEG", "MPO"):
        return _load_jpeg(image, content)
    if image.format in ("WEBP", "AVIF", "HEIF", "JPEG2000"):
        check_container(content)
    if image.format == "TIFF" and _tag(image, "dng") is not None:
        raise CracksegError("a camera's raw file; develop it into JPEG or TIFF first")
    if image.format == "TIFF" and int(_tag(image, "subfile") or 0) & 1 and _tag(image, "sub_ifds") is not None:
        raise CracksegError("its first picture is a preview (a camera's raw file?); save it as JPEG or plain TIFF")
    image.load()
    return image


def _load_jpeg(image: Image.Image, content: bytes) -> Image.Image:
    structure = check_jpeg(content)
    image = _open_jpeg(content, structure, watch=not (structure.progressive or structure.arithmetic))
    last = np.asarray(image.crop((max(image.width - 4, 0), max(image.height - 4, 0), *image.size)))
    if not structure.arithmetic and (structure.progressive or (last == _GREY_FILL).all()):
        filled = _open_jpeg(fill_scans(content, structure), structure, watch=False)
        if image.tobytes() != filled.tobytes():
            raise Damaged("the picture lacks its last part")
    return image


def _open_jpeg(content: bytes, structure: JpegStructure, *, watch: bool) -> Image.Image:
    stream = WatchedJpeg(content, structure)
    image = Image.open(stream, formats=("JPEG",))
    stream.image = image if watch else None
    image.load()
    if watch:
        stream.check()
    return image


def _turn(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels (H, W) or (H, W, C) upright, by EXIF's orientation."""
    if orientation in _TURNED:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values)


def _remark_frames(image: Image.Image) -> list[str]:
    try:
        # MPO: a phone's depth or gain map.
        several = image.format != "MPO" and getattr(image, "is_animated", False)
    except Exception:  # a later page is damaged; only the first is read
        several = True
    if not several:
        return []
    return ["the first page alone is read" if image.format == "TIFF" else "the first frame alone is read"]


def _bits_per_channel(image: Image.Image, content: bytes) -> int | None:
    if image.format == "PNG":
        return content[24]  # Pillow's mode does not say
    if image.format == "TIFF":
        bits = _tag(image, "bits")
        return int(max(bits)) if isinstance(bits, tuple) else int(bits or 1)
    return None


def _full_scale(image: Image.Image) -> float | None:
    """Read what a file says that white is: TIFF's packed bits or largest value, PPM's; else None."""
    if image.format == "PPM" and image.mode == "I":
        return 65535.0  # Pillow scales by the header's largest value
    if image.format != "TIFF":
        return None
    bits = _bits_per_channel(image, b"") or 16
    if bits in (10, 12, 14):
        return float(2**bits - 1)
    for name in ("max_sample", "max_value"):
        largest = _tag(image, name)
        largest = max(largest) if isinstance(largest, tuple) else largest
        # Some programs write the picture's own largest value: no depth of a camera, so no full scale.
        if largest is not None and float(largest) + 1 in (2.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0):
            return float(largest)
    return None


def _tag(image: Image.Image, name: str) -> Any:
    return getattr(image, "tag_v2", {}).get(_TIFF[name])


def _bits_of_jpeg(content: bytes) -> int:
    with contextlib.suppress(Damaged):
        return check_jpeg(content).bits
    return 8


def _add_heif(name: str) -> None:
    """Have Pillow read HEIC photographs, by an optional part."""
    try:
        import pillow_heif
    except ImportError as error:
        raise CracksegError(
            f"{name}: reading HEIC needs pillow-heif: pip install 'crackseg[heic]', or save it as JPEG"
        ) from error
    pillow_heif.register_heif_opener()
