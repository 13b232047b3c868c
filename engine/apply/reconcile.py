"""Carries out what the differ plans, and remembers what failed.

Owns: the desired state in force, the list of failures and their back-off.
Never: touches the kernel or the plane itself; a driver a kind does.
Invariant: an operation that fails stays in the plan, is tried again with a
growing pause, and never keeps another operation from being done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from engine.apply.delta import Kind, Operation, objects, plan
from engine.errors import KernelError, TowpathError
from engine.model import Desired

log = logging.getLogger(__name__)

FIRST_PAUSE = 1.0  # seconds before the first new try
LONGEST_PAUSE = 60.0


class Driver(Protocol):
    """The writer of one kind of object. `set` is idempotent and repairs what differs.

    `drifts`: somebody else can change these objects, so they are compared at
    every repair; others only after the desired state has changed.
    """

    kind: Kind
    drifts: bool

    def actual(self) -> Mapping[Hashable, object]:
        """What is, under the keys and values of `delta.objects`."""

    def set(self, key: Hashable, value: object) -> None:
        """Make it so, or raise TowpathError and leave nothing half-made."""

    def remove(self, key: Hashable) -> None: ...


@dataclass(frozen=True, slots=True)
class Failure:
    """An operation that did not succeed, why, and when it is tried again (seconds, monotonic)."""

    operation: Operation
    error: TowpathError
    attempts: int
    retry_at: float

    def __str__(self) -> str:
        return f"{self.operation}: {self.error}"


@dataclass(slots=True)
class Outcome:
    """What one pass did."""

    done: list[Operation] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    postponed: int = 0  # still in a pause


class Reconciler:
    def __init__(self, drivers: Iterable[Driver], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._drivers = {driver.kind: driver for driver in drivers}
        self._clock = clock
        self._objects: Mapping[Kind, Mapping[Hashable, object]] | None = None
        self._failures: dict[tuple[Kind, Hashable], Failure] = {}
        self._settled: set[Kind] = set()  # as desired, and nobody else can change them

    @property
    def failures(self) -> list[Failure]:
        return list(self._failures.values())

    @property
    def retry_at(self) -> float | None:
        """When `repair` has something to try again, in seconds of the clock; None when nothing failed."""
        return min((failure.retry_at for failure in self._failures.values()), default=None)

    def apply(self, desired: Desired) -> Outcome:
        """Make `desired` the state in force and lead there as far as possible now."""
        self._objects = objects(desired)
        self._settled.clear()
        return self.repair()

    def repair(self) -> Outcome:
        """Do what still separates actual from desired: failures whose pause is over, and drift."""
        if self._objects is None:
            return Outcome()
        outcome = self._pass()
        removed = any(operation.value is None for operation in outcome.done)
        if removed and outcome.failed:  # what was in the way may be gone now
            self.end_pauses()
            second = self._pass()
            return Outcome([*outcome.done, *second.done], second.failed, second.postponed)
        return outcome

    def end_pauses(self) -> None:
        """Let the next pass try everything again at once."""
        self._failures.clear()

    def withdraw(self, kinds: Iterable[Kind]) -> Outcome:
        """Remove every object of `kinds`, whatever is desired: the clean stop."""
        chosen = set(kinds)
        outcome = Outcome()
        for operation in plan({}, {kind: self._actual(kind) for kind in Kind if kind in chosen}):
            self._attempt(operation, outcome)
        return outcome

    def _pass(self) -> Outcome:
        assert self._objects is not None
        outcome = Outcome()
        kinds = [kind for kind in Kind if kind not in self._settled]
        operations = plan({kind: self._objects[kind] for kind in kinds}, {kind: self._actual(kind) for kind in kinds})
        self._forget_settled(operations)
        for operation in operations:
            if self._in_pause(operation):
                outcome.postponed += 1
            else:
                self._attempt(operation, outcome)
        failing = {kind for kind, _ in self._failures}
        private = {kind for kind, driver in self._drivers.items() if not driver.drifts}
        self._settled |= private - failing
        return outcome

    def _actual(self, kind: Kind) -> Mapping[Hashable, object]:
        driver = self._drivers.get(kind)
        return {} if driver is None else driver.actual()

    def _attempt(self, operation: Operation, outcome: Outcome) -> None:
        try:
            self._perform(operation)
        except TowpathError as error:
            outcome.failed.append(self._remember(operation, error))
        except OSError as error:
            refused = KernelError(error.strerror or str(error), where=str(operation.key))
            outcome.failed.append(self._remember(operation, refused))
        except Exception as error:  # a fault of ours must not stop unrelated objects
            log.exception("%s failed unexpectedly", operation)
            fault = TowpathError(f"internal error: {error!r}", where=str(operation.key), remedy="please report this")
            outcome.failed.append(self._remember(operation, fault))
        else:
            self._failures.pop((operation.kind, operation.key), None)
            outcome.done.append(operation)

    def _perform(self, operation: Operation) -> None:
        driver = self._drivers.get(operation.kind)
        if driver is None:
            raise TowpathError(f"nothing here can make a {operation.kind.words}", where=str(operation.key))
        if operation.value is None:
            driver.remove(operation.key)
        else:
            driver.set(operation.key, operation.value)

    def _remember(self, operation: Operation, error: TowpathError) -> Failure:
        earlier = self._failures.get((operation.kind, operation.key))
        attempts = earlier.attempts + 1 if earlier is not None and earlier.operation == operation else 1
        pause = min(FIRST_PAUSE * 2 ** min(attempts - 1, 16), LONGEST_PAUSE)
        failure = Failure(operation, error, attempts, self._clock() + pause)
        self._failures[operation.kind, operation.key] = failure
        return failure

    def _in_pause(self, operation: Operation) -> bool:
        failure = self._failures.get((operation.kind, operation.key))
        return failure is not None and failure.operation == operation and self._clock() < failure.retry_at

    def _forget_settled(self, operations: Iterable[Operation]) -> None:
        open_keys = {(operation.kind, operation.key) for operation in operations}
        for key in [key for key in self._failures if key not in open_keys]:
            del self._failures[key]
