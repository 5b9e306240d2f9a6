"""What differs between the config of a run and that of its continuation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

FOUND = "data.found"  # which images: what a config cannot say
# What may change between a run and its continuation: it does not enter the training
# step.
FREE_SECTIONS = (
    *("log", "checkpoint", "evaluate", "data.max_bad", "data.num_workers"),
    "steps_per_call",
)
# What says which arrays the networks and the optimizer have.
FIXED = ("model", "optim.name", "objective.name")
# What a change means beyond the new value from that step on.
MEANING = {
    "batch_size": "an epoch has another number of steps, and schedules and order of "
    "the images go on as if all steps so far had been of this batch size",
    "epochs": "the schedules go on as those of this length",
    "seed": "order and augmentation of the images go on as those of this seed",
    "data": "the order of the images goes on as that of these data",
}


def refuse_changes(
    workdir: epath.PathLike, changes: list[tuple], fixed: Sequence[str]
) -> None:
    """Raises ValueError where there are changes, and says how to take them."""
    if not changes:
        return
    differing = "; ".join(
        f"{_full(field)} is {ours!r}, the run has {theirs!r}"
        for field, ours, theirs in changes
    )
    names = ",".join(field for field, _, _ in changes if not under(field, fixed))
    take = f", or take the change with --allow_changes={names}" if names else ""
    raise ValueError(
        f"{workdir} holds a run of another config: {differing}. Use the same config to "
        f"continue it, or another --workdir{take}"
    )


def change_sentence(
    meaning: Mapping[str, str], step: int, field: str, ours: Any, theirs: Any
) -> str:
    """Returns what a change means from a step on."""
    # Of a section and a field of it, the field says more.
    names = [name for name in meaning if under(field, (name,))]
    known = [meaning[max(names, key=len)]] if names else []
    change = f"{_full(field)} was {theirs!r} and is {ours!r} from step {step} on"
    return "; ".join([change, *known])


def _full(field: str) -> str:
    return field if under(field, (FOUND,)) else f"config.{field}"


def under(field: str, names: Sequence[str]) -> bool:
    """Whether a field is one of the names, or lies in a section that is."""
    return any(field == name or field.startswith(f"{name}.") for name in names)


def changed_fields(ours: Any, theirs: Any, prefix: str = "") -> list[tuple]:
    """Returns (dotted field, our value, their value) for each one that differs."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return [] if ours == theirs else [(prefix, ours, theirs)]
    fields = sorted(set(ours) | set(theirs))
    start = f"{prefix}." if prefix else ""
    return [
        difference
        for field in fields
        for difference in changed_fields(
            ours.get(field), theirs.get(field), f"{start}{field}"
        )
    ]
