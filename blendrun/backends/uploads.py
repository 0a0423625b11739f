"""`-o ADDRESS` and `--upload`: where a run's files go once they are written, and what they are called here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from blendrun.errors import UsageError
from blendrun.paths import refuse_address
from blendrun.remote.address import Address, is_address, parse_address
from blendrun.remote.send import check_sendable
from blendrun.store.folder import ERRORS_SUFFIX
from blendrun.store.uploads import Upload

if TYPE_CHECKING:
    from blendrun.backends.options import RunOptions


def with_local_output(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options with a file in the place of an output that is an address: that is `upload` then.

    The file has the address's own name and lies in the working folder; without a name it is the default one.
    Raises UsageError.
    """
    output = given.get("output")
    if not is_address(output if isinstance(output, str) else ""):
        return dict(given)
    address = parse_address(str(output))
    if given.get("upload") is not None:
        raise UsageError(
            f"-o {address.shown} is an address, and --upload names one too; give -o FILE, or leave one out"
        )
    return {**given, "output": address.name or None, "upload": address.text}


def upload_of(options: RunOptions) -> Upload | None:
    """What is to be sent where; None for nothing. Raises UsageError."""
    if options.upload is None:
        if options.upload_errors is not None:
            raise UsageError("--upload-errors goes with --upload ADDRESS, or with an address for -o")
        return None
    if options.shard is not None:
        raise UsageError("a shard's answers are merged here: give -o FILE, and send what `blendrun merge` writes")
    output = _address(options.upload, "--upload")
    if options.upload_errors is not None:
        return Upload(output, _address(options.upload_errors, "--upload-errors"))
    return Upload(output, output.beside(ERRORS_SUFFIX))


def address_of(text: str, option: str) -> Address | None:
    """An output as an address; None for a file. Raises UsageError for an address that nothing is sent to."""
    if not is_address(text):
        refuse_address(text, option)
        return None
    address = parse_address(text)
    check_sendable(address)
    return address


def _address(text: str, option: str) -> Address:
    address = address_of(text, option)
    if address is None:
        raise UsageError(f"{option} takes an address: https://..., s3://..., gs://... or az://..., not {text!r:.80}")
    return address
