"""Jobs inside an aiohttp application: a POST dispatches, a GET tells how far the job is.

    python examples/aiohttp_app.py            # http://127.0.0.1:8080, or PORT
    curl -X POST 'http://127.0.0.1:8080/greetings?name=Ann'
    curl http://127.0.0.1:8080/greetings/ID

The jobs run in the process of the web server; the runner starts and stops with the application.
"""

from __future__ import annotations

import os
import time

from aiohttp import web

from taskrunner import JobContext, JobNotFound, JobStatus, TaskRunner

runner = TaskRunner(namespace="aiohttp-example")


@runner.task
def greet(ctx: JobContext, name: str) -> str:
    """A plain function runs in a thread, so that it may block without holding up the server."""
    time.sleep(0.1)
    ctx.log.info("greeting %s", name)
    return f"Hello {name}"


async def order_greeting(request: web.Request) -> web.Response:
    job = await greet.dispatch(request.query.get("name", "nobody"))
    return web.json_response({"id": job.id}, status=202)


async def show_greeting(request: web.Request) -> web.Response:
    job = runner.job(request.match_info["id"])
    try:
        info = await job.info()
    except JobNotFound as unknown:
        return web.json_response({"error": str(unknown)}, status=404)
    shown = {"id": job.id, "status": info.status}
    if info.status is JobStatus.SUCCEEDED:
        shown["result"] = await job.result()
    return web.json_response(shown)


def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(runner.cleanup_ctx)
    app.add_routes([web.post("/greetings", order_greeting), web.get("/greetings/{id}", show_greeting)])
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
