"""What the figures of a gradient monitor mean."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

# Mean losses of order one have gradient norms of 0.01 to 100; norms are commonly clipped at 0.1 to 10 where they
# explode (Pascanu et al. 2013, https://arxiv.org/abs/1211.5063, clip at 0.5 to 10 times the run's own average).
EXPLODING_NORM = 1e3
# "This ratio should be somewhere around 1e-3" (Karpathy, https://cs231n.github.io/neural-networks-3/#ratio). The first
# steps of a ResNet-20 that does well at rate 0.1 with momentum 0.9 move its head by 0.15, so the line lies above that.
EXPLODING_RATIO = 0.3
# Back-propagated gradients should have the same size in all layers (Glorot and Bengio 2010,
# https://proceedings.mlr.press/v9/glorot10a.html). Layer by layer an untrained MobileNetV2 comes down to 7e-4 of its
# largest; each layer of sigmoids takes a factor of 4 or more, so seven of them pass the line.
VANISHING_SHARE = 1e-4
# "As much as 40% of your network can be dead" at too high a rate (Karpathy,
# https://cs231n.github.io/neural-networks-1/#actfun); Lu et al. 2019, https://arxiv.org/abs/1903.06733, show that deep
# narrow networks are born so.
DEAD_SHARE = 0.4
RECENT = 5  # records whose median counts, so that one odd step is no verdict
WORST_FIRST = ("exploding", "dead", "vanishing", "healthy")


def verdicts(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Group to one of `WORST_FIRST`, by the last records of a `GradientMonitor`; empty without a record."""
    if not records:
        return {}
    recent = records[-RECENT:]
    largest = max(_median(recent, group, "gradient_norm", 0.0) for group in records[-1]["groups"])
    return {group: _verdict(recent, group, largest) for group in records[-1]["groups"]}


def worst(found: Mapping[str, str]) -> str | None:
    """The gravest of some verdicts; None where there are none."""
    return min(found.values(), key=WORST_FIRST.index, default=None)


def _verdict(recent, group, largest):
    last = recent[-1]["groups"][group]
    norm = _median(recent, group, "gradient_norm", 0.0)
    finite = all(math.isfinite(last[key] or 0) for key in ("gradient_norm", "weight_norm", "update_ratio"))
    if not finite or norm > EXPLODING_NORM or _median(recent, group, "update_ratio", 0.0) > EXPLODING_RATIO:
        return "exploding"
    if _median(recent, group, "dead", 0.0) > DEAD_SHARE:
        return "dead"
    return "vanishing" if norm <= VANISHING_SHARE * largest else "healthy"


def _median(recent, group, key, default):
    """Over the records that know the value and where it is finite."""
    values = [record["groups"][group][key] for record in recent if group in record["groups"]]
    return statistics.median([v for v in values if v is not None and math.isfinite(v)] or [default])
