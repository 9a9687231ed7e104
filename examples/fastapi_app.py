"""Jobs inside a FastAPI application: a POST dispatches, a GET tells how far the job is.

    python examples/fastapi_app.py            # http://127.0.0.1:8000, or PORT
    curl -X POST 'http://127.0.0.1:8000/reports?day=2030-01-31'
    curl http://127.0.0.1:8000/reports/ID

The jobs run in the process of the web server. ``async with runner.start(consume=False)`` in a lifespan of your own
only dispatches, for workers elsewhere.
"""

from __future__ import annotations

import asyncio
import os
from datetime import date
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException

from taskrunner import JobNotFound, JobStatus, TaskRunner

runner = TaskRunner(namespace="fastapi-example")
app = FastAPI(lifespan=runner.lifespan)


@runner.task(max_retry=2, give_up_on=ValueError, result_ttl=3600)
async def report(day: date) -> dict[str, Any]:
    """The parameter is rebuilt as the type of its annotation."""
    if day.year < 2000:
        raise ValueError(f"there are no figures for {day.year}")
    await asyncio.sleep(0.1)
    return {"day": day.isoformat(), "weekday": day.strftime("%A")}


@app.post("/reports", status_code=202)
async def order_report(day: date) -> dict[str, str]:
    job = await report.dispatch(day)
    return {"id": job.id}


@app.get("/reports/{id}")
async def show_report(id: str) -> dict[str, Any]:
    job = runner.job(id)
    try:
        info = await job.info()
    except JobNotFound as unknown:
        raise HTTPException(404, str(unknown)) from None
    shown: dict[str, Any] = {"id": id, "status": info.status, "attempts": info.attempts}
    if info.status is JobStatus.SUCCEEDED:
        shown["result"] = await job.result()
    elif info.error is not None:
        shown["error"] = str(info.error)
    return shown


@app.get("/ready")
async def ready() -> dict[str, bool]:
    """For an orchestrator: true while this process takes jobs."""
    if not runner.ready:
        raise HTTPException(503, "not consuming")
    return {"ready": True}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
