"""Inside a web application: FastAPI's lifespan and aiohttp's cleanup context, with real requests."""

from __future__ import annotations

import asyncio
from typing import Any

import fastapi
import httpx
import pytest
import uvicorn
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from taskrunner import TaskRunner


async def double(n: int) -> int:
    return 2 * n


def fastapi_app(runner: TaskRunner) -> fastapi.FastAPI:
    task = runner.task(double)
    app = fastapi.FastAPI(lifespan=runner.lifespan)

    @app.post("/jobs/{n}")
    async def start(n: int) -> dict[str, str]:
        return {"id": (await task.dispatch(n)).id}

    @app.get("/jobs/{id}")
    async def look(id: str) -> dict[str, Any]:
        return {"result": await runner.job(id).result(timeout=10)}

    return app


async def test_fastapi_starts_and_stops_the_runner_with_itself(runner: TaskRunner) -> None:
    app = fastapi_app(runner)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            ids = [(await client.post(f"/jobs/{n}")).json()["id"] for n in range(5)]
            results = [(await client.get(f"/jobs/{id}")).json()["result"] for id in ids]
    assert results == [0, 2, 4, 6, 8]
    assert not runner.ready


async def test_a_real_server_serves_and_drains(runner: TaskRunner) -> None:
    config = uvicorn.Config(fastapi_app(runner), host="127.0.0.1", port=0, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
            assert not serving.done()
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            id = (await client.post("/jobs/21")).json()["id"]
            assert (await client.get(f"/jobs/{id}")).json() == {"result": 42}
    finally:
        server.should_exit = True
        await serving
    assert not runner.ready


async def test_an_application_that_fails_to_start_leaves_the_runner_stopped(runner: TaskRunner) -> None:
    app = fastapi_app(runner)
    with pytest.raises(ZeroDivisionError):
        async with app.router.lifespan_context(app):
            raise ZeroDivisionError
    async with app.router.lifespan_context(app):
        assert await (await runner.dispatch("double", 2)).result(timeout=10) == 4


async def test_aiohttp_starts_and_stops_the_runner_with_itself(runner: TaskRunner) -> None:
    task = runner.task(double)

    async def handle(request: web.Request) -> web.Response:
        job = await task.dispatch(int(request.match_info["n"]))
        return web.json_response(await job.result(timeout=10))

    app = web.Application()
    app.cleanup_ctx.append(runner.cleanup_ctx)
    app.router.add_get("/{n}", handle)
    async with TestClient(TestServer(app)) as client:
        assert await (await client.get("/21")).json() == 42
    assert not runner.ready
