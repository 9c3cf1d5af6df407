"""What is written about figures: the dashboard, the alerts and the table name those that there are, and all of them."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from journal.service.measures import CATALOGUE

DOCS = Path(__file__).parents[2] / "docs"
PROCESS = {
    "process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds", "process_max_fds",
    "process_start_time_seconds", "process_virtual_memory_bytes",
}  # fmt: skip
_NAME = re.compile(r"\b(?:journal|process)_[a-z_]+\b")
LABELS = {
    "job", "instance", "le", "worker", "version", "method", "route", "status", "answer", "decided", "journal", "client",
    "reason", "source", "what", "pool", "state", "told", "part",
}  # fmt: skip


def exported() -> dict[str, str]:
    """The names of samples, each with its family."""
    names: dict[str, str] = {}
    for family, (kind, _) in CATALOGUE.items():
        suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}[kind]
        names |= {family + suffix: family for suffix in suffixes}
    return (
        names
        | {name: name for name in PROCESS - {"process_cpu_seconds"}}
        | {"process_cpu_seconds_total": "process_cpu_seconds"}
    )


def panels() -> list[dict[str, Any]]:
    board = json.loads((DOCS / "grafana.json").read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def on_the_board() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


def table() -> str:
    section = (DOCS / "operations.md").read_text().partition("\n## Watching it\n")[2].partition("\n## ")[0]
    return "\n".join(line for line in section.splitlines() if line.startswith("| `"))


@pytest.mark.parametrize("expression", [*on_the_board(), *(rule["expr"] for rule in rules())])
def test_an_expression_names_only_figures_that_are_exported(expression: str) -> None:
    named = set(_NAME.findall(expression))

    assert named - exported().keys() == set()
    assert named or "up{" in expression
    for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert set(labels.split(", ")) <= LABELS


def test_every_figure_is_on_the_dashboard_and_in_the_table_of_operations() -> None:
    named = {exported()[name] for expression in on_the_board() for name in _NAME.findall(expression)}
    told = set(re.findall(r"`(journal_[a-z_]+)`", table()))

    assert set(CATALOGUE) - named == set()
    assert told == set(CATALOGUE)


def test_the_dashboard_brings_no_data_source_of_its_own() -> None:
    board = json.loads((DOCS / "grafana.json").read_text())
    sources = {panel["datasource"]["uid"] for panel in panels()}
    sources |= {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]}

    assert sources == {"${datasource}"}
    assert [variable["type"] for variable in board["templating"]["list"]] == ["datasource", "query"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert board["schemaVersion"] >= 39
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def test_an_alert_says_what_it_is_and_what_it_means() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "warn")
        assert rule["for"]
        assert set(rule["annotations"]) == {"summary", "description"}
    assert len({rule["alert"] for rule in rules()}) == len(rules()) >= 5


def promtool(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """Prometheus's own reading; where it is missing a test is skipped, and on CI fails."""
    if shutil.which("promtool") is None:
        reason = "promtool is not installed: on Debian, apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True)


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", DOCS / "alerts.yml")

    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_can_read_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    """As rules: there is no other way to have promtool read an expression."""
    known = {"$__rate_interval": "5m", "$__range": "1h", "$job": "journal"}
    read = []
    for number, expression in enumerate(on_the_board()):
        for name, value in known.items():
            expression = expression.replace(name, value)
        read.append({"record": f"board:{number}", "expr": expression})
    path = tmp_path / "board.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": read}]}))

    done = promtool("check", "rules", path)

    assert done.returncode == 0, done.stdout + done.stderr


WELL = {
    'up{job="journal",instance="a"}': "1x120",
    'journal_worker_up{job="journal",instance="a",worker="0"}': "1x120",
    'journal_postgresql_up{job="journal",instance="a",worker="0"}': "1x120",
    'journal_listener_connected{job="journal",instance="a",worker="0"}': "1x120",
    'journal_writer_waiting_seconds{job="journal",instance="a",worker="0"}': "0x120",
    'journal_http_requests_total{job="journal",instance="a",worker="0",status="200"}': "0+100x120",
    'journal_http_requests_total{job="journal",instance="a",worker="0",status="503"}': "0x120",
    'journal_spool_free_bytes{job="journal",instance="a"}': "9e9x120",
}


@pytest.mark.parametrize(
    ("series", "values", "alert"),
    [
        ("", "", None),
        ("journal_worker_up", "0x120", "JournalWorkerIsSilent"),
        ("journal_postgresql_up", "0x120", "PostgreSQLIsAway"),
        ("journal_listener_connected", "0x120", "ListenerIsDown"),
        ("journal_writer_waiting_seconds", "0+1x120", "PushesWait"),
        ('status="503"', "0+20x120", "RequestsFail"),
        ("journal_spool_free_bytes", "1e9x120", "SpoolDiskFills"),
    ],
)
def test_an_alert_goes_off_when_it_should_and_no_other(
    tmp_path: Path, series: str, values: str, alert: str | None
) -> None:
    ill = {name: values if series and series in name else known for name, known in WELL.items()}

    assert alerts(tmp_path, ill) == (set() if alert is None else {alert})


def alerts(folder: Path, series: dict[str, str]) -> set[str]:
    """The alerts that go off within the hour, found by expecting none."""
    told = {
        "rule_files": [str(DOCS / "alerts.yml")],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [
                    {"eval_time": "50m", "alertname": rule["alert"], "exp_alerts": []} for rule in rules()
                ],
            }
        ],
    }
    path = folder / "test.yml"
    path.write_text(yaml.safe_dump(told))
    done = promtool("test", "rules", path)
    return set(re.findall(r'alertname="(\w+)"', done.stdout + done.stderr))
