"""A FastAPI service on asyncio that enqueues; workers are programs of their own, see redis_worker.py.

STEM_BROKER_URL=redis://localhost:6379/0 uvicorn --app-dir examples fastapi_app:app
curl -X POST localhost:8000/emails -H 'content-type: application/json' -d '{"to": "ada@example.com"}'
"""

import os
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from stem_trio import ArgumentsError, AsyncioStem, StoreUnavailableError, TaskContext, task


@task(name="email.send", max_retries=3)
async def send_email(context: TaskContext, to: str, subject: str = "Hi") -> int:
    print(f"Sending {subject!r} to {to}")
    return len(subject)


@asynccontextmanager
async def lifespan(app: FastAPI):
    url = os.environ.get("STEM_BROKER_URL", "redis://localhost:6379/0")
    # Whoever waits for an answer over HTTP does not wait for long.
    async with AsyncioStem.from_url(url, tasks=[send_email], store_timeout=2) as stem:
        app.state.stem = stem
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(ArgumentsError)
async def wrong_arguments(request: Request, error: ArgumentsError) -> JSONResponse:
    """Refused before anything has reached the queue."""
    return JSONResponse({"error": str(error), "argument": error.argument}, status_code=422)


@app.exception_handler(StoreUnavailableError)
async def no_store(request: Request, error: StoreUnavailableError) -> JSONResponse:
    return JSONResponse({"error": "try again later"}, status_code=503)


@app.post("/emails", status_code=202)
async def enqueue_email(arguments: dict[str, Any]) -> dict[str, str]:
    # With arguments of one's own, `await send_email.enqueue(stem, to=...)` has them checked by the type checker too.
    return {"id": await app.state.stem.enqueue("email.send", args=arguments)}


@app.get("/tasks/{task_id}", response_model=None)
async def task_status(task_id: str) -> dict[str, str] | JSONResponse:
    status = await app.state.stem.status(task_id)
    if status is None:
        return JSONResponse({"error": "unknown task"}, status_code=404)
    return {"id": task_id, "state": status.state.value}
