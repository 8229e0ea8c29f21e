"""Kinds of image files, by extension and first bytes: supported ones, and photographs that cannot be read."""

from __future__ import annotations

from pathlib import Path, PurePath

IMAGE_EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp",
    ".jpe", ".jfif", ".jif", ".mpo", ".apng", ".dib", ".gif", ".avif", ".heic", ".heif", ".hif",
    ".jp2", ".j2k", ".jpf", ".jpx", ".pbm", ".pgm", ".ppm", ".pnm", ".psd", ".qoi",
)  # fmt: skip
# Pillow's other formats are none of photographs, have no mark of their own, or start another program (EPS).
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000", "PPM", "PSD", "QOI")
HEAD_BYTES = 32  # of a file: enough for :func:`recognise`

_RAW = (
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".kdc", ".mef", ".mos",
    ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip
_VIDEOS = (
    ".3gp", ".avi", ".insv", ".lrv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm", ".wmv",
)  # fmt: skip
_RAW_REASON = "a camera's raw file; develop it into JPEG or TIFF first"
_VIDEO_REASON = "a video; save its frames as JPEG or PNG first"
_JXL_REASON = "JPEG XL, which is not read; save it as JPEG, PNG or TIFF"
_UNREAD_ENDINGS = dict.fromkeys(_RAW, _RAW_REASON) | dict.fromkeys(_VIDEOS, _VIDEO_REASON) | {".jxl": _JXL_REASON}
# Kinds whose first bytes no text file has by chance.
_BY_CONTENT = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "AVIF", "HEIF", "JPEG2000", "JXL", "RAW")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF"), (b"8BPS", "PSD"),
    (b"qoif", "QOI"), (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"), (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\xff\x0a", "JXL"), (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"), (b"IIRO", "RAW"), (b"IIRS", "RAW"),
    (b"MMOR", "RAW"), (b"IIU\0", "RAW"), (b"FUJIFILMCCD-RAW", "RAW"), (b"FOVb", "RAW"), (b"\0MRM", "RAW"),
    (b"\x1a\x45\xdf\xa3", "VIDEO"), (b"\0\0\x01\xba", "VIDEO"),
)  # fmt: skip


def recognise(head: bytes) -> str | None:
    """Recognise a picture or video by its first bytes.

    Returns:
        One of :data:`FORMATS`, ``HEIF`` (a plug-in reads it), ``JXL``, ``RAW`` or ``VIDEO``; None for the rest.
    """
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis") or (brand in (b"mif1", b"msf1") and b"avif" in head):
            return "AVIF"
        if brand in _HEIF_BRANDS:
            return "HEIF"
        return "RAW" if brand == b"crx " else "VIDEO"
    if head[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"AVI ": "VIDEO"}.get(head[8:12])
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "BMP"
    if head[:4] in (b"II*\0", b"MM\0*") and head[8:10] == b"CR":
        return "RAW"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM"
    return next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), None)


def has_image_ending(name: str | PurePath) -> bool:
    """Return True if a file's name has the extension of an image or video, readable or not."""
    suffix = PurePath(name).suffix.lower()
    return suffix in IMAGE_EXTENSIONS or suffix in _UNREAD_ENDINGS


def is_picture(path: Path) -> bool:
    """Tell a photograph by its first bytes, whatever its name; False for what cannot be opened."""
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            return False
        with path.open("rb") as file:
            return recognise(file.read(HEAD_BYTES)) in _BY_CONTENT
    except OSError:
        return False


def why_unread(name: str, head: bytes) -> str | None:
    """Explain why a photograph or video cannot be read; None if the file is neither.

    A raw file's ending counts before its content: most are TIFF files whose first picture is a small preview.

    Args:
        name: the file's, with its ending.
        head: its first :data:`HEAD_BYTES`.
    """
    kind = recognise(head)
    if kind in (None, "TIFF") and (reason := _UNREAD_ENDINGS.get(PurePath(name).suffix.lower())):
        return reason
    return {"RAW": _RAW_REASON, "VIDEO": _VIDEO_REASON, "JXL": _JXL_REASON}.get(kind or "")
