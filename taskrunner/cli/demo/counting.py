"""The work: what a file consists of. Twice, in different ways, so that the one can check the other."""

from __future__ import annotations

import hashlib
import lzma
import os
import random
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass

SAMPLE = 256 * 1024
"""Bytes at the beginning of a file that are packed, to tell how well it packs. Enough for that, and no single file
takes much longer than the others."""


@dataclass(frozen=True, slots=True)
class Count:
    """What is in a file. ``sampled`` bytes at its beginning pack to ``packed`` bytes; 0 where nobody packed it."""

    size: int
    lines: int
    words: int
    sha256: str
    packed: int = 0
    sampled: int = 0


def library_files() -> list[str]:
    """Every file of this Python's standard library that can be read, without what is installed or compiled into it.

    Shuffled, always in the same way, so that large and small files come in an even mix.
    """
    found: list[str] = []
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = sorted(set(folders) - {"site-packages", "dist-packages", "__pycache__"})
        paths = (os.path.join(folder, name) for name in sorted(names))
        found += [path for path in paths if os.path.isfile(path) and os.access(path, os.R_OK)]
    random.Random(0).shuffle(found)
    return found


def count_by_line(path: str) -> Count:
    """Counts a file line by line, in little memory, and packs its beginning."""
    digest, packer = hashlib.sha256(), lzma.LZMACompressor()
    size = lines = words = packed = 0
    with open(path, "rb") as file:
        for line in file:
            if size < SAMPLE:
                packed += len(packer.compress(line[: SAMPLE - size]))
            digest.update(line)
            size += len(line)
            lines += line.endswith(b"\n")
            words += len(line.split())
    packed += len(packer.flush())
    return Count(size, lines, words, digest.hexdigest(), packed, min(size, SAMPLE))


def count_at_once(path: str) -> Count:
    """Counts a file in one piece, without packing it."""
    with open(path, "rb") as file:
        content = file.read()
    return Count(len(content), content.count(b"\n"), len(content.split()), hashlib.sha256(content).hexdigest())


def count_all(paths: Iterable[str], counted: Callable[[int], None]) -> dict[str, Count]:
    """Counts files one after another; ``counted`` hears how many are done."""
    found: dict[str, Count] = {}
    for path in paths:
        found[path] = count_at_once(path)
        counted(len(found))
    return found
