"""Tasks, calls to them, and the registry."""

import enum
import functools
import inspect
import json
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Any

import attrs
import msgspec
import pytest

from stem_trio.context import TaskContext
from stem_trio.errors import (
    ArgumentsError,
    DuplicateTaskError,
    InvalidOptionError,
    RegistrationError,
    SerializationError,
    UnregisteredTaskError,
)
from stem_trio.options import TaskOptions
from stem_trio.retry import RetryPolicy
from stem_trio.task import (
    CallOptions,
    FunctionTaskHandler,
    TaskCall,
    TaskHandler,
    TaskRegistry,
    define,
    make_call,
    task,
)

from . import samples
from .support import Support, make_delivery

MODULE = __name__
MOMENT = datetime(2030, 1, 2, tzinfo=UTC)
CONTEXT = TaskContext(make_delivery(), Support())


class Names(str, enum.Enum):  # noqa: UP042 - of both kinds, the one that prints as something else than its value
    SEND = "mail.send"


async def send(context: TaskContext, to: str, subject: str = "Hi") -> int:
    """Send a mail."""
    return len(to) + len(subject)


def resize(width: int, height: int = 2) -> int:
    return width * height


# --- the decorator ----------------------------------------------------------------------------------------------------


def test_without_parentheses():
    """A bare decorator names the task after its function, and leaves every option at its default."""
    decorated = task(resize)
    assert decorated.name == f"{MODULE}:resize"
    assert decorated.options == TaskOptions()
    assert decorated.function is resize


def test_with_parentheses():
    """With parentheses a name and options can be given."""
    decorated = task(name="mail.send", queue="mail", max_retries=3, visibility_timeout=timedelta(minutes=1))(send)
    assert decorated.name == "mail.send"
    assert decorated.options == TaskOptions(queue="mail", max_retries=3, visibility_timeout=60)
    assert decorated.definition.effective.queue == "mail"


def test_with_empty_parentheses():
    """Empty parentheses are as good as none."""
    assert task()(resize).name == task(resize).name


def test_nested_functions_have_a_name_too():
    """The default name is the qualified one, so that two functions of one module differ."""

    @task
    def inner(): ...

    assert inner.name == f"{MODULE}:test_nested_functions_have_a_name_too.<locals>.inner"


def test_single_options_go_over_the_options():
    """Options can be given as a whole and singly; the single ones win, and may set one back to its default."""
    options = TaskOptions(queue="a", priority=3, expires=5)
    decorated = task(options=options, priority=4, expires=None)(resize)
    assert decorated.options == TaskOptions(queue="a", priority=4, expires=None)
    assert options.priority == 3


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(TaskOptions)])
def test_every_option_can_be_given_singly(name):
    """The decorator takes each option that `TaskOptions` has, and its signature says so to type checkers."""
    value = {"queue": "q", "retry_policy": RetryPolicy(), "isolation": "inline", "ignore_result": True}.get(name, 1)
    assert getattr(task(**{name: value})(resize).options, name) == value


@pytest.mark.parametrize(
    ("arguments", "option", "remedy"),
    [
        ({"retries": 3}, "retries", "is not a task option"),
        ({"zeta": 1, "alpha": 2}, "alpha", "is not a task option"),
        ({"delay": 3}, "delay", "is not a task option"),
        ({"priority": 10}, "priority", "must be at most 9"),
        ({"options": "fast"}, "options", "must be TaskOptions"),
        ({"options": {"queue": "a"}}, "options", "must be TaskOptions"),
    ],
)
def test_bad_options(arguments, option, remedy):
    """An option that does not exist, or has no such value, is refused by name when the task is defined."""
    with pytest.raises(InvalidOptionError) as caught:
        task(**arguments)
    assert caught.value.option == option
    assert str(caught.value).endswith(remedy)


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", 5, "x" * 201])
def test_bad_names(name):
    """A name is printable text of bounded length, be it of a function or of a handler."""
    with pytest.raises(RegistrationError, match="task name"):
        task(name=name)(resize)
    with pytest.raises(RegistrationError, match="task name"):
        define(FunctionTaskHandler(name, send))


def test_long_names():
    """The greatest length is legal."""
    assert task(name="x" * 200)(resize).name == "x" * 200


def test_a_name_from_an_enum_is_plain_text():
    """The member of a text enum becomes its text: it is that which travels."""
    for definition in (define(task(name=Names.SEND)(resize)), define(FunctionTaskHandler(Names.SEND, send))):
        assert type(definition.name) is str
        assert definition.name == "mail.send"


@pytest.mark.parametrize("thing", [5, "resize"])
def test_only_functions_are_decorated(thing):
    """What cannot be called is no task."""
    with pytest.raises(RegistrationError, match=f"@task needs a function, not {thing!r}"):
        task(thing)
    with pytest.raises(RegistrationError, match="@task needs a function"):
        task()(thing)


@pytest.mark.parametrize("thing", [functools.partial(resize, 1), dict])
def test_only_what_has_a_signature_is_decorated(thing):
    """What has no signature to read is refused like any other bad signature."""
    with pytest.raises(RegistrationError, match="its signature cannot be read"):
        task(name="t")(thing)


def test_a_bad_signature_is_refused_when_the_task_is_defined():
    """What could never be enqueued is refused where the mistake is."""
    with pytest.raises(RegistrationError, match=r"task 't': \*args cannot be checked"):
        task(name="t")(lambda *args: None)


# --- a decorated function ---------------------------------------------------------------------------------------------


async def test_a_task_is_still_its_function():
    """A task is called, by hand, as the function that it was."""
    assert task(resize)(3) == 6
    assert task(resize)(width=3, height=4) == 12
    assert await task(send)(CONTEXT, "abc") == 5
    assert await task(send)(CONTEXT, "abc", subject="") == 3


def test_a_task_looks_like_its_function():
    """Documentation and introspection see the function."""
    decorated = task(name="mail.send")(send)
    assert decorated.__doc__ == "Send a mail."
    assert decorated.__wrapped__ is send
    assert (decorated.__module__, decorated.__name__, decorated.__qualname__) == (MODULE, "send", "send")
    assert inspect.signature(decorated) == inspect.signature(send)
    assert repr(decorated) == "<task mail.send>"
    assert repr(decorated.definition) == "<TaskDefinition mail.send>"


@pytest.mark.parametrize("function", [send, resize])
@pytest.mark.parametrize("isolation", [None, "inline"])
def test_isolation_by_kind(function, isolation):
    """Async functions run on the loop and sync ones in a thread, unless a sync one asks for the loop."""
    options = {} if isolation is None else {"isolation": isolation}
    expected = "thread" if function is resize and isolation is None else "inline"
    assert task(**options)(function).definition.isolation == expected


def test_a_sync_function_may_ask_for_its_thread():
    """What is the default can be said."""
    assert task(isolation="thread")(resize).definition.isolation == "thread"


def test_async_functions_do_not_run_in_threads():
    """An async function in a thread would need a loop there."""
    with pytest.raises(RegistrationError, match=r"task 't': an async function cannot run in a thread"):
        task(name="t", isolation="thread")(send)


def test_async_is_seen_through_a_decorator():
    """What another decorator marks as async runs on the loop."""

    def decorate(function):
        @functools.wraps(function)
        async def wrapper(*args, **kwargs):
            return await function(*args, **kwargs)

        return wrapper

    definition = task(decorate(send)).definition
    assert definition.isolation == "inline"
    assert definition.takes_context
    assert definition.bind(("a",), {}) == b'{"to":"a"}'


# --- annotations that cannot be resolved (yet) ------------------------------------------------------------------------


def test_forward_references_are_resolved_later():
    """A task may be defined above the classes that it uses."""

    @task(name="t")
    def later(order: "Order") -> "Order":  # noqa: F821 - defined below, which is the point
        return order

    globals()["Order"] = msgspec.defstruct("Order", [("id", int)])
    try:
        call = later.bind(globals()["Order"](5))
        assert call.args == b'{"order":{"id":5}}'
        assert later.definition is later.definition
    finally:
        del globals()["Order"]


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (samples.only_for_type_checkers, "name 'Decimal' is not defined"),
        (samples.missing_attribute, "has no attribute 'nonsense'"),
    ],
)
def test_annotations_that_are_never_resolved(function, problem):
    """A name that exists for type checkers only is an error at first use, with the remedy."""
    decorated = task(name="t")(function)
    for use in (lambda: decorated.definition, lambda: decorated.bind(1), lambda: TaskRegistry([decorated])):
        with pytest.raises(RegistrationError, match=r"task 't': an annotation cannot be resolved") as caught:
            use()
        assert problem in str(caught.value)
        assert "import it at run time" in str(caught.value)


def test_a_bad_name_is_refused_at_once_even_so():
    """A name is checked when the task is defined, whatever its annotations."""
    with pytest.raises(RegistrationError, match="task name ''"):
        task(name="")(samples.only_for_type_checkers)


# --- calls ------------------------------------------------------------------------------------------------------------


@attrs.define
class Target:
    """What tasks are enqueued on."""

    calls: list[TaskCall[Any]] = attrs.field(factory=list)

    async def submit(self, call):
        self.calls.append(call)
        return f"handle {len(self.calls)}"


def test_bind():
    """A bound call holds the arguments, and what the task says of itself."""
    decorated = task(name="mail.send", queue="mail")(send)
    call = decorated.bind("a", subject="b")
    assert json.loads(call.args) == {"to": "a", "subject": "b"}
    assert call == TaskCall(
        definition=decorated.definition,
        args=b'{"to":"a","subject":"b"}',
        options=TaskOptions(queue="mail").effective(),
        delay=None,
        eta=None,
        expires_at=None,
        headers={},
        meta=b"{}",
        task_id=None,
    )
    assert call.name == "mail.send"


def test_bind_checks_the_arguments():
    """A call that does not fit is refused before there is anything to enqueue."""
    with pytest.raises(ArgumentsError, match=r"task 'mail.send': argument 'to': is missing"):
        task(name="mail.send")(send).bind(subject="b")


async def test_enqueue():
    """Enqueueing submits the bound call and returns what comes of it."""
    target, decorated = Target(), task(send)
    assert await decorated.enqueue(target, "a") == "handle 1"
    assert await decorated.with_options(priority=9, delay=5).enqueue(target, to="b") == "handle 2"
    first, second = target.calls
    assert (first.args, first.options.priority, first.delay) == (b'{"to":"a"}', 0, None)
    assert (second.args, second.options.priority, second.delay) == (b'{"to":"b"}', 9, 5)


async def test_arguments_may_have_any_name():
    """The target is positional, so that a task may have an argument of that name, or be named `self`."""

    @task
    def odd(self: int, stem: int): ...

    target = Target()
    await odd.enqueue(target, self=1, stem=2)
    await odd.with_options().enqueue(target, self=1, stem=2)
    assert [call.args for call in target.calls] == [b'{"self":1,"stem":2}'] * 2
    assert odd(self=1, stem=2) is None
    assert odd.bind(self=1, stem=2).args == b'{"self":1,"stem":2}'
    assert odd.with_options().bind(self=1, stem=2).args == b'{"self":1,"stem":2}'


def test_a_bound_task_can_be_used_again():
    """Options are kept for every call made through them, and change nothing for others."""
    decorated = task(queue="a")(resize)
    bound = decorated.with_options(queue="b")
    assert [bound.bind(1).options.queue, bound.bind(2).options.queue] == ["b", "b"]
    assert decorated.bind(1).options.queue == "a"


def test_bad_call_options_are_refused_with_the_call():
    """What `with_options` is given is checked when a call is made."""
    with pytest.raises(InvalidOptionError, match="priority=10"):
        task(resize).with_options(priority=10).bind(1)


DEFINITION = define(
    task(name="t", queue="a", priority=3, expires=60, soft_time_limit=5, retry_policy=RetryPolicy(base=1))(resize)
)


def call_with(**options):
    """A call with these options."""
    return make_call(DEFINITION, b"{}", options)


def test_a_call_without_options_is_the_tasks():
    """Where a call says nothing, the very options of the task are used."""
    assert call_with().options is DEFINITION.effective
    assert call_with(delay=5).options is DEFINITION.effective
    assert call_with(options=TaskOptions()).options is DEFINITION.effective


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"queue": "b"}, {"queue": "b"}),
        ({"priority": 0}, {"priority": 0}),
        ({"max_retries": 2}, {"max_retries": 2}),
        ({"visibility_timeout": timedelta(minutes=1)}, {"visibility_timeout": 60.0}),
        ({"soft_time_limit": None}, {"soft_time_limit": None}),
        ({"hard_time_limit": 6}, {"hard_time_limit": 6.0}),
        ({"expires": 5}, {"expires": 5.0}),
        ({"expires": None}, {"expires": None}),
        ({"retry_policy": None}, {"retry_policy": None}),
        ({"retry_policy": RetryPolicy(base=5)}, {"retry_policy": RetryPolicy(base=5)}),
        ({"max_strikes": 1}, {"max_strikes": 1}),
        ({"result_ttl": 5}, {"result_ttl": 5.0}),
        ({"ignore_result": True}, {"ignore_result": True}),
        ({"options": TaskOptions(queue="b", priority=1)}, {"queue": "b", "priority": 1}),
        ({"options": TaskOptions(queue="b", priority=1), "priority": 2}, {"queue": "b", "priority": 2}),
        ({"options": TaskOptions(expires=5), "expires": None}, {"expires": None}),
    ],
)
def test_options_of_a_call(options, changed):
    """A call's options go over the task's, singly given ones over those given as a whole."""
    assert call_with(**options).options == attrs.evolve(DEFINITION.effective, **changed)


def test_every_call_option_is_tested_here():
    """A new option of calls needs a line in these tables."""
    options = {field.name for field in attrs.fields(TaskOptions)} - {"isolation"}
    assert set(CallOptions.__annotations__) == options | {"options", "delay", "eta", "headers", "meta", "task_id"}


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ({"delay": 5}, "delay", 5),
        ({"delay": timedelta(seconds=5)}, "delay", timedelta(seconds=5)),
        ({"eta": MOMENT}, "eta", MOMENT),
        ({"expires": MOMENT}, "expires_at", MOMENT),
        ({"headers": {"a": "b"}}, "headers", {"a": "b"}),
        ({"headers": MappingProxyType({"a": "b"})}, "headers", {"a": "b"}),
        ({"headers": {}}, "headers", {}),
        ({"meta": {"trace": {"id": [1]}}}, "meta", b'{"trace":{"id":[1]}}'),
        ({"meta": MappingProxyType({"a": 1})}, "meta", b'{"a":1}'),
        ({"meta": {}}, "meta", b"{}"),
        ({"task_id": "order-5"}, "task_id", "order-5"),
        ({"task_id": "x" * 200}, "task_id", "x" * 200),
        ({"task_id": None}, "task_id", None),
    ],
)
def test_fields_of_a_call(options, field, value):
    """What belongs to a single call is kept beside the options, and nothing else is touched."""
    call = call_with(**options)
    assert getattr(call, field) == value
    plain = call_with()
    untouched = {"delay", "eta", "expires_at", "headers", "meta", "task_id", "options", "args"} - {field}
    assert all(getattr(call, name) == getattr(plain, name) for name in untouched)


def test_headers_are_copied():
    """Changing the mapping after the call changes nothing."""
    headers = {"a": "b"}
    call = call_with(headers=headers)
    headers["a"] = "c"
    assert call.headers == {"a": "b"}


@pytest.mark.parametrize(
    ("options", "option", "remedy"),
    [
        ({"prioritiy": 3}, "prioritiy", "is not an option of a call"),
        ({"zeta": 1, "alpha": 2}, "alpha", "is not an option of a call"),
        ({"isolation": "inline"}, "isolation", "is not an option of a call"),
        ({"options": TaskOptions(isolation="inline")}, "isolation", "belongs to the task, not to a single call"),
        ({"options": {"queue": "a"}}, "options", "must be TaskOptions"),
        ({"priority": 10}, "priority", "must be at most 9"),
        ({"queue": None}, "queue", "must be a non-empty printable string without blanks around it"),
        ({"expires": "tomorrow"}, "expires", "must be a finite number of seconds or a timedelta"),
        ({"expires": date(2030, 1, 2)}, "expires", "must be a finite number of seconds or a timedelta"),
        ({"hard_time_limit": 4}, "soft_time_limit", "must be less than hard_time_limit (4 s)"),
        ({"retry_policy": RetryPolicy(retry_on=KeyError)}, "retry_policy", "classes do not travel"),
        ({"retry_policy": RetryPolicy(never_retry=KeyError)}, "retry_policy", "classes do not travel"),
        ({"options": TaskOptions(retry_policy=RetryPolicy(retry_on=OSError))}, "retry_policy", "classes do not travel"),
        ({"task_id": ""}, "task_id", "must be printable text of 1 to 200 characters"),
        ({"task_id": "a\nb"}, "task_id", "must be printable text of 1 to 200 characters"),
        ({"task_id": "x" * 201}, "task_id", "must be printable text of 1 to 200 characters"),
        ({"task_id": 5}, "task_id", "must be printable text of 1 to 200 characters"),
    ],
)
def test_bad_options_of_a_call(options, option, remedy):
    """An option that does not exist, or has no such value, is refused by name."""
    with pytest.raises(InvalidOptionError) as caught:
        call_with(**options)
    assert caught.value.option == option
    assert str(caught.value).endswith(remedy)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"headers": None}, "headers"),
        ({"headers": [("a", "b")]}, "headers"),
        ({"headers": {"a": 1}}, "headers['a']"),
        ({"headers": {"ok": "ok", "a": None}}, "headers['a']"),
        ({"headers": {1: "a"}}, "headers[1]"),
        ({"headers": {"a": "\ud800"}}, "headers"),
        ({"meta": None}, "meta"),
        ({"meta": "trace"}, "meta"),
        ({"meta": [1]}, "meta"),
        ({"meta": {1: 2}}, "meta"),
        ({"meta": {"a": object()}}, "meta"),
        ({"meta": {"a": "\ud800"}}, "meta"),
    ],
)
def test_headers_and_meta_that_cannot_travel(options, field):
    """Headers are text and meta is a JSON object; anything else is refused by name."""
    with pytest.raises(SerializationError) as caught:
        call_with(**options)
    assert caught.value.field == field


# --- handlers ---------------------------------------------------------------------------------------------------------


class Email(TaskHandler[str]):
    name = "email.send"
    options = TaskOptions(max_retries=2)

    async def call(self, context, args):
        return f"{context.id}: {args['to']}"


class Blocking(TaskHandler[str]):
    name = "blocking"

    def call(self, context, args):
        return "done"


class AsyncCallable:
    async def __call__(self, context, args):
        return "called"


async def test_a_class_as_a_task():
    """A handler's class gives name and options; its `call` gets context and arguments as JSON has them."""
    definition = define(email := Email())
    assert (definition.name, definition.source) == ("email.send", email)
    assert definition.options == TaskOptions(max_retries=2)
    assert definition.effective.max_retries == 2
    assert definition.isolation == "inline"
    assert definition.takes_context
    arguments = definition.decode(msgspec.Raw(definition.encode({"to": "a"})))
    assert arguments == {"to": "a"}
    assert await definition.call(CONTEXT, arguments) == "id-1: a"


def test_a_sync_handler_runs_in_a_thread():
    """A `call` that is not async runs in a thread, and options are the defaults if there are none."""
    definition = define(Blocking())
    assert (definition.isolation, definition.options) == ("thread", TaskOptions())
    assert definition.call(CONTEXT, {}) == "done"


async def async_entrypoint(context, args):
    return args


def sync_entrypoint(context, args):
    return args


@pytest.mark.parametrize(
    ("entrypoint", "isolation"),
    [
        (async_entrypoint, "inline"),
        (sync_entrypoint, "thread"),
        (AsyncCallable(), "inline"),
        (functools.partial(async_entrypoint), "inline"),
        (functools.partial(sync_entrypoint), "thread"),
        (Email().call, "inline"),
        (Blocking().call, "thread"),
    ],
)
def test_isolation_of_an_entrypoint(entrypoint, isolation):
    """Whatever is called, it is seen whether it is async."""
    assert define(FunctionTaskHandler("t", entrypoint)).isolation == isolation


async def test_a_function_handler():
    """A handler can be made of a function, with a name and options."""
    handler = FunctionTaskHandler("t", async_entrypoint, options=TaskOptions(queue="a"))
    definition = define(handler)
    assert (definition.name, definition.effective.queue) == ("t", "a")
    assert await definition.call(CONTEXT, {"a": 1}) == {"a": 1}
    assert await handler.call(CONTEXT, {"a": 1}) == {"a": 1}
    assert repr(handler) == "FunctionTaskHandler('t')"
    assert FunctionTaskHandler("t", async_entrypoint).options == TaskOptions()


def test_an_entrypoint_is_called():
    """What cannot be called is refused when the handler is made."""
    with pytest.raises(RegistrationError, match=r"task 't': entrypoint must be a function of context and args"):
        FunctionTaskHandler("t", "send")


def test_handlers_take_any_arguments():
    """Without a signature all that is checked is that the arguments are a JSON object, here and at the worker."""
    definition = define(Email())
    assert definition.encode({"anything": [1]}) == b'{"anything":[1]}'
    assert definition.encode(MappingProxyType({})) == b"{}"
    with pytest.raises(ArgumentsError, match=r"task 'email.send': arguments: must be a mapping"):
        definition.encode([1])
    with pytest.raises(ArgumentsError, match=r"task 'email.send': argument 'a'"):
        definition.encode({"a": object()})
    for raw in (b"[1]", b"null", b"{", b'{"a":"\xff"}', b"[" * 100_000):
        with pytest.raises(ArgumentsError, match=r"task 'email.send': arguments: "):
            definition.decode(msgspec.Raw(raw))


def test_handlers_take_no_positional_arguments():
    """Positions mean nothing without a signature."""
    with pytest.raises(ArgumentsError, match=r"task 'email.send': arguments: are given by name"):
        define(Email()).bind(("a",), {})


def test_results_are_decoded_by_the_signature_where_there_is_one():
    """The result of a typed task has its type; that of a handler is what JSON gives."""

    @task
    def typed() -> set[int]: ...

    assert typed.definition.decode_result(msgspec.Raw(b"[1,1]")) == {1}
    assert define(Email()).decode_result(msgspec.Raw(b"[1,1]")) == [1, 1]
    with pytest.raises(msgspec.DecodeError):
        typed.definition.decode_result(msgspec.Raw(b'"x"'))


def test_typed_definitions_encode_by_name():
    """A typed task can be called by its name too, with the same checks."""
    definition = task(name="t")(resize).definition
    assert definition.encode({"width": 3}) == b'{"width":3}'
    assert definition.call(None, definition.decode(msgspec.Raw(b'{"width":3}'))) == 6
    assert not definition.takes_context
    with pytest.raises(ArgumentsError, match="argument 'width': is missing"):
        definition.encode({})


# --- what is no task --------------------------------------------------------------------------------------------------


class Nameless(TaskHandler[None]):
    async def call(self, context, args): ...


class BadOptions(TaskHandler[None]):
    name = "bad"
    options = {"queue": "a"}  # noqa: RUF012 - wrong on purpose

    async def call(self, context, args): ...


class Threaded(TaskHandler[None]):
    name = "threaded"
    options = TaskOptions(isolation="thread")

    async def call(self, context, args): ...


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (Nameless(), "Nameless has no name; set the class attribute 'name'"),
        (BadOptions(), "task 'bad': options must be TaskOptions, not dict"),
        (Threaded(), "task 'threaded': an async function cannot run in a thread; leave isolation out"),
        (Email, r"Email is a class; pass an instance: Email\(\)"),
        (FunctionTaskHandler, "FunctionTaskHandler is a class; pass an instance"),
        (send, "is not a task; decorate the function with @task, or use a TaskHandler"),
        (int, "is not a task"),
        (b"email.send", "b'email.send' is not a task"),
        (None, "None is not a task"),
    ],
)
def test_what_is_no_task(source, problem):
    """What cannot be registered is refused with what to do about it."""
    with pytest.raises(RegistrationError, match=problem):
        define(source)
    with pytest.raises(RegistrationError, match=problem):
        TaskRegistry([source])


def test_a_handler_without_call_cannot_be_made():
    """A handler has to say what it does."""

    class Empty(TaskHandler[None]):
        name = "empty"

    with pytest.raises(TypeError, match="abstract"):
        Empty()


# --- the registry -----------------------------------------------------------------------------------------------------


def test_registry():
    """Tasks of all kinds are found by their names, in the order in which they were registered."""
    typed, email, function = task(name="t")(resize), Email(), FunctionTaskHandler("f", send)
    registry = TaskRegistry([typed, email, function])
    assert [definition.name for definition in registry] == ["t", "email.send", "f"]
    assert [definition.source for definition in registry] == [typed, email, function]
    assert len(registry) == 3
    assert "t" in registry
    assert "x" not in registry
    assert 5 not in registry
    assert registry.get("t") is registry.resolve("t") is typed.definition
    assert registry.get("x") is None


def test_an_empty_registry():
    """A registry may begin empty."""
    registry = TaskRegistry()
    assert len(registry) == 0
    assert registry.register(email := Email()).source is email
    assert len(registry) == 1


def test_unknown_tasks_are_named():
    """An unknown name is refused along with those that are known."""
    with pytest.raises(UnregisteredTaskError, match=r"no task named 'x' is registered \(known: email.send, t\)"):
        TaskRegistry([task(name="t")(resize), Email()]).resolve("x")


def test_registering_the_same_task_again():
    """The very same task may be registered twice, so that lists of tasks can overlap."""
    typed, email = task(name="t")(resize), Email()
    registry = TaskRegistry([typed, email, typed])
    assert registry.register(email) is registry.resolve("email.send")
    assert len(registry) == 2


@pytest.mark.parametrize("second", [task(name="email.send")(resize), Email(), FunctionTaskHandler("email.send", send)])
def test_two_tasks_of_one_name(second):
    """Two different tasks cannot share a name: which would run, nobody could tell."""
    registry = TaskRegistry([first := Email()])
    with pytest.raises(DuplicateTaskError) as caught:
        registry.register(second)
    assert caught.value.name == "email.send"
    assert registry.resolve("email.send").source is first
