"""What a run's steps leave to later ones: kept while it works, learned from at its end, at no cost to the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from blendrun.errors import DrainedError, InterruptedRunError
from blendrun.learned.own import OwnSpeed
from blendrun.learned.sample import StepSample
from blendrun.learned.store import StepsUnavailableError
from blendrun.names import Overlap
from blendrun.simulate.price import StepPrice, step_price


@dataclass(slots=True)
class StepLessons:
    """Samples of a run's engines. speed: of engines of this machine; None for others, whose steps teach nothing here.

    warn: told in a sentence why nothing is learned.
    """

    speed: OwnSpeed | None
    warn: Callable[[str], None]
    _samples: list[StepSample] = field(default_factory=list)

    @property
    def price(self) -> StepPrice | None:
        """What is expected of a step. Those of pdmux go on side by side and are not compared."""
        return None if self.speed is None else step_price(self.speed.step, Overlap.EXCLUSIVE)

    def take(self, sample: StepSample) -> None:
        """Steps that an engine took."""
        self._samples.append(sample)

    def learn(self) -> None:
        """Leave them to later runs, once."""
        samples, self._samples = self._samples, []
        if self.speed is None:
            return
        try:
            self.speed.record(samples, time.time())
        except (DrainedError, InterruptedRunError):
            # A signal came meanwhile: it is the run's.
            raise
        except StepsUnavailableError as error:
            self.warn(str(error))
        except Exception as error:  # noqa: BLE001  # what was answered is worth more than what was learned
            self.warn(f"nothing is learned of this run's steps: {type(error).__name__}: {error}")
