"""Read a file that may come from an annotation tool, or explain why it cannot be read."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from crackseg.data.importing.annotations.coco import is_coco, read_coco
from crackseg.data.importing.annotations.cvat import read_cvat
from crackseg.data.importing.annotations.drawn import DAMAGES, AnnotationFile
from crackseg.data.importing.annotations.label_studio import is_label_studio, read_label_studio
from crackseg.data.importing.annotations.labelme import is_labelme, read_labelme
from crackseg.data.importing.annotations.other_tools import name_json, name_xml
from crackseg.errors import CracksegError

FORMATS = "COCO JSON, LabelMe JSON, Label Studio's JSON or CVAT's XML for images"
# Tried where a file is not Unicode. Read is only what they agree on: plain ASCII names and labels.
_OLD_ENCODINGS = ("gb18030", "cp1252", "latin-1")


def read_annotations(path: Path) -> AnnotationFile | None:
    """Read what may be an annotation file.

    Returns:
        What it says, or None if it can be read and is none of an annotation tool.
    Raises:
        CracksegError: it cannot be read, is damaged, or is of a tool whose files are not read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CracksegError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not content.strip(b"\0 \t\r\n"):
        holds = f"{len(content)} bytes of nothing" if content else "0 bytes"
        raise CracksegError(f"{path}: the file is empty ({holds}); export or copy it again")
    try:
        return _read_xml(path, content) if path.suffix.lower() == ".xml" else _read_json(path, content)
    except DAMAGES as error:
        if isinstance(error, CracksegError):
            raise
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise CracksegError(f"{path}: looks like {FORMATS}, but is damaged ({reason}); export it again") from error


def _read_json(path: Path, content: bytes) -> AnnotationFile | None:
    try:
        text = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        return _read_old_encoding(path, content, error)
    return _interpret_json(path, _parse_json(path, text))


def _parse_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        ends = error.pos >= len(text.rstrip("\0 \t\r\n")) or error.msg.startswith("Unterminated string")
        what = "is cut short" if ends else "is no JSON"
        raise CracksegError(
            f"{path}: {what} ({error.msg}, line {error.lineno}, column {error.colno}); export or copy it again"
        ) from error
    except RecursionError as error:
        raise CracksegError(f"{path}: cannot be read as JSON (nested too deeply)") from error
    except ValueError as error:  # e.g. a number of thousands of digits
        raise CracksegError(f"{path}: cannot be read as JSON ({error})") from error


def _interpret_json(path: Path, data: Any) -> AnnotationFile | None:
    if is_coco(data) and not any("segments_info" in a for a in (data.get("annotations") or [])[:1]):
        return read_coco(path, data)
    if is_labelme(data):
        return read_labelme(path, data)
    if is_label_studio(data):
        return read_label_studio(path, data)
    other = name_json(data)
    if other:
        raise CracksegError(f"{path}: {other}")
    return None


def _read_old_encoding(path: Path, content: bytes, error: UnicodeDecodeError) -> AnnotationFile | None:
    """Read a file of an encoding that cannot be told, if it holds nothing that depends on the encoding."""
    for encoding in _OLD_ENCODINGS:
        try:
            found = _interpret_json(path, _parse_json(path, content.decode(encoding)))
        except ValueError:  # also a CracksegError: the next encoding may fit
            continue
        texts = [i.name for i in found.images] + [s.label for i in found.images for s in i.shapes] if found else []
        if all(text.isascii() for text in texts):
            return found
        break
    raise CracksegError(
        f"{path}: not Unicode (byte 0x{content[error.start]:02x} at {error.start}), perhaps GBK or Latin-1; its names "
        "would be a guess: save it as UTF-8"
    ) from error


def _read_xml(path: Path, content: bytes) -> AnnotationFile | None:
    if b"<!ENTITY" in content:  # no tool writes them, and they can make a small file large
        raise CracksegError(f"{path}: declares XML entities, which no annotation tool writes; it is not read")
    root = _parse_xml(path, content)
    if root.tag == "annotations" and (root.find("image") is not None or root.find("meta") is not None):
        return read_cvat(path, root)
    other = name_xml(root)
    if other:
        raise CracksegError(f"{path}: {other}")
    return None


def _parse_xml(path: Path, content: bytes) -> ElementTree.Element:
    try:
        try:
            return ElementTree.fromstring(content)
        except ValueError:  # expat knows no encodings of several bytes a letter, such as GBK
            declared = re.match(rb"""<\?xml[^>]*encoding=["']([\w.-]+)["'][^>]*\?>""", content)
            if declared is None:
                raise
            return ElementTree.fromstring(content[declared.end() :].decode(declared[1].decode("ascii")))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise CracksegError(f"{path}: cannot be read as XML ({error}); export or copy it again") from error
