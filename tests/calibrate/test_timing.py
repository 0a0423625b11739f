"""Samples are many calls long on a device, and what is counted is the device's own time."""

from __future__ import annotations

from blendrun.calibrate.timing import CALLS, by_device, by_host


class Stream:
    """A device that does what it is told one after the other, later than it is told. Seconds of each call: given."""

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.launched, self.clock = list(seconds), 0, 0.0
        self.told: list[float | Event] = []

    def launch(self) -> None:
        sample = self.launched // CALLS
        self.launched += 1
        self.told.append(self.seconds[min(sample, len(self.seconds) - 1)])

    def event(self) -> Event:
        return Event(self)

    def work(self) -> None:
        for each in self.told:
            if isinstance(each, Event):
                each.at = self.clock
            else:
                self.clock += each
        self.told.clear()


class Event:
    """As torch has it: known once the stream has come to it, in milliseconds."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.at = stream, -1.0

    def record(self) -> None:
        self.stream.told.append(self)

    def synchronize(self) -> None:
        self.stream.work()

    def elapsed_time(self, later: Event) -> float:
        assert min(self.at, later.at) >= 0, "not waited for"
        return 1e3 * (later.at - self.at)


def test_a_devices_calls_are_counted_by_its_own_clock() -> None:
    # Two samples of warm-up, then three: the median of these.
    stream = Stream(9.0, 9.0, 3e-4, 2e-4, 7e-4)
    found = by_device(stream.launch, 3, stream.event)
    assert abs(found - 3e-4) < 1e-12
    assert stream.launched == 5 * CALLS


def test_a_hosts_calls_are_counted_one_by_one() -> None:
    calls: list[None] = []
    assert by_host(lambda: calls.append(None), 3) >= 0
    assert len(calls) == 5
