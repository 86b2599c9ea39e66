"""Tables of a run: what each contender reached, and how stem-trio stands to it, round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import attrs

from .contenders import CONTENDERS, STEM
from .plot import Panel, draw

__all__ = ["markdown", "write"]

NAME: Final = "redis_benchmark"


@attrs.frozen
class Metric:
    """A column.

    Args:
        key: name of the figure.
        title: its heading.
        form: how it is written.
        more_is_better: whether it is a rate, and not a cost.
    """

    key: str
    title: str
    form: Callable[[float], str]
    more_is_better: bool = False


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


RATES: Final = (
    Metric("enqueue_sequential", "enqueue one by one, /s", _whole, more_is_better=True),
    Metric("enqueue_concurrent", "enqueue, 100 at once, /s", _whole, more_is_better=True),
    Metric("enqueue_batch", "enqueue in batches, /s", _whole, more_is_better=True),
    Metric("drain", "drain, /s", _whole, more_is_better=True),
    Metric("sleeps", "tasks of 0.1 s, /s", _whole, more_is_better=True),
)
TRIPS: Final = (
    Metric("latency_p50", "round trip p50, ms", _short),
    Metric("latency_p99", "round trip p99, ms", _short),
)
COSTS: Final = (
    Metric("worker_cpu_us", "CPU of the worker, µs/task", _whole),
    Metric("server_cpu_us", "CPU of the server, µs/task", _whole),
    Metric("commands_sent", "commands sent, /task", _short),
    Metric("commands_in_scripts", "called in scripts, /task", _short),
    Metric("rss_idle", "memory before, MiB", _whole),
    Metric("rss_after", "memory after, MiB", _whole),
    Metric("pss_after", "memory after, shared pages once (PSS), MiB", _whole),
)
COMPARED: Final = (*RATES, *TRIPS, *(metric for metric in COSTS if metric.key != "commands_in_scripts"))

_NONE: Final = "-"

ByRound = dict[int, dict[str, float]]


class Results:
    """The figures of a run.

    Args:
        data: what the harness wrote.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._figures: dict[str, ByRound] = {}
        for row in data["rows"]:
            self._figures.setdefault(row["contender"], {}).setdefault(row["round"], {}).update(row["figures"])
        for rounds in self._figures.values():
            for figures in rounds.values():
                figures.update(_better_trip(figures))

    @property
    def names(self) -> list[str]:
        """Who was measured, in the order of the table of contenders."""
        return [name for name in CONTENDERS if name in self._figures]

    def values(self, name: str, key: str) -> dict[int, float]:
        """One figure of one contender, by round."""
        source = CONTENDERS[name].enqueues_like if key.startswith("enqueue_") else None
        rounds = self._figures.get(source or name, {})
        return {number: figures[key] for number, figures in rounds.items() if key in figures}

    def ratios(self, name: str, metric: Metric) -> list[float]:
        """How many times better stem-trio did, in each round in which both were measured."""
        mine, theirs = self.values(STEM, metric.key), self.values(name, metric.key)
        both = [(mine[number], theirs[number]) for number in mine if number in theirs]
        if metric.more_is_better:
            return [our / their for our, their in both if their]
        return [their / our for our, their in both if our]


def _better_trip(figures: Mapping[str, float]) -> dict[str, float]:
    kinds = [kind for kind in ("default", "tuned") if f"latency_{kind}_p50" in figures]
    if not kinds:
        return {}
    best = min(kinds, key=lambda kind: figures[f"latency_{kind}_p50"])
    return {f"latency_{part}": figures[f"latency_{best}_{part}"] for part in ("p50", "p99")}


def _spread(values: Iterable[float], form: Callable[[float], str]) -> str:
    known = list(values)
    if not known:
        return _NONE
    middle = form(statistics.median(known))
    return middle if len(known) == 1 else f"{middle} ({form(min(known))} to {form(max(known))})"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    titles = list(header)
    lines = [titles, ["---", *["--:"] * (len(titles) - 1)], *(list(row) for row in rows)]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _figures(results: Results, metrics: Iterable[Metric]) -> list[str]:
    columns = [metric for metric in metrics if any(results.values(name, metric.key) for name in results.names)]
    if not columns:
        return ["Not measured."]
    return _table(
        ["", *(metric.title for metric in columns)],
        (
            [
                CONTENDERS[name].title,
                *(_spread(results.values(name, metric.key).values(), metric.form) for metric in columns),
            ]
            for name in results.names
        ),
    )


def _trips(results: Results) -> list[str]:
    keys = [f"latency_{kind}_{part}" for kind in ("default", "tuned") for part in ("p50", "p99")]
    titles = ["p50, as it comes", "p99", "p50, polls of 1 ms", "p99"]
    trips = ["latency_default_trips", "latency_tuned_trips"]
    rows: list[list[str]] = []
    for name in results.names:
        counts = [sorted({f"{value:.0f}" for value in results.values(name, key).values()}) for key in trips]
        cells = [_spread(results.values(name, key).values(), _short) for key in keys]
        rows.append([CONTENDERS[name].title, *cells, " and ".join(count[0] for count in counts if count)])
    return _table(["", *titles, "trips a round"], rows)


def _comparison(results: Results) -> list[str]:
    metrics = [metric for metric in COMPARED if results.values(STEM, metric.key)]
    others = [name for name in results.names if name != STEM]
    return _table(
        ["stem-trio is better by", *(CONTENDERS[name].title for name in others)],
        (
            [metric.title.rpartition(",")[0], *(_spread(results.ratios(name, metric), _short) for name in others)]
            for metric in metrics
        ),
    )


def _losses(results: Results) -> list[str]:
    lines: list[str] = []
    for name in results.names:
        if CONTENDERS[name].environment == CONTENDERS[STEM].environment:
            continue
        for metric in COMPARED:
            if CONTENDERS[name].enqueues_like and metric.key.startswith("enqueue_"):
                continue  # said of the other one already
            ratios = results.ratios(name, metric)
            if ratios and statistics.median(ratios) < 1:
                ours = _spread(results.values(STEM, metric.key).values(), metric.form)
                theirs = _spread(results.values(name, metric.key).values(), metric.form)
                lines.append(
                    f"- {metric.title}: {CONTENDERS[name].title} has {theirs}, stem-trio {ours}; "
                    f"ratio {_spread(ratios, _short)}"
                )
    return lines or ["Nowhere in this run: no rival had a better median of ratios in any of these columns."]


def _drops(data: Mapping[str, Any]) -> list[str]:
    """Failures and surprises, for a reader to judge the rest by."""
    lines: list[str] = []
    for row in data["rows"]:
        who = f"{row['contender']}, {row['phase']}, round {row['round']}"
        if row["error"]:
            lines.append(f"- {who} failed: `{' '.join(row['error'].split())[:300]}`".replace("|", "/"))
        elif row["figures"].get("drain_ran_twice", 0) > 0:
            lines.append(f"- {who}: {row['figures']['drain_ran_twice']:.0f} tasks ran more than once")
    return lines


def _loads(data: Mapping[str, Any], results: Results) -> list[str]:
    rows: list[list[str]] = []
    for name in results.names:
        contender = CONTENDERS[name]
        load = contender.load.scaled(data["tasks"])
        counts = (load.sequential, load.concurrent, load.batch)
        enqueued = ["", "", ""] if contender.enqueues_like else [f"{count:,}" if count else _NONE for count in counts]
        packages = data["versions"].get(contender.environment, {})
        versions = ", ".join(f"{package} {packages[package]}" for package in _PACKAGES if package in packages)
        rows.append([contender.title, *enqueued, f"{load.drain:,}", f"{load.sleeps:,}", versions])
    return _table(["tasks a round", "one by one", "100 at once", "batches", "drain", "of 0.1 s", "versions"], rows)


_PACKAGES: Final = (
    "stem-trio",
    "streaq",
    "taskiq",
    "taskiq-redis",
    "saq",
    "arq",
    "dramatiq",
    "celery",
    "kombu",
    "coredis",
    "redis",
    "hiredis",
    "trio",
    "uvloop",
)


def markdown(data: Mapping[str, Any], *, plot: str | None = None) -> str:
    """The whole report."""
    results = Results(data)
    machine = data["machine"]
    speeds = [row["calibration_ns"] for row in data["rows"]]
    rounds = len({row["round"] for row in data["rows"]})
    date = datetime.fromisoformat(data["at"])
    parts = [
        (
            f"{rounds} round{'s' if rounds > 1 else ''}, {date.day} {date:%B %Y}, commit {data.get('commit')}. "
            f"{machine['processor']}, "
            f"{machine['cores']} cores shared by server, worker and producer, {machine['memory']}, "
            f"{machine['system']}; "
            f"Python {machine['python']}; {data['server']} on the loopback interface without persistence. "
            f"An empty loop took {min(speeds):.0f} to {max(speeds):.0f} ns a turn in the course of the run: so much "
            "does the speed of the machine drift, which is why ratios are made within a round only."
        ),
    ]
    if data["tasks"] < 20_000 or rounds < 3:
        parts.append("**A run with small numbers: a test of the harness, not a measurement.**")
    if plot is not None:
        parts.append(f"![Rates and costs of each contender, median and spread]({plot})")
    parts += [
        "Medians of the rounds, with the least and the greatest in brackets. Results are on for everybody.",
        "\n".join(_figures(results, RATES)),
        (
            "Cost of one task while the queue is drained, and memory of all processes of the worker. Commands are "
            "those that clients send, and those that scripts call on the server; both as MONITOR tells them."
        ),
        "\n".join(_figures(results, COSTS)),
        "From enqueue to result, one task at a time, in milliseconds:",
        "\n".join(_trips(results)),
    ]
    if STEM in results.names and len(results.names) > 1:
        parts += [
            (
                "How many times better stem-trio is, in each round by itself; less than 1 means that it is worse. "
                "Round trips are compared with the better of the two settings."
            ),
            "\n".join(_comparison(results)),
            "### Where we lose",
            "\n".join(_losses(results)),
        ]
    parts += ["What each was given:", "\n".join(_loads(data, results))]
    if drops := _drops(data):
        parts += ["What did not go as it should:", "\n".join(drops)]
    return "\n\n".join(parts) + "\n"


def write(data: Mapping[str, Any], docs: Path) -> list[Path]:
    """Write table and plot where `docs/performance.md` includes them; gives their paths."""
    results = Results(data)
    folder = docs / "_generated"
    folder.mkdir(parents=True, exist_ok=True)
    table, plot = folder / f"{NAME}.md", folder / f"{NAME}.svg"
    panels = [
        Panel(
            title=f"{metric.title} ({'more' if metric.more_is_better else 'less'} is better)",
            values=[
                (CONTENDERS[name].title.strip("*"), sorted(results.values(name, metric.key).values()))
                for name in results.names
            ],
            form=metric.form,
            highlight=CONTENDERS[STEM].title.strip("*"),
        )
        for metric in (RATES[1], RATES[3], TRIPS[0], COSTS[0])
    ]
    plot.write_text(draw(panels), encoding="utf-8")
    table.write_text(markdown(data, plot=plot.name), encoding="utf-8")
    return [table, plot]
