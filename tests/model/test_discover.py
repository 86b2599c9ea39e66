"""Tasks by where they are written: modules and dotted names in ``tasks=``."""

from __future__ import annotations

import importlib
import sys
import types

import pytest

from stem_trio import (
    ConfigurationError,
    DuplicateTaskError,
    InMemoryBroker,
    InMemoryResultBackend,
    RegistrationError,
    Stem,
    StemApp,
    StemClient,
    TaskRegistry,
    Worker,
    task,
)

MAIL = """
from pathlib import Path
from stem_trio import FunctionTaskHandler, StemSignals, TaskHandler, task

@task(name="mail.send")
async def send(to: str) -> None: ...

class Digest(TaskHandler[None]):
    name = "mail.digest"
    async def call(self, context, args): ...

digest = Digest()
again = send

async def ping(context, args): ...

_hidden = FunctionTaskHandler("mail.ping", ping)

@task(name="mail.clean")
def clean() -> None: ...

class Group:
    inner = FunctionTaskHandler("mail.inner", ping)

some = [send, digest]
pair = (clean, digest)
none = []
mixed = [send, Digest]
send_name = "mail.send"
"""

IN_ORDER = ["mail.send", "mail.digest", "mail.ping", "mail.clean"]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes modules where Python finds them, and forgets them at the end."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(code, name="jobs"):
        *folders, last = name.split(".")
        folder = tmp_path.joinpath(*folders)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{last}.py").write_text(code, encoding="utf-8")
        return name

    yield write
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"jobs", "shop"}:
            del sys.modules[name]


def names(*sources) -> list[str]:
    return [definition.name for definition in TaskRegistry(sources)]


def test_module(module):
    """A module stands for the tasks in it, in the order in which it defines them; each of them once."""
    module(MAIL)
    jobs = importlib.import_module("jobs")
    assert names(jobs) == IN_ORDER
    assert TaskRegistry([jobs]).resolve("mail.send").source is jobs.send


def test_dotted_name(module):
    """The dotted name of a module stands for it, in a package too; it is imported when it is registered."""
    module(MAIL, "shop.mail.jobs")
    assert "shop.mail.jobs" not in sys.modules
    assert names("shop.mail.jobs") == IN_ORDER


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("send", ["mail.send"]),
        ("_hidden", ["mail.ping"]),
        ("Group.inner", ["mail.inner"]),
        ("some", ["mail.send", "mail.digest"]),
        ("pair", ["mail.clean", "mail.digest"]),
    ],
)
def test_attribute(module, attribute, expected):
    """A name after the colon stands for one task, or for a list of them."""
    module(MAIL)
    assert names(f"jobs:{attribute}") == expected


def test_module_as_an_attribute(module):
    """What is named may be a module that another one has imported."""
    module(MAIL)
    module("import jobs", "shop")
    assert names("shop:jobs") == IN_ORDER
    assert names("shop:jobs.send") == ["mail.send"]


def test_default_name_of_a_task_finds_it(module):
    """A function's task is called by default as it is found."""
    module("from stem_trio import task\n@task\nasync def work() -> None: ...\n")
    assert names("jobs") == ["jobs:work"]
    assert names("jobs:work") == ["jobs:work"]


def test_imported_tasks_count(module):
    """A module that gathers the tasks of others stands for all of them; the same task twice is one."""
    module(MAIL)
    module("from jobs import clean, send", "shop")
    assert names("shop") == ["mail.clean", "mail.send"]
    assert names("shop", "jobs:send", "jobs") == ["mail.clean", "mail.send", "mail.digest", "mail.ping"]


def test_beside_tasks(module):
    """Modules and names stand beside tasks; what they were is told in order."""
    module(MAIL)

    @task(name="own")
    async def own() -> None: ...

    registry = TaskRegistry()
    added = registry.register_all([own, "jobs:clean", "jobs:some"])
    assert [definition.name for definition in added] == ["own", "mail.clean", "mail.send", "mail.digest"]
    assert registry.register_all(iter([own])) == [registry.get("own")]
    assert registry.register_all(()) == []


def test_everything_takes_them(module):
    """Producers and workers of every kind take modules and dotted names."""
    module(MAIL)
    stores = InMemoryBroker(), InMemoryResultBackend()
    for registry in (
        Stem(*stores, tasks=["jobs"]).registry,
        StemClient.in_memory(tasks=["jobs"]).registry,
        StemApp.in_memory(tasks=["jobs"]).registry,
        StemApp.from_url("memory://", tasks=["jobs"]).registry,
        Worker(*stores, tasks=["jobs"]).stem.registry,
    ):
        assert [definition.name for definition in registry] == IN_ORDER


def test_two_tasks_of_one_name(module):
    """Names are unique across modules."""
    module(MAIL)
    module(MAIL, "shop")
    with pytest.raises(DuplicateTaskError, match=r"mail\.send"):
        names("jobs", "shop")


def test_proxies_are_left_alone(module):
    """An object that cannot yet say what it is does no harm, and is not asked."""
    module(
        MAIL + "\nclass Proxy:\n"
        "    @property\n"
        "    def __class__(self): raise RuntimeError('not bound')\n"
        "proxy = Proxy()\n"
    )
    assert names("jobs") == IN_ORDER


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("jobs:nothing", "'jobs:nothing': the module jobs has no attribute 'nothing'"),
        ("jobs:Group.outer", "'jobs:Group.outer': the class Group has no attribute 'outer'"),
        ("jobs:digest.x", "'jobs:digest.x': an object of type Digest has no attribute 'x'"),
        ("jobs:Digest", "'jobs:Digest' is the class Digest and not a task; name an instance of it"),
        ("jobs:ping", "'jobs:ping' is an object of type function and not a task; name a task, or a list of them"),
        ("jobs:none", "'jobs:none' is an empty list"),
        ("jobs:mixed", "'jobs:mixed' holds at 1 the class Digest, which is not a task"),
        ("jobs:send_name", "is an object of type str and not a task"),
        ("no_such_module", r"there is no module no_such_module \(no no_such_module found\); write 'package.module' or"),
        ("jobs.deeper", r"there is no module jobs.deeper \(no jobs.deeper found\)"),
        ("no_such.deeper.still", r"there is no module no_such.deeper.still \(no no_such found\)"),
        ("", "'' is no dotted name; write 'package.module' or 'package.module:attribute'"),
        (".jobs", "'.jobs' is no dotted name"),
        ("jobs:", "'jobs:' is no dotted name"),
        ("jobs:a:b", "'jobs:a:b' is no dotted name"),
        ("jobs/mail.py", "'jobs/mail.py' is no dotted name"),
        ("mail send", "'mail send' is no dotted name"),
    ],
)
def test_bad_names(module, source, problem):
    """G15: a name that leads to no task is refused with what is wrong with it."""
    module(MAIL)
    with pytest.raises(RegistrationError, match=problem) as caught:
        names(source)
    assert isinstance(caught.value, ConfigurationError)


def test_module_without_tasks(module):
    """G15: a module without tasks is refused; where a class was never made an instance of, that is said."""
    with pytest.raises(RegistrationError, match="the module types has no tasks; decorate functions with @task"):
        names(types)
    with pytest.raises(RegistrationError, match="the module types has no tasks"):
        names("types")
    abstract = "class Base(TaskHandler): ...\nclass Digest"
    code = MAIL.partition("digest = ")[0].replace("@task(name", "@(lambda **_: print)(name")
    module(code.replace("class Digest", abstract))
    with pytest.raises(RegistrationError, match=r"the module jobs has no tasks; make an instance: digest = Digest\(\)"):
        names("jobs")


@pytest.mark.parametrize(
    ("code", "kind", "problem"),
    [
        (
            "import no_such_library",
            ModuleNotFoundError,
            "importing jobs failed: ModuleNotFoundError: .*no_such_library",
        ),
        ("1 / 0", ZeroDivisionError, "importing jobs failed: ZeroDivisionError: division by zero"),
        ("def", SyntaxError, "importing jobs failed: SyntaxError"),
        ("from stem_trio import no_such_name", ImportError, "importing jobs failed: ImportError"),
    ],
)
def test_import_that_fails(module, code, kind, problem):
    """G15: an import that fails is told, with the error itself as the cause."""
    module(code)
    for source in ("jobs", "jobs:send"):
        with pytest.raises(RegistrationError, match=problem) as caught:
            names(source)
        assert isinstance(caught.value.__cause__, kind)


def test_nothing_is_registered_beside_a_bad_name(module):
    """All names are looked up before the first task is registered."""
    module(MAIL)
    registry = TaskRegistry()
    with pytest.raises(RegistrationError):
        registry.register_all(["jobs", "jobs:nothing"])
    assert len(registry) == 0


@pytest.mark.parametrize(
    ("tasks", "problem"),
    [
        ("jobs", r"tasks must be a list of tasks, modules and dotted names, not 'jobs'; write \[\.\.\.\]"),
        (types, "not an object of type module"),
        (None, "not an object of type NoneType"),
        (task(name="single")(lambda: None), "not an object of type Task"),
    ],
)
def test_no_list(tasks, problem):
    """G15: one thing where a list should be is refused, and not taken apart."""
    with pytest.raises(RegistrationError, match=problem):
        TaskRegistry(tasks)
    with pytest.raises(RegistrationError, match=problem):
        StemClient.in_memory(tasks=tasks)
