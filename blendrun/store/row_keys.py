"""Which row of a job a key names: keys as the journal and the lists beside it have them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from blendrun.jobs.job import Job


class RowKeys:
    """Of some rows of a job, about 24 bytes each."""

    def __init__(self, job: Job, rows: NDArray[np.int64], salt: bytes) -> None:
        """rows: (n,), accepted ones. salt: as for `Job.key`."""
        # Fixed width of 16: NumPy's stripping of trailing zero bytes cannot make two keys equal.
        keys = np.frombuffer(b"".join(job.key(int(row), salt) for row in rows), "S16")
        order = np.argsort(keys, kind="stable")
        self._keys, self._rows = keys[order], rows[order]

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, keys: Iterable[bytes]) -> NDArray[np.int64]:
        """The row of each key, of 16 bytes; -1 for what is no key of these rows."""
        wanted = np.frombuffer(b"".join(keys), "S16")
        if not len(self._keys):
            return np.full(len(wanted), -1, np.int64)
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[places] == wanted, self._rows[places], -1)
