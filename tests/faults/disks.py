"""File systems that are really full, read-only or broken.

They are mounted in a namespace of their own, which ends with the process that holds it: no test leaves a mount behind.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.needs import needs

PAGE = 4096


class Mounts:
    """What is mounted in the namespace of the process `holder`; paths lead there from outside."""

    def __init__(self, holder: int, rootless: bool) -> None:
        self._enter = ["nsenter", "-t", str(holder), "-m", *(["-U", "--preserve-credentials"] if rootless else [])]
        self._root = Path(f"/proc/{holder}/root")

    def tmpfs(self, target: Path, kib: int) -> Path:
        """A file system in memory at `target` (made here)."""
        target.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", target)
        return self.path(target)

    def over(self, target: Path, kib: int) -> None:
        """A file system in memory over a folder inside another one of this namespace."""
        self.path(target).mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", target)

    def ext4(self, target: Path, image: Path) -> Path:
        """The file system of an image, which turns read-only at its first error. Raises CalledProcessError."""
        target.mkdir(exist_ok=True)
        self._mount("-o", "loop,errors=remount-ro", image, target)
        return self.path(target)

    def break_ext4(self, target: Path) -> None:
        """Report an error to the file system, as a disk would; it turns read-only by itself."""
        device = self._run("findmnt", "-no", "SOURCE", target).strip()
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("broken by a test")

    def unmount(self, target: Path) -> None:
        self._run("umount", target)

    def read_only(self, target: Path, on: bool) -> None:
        self._mount("-o", f"remount,bind,{'ro' if on else 'rw'}", target)

    def path(self, target: Path) -> Path:
        return self._root / target.relative_to("/")

    def _mount(self, *words: str | Path) -> None:
        self._run("mount", *words)

    def _run(self, *words: str | Path) -> str:
        command = [*self._enter, *map(str, words)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def namespace() -> Iterator[Mounts]:
    """A place for mounts: root's own, or any user's where the kernel lets users have one. Skips the test elsewhere."""
    rootless = os.getuid() != 0
    command = ["unshare", "-rm" if rootless else "-m", "sh", "-c", "echo ready; exec cat"]
    try:
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        pytest.skip(needs("unshare(1), to mount a file system", "apt-get install util-linux"))
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() != b"ready\n":
                pytest.skip(needs("a user who may mount in a namespace of their own", "run the tests as root"))
            yield Mounts(holder.pid, rootless)
        finally:
            holder.stdin.close()


def free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def fill(folder: Path, leave: int) -> Path:
    """Take all room but `leave` bytes; deleting the file that is returned gives it back."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        while (excess := free_bytes(folder) - leave) > 0:
            file.write(bytes(excess))
            file.flush()
    return ballast
