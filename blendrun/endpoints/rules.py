"""What the command line lets request lines do. By default they reach nothing beyond their own bytes, and each field of
theirs must have an effect on SGLang's engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blendrun.endpoints.adapters import check_adapter
from blendrun.endpoints.dialects import for_sglang
from blendrun.endpoints.effects import BODIES
from blendrun.endpoints.fields import check_fields
from blendrun.endpoints.forms import check_forms
from blendrun.endpoints.media import Place, Reference, place_of, references
from blendrun.endpoints.messages import check_chat, check_response_format
from blendrun.endpoints.pairs import Reads, reads_of
from blendrun.endpoints.unheeded import check_effects
from blendrun.errors import ErrorCode, LineError
from blendrun.names import UnknownFields


@dataclass(frozen=True, slots=True)
class Rules:
    """media_files, media_urls: whether media may be named by path or address; media_folder: where files may be read, as
    far as that is known. adapters: names of those declared; None
    where nobody knows them, and any may be named.

    base: names of the loaded model, which a line may give where adapters are declared; None where names are not judged.
    unanswered: of lines that decode nothing, those that the model's head does not answer, and why.
    unknown: what becomes of fields without effect; None where the engine is a server, which knows itself what it reads.
    """

    media_files: bool = False
    media_urls: bool = False
    media_folder: Path | None = None
    adapters: tuple[str, ...] | None = ()
    base: tuple[str, ...] | None = ()
    unknown: UnknownFields | None = UnknownFields.ERROR
    unanswered: Mapping[Reads, str] = field(default_factory=dict)

    def admit(self, url: str, body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """A valid body of one spelling as the engine is given it, and the fields that are passed over with a warning.

        Raises LineError where it asks for more than these rules allow, or for what no engine of SGLang does.
        """
        self.check(body)
        wanted = reads_of(url, body)
        if wanted is not None and (why := self.unanswered.get(wanted)) is not None:
            raise LineError(ErrorCode.INVALID_REQUEST, why)
        if self.unknown is None or url not in BODIES:
            return body, ()
        told = for_sglang(url, {name: value for name, value in body.items() if value is not None})
        check_fields(told)
        check_response_format(told)
        if url == _CHAT:
            check_chat(told)
        noted = check_effects(url, body, self.unknown)
        check_forms(told)
        return told, noted

    def heed(self, url: str, body: dict[str, Any]) -> tuple[str, ...]:
        """The fields of another API's body that are passed over with a warning. Raises LineError as `admit`."""
        return () if self.unknown is None else check_effects(url, body, self.unknown)

    def check(self, body: dict[str, Any]) -> None:
        """Raises LineError where a valid body asks for more than these rules allow."""
        if self.adapters is not None and self.base is not None and self.unknown is not None:
            check_adapter(body, self.adapters, self.base)
        for reference in references(body):
            self._check_media(reference)

    def _check_media(self, reference: Reference) -> None:
        place = place_of(reference)
        if place is Place.ADDRESS and not self.media_urls:
            raise _unavailable(reference, "is fetched only with --allow-media-urls")
        if place is Place.FILE and not self.media_files:
            raise _unavailable(reference, "is read only with --allow-media-files DIR; or put it in a data: URL")


_CHAT = "/v1/chat/completions"
# To plan, when nothing is read or run: `blendrun run` decides what it allows.
FOR_PLANNING = Rules(media_files=True, media_urls=True, adapters=None, unknown=UnknownFields.WARN)


def _unavailable(reference: Reference, why: str) -> LineError:
    return LineError(ErrorCode.MEDIA_UNAVAILABLE, f"`{reference.field}`: {reference.shown} {why}")
