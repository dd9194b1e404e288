"""Channel labels: who each index of each dimension is, and which of them live and die together."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Dim = Labels | None
"""One dimension of a tensor: a label per index, or None where the indices can never be removed."""


@dataclass(frozen=True)
class Pin:
    """Labels that stay, and why."""

    labels: Labels
    reason: str


class LabelSets:
    """Disjoint sets of labels (union-find), vectorised over arrays of labels.

    >>> sets = LabelSets()
    >>> a, b = sets.fresh(3), sets.fresh(3)
    >>> sets.unite(a, b)
    >>> bool((sets.find(a) == sets.find(b)).all())
    True
    """

    def __init__(self) -> None:
        self._parent = np.arange(1024, dtype=np.int64)
        self._size = 0
        self.pins: list[Pin] = []

    def __len__(self) -> int:
        return self._size

    def fresh(self, n: int) -> Labels:
        """`n` new labels, each alone in its set."""
        start, self._size = self._size, self._size + n
        while self._size > len(self._parent):
            self._parent = np.concatenate([self._parent, np.arange(len(self._parent), 2 * len(self._parent))])
        return np.arange(start, self._size, dtype=np.int64)

    def find(self, labels: Labels) -> Labels:
        """The representative of each label's set."""
        roots = self._parent[labels]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self._parent[labels] = roots  # path compression keeps later look-ups flat
        return roots

    def unite(self, a: Labels, b: Labels) -> None:
        """Unite a[i] with b[i] for every i."""
        if a is b:
            return
        while True:
            ra, rb = self.find(a.ravel()), self.find(b.ravel())
            apart = ra != rb
            if not apart.any():
                return
            # The smaller root wins; a root named twice keeps one parent per pass, so pass again until none is apart.
            self._parent[np.maximum(ra, rb)[apart]] = np.minimum(ra, rb)[apart]

    def pin(self, labels: Dim, reason: str) -> None:
        if labels is not None and labels.size:
            self.pins.append(Pin(labels, reason))

    def pinned(self, labels: Labels, reason: str) -> "LabelSets":
        """A copy with these labels pinned, too."""
        copy = LabelSets()
        copy._parent, copy._size = self._parent.copy(), self._size
        copy.pins = [*self.pins, Pin(labels, reason)]
        return copy

    def roots(self) -> Labels:
        """The representative of every label handed out so far."""
        return self.find(np.arange(self._size, dtype=np.int64))

    def pinned_reasons(self) -> dict[int, str]:
        """Root -> the first reason why its set stays."""
        reasons: dict[int, str] = {}
        for pin in self.pins:
            for root in np.unique(self.find(pin.labels.ravel())).tolist():
                reasons.setdefault(root, pin.reason)
        return reasons
