"""Python's search for garbage in cycles, which in a node finds next to nothing.

What a node has made until it is ready, 150,000 objects, stays until its end. Each search among all
of them took 50 to 100 ms, in which nobody was answered, and a tenth of the CPU of a model call.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG_MAX: Final = 10_000
"""So many more objects than were freed make the youngest be searched; 700 is Python's own, and as
much as a few requests under way come to."""


def keep_for_good() -> None:
    """Search no more among what there is now; what is made from now on is searched as ever."""
    gc.freeze()
    _, *older = gc.get_threshold()
    gc.set_threshold(YOUNG_MAX, *older)
