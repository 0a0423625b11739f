"""What the command line lets request lines do. By default they reach nothing beyond their own bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blendrun.endpoints.adapters import check_adapter
from blendrun.endpoints.media import Place, Reference, place_of, references
from blendrun.errors import ErrorCode, LineError


@dataclass(frozen=True, slots=True)
class Rules:
    """media_files, media_urls: whether media may be named by path or address. adapters: names of those declared; None
    where nobody knows them, and any may be named.

    base: names of the loaded model, which a line may give where adapters are declared.
    """

    media_files: bool = False
    media_urls: bool = False
    adapters: tuple[str, ...] | None = ()
    base: tuple[str, ...] = ()

    def check(self, body: dict[str, Any]) -> None:
        """Raises LineError where a valid body asks for more than these rules allow."""
        if self.adapters is not None:
            check_adapter(body, self.adapters, self.base)
        for reference in references(body):
            self._check_media(reference)

    def _check_media(self, reference: Reference) -> None:
        place = place_of(reference)
        if place is Place.ADDRESS and not self.media_urls:
            raise _unavailable(reference, "is fetched only with --allow-media-urls")
        if place is Place.FILE and not self.media_files:
            raise _unavailable(reference, "is read only with --allow-media-files DIR; or put it in a data: URL")


# To plan, when nothing is read or run: `blendrun run` decides what it allows.
FOR_PLANNING = Rules(media_files=True, media_urls=True, adapters=None)


def _unavailable(reference: Reference, why: str) -> LineError:
    return LineError(ErrorCode.MEDIA_UNAVAILABLE, f"`{reference.field}`: {reference.shown} {why}")
