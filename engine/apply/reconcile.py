"""Carries out what the differ plans, and remembers what failed.

Owns: the desired state in force, the list of failures and their back-off.
Never: touches the kernel or the plane itself; a driver a kind does.
Invariant: an operation that fails stays in the plan, is tried again with a
growing pause, and never keeps another operation from being done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Container, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Protocol, runtime_checkable

from engine.apply.delta import LISTING, Kind, Objects, Operation, objects, plan
from engine.errors import KernelError, TowpathError
from engine.model import Desired

log = logging.getLogger(__name__)

FIRST_PAUSE = 1.0  # seconds before the first new try
LONGEST_PAUSE = 60.0


class Driver(Protocol):
    """The writer of one kind of object. `set` is idempotent and repairs what differs.

    `drifts`: somebody else can change these objects unnoticed, so they are
    compared at every repair; others only after the desired state has changed,
    or when `unsettle` says that they are not what they were.
    """

    kind: Kind
    drifts: bool

    def actual(self) -> Mapping[Hashable, object]:
        """What is, under the keys and values of `delta.objects`."""

    def set(self, key: Hashable, value: object) -> None:
        """Make it so, or raise TowpathError and leave nothing half-made."""

    def remove(self, key: Hashable) -> None: ...


@runtime_checkable
class BulkDriver(Protocol):
    """A driver for which many objects at once cost less than each alone."""

    def change(self, wanted: Mapping[Hashable, object | None]) -> Mapping[Hashable, TowpathError]:
        """Set these objects, or remove those whose value is None; those that were refused, and why."""


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

    def __add__(self, later: Outcome) -> Outcome:
        return Outcome([*self.done, *later.done], [*self.failed, *later.failed], max(self.postponed, later.postponed))


class Reconciler:
    def __init__(self, drivers: Iterable[Driver], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._drivers = {driver.kind: driver for driver in drivers}
        self._clock = clock
        self._desired: Desired | None = None
        self._objects: Objects | None = None
        self._failures: dict[tuple[Kind, Hashable], Failure] = {}
        self._settled: dict[Kind, Mapping[Hashable, object]] = {}  # as they are, since nobody else changes them

    @property
    def failures(self) -> list[Failure]:
        return list(self._failures.values())

    @property
    def retry_at(self) -> float | None:
        """When `repair` has something to try again, in seconds of the clock; None when nothing failed."""
        return min((failure.retry_at for failure in self._failures.values()), default=None)

    def prepare(self, desired: Desired, kinds: Collection[Kind]) -> Outcome:
        """Do what `apply` would, for objects of `kinds` alone; the rest is left to a later `apply`."""
        self._objects = objects(desired, self._desired, self._objects)
        self._desired = desired
        return self._pass(kinds)

    def apply(self, desired: Desired) -> Outcome:
        """Make `desired` the state in force and lead there as far as possible now."""
        self._objects = objects(desired, self._desired, self._objects)
        self._desired = desired
        return self.repair()

    def unsettle(self, kind: Kind) -> None:
        """Objects of this kind are not what they were: compare them again."""
        self._settled.pop(kind, None)

    def repair(self) -> Outcome:
        """Do what still separates actual from desired: failures whose pause is over, and drift."""
        if self._objects is None:
            return Outcome()
        outcome = self._pass()
        removed = any(operation.value is None for operation in outcome.done)
        if removed and outcome.failed:  # what was in the way may be gone now
            self.end_pauses()
            second = self._pass()
            return Outcome(outcome.done) + second
        return outcome

    def failure_of(self, kind: Kind, key: Hashable) -> TowpathError | None:
        """Why the object is not as desired; None when it is, as far as is known."""
        failure = self._failures.get((kind, key))
        return failure.error if failure else None

    def is_due(self, kind: Kind, key: Hashable) -> bool:
        """Whether the object failed, and the next pass tries it again."""
        failure = self._failures.get((kind, key))
        return failure is not None and failure.retry_at <= self._clock()

    def end_pause(self, kind: Kind, key: Hashable) -> None:
        """Let the next pass try this object again at once."""
        self._failures.pop((kind, key), None)

    def end_pauses(self) -> None:
        """Let the next pass try everything again at once."""
        self._failures.clear()

    def withdraw(self, kinds: Iterable[Kind]) -> Outcome:
        """Remove every object of `kinds`, whatever is desired: the clean stop."""
        outcome = Outcome()
        self._attempt(plan({}, self._listed(kinds, outcome)), outcome)
        return outcome

    def _pass(self, chosen: Collection[Kind] = tuple(Kind)) -> Outcome:
        assert self._objects is not None
        outcome = Outcome()
        present: dict[Kind, Mapping[Hashable, object]] = {
            kind: known for kind, known in self._settled.items() if known is not self._objects[kind]
        }
        present |= self._listed((kind for kind in chosen if kind not in self._settled), outcome)
        operations = plan({kind: self._objects[kind] for kind in present}, present)
        self._forget_settled(operations, kinds=present)
        due = [operation for operation in operations if not self._in_pause(operation)]
        outcome.postponed += len(operations) - len(due)
        self._attempt(due, outcome)
        self._settle(chosen)
        return outcome

    def _listed(self, kinds: Iterable[Kind], outcome: Outcome) -> dict[Kind, Mapping[Hashable, object]]:
        """What is. A kind that cannot be listed is a failure by itself, and does not keep the others waiting."""
        found: dict[Kind, Mapping[Hashable, object]] = {}

        def look_at(kind: Kind) -> None:
            found[kind] = self._actual(kind)

        for kind in sorted(kinds):
            look = Operation(kind, LISTING, LISTING)
            if self._in_pause(look):
                outcome.postponed += 1
            elif error := self._tried(partial(look_at, kind), look):
                outcome.failed.append(self._remember(look, error))
        return found

    def _settle(self, compared: Collection[Kind]) -> None:
        """What is as desired and can only be changed by us need not be compared until something else is desired."""
        assert self._objects is not None
        failing = {kind for kind, _ in self._failures}
        self._settled = {
            kind: self._objects[kind]
            for kind, driver in self._drivers.items()
            if not driver.drifts and kind not in failing and (kind in compared or kind in self._settled)
        }

    def _actual(self, kind: Kind) -> Mapping[Hashable, object]:
        driver = self._drivers.get(kind)
        return {} if driver is None else driver.actual()

    def _attempt(self, operations: Iterable[Operation], outcome: Outcome) -> None:
        """In their order; neighbours of a kind together where its driver gains by it."""
        for kind, group in groupby(operations, key=lambda operation: operation.kind):
            driver: object = self._drivers.get(kind)
            if isinstance(driver, BulkDriver):
                self._attempt_together(driver, list(group), outcome)
            else:
                for operation in group:
                    self._note(operation, self._tried(partial(self._perform, operation), operation), outcome)

    def _attempt_together(self, driver: BulkDriver, group: list[Operation], outcome: Outcome) -> None:
        refused: dict[Hashable, TowpathError] = {}
        wanted = {operation.key: operation.value for operation in group}
        error = self._tried(lambda: refused.update(driver.change(wanted)), group[0])
        for operation in group:
            self._note(operation, error or refused.get(operation.key), outcome)

    def _tried(self, work: Callable[[], None], operation: Operation) -> TowpathError | None:
        return tried(work, str(operation.key))

    def _note(self, operation: Operation, error: TowpathError | None, outcome: Outcome) -> None:
        if error is not None:
            outcome.failed.append(self._remember(operation, error))
            return
        if self._failures:
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
        if not self._failures:
            return False
        failure = self._failures.get((operation.kind, operation.key))
        return failure is not None and failure.operation == operation and self._clock() < failure.retry_at

    def _forget_settled(self, operations: Iterable[Operation], *, kinds: Container[Kind]) -> None:
        """Failures of these kinds that are no longer to be done are over."""
        if not self._failures:
            return
        open_keys = {(operation.kind, operation.key) for operation in operations}
        for kind, key in list(self._failures):
            if kind in kinds and (kind, key) not in open_keys:
                del self._failures[kind, key]


def tried(work: Callable[[], object], where: str) -> TowpathError | None:
    """What came of the work, if it was not success: a fault of ours must not stop unrelated objects."""
    try:
        work()
    except TowpathError as error:
        return error
    except OSError as error:
        return KernelError(error.strerror or str(error), where=where)
    except Exception as error:
        log.exception("%s failed unexpectedly", where)
        return TowpathError(f"internal error: {error!r}", where=where, remedy="please report this")
    return None
