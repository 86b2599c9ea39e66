"""Configuration by environment: each variable, good and bad; all problems at once; and no secret in any message."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import traceback
import warnings

import pytest
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stem_trio import (
    ConfigurationError,
    InMemoryBroker,
    InMemoryResultBackend,
    InvalidEnvironmentError,
    PayloadSigner,
    SigningKey,
    StemApp,
    StemClient,
    StemConfig,
    StemStoreOverrides,
    TlsConfig,
    UnknownVariableWarning,
    Worker,
    task,
)
from stem_trio._variables import VARIABLES
from stem_trio.config import _BY_NAME
from stem_trio.keys import ALGORITHMS

BROKER = {"STEM_BROKER_URL": "redis://the-broker:6379/0"}
SECRET = bytes(range(100, 132))
SECRET_2 = bytes(range(101, 133))
FILE = __file__


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def public_of(private: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


K1, K2 = f"k1:{b64(SECRET)}", f"k2:{b64(SECRET_2)}"
P1, P2 = f"p1:{b64(SECRET)}", f"p2:{b64(SECRET_2)}"
P1_PUBLIC, P2_PUBLIC = f"p1:{b64(public_of(SECRET))}", f"p2:{b64(public_of(SECRET_2))}"
PEM = Ed25519PrivateKey.from_private_bytes(SECRET).private_bytes(
    ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption()
)
HMAC = {"STEM_SIGNING_KEYS": K1}
RED_TLS = {"STEM_BROKER_URL": "rediss://h/0"}


def read(**environ: str) -> StemConfig:
    return StemConfig.from_environment(BROKER | environ)


def problems(environ: dict[str, str]) -> tuple[str, ...]:
    """What is wrong with an environment; no message may hold a value that is secret."""
    with pytest.raises(InvalidEnvironmentError) as caught:
        StemConfig.from_environment(environ)
    error = caught.value
    shown = "".join(traceback.format_exception(error))
    for name, value in environ.items():
        if name in _BY_NAME and _BY_NAME[name].secret:
            for part in value.replace(",", ":").split(":"):
                assert len(part) < 8 or part in ALGORITHMS or part.strip() not in shown
    assert all(problem in str(error) for problem in error.problems)
    assert f"{len(error.problems)} problem" in str(error)
    return error.problems


def secrets_of(config: StemConfig) -> dict[str, object]:
    """What the keys of a configuration sign, to compare them by."""
    return {key.id: (key.algorithm, key.can_sign, key.public) for key in config.signing.keys}


# --- one variable at a time ---------------------------------------------------------------------------------------

# What else has to be set, the value, and what comes of it.
GOOD = {
    "STEM_BROKER_URL": [({}, " redis://u:pw@h/1 ", lambda c: c.broker_url == "redis://u:pw@h/1")],
    "STEM_RESULT_BACKEND_URL": [({}, "memory://", lambda c: c.backend_url == "memory://")],
    "STEM_STORE_TIMEOUT": [
        ({}, "500ms", lambda c: c.store_timeout == 0.5),
        ({}, "1.5 s", lambda c: c.store_timeout == 1.5),
    ],
    "STEM_WORKER_QUEUES": [
        ({}, "a, b:c ,a", lambda c: c.queues == ("a", "b:c")),
        ({}, "default", lambda c: c.queues == ("default",)),
    ],
    "STEM_WORKER_CONCURRENCY": [({}, "7", lambda c: c.concurrency == 7)],
    "STEM_PREFETCH_MULTIPLIER": [
        ({}, "1", lambda c: c.prefetch == 0),
        ({}, "3", lambda c: c.prefetch == 64),
        ({"STEM_WORKER_CONCURRENCY": "5"}, "2", lambda c: c.prefetch == 5),
    ],
    "STEM_HEARTBEAT_INTERVAL": [
        ({}, "2m", lambda c: c.heartbeat_interval == 120.0),
        ({}, "1h", lambda c: c.heartbeat_interval == 3600.0),
        ({}, "1d", lambda c: c.heartbeat_interval == 86_400.0),
    ],
    "STEM_SIGNING_KEYS": [
        ({}, K1, lambda c: (c.signing.active, c.signing.required, c.signing.max_age) == ("k1", True, None)),
        (
            {"STEM_SIGNING_ACTIVE_KEY": "k2"},
            f"{K1} , {K2}",
            lambda c: secrets_of(c) == dict.fromkeys(("k1", "k2"), ("hmac-sha256", True, None)),
        ),
    ],
    "STEM_SIGNING_PRIVATE_KEYS": [
        ({}, P1, lambda c: secrets_of(c) == {"p1": ("ed25519", True, public_of(SECRET))} and c.signing.active == "p1"),
        ({}, f"p1:{PEM.decode()}", lambda c: secrets_of(c) == {"p1": ("ed25519", True, public_of(SECRET))}),
    ],
    "STEM_SIGNING_PUBLIC_KEYS": [
        ({}, P1_PUBLIC, lambda c: secrets_of(c)["p1"][1] is False and c.signing.active is None),
        (
            {"STEM_SIGNING_PRIVATE_KEYS": P1},
            f"{P1_PUBLIC},{P2_PUBLIC}",
            lambda c: {name: value[1] for name, value in secrets_of(c).items()} == {"p1": True, "p2": False},
        ),
    ],
    "STEM_SIGNING_ACTIVE_KEY": [
        ({"STEM_SIGNING_KEYS": f"{K1},{K2}"}, "k2", lambda c: c.signing.active == "k2"),
        ({"STEM_SIGNING_KEYS": K1, "STEM_SIGNING_PRIVATE_KEYS": P1}, "p1", lambda c: c.signing.active == "p1"),
    ],
    "STEM_SIGNING_ALGORITHM": [
        (HMAC, "HMAC-SHA256", lambda c: c.signing.active == "k1"),
        (HMAC | {"STEM_SIGNING_PRIVATE_KEYS": P1}, "ed25519", lambda c: c.signing.active == "p1"),
        ({"STEM_SIGNING_PUBLIC_KEYS": P1_PUBLIC}, "ed25519", lambda c: c.signing.active is None),
    ],
    "STEM_SIGNING_REQUIRED": [
        (HMAC, "false", lambda c: c.signing.required is False),
        (HMAC, "Yes", lambda c: c.signing.required is True),
    ],
    "STEM_SIGNING_MAX_AGE": [(HMAC, "1h", lambda c: c.signing.max_age == 3600.0)],
    "STEM_TLS_CA_CERT": [(RED_TLS, FILE, lambda c: c.tls == TlsConfig(ca_cert=FILE))],
    "STEM_TLS_CLIENT_CERT": [
        (RED_TLS | {"STEM_TLS_CLIENT_KEY": FILE}, FILE, lambda c: c.tls == TlsConfig(client_cert=FILE, client_key=FILE))
    ],
    "STEM_TLS_CLIENT_KEY": [(RED_TLS | {"STEM_TLS_CLIENT_CERT": FILE}, FILE, lambda c: c.tls.client_key == FILE)],
    "STEM_TLS_ALLOW_INSECURE": [
        (RED_TLS, "1", lambda c: c.broker_url == "rediss://h/0?ssl_cert_reqs=none"),
        ({}, "false", lambda c: c.tls is None),
    ],
}

# What else has to be set, the value, and the one problem.
BAD = {
    "STEM_BROKER_URL": [
        ({}, "the-broker:6379", "the URL of a store begins with a scheme"),
        ({}, "redis://u:pass word@h", "must not have blanks"),
    ],
    "STEM_RESULT_BACKEND_URL": [({}, "://secret-host", "the URL of a store begins with a scheme")],
    "STEM_STORE_TIMEOUT": [
        ({}, "5", "'5': must be a number above 0 with its unit"),
        ({}, "-5s", "'-5s': must be a number"),
        ({}, "0ms", "'0ms': must be a number"),
        ({}, "5 seconds", "must be a number"),
    ],
    "STEM_WORKER_QUEUES": [({}, "a,,b", "must be names of queues"), ({}, "a,b\x00", "must be names of queues")],
    "STEM_WORKER_CONCURRENCY": [
        ({}, "0", "'0': must be a whole number, at least 1"),
        ({}, "many", "'many': must be a whole number"),
        ({}, "1.5", "must be a whole number"),
        ({}, "²", "must be a whole number"),
        ({}, "9" * 5000, "must be a whole number"),
    ],
    "STEM_PREFETCH_MULTIPLIER": [({}, "-1", "must be a whole number, at least 1")],
    "STEM_HEARTBEAT_INTERVAL": [({}, "soon", "must be a number"), ({}, "9" * 400 + "s", "must be a number")],
    "STEM_SIGNING_KEYS": [
        ({}, b64(SECRET), "entry 1: must be written id:key"),
        ({}, f"{K1},", "entry 2: must be written id:key"),
        ({}, f"k1:{b64(SECRET[:31])}", "entry 1: secret: has 31 bytes; use at least 32"),
        ({}, f"{b64(SECRET)}:k1", "entry 1: id: must be 1 to 64 letters"),
        ({}, f"{K1},k1:{b64(SECRET_2)}", "entry 2: has the id of an entry before it"),
        ({}, "k1:not~base64~not~base64", "entry 1: secret: is text that is not base64"),
        ({}, f"{K1},{K2}", None),  # see below
    ],
    "STEM_SIGNING_PRIVATE_KEYS": [
        ({}, f"p1:{b64(SECRET[:31])}", "entry 1: private: has 31 bytes"),
        ({"STEM_SIGNING_KEYS": f"p1:{b64(SECRET)}"}, P1, "entry 1: has the id of another key"),
    ],
    "STEM_SIGNING_PUBLIC_KEYS": [
        ({}, f"p1:{b64(SECRET + b'.')}", "entry 1: public: has 33 bytes"),
        ({"STEM_SIGNING_PRIVATE_KEYS": P1}, f"p1:{b64(public_of(SECRET_2))}", "entry 1: has the id of another key"),
    ],
    "STEM_SIGNING_ACTIVE_KEY": [
        ({}, "k1", "has no effect without keys; set one of STEM_SIGNING_KEYS"),
        (HMAC, "k9-which-is-not-there", "is the id of none of the keys; name one of k1"),
        ({"STEM_SIGNING_PUBLIC_KEYS": P1_PUBLIC}, "p1", "names a public key, which cannot sign"),
    ],
    "STEM_SIGNING_ALGORITHM": [
        ({}, "hmac-sha256", "has no effect without keys"),
        (HMAC, "hmac-md5-of-some-kind", "must be one of hmac-sha256, ed25519"),
        (HMAC, "ed25519", "none of the keys can sign by ed25519"),
        (HMAC | {"STEM_SIGNING_PUBLIC_KEYS": P1_PUBLIC}, "ed25519", "none of the keys can sign by ed25519"),
        ({"STEM_SIGNING_PUBLIC_KEYS": P1_PUBLIC}, "hmac-sha256", "none of the keys can sign by hmac-sha256"),
        (
            HMAC | {"STEM_SIGNING_ACTIVE_KEY": "k1", "STEM_SIGNING_PRIVATE_KEYS": P1},
            "ed25519",
            "the active key is for hmac-sha256",
        ),
    ],
    "STEM_SIGNING_REQUIRED": [({}, "true", "has no effect without keys"), (HMAC, "maybe", "must be true or false")],
    "STEM_SIGNING_MAX_AGE": [({}, "1h", "has no effect without keys"), (HMAC, "60", "must be a number above 0")],
    "STEM_TLS_CA_CERT": [
        (RED_TLS, "/there/is/none", "'/there/is/none': there is no such file"),
        ({}, FILE, "no URL asks for TLS; write rediss://"),
        (RED_TLS | {"STEM_TLS_ALLOW_INSECURE": "1"}, FILE, "has no effect with STEM_TLS_ALLOW_INSECURE"),
    ],
    "STEM_TLS_CLIENT_CERT": [(RED_TLS, FILE, "has no effect without STEM_TLS_CLIENT_KEY")],
    "STEM_TLS_CLIENT_KEY": [(RED_TLS, FILE, "has no effect without STEM_TLS_CLIENT_CERT")],
    "STEM_TLS_ALLOW_INSECURE": [(RED_TLS, "perhaps", "must be true or false"), ({}, "1", "no URL asks for TLS")],
}
BAD["STEM_SIGNING_KEYS"].pop()

READ = [variable.name for variable in VARIABLES if variable.read is not None]
REFUSED = [variable.name for variable in VARIABLES if variable.instead is not None]


def cases(table):
    return [
        pytest.param(name, *case, id=f"{name}-{number}")
        for name, entries in table.items()
        for number, case in enumerate(entries)
    ]


def test_the_table():
    """Every variable is read, refused or somebody else's, has a text, and a test of each kind."""
    names = [variable.name for variable in VARIABLES]
    assert len(names) == len(set(names))
    assert all(name.startswith("STEM_") for name in names)
    assert list(GOOD) == list(BAD) == READ
    for variable in VARIABLES:
        assert variable.text.endswith(".")
        assert not (variable.read and variable.instead)
        assert bool(variable.form) == bool(variable.default) == bool(variable.read)


@pytest.mark.parametrize(("name", "others", "value", "check"), cases(GOOD))
def test_good(name, others, value, check):
    """Each variable has the effect that it should."""
    assert check(read(**others, **{name: value}) if name not in others else read(**others))


@pytest.mark.parametrize(("name", "others", "value", "problem"), cases(BAD))
def test_bad(name, others, value, problem):
    """G15: a value that cannot be read is the one problem, named by its variable, and never replaced by a default."""
    [only] = problems(BROKER | others | {name: value})
    assert only.startswith(f"{name}: ")
    assert problem in only


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("value", ["", "  "])
def test_empty(name, value):
    """G15: set to nothing is not unset: who meant to sign must not end up without."""
    assert f"{name}: is empty; give it a value, or unset it" in problems(BROKER | {name: value})


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    """What other systems know, and has no effect here, is refused with what to do instead."""
    [problem] = problems(BROKER | {name: "x"})
    assert problem == f"{name}: has no effect here: {_BY_NAME[name].instead}; unset it"


def test_nothing_set_but_the_broker():
    """What is not set is left to those who have a default of their own."""
    config = read()
    assert config == StemConfig(broker_url="redis://the-broker:6379/0")
    assert config.worker_options() == config.client_options() == {}


# --- together -----------------------------------------------------------------------------------------------------


def test_no_broker():
    """The one variable that has to be there."""
    [problem] = problems({})
    assert problem == "STEM_BROKER_URL: is not set; give the URL of the broker, as redis://localhost:6379/0"


def test_all_problems_at_once():
    """G15: one error lists everything that is wrong, each by its variable."""
    found = problems(
        {
            "STEM_RESULT_BACKEND_URL": "nowhere",
            "STEM_WORKER_CONCURRENCY": "x",
            "STEM_HEARTBEAT_INTERVAL": "",
            "STEM_SIGNING_KEYS": f"k1:short,{b64(SECRET)},{K2}",
            "STEM_SIGNING_REQUIRED": "maybe",
            "STEM_TLS_CLIENT_CERT": FILE,
            "STEM_DEFAULT_QUEUE": "mail",
        }
    )
    assert [problem.partition(":")[0] for problem in found] == [
        "STEM_RESULT_BACKEND_URL",
        "STEM_WORKER_CONCURRENCY",
        "STEM_HEARTBEAT_INTERVAL",
        "STEM_SIGNING_KEYS",
        "STEM_SIGNING_REQUIRED",
        "STEM_DEFAULT_QUEUE",
        "STEM_BROKER_URL",
        "STEM_TLS_CLIENT_CERT",
    ]
    assert "entry 1: " in found[3]
    assert "entry 2: " in found[3]


def test_several_keys_and_none_active():
    """Which key signs is never a guess."""
    [problem] = problems(BROKER | {"STEM_SIGNING_KEYS": f"{K1},{K2}"})
    assert problem == "STEM_SIGNING_ACTIVE_KEY: is not set, and several keys can sign; name one of k1, k2"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("STEM_BROKER_UR", "STEM_BROKER_URL"),
        ("STEM_SIGNING_KEY", "STEM_SIGNING_KEYS"),
        ("STEM_WORKER_QUEUE", "STEM_WORKER_QUEUES"),
        ("STEM_TLS_CACERT", "STEM_TLS_CA_CERT"),
        ("STEM_ZZZ", None),
    ],
)
def test_unknown_names(name, near):
    """A name that nothing reads is warned about, with the nearest one that something does."""
    guess = f"; did you mean {near}?" if near else ""
    with pytest.warns(UnknownVariableWarning) as caught:
        read(**{name: "telltale"})
    assert [str(one.message) for one in caught] == [f"{name} is set, and nothing reads it{guess}"]
    assert caught[0].filename == FILE


def test_names_that_are_not_ours():
    """Other programs' variables are theirs, and so are those of this package's own tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(PATH="x", STEMMER="y", stem_broker="z", STEM_TEST_REDIS_URL="") == read()


def test_the_process_environment(monkeypatch):
    """Without an argument it is `os.environ` that is read."""
    for name in [name for name in os.environ if name.startswith("STEM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STEM_BROKER_URL", "memory://")
    assert StemConfig.from_environment().broker_url == "memory://"


def test_no_secret_shows():
    """Neither the configuration nor what is made of it shows passwords or keys."""
    config = read(
        STEM_BROKER_URL="rediss://user:passw0rd@host/0",
        STEM_RESULT_BACKEND_URL="redis://:passw0rd@host/1",
        STEM_SIGNING_KEYS=K1,
        STEM_SIGNING_PRIVATE_KEYS=P1,
        STEM_SIGNING_ACTIVE_KEY="p1",
    )
    shown = repr(config) + repr(PayloadSigner.maybe(config.signing)) + str(config.worker_options())
    assert "passw0rd" not in shown
    assert b64(SECRET) not in shown
    assert repr(SECRET)[2:-1] not in shown
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(config.signing)


@pytest.mark.parametrize(
    "others",
    [
        {"STEM_SIGNING_ACTIVE_KEY": "k1"},
        {"STEM_SIGNING_ALGORITHM": "ed25519", "STEM_SIGNING_MAX_AGE": "1h"},
        {"STEM_SIGNING_PRIVATE_KEYS": f"{P1},{P2}"},
    ],
)
def test_one_problem_is_one(others):
    """What cannot be judged because something else is wrong is not held against it."""
    [problem] = problems(BROKER | others | {"STEM_SIGNING_KEYS": "k1:short"})
    assert problem.startswith("STEM_SIGNING_KEYS: ")


# --- TLS ----------------------------------------------------------------------------------------------------------


def test_tls_goes_into_the_urls():
    """Stores get what is configured with their URL, whoever opens them; those without TLS are left alone."""
    config = read(
        STEM_BROKER_URL="rediss://h:1/0?client_name=x",
        STEM_RESULT_BACKEND_URL="rediss+sentinel://h:2/main/0",
        STEM_TLS_CA_CERT=FILE,
        STEM_TLS_CLIENT_CERT=FILE,
        STEM_TLS_CLIENT_KEY=FILE,
    )
    added = f"ssl_ca_certs={FILE}&ssl_certfile={FILE}&ssl_keyfile={FILE}"
    assert config.broker_url == f"rediss://h:1/0?client_name=x&{added}"
    assert config.backend_url == f"rediss+sentinel://h:2/main/0?{added}"
    mixed = read(STEM_RESULT_BACKEND_URL="rediss://h", STEM_TLS_CA_CERT=FILE)
    assert (mixed.broker_url, mixed.backend_url) == (BROKER["STEM_BROKER_URL"], f"rediss://h?ssl_ca_certs={FILE}")


def test_redis_understands_it():
    """What is put into a URL is what stores on Redis read from it."""
    address = pytest.importorskip("stem_trio.stores.redis.address")
    tls = TlsConfig(ca_cert="/a b/ca&x=1.pem", client_cert="/c?.pem", client_key="/k#.pem")
    for url in ("rediss://u:p@h:1/2", "rediss://h?", "rediss+sentinel://h:1/main/0"):
        made = address.parse_address(tls.applied_to(url))
        assert made.tls == address.Tls(ca_certs="/a b/ca&x=1.pem", certfile="/c?.pem", keyfile="/k#.pem")
    insecure = address.parse_address(TlsConfig(allow_insecure=True).applied_to("rediss://h"))
    assert insecure.tls.verify is False


def test_tls_said_twice():
    """A URL that says something else is a problem; one that says the same is none."""
    url = f"rediss://h?ssl_ca_certs={FILE}"
    assert read(STEM_BROKER_URL=url, STEM_TLS_CA_CERT=FILE).broker_url == url
    [problem] = problems({"STEM_BROKER_URL": "rediss://h?ssl_ca_certs=/other", "STEM_TLS_CA_CERT": FILE})
    assert problem == "STEM_BROKER_URL: rediss://...: its ssl_ca_certs is another; say it in one place"
    with pytest.raises(ConfigurationError, match="ssl_cert_reqs is another"):
        StemConfig(broker_url="rediss://h?ssl_cert_reqs=required", tls=TlsConfig(allow_insecure=True))
    once = StemConfig(broker_url="rediss://h#x", tls=TlsConfig(allow_insecure=True))
    assert once.broker_url == "rediss://h?ssl_cert_reqs=none#x"
    assert StemConfig(broker_url=once.broker_url, tls=once.tls) == once


def test_insecure_is_told(caplog):
    """Who turns verification off is reminded of it in each log."""
    caplog.set_level(logging.WARNING)
    read(**RED_TLS, STEM_TLS_ALLOW_INSECURE="1")
    assert "STEM_TLS_ALLOW_INSECURE is set" in caplog.text


def test_made_by_hand():
    """A URL that is none is refused there too, without being shown."""
    with pytest.raises(ConfigurationError, match="begins with a scheme") as caught:
        StemConfig(broker_url="passw0rd")
    assert "passw0rd" not in str(caught.value)


# --- what is made of it -------------------------------------------------------------------------------------------


@task(name="job", queue="jobs")
async def job() -> str:
    return "done"


FULL = {
    "STEM_BROKER_URL": "memory://",
    "STEM_RESULT_BACKEND_URL": "memory://",
    "STEM_STORE_TIMEOUT": "3s",
    "STEM_WORKER_QUEUES": "jobs,mail",
    "STEM_WORKER_CONCURRENCY": "4",
    "STEM_PREFETCH_MULTIPLIER": "2",
    "STEM_HEARTBEAT_INTERVAL": "7s",
    **HMAC,
}


async def test_app(autojump_clock):
    """An app has all of what is configured, and signs and verifies with the keys."""
    app = StemApp.from_config(StemConfig.from_environment(FULL), tasks=[job])
    setup = app.worker._setup
    assert (setup.queues, setup.concurrency, setup.prefetch) == (("jobs", "mail"), 4, 4)
    assert (setup.store_timeout, app.stem._store_timeout, app.worker._heartbeat_interval) == (3.0, 3.0, 7.0)
    assert setup.signer.active == "k1"
    async with app:
        handle = await job.enqueue(app)
        assert await handle.result(timeout=10) == "done"


async def test_client(autojump_clock):
    """A client takes what concerns a producer."""
    client = StemClient.from_config(StemConfig.from_environment(FULL), tasks=[job])
    assert client.stem._store_timeout == 3.0
    async with client:
        task_id = await client.enqueue("job")
        [waiting] = await client.broker.peek("jobs")
    assert waiting.envelope.id == task_id
    PayloadSigner([SigningKey.hmac_sha256("k1", SECRET)]).verify(waiting.envelope)


def test_options_beat_the_configuration():
    """What the program says itself goes over what it is told from outside."""
    config = StemConfig.from_environment(FULL)
    app = StemApp.from_config(config, concurrency=9, queues=["x"], signer=None)
    assert (app.worker._setup.concurrency, app.worker.queues, app.worker._setup.signer) == (9, ("x",), None)
    backend = InMemoryResultBackend()
    client = StemClient.from_config(config, overrides=StemStoreOverrides(backend=backend))
    assert client.backend is backend
    broker = InMemoryBroker()
    client = StemClient.from_config(config, overrides=StemStoreOverrides(broker=broker))
    assert client.broker is broker
    assert client.backend is not backend


async def test_worker():
    """The options of a worker are those that it takes."""
    async with InMemoryBroker() as broker, InMemoryResultBackend() as backend:
        worker = Worker(broker, backend, tasks=[job], **StemConfig.from_environment(FULL).worker_options())
        assert worker.queues == ("jobs", "mail")
