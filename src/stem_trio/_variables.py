"""The table of environment variables: what `StemConfig` reads, what the documentation shows, what errors speak of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import attrs

from . import _environment as env

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["VARIABLES", "Variable"]


@final
@attrs.frozen(kw_only=True)
class Variable:
    """One environment variable.

    Attributes:
        name: its name.
        text: what it is for.
        form: what its value looks like.
        default: what holds when it is not set.
        read: makes of its text what it means; None for one that is not for the configuration.
        secret: whether messages must not show its value.
        instead: for one that the original system has and this one refuses: what to do in its place.
    """

    name: str
    text: str
    form: str = ""
    default: str = ""
    read: Callable[[str], Any] | None = None
    secret: bool = False
    instead: str | None = None


VARIABLES: Final[tuple[Variable, ...]] = (
    Variable(
        name="STEM_BROKER_URL",
        text="Where tasks go.",
        form="URL, as `redis://host:6379/0`",
        default="has to be set",
        read=env.read_url,
        secret=True,
    ),
    Variable(
        name="STEM_RESULT_BACKEND_URL",
        text="Where statuses and results are.",
        form="URL",
        default="the broker's URL",
        read=env.read_url,
        secret=True,
    ),
    Variable(
        name="STEM_STORE_TIMEOUT",
        text="How long one call to a store may take.",
        form="duration",
        default="10s",
        read=env.read_duration,
    ),
    Variable(
        name="STEM_WORKER_QUEUES",
        text="What a worker claims from.",
        form="names, separated by commas",
        default="`default`; for a `StemApp` also the queues that its tasks name",
        read=env.read_queues,
    ),
    Variable(
        name="STEM_WORKER_CONCURRENCY",
        text="How many handlers a worker runs at once.",
        form="number from 1 on",
        default="32",
        read=env.read_count,
    ),
    Variable(
        name="STEM_PREFETCH_MULTIPLIER",
        text="How many deliveries a worker may hold, running ones included, as a multiple of its concurrency.",
        form="number from 1 on",
        default="a quarter of the concurrency beyond the running ones",
        read=env.read_count,
    ),
    Variable(
        name="STEM_HEARTBEAT_INTERVAL",
        text="Time between a worker's signs of life.",
        form="duration",
        default="10s",
        read=env.read_duration,
    ),
    Variable(
        name="STEM_SIGNING_KEYS",
        text="Secrets for HMAC-SHA256, shared by producers and workers.",
        form="`id:base64`, separated by commas; at least 32 bytes each",
        default="none",
        read=env.read_secrets,
        secret=True,
    ),
    Variable(
        name="STEM_SIGNING_PRIVATE_KEYS",
        text="Ed25519 private keys. Each also verifies.",
        form="`id:base64` of 32 bytes, or `id:` and PEM, separated by commas",
        default="none",
        read=env.read_private_keys,
        secret=True,
    ),
    Variable(
        name="STEM_SIGNING_PUBLIC_KEYS",
        text="Ed25519 public keys.",
        form="as private ones",
        default="none",
        read=env.read_public_keys,
        secret=True,
    ),
    Variable(
        name="STEM_SIGNING_ACTIVE_KEY",
        text="The key to sign with.",
        form="id of a key",
        default="the only key that can sign; has to be set where there are several",
        read=env.read_key_id,
        secret=True,
    ),
    Variable(
        name="STEM_SIGNING_ALGORITHM",
        text="What the key to sign with is for. A check, and a choice where there are keys of both kinds.",
        form="`hmac-sha256` or `ed25519`",
        default="what the key says",
        read=env.read_algorithm,
        secret=True,
    ),
    Variable(
        name="STEM_SIGNING_REQUIRED",
        text="Whether workers refuse tasks that are not signed.",
        form="`true` or `false`",
        default="true, as soon as there are keys",
        read=env.read_flag,
    ),
    Variable(
        name="STEM_SIGNING_MAX_AGE",
        text="How late a signed task may be handed out first.",
        form="duration",
        default="no bound",
        read=env.read_duration,
    ),
    Variable(
        name="STEM_TLS_CA_CERT",
        text="The certificate authorities to trust.",
        form="file",
        default="the system's",
        read=env.read_file,
    ),
    Variable(
        name="STEM_TLS_CLIENT_CERT",
        text="The client's certificate. Needs the key.",
        form="file",
        default="none",
        read=env.read_file,
    ),
    Variable(
        name="STEM_TLS_CLIENT_KEY",
        text="The key of the client's certificate. Needs that.",
        form="file",
        default="none",
        read=env.read_file,
    ),
    Variable(
        name="STEM_TLS_ALLOW_INSECURE",
        text="Do not verify the server's certificate: for tests only.",
        form="`true` or `false`",
        default="false",
        read=env.read_flag,
    ),
    Variable(
        name="STEM_SCHEDULE_STORE_URL",
        text="Where schedules are.",
        instead="there are no schedules yet",
    ),
    Variable(
        name="STEM_REVOKE_STORE_URL",
        text="Where revocations are.",
        instead="the broker keeps them itself",
    ),
    Variable(
        name="STEM_DEFAULT_QUEUE",
        text="The queue of tasks that name none.",
        instead="name it on the task, with TaskOptions(queue=...), and for workers with STEM_WORKER_QUEUES",
    ),
    Variable(
        name="STEM_DEFAULT_MAX_RETRIES",
        text="The retries of tasks that say nothing of them.",
        instead="say it on the task, with TaskOptions(max_retries=...)",
    ),
    Variable(
        name="STEM_ROUTING_CONFIG",
        text="A file of routes.",
        instead="there is no routing by file; name the queue on the task, or on the call",
    ),
    Variable(
        name="STEM_WORKER_BROADCASTS",
        text="Broadcast channels of a worker.",
        instead="there are no broadcast tasks",
    ),
    Variable(
        name="STEM_WORKER_NAMESPACE",
        text="What keeps the workers of one system apart from others.",
        instead="use another database or prefix: RedisBroker.connect(url, prefix=...)",
    ),
    Variable(
        name="STEM_METRIC_EXPORTERS",
        text="Where metrics go.",
        instead="there are no metrics; connect to the signals",
    ),
    Variable(
        name="STEM_OTLP_ENDPOINT",
        text="Where metrics and traces go.",
        instead="there are no metrics; connect to the signals",
    ),
    Variable(
        name="STEM_SIGNALS_ENABLED",
        text="Whether signals are sent.",
        instead="a signal that nobody listens to costs nothing; connect no listener",
    ),
    Variable(
        name="STEM_SIGNALS_DISABLED",
        text="Signals that are not sent.",
        instead="a signal that nobody listens to costs nothing; connect no listener",
    ),
    Variable(name="STEM_TEST_REDIS_URL", text="A Redis server for the tests of this package."),
    Variable(name="STEM_TEST_POSTGRES_URL", text="A Postgres server for the tests of this package."),
    Variable(name="STEM_DOCS_INTERSPHINX", text="Whether building these pages looks up other projects."),
)
"""Every variable there is, in the order of the documentation."""
