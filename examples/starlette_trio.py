"""A Starlette service on trio that enqueues tasks and works them off itself, in one process.

hypercorn --worker-class trio examples/starlette_trio.py:app
curl -X POST localhost:8000/emails -d '{"to": "ada@example.com"}'
"""

import os
from contextlib import asynccontextmanager
from json import JSONDecodeError

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from stem_trio import ArgumentsError, StemApp, StoreUnavailableError, TaskContext, UnknownTaskError, task


@task(name="email.send", max_retries=3)
async def send_email(context: TaskContext, to: str, subject: str = "Hi") -> int:
    print(f"Sending {subject!r} to {to}", flush=True)
    return len(subject)


@asynccontextmanager
async def lifespan(app: Starlette):
    # Leaving the block, at the end of the service, lets running tasks finish.
    async with StemApp.from_url(os.environ.get("STEM_BROKER_URL", "memory://"), tasks=[send_email]) as stem:
        await stem.start()
        app.state.stem = stem
        yield


async def enqueue_email(request: Request) -> JSONResponse:
    try:
        arguments = await request.json()
    except JSONDecodeError as error:
        return JSONResponse({"error": f"not JSON: {error}", "argument": None}, status_code=422)
    task_id = await request.app.state.stem.enqueue("email.send", args=arguments)
    return JSONResponse({"id": task_id}, status_code=202)


async def task_result(request: Request) -> JSONResponse:
    """The state of a task; with ?wait=SECONDS, once it is over."""
    stem, task_id = request.app.state.stem, request.path_params["task_id"]
    if wait := request.query_params.get("wait"):
        result = await stem.wait_for_task(task_id, timeout=float(wait))
        return JSONResponse({"id": task_id, "state": result.state.value, "value": result.value})
    status = await stem.status(task_id)
    if status is None:
        raise UnknownTaskError(task_id)
    return JSONResponse({"id": task_id, "state": status.state.value})


async def wrong_arguments(request: Request, error: ArgumentsError) -> JSONResponse:
    """Refused before anything has reached the queue."""
    return JSONResponse({"error": str(error), "argument": error.argument}, status_code=422)


async def unknown_task(request: Request, error: UnknownTaskError) -> JSONResponse:
    return JSONResponse({"error": "unknown task"}, status_code=404)


async def no_store(request: Request, error: StoreUnavailableError) -> JSONResponse:
    return JSONResponse({"error": "try again later"}, status_code=503)


async def queue(request: Request) -> JSONResponse:
    stats = await request.app.state.stem.broker.stats("default")
    return JSONResponse({"unfinished": stats.unfinished})


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/emails", enqueue_email, methods=["POST"]),
        Route("/tasks/{task_id}", task_result),
        Route("/queue", queue),
    ],
    exception_handlers={
        ArgumentsError: wrong_arguments,
        UnknownTaskError: unknown_task,
        StoreUnavailableError: no_store,
    },
)
