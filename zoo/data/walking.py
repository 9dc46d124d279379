"""Every file below some folders, each folder looked at once: hidden ones, links and loops among them."""

import os
import re
import stat
from collections.abc import Sequence
from typing import NamedTuple

IGNORED = {"__macosx", "thumbs.db", "desktop.ini"}
LIKE_ESCAPE = re.compile(r"\\(?=x(?:[89a-f][0-9a-f]|5c))")  # a backslash that would read as a byte


class Found(NamedTuple):
    """What a walk met: a file to look at, or with a status something that is none, or is not to be."""

    top: str
    parts: tuple[str, ...]  # names below `top`
    status: str = ""
    reason: str = ""

    @property
    def place(self) -> str:
        """Where it lies; undecodable bytes of its name are surrogates, as `open` takes them."""
        return os.sep.join((self.top, *self.parts))


def walk(
    tops: Sequence[str], *, roots: Sequence[str], base: str, follow_links: bool = False
) -> tuple[list[Found], list[Found]]:
    """Everything below some folders that do not lie in one another.

    Real folders come first, links to folders after them in the order of their paths, so that a folder that can be
    reached in two ways is always found in the same one. No link is followed twice, none into a folder that holds it.

    Args:
        tops: Folders to begin at.
        roots: A link that leads out of all of these is not followed.
        base: Folder that reasons name other paths relative to.
        follow_links: Follow those links, too.

    Returns:
        What was met, ordered by top and path; and the folders that were looked at, the tops among them.
    """
    found: list[Found] = []
    seen: dict[str, Found] = {}  # by real path
    links: list[tuple[Found, str]] = []  # with the real path of the folder that holds it
    real_roots = [os.path.realpath(root) for root in roots]

    def descend(folder: Found, real: str):
        """Looks through a real folder; links wait."""
        waiting = [(folder, real)]
        while waiting:
            folder, real = waiting.pop()
            if real in seen:
                found.append(folder._replace(status="link", reason=_elsewhere(seen[real], base)))
                continue
            seen[real] = folder
            try:
                with os.scandir(folder.place) as entries:
                    inside = list(entries)
            except OSError as error:
                found.append(folder._replace(status="unreadable", reason=f"the folder cannot be opened: {why(error)}"))
                continue
            for entry in inside:
                item = Found(folder.top, (*folder.parts, entry.name))
                if hidden(entry.name):
                    found.append(item._replace(status="hidden", reason="hidden files and folders are passed over"))
                elif entry.is_symlink():
                    links.append((item, real))
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append((item, os.path.join(real, entry.name)))
                elif entry.is_file(follow_symlinks=False):
                    found.append(item)
                else:
                    found.append(item._replace(status="unreadable", reason="neither file nor folder"))

    def follow(link: Found, holder: str):
        real = os.path.realpath(link.place)
        try:
            mode = os.stat(link.place).st_mode
        except OSError as error:
            found.append(link._replace(status="unreadable", reason=f"a link that cannot be followed: {why(error)}"))
            return
        if not follow_links and not any(below(real, root) for root in real_roots):
            reason = f"a link to {written(real)}; follow_links=True follows it"
            found.append(link._replace(status="outside the root", reason=reason))
        elif stat.S_ISDIR(mode) and any(below(folder, real) for folder in (holder, *real_roots)):
            found.append(link._replace(status="link", reason="it leads back to a folder that it lies in"))
        elif stat.S_ISDIR(mode):
            descend(link, real)
        elif stat.S_ISREG(mode):
            found.append(link)
        else:
            found.append(link._replace(status="unreadable", reason="a link to neither file nor folder"))

    for top in tops:
        if os.path.islink(top) and top not in roots:
            links.append((Found(top, ()), os.path.realpath(os.path.dirname(top))))
        else:
            descend(Found(top, ()), os.path.realpath(top))
    while links:
        batch = sorted(links)
        links.clear()
        for link, holder in batch:
            follow(link, holder)
    return sorted(found), sorted(seen.values())


def hidden(name: str) -> bool:
    """Whether a name is one that no person gave to a picture."""
    return name.startswith(".") or name.lower() in IGNORED


def below(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it, both without links."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def written(path: str) -> str:
    """A path as text that can be written anywhere: bytes that are no UTF-8 become \\xNN.

    A backslash of the name itself that would read so becomes \\x5c, so that no two files share a path.
    """
    if "\\x" in path:
        path = LIKE_ESCAPE.sub(r"\\x5c", path)
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


def why(error: OSError) -> str:
    """The system's words for an error, without the path."""
    return error.strerror or str(error)


def _elsewhere(folder: Found, base: str) -> str:
    return f"already looked at as {written(os.path.relpath(folder.place, base))}"
