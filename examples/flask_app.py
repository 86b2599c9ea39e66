"""A Flask service, with threads that block; workers are programs of their own, see redis_worker.py.

STEM_BROKER_URL=redis://localhost:6379/0 python examples/flask_app.py 8000
curl -X POST localhost:8000/emails -H 'content-type: application/json' -d '{"to": "ada@example.com"}'

A server that forks, as gunicorn does, opens its stem in each process after the fork.
"""

import os
import signal
import sys

from flask import Flask, request
from werkzeug.serving import make_server

from stem_trio import ArgumentsError, BlockingStem, StoreUnavailableError, TaskContext, task


@task(name="email.send", max_retries=3)
async def send_email(context: TaskContext, to: str, subject: str = "Hi") -> int:
    print(f"Sending {subject!r} to {to}")
    return len(subject)


def create_app(stem: BlockingStem) -> Flask:
    app = Flask(__name__)

    @app.post("/emails")
    def enqueue_email():
        # With arguments of one's own, `stem.submit(send_email.bind(to=...))` has them checked by the type checker too.
        return {"id": stem.enqueue("email.send", args=request.get_json())}, 202

    @app.get("/tasks/<task_id>")
    def task_status(task_id: str):
        status = stem.status(task_id)
        if status is None:
            return {"error": "unknown task"}, 404
        return {"id": task_id, "state": status.state.value}

    @app.errorhandler(ArgumentsError)
    def wrong_arguments(error: ArgumentsError):
        """Refused before anything has reached the queue."""
        return {"error": str(error), "argument": error.argument}, 422

    @app.errorhandler(StoreUnavailableError)
    def no_store(error: StoreUnavailableError):
        return {"error": "try again later"}, 503

    return app


def main(port: int) -> None:
    # SIGTERM leaves the with block in good order, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    url = os.environ.get("STEM_BROKER_URL", "redis://localhost:6379/0")
    # Whoever waits for an answer over HTTP does not wait for long.
    with BlockingStem.from_url(url, tasks=[send_email], store_timeout=2) as stem:
        make_server("127.0.0.1", port, create_app(stem), threaded=True).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
