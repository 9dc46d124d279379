"""Tables on disk: a file that is being written is the old one or the new one, never half of one."""

import os


def append(path, text):
    """Adds to a file all or nothing."""
    with open(path, "ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            _write(file, text)
        except OSError:
            file.truncate(size)
            raise


def replace(path, text):
    """Puts a new file in the place of the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", buffering=0) as file:
            _write(file, text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(file, text):
    data = memoryview(text.encode())
    while data:  # a disk that is getting full takes a part
        data = data[file.write(data) :]
    os.fsync(file.fileno())
