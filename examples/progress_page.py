"""A web page that shows how far a job is, live: the server sends its events (SSE), the page moves a bar.

    python examples/progress_page.py          # open http://127.0.0.1:8080, or PORT
    curl -X POST 'http://127.0.0.1:8080/imports?rows=300'
    curl -N http://127.0.0.1:8080/imports/ID/events

The task tells its progress for every row; what is sent is the latest, up to ten times a second. The jobs run in the
process of the web server here; the page could as well follow jobs that run elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os

from aiohttp import web

from taskrunner import JobContext, JobNotFound, TaskRunner

runner = TaskRunner(namespace="progress-example")

PAGE = """<!doctype html>
<title>Import</title>
<button onclick="start()">Import 300 rows</button>
<p><progress max="1" value="0"></progress> <span></span></p>
<script>
async function start() {
  const job = await (await fetch("imports?rows=300", {method: "POST"})).json();
  const events = new EventSource(`imports/${job.id}/events`);
  events.onmessage = ({data}) => {
    const job = JSON.parse(data), progress = job.progress;
    document.querySelector("progress").value = progress ? progress.fraction : 0;
    document.querySelector("span").textContent = job.error || (job.ended ? job.status : progress && progress.message);
    if (job.ended) events.close();  // else the browser would come again
  };
}
</script>
"""


@runner.task(max_retry=0)
async def load(ctx: JobContext, rows: int) -> int:
    for n in range(1, rows + 1):
        await asyncio.sleep(0.005)  # the work
        await ctx.progress(n, rows, f"row {n} of {rows}")
    return rows


async def show_page(_: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


async def start_import(request: web.Request) -> web.Response:
    job = await load.dispatch(int(request.query.get("rows", "300")))
    return web.json_response({"id": job.id}, status=202)


async def send_events(request: web.Request) -> web.StreamResponse:
    job = runner.job(request.match_info["id"])
    try:
        await job.status()
    except JobNotFound as unknown:
        raise web.HTTPNotFound(text=str(unknown)) from None
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    async for update in job.events():
        try:
            await response.write(f"data: {json.dumps(update.as_dict())}\n\n".encode())
        except ConnectionError:
            break  # the page was closed; leaving the loop leaves nothing behind
    return response


def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(runner.cleanup_ctx)
    app.add_routes([web.get("/", show_page), web.post("/imports", start_import)])
    app.add_routes([web.get("/imports/{id}/events", send_events)])
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
