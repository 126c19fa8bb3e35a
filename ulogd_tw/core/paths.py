"""Paths as values of options: what stands against them, as far as looking shows. Nothing is opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

_STANDARD = ("", "-", "stdout", "syslog")
"""Values that are no path."""


def input_file(text: str) -> str:
    """The path of a file that is read."""
    return text


def output_file(text: str) -> str:
    """The path of a file that is written, or made."""
    return text


def new_socket(text: str) -> str:
    """The path of a Unix socket that is made."""
    return text


def directory(text: str) -> str:
    """The path of a directory that is there."""
    return text


def network_namespace(text: str) -> str:
    """The path of a network namespace."""
    return text


def problem(read: Callable[[str], object], path: object) -> str:
    """The reason why a path of this kind cannot be used, with the remedy; empty for no problem, or for another kind."""
    if not isinstance(path, str) or path in _STANDARD:
        return ""
    if read is input_file:
        return unreadable(path)
    if read is directory and not os.path.isdir(path):
        return f"there is no directory {path}; make it: mkdir -p {path}"
    if read is network_namespace and not os.path.exists(path):
        return f"there is no network namespace {path}; ip netns list shows the names"
    return unwritable(path) if read in (output_file, new_socket) else ""


def unreadable(path: str) -> str:
    """Why a file cannot be read."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"{path}: {error.strerror}; correct the path, or make the file"
    if stat.S_ISDIR(mode):
        return f"{path} is a directory; name a file in it"
    return "" if stat.S_ISREG(mode) else f"{path} is not a regular file; name one"


def unwritable(path: str) -> str:
    """Why a file cannot be made or written: its directory is missing, or it is a directory itself."""
    folder = os.path.dirname(os.path.abspath(path))
    if "%" not in path and os.path.isdir(path):
        return f"{path} is a directory; name a file in it"
    if "%" in folder or os.path.isdir(folder):
        return ""
    return f"there is no directory {folder}; make it: mkdir -p {folder}"
