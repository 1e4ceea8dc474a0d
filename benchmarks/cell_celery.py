"""The task that Celery's workers run for `benchmarks.cell_peers`, in an interpreter that has it."""

from __future__ import annotations

import os

from celery import Celery  # type: ignore[import-not-found]

from benchmarks.cell_peers import CELERY_URL, executed

app = Celery("cells", broker=os.environ[CELERY_URL], backend=os.environ[CELERY_URL])


@app.task  # type: ignore[untyped-decorator]
def run(code: str) -> str:
    return executed(code)
