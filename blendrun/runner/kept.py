"""Whether answers keep what their requests were promised, looked at as they arrive."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import orjson

from blendrun.endpoints.promises import Promise
from blendrun.engine.base import Result
from blendrun.errors import ErrorCode
from blendrun.events import Listener, Note
from blendrun.jobs.job import Job
from blendrun.store.unkept import UnkeptAnswers


@dataclass(slots=True)
class AnswerCheck:
    """listed: where answers that break their promise are kept; refuse: whether they are errors instead.

    placeholders: whether the engine has no model, so that its answers keep nothing.
    """

    job: Job
    salt: bytes
    listed: UnkeptAnswers
    refuse: bool
    placeholders: bool
    listener: Listener
    _told: bool = field(default=False, init=False)

    def judged(self, result: Result, custom_id: str, promise: Promise | None, taken: str | None = None) -> Result:
        """The result as it is to be kept: itself, or an error with the answer beside it.

        taken: see `journal.Record`.
        """
        if promise is None or result.error_code is not None or self.placeholders:
            return result
        reason = promise.broken_by(orjson.loads(result.body))
        if reason is None:
            return result
        # A model may write half of a surrogate pair.
        reason = reason.encode("utf-8", "replace").decode()
        if self.refuse:
            code = str(ErrorCode.INVALID_ANSWER)
            return msgspec.structs.replace(result, error_code=code, error_message=reason)
        self.listed.add(self.job, result.row, self.job.key(result.row, self.salt), custom_id, reason, taken)
        if not self._told:
            self._told = True
            name, number = self.job.where(result.row)
            text = f"an answer does not keep its form, {name}:{number}: {reason}; such answers are counted"
            self.listener(Note(text, warning=True))
        return result
