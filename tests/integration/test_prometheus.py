#!/usr/bin/env python3
"""deploy/prometheus and deploy/grafana: promtool's judgement, and that every metric they use exists."""
import json
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import dr
from exposition import scrape
from monitored import listening

PROJECT = pathlib.Path(__file__).resolve().parents[2]
RULES = PROJECT / "deploy/prometheus"
DASHBOARD = PROJECT / "deploy/grafana/drworker.json"


def promtool(*words):
    p = subprocess.run(["promtool", *words], cwd=RULES, capture_output=True, text=True, timeout=120)
    assert p.returncode == 0, p.stdout + p.stderr
    return p.stdout


def expressions():
    for line in (RULES / "rules.yml").read_text().splitlines():
        if line.strip().startswith("expr:"):
            yield line.split("expr:", 1)[1]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def case_rules(case):
    """Well formed; each alert is fired by one test and kept silent by another."""
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "rules.yml")
    promtool("test", "rules", "rules.test.yml", "rules.long.test.yml")
    alerts = re.findall(r"- alert: (\w+)", (RULES / "rules.yml").read_text())
    tests = (RULES / "rules.test.yml").read_text() + (RULES / "rules.long.test.yml").read_text()
    told = re.findall(r"- name: (\w+), (red|green)", tests)
    assert len(alerts) == len(set(alerts)) > 30
    assert sorted(told) == sorted((a, colour) for a in alerts for colour in ("red", "green"))


def case_dashboard(case):
    """Panels do not overlap and have their own ids."""
    d = json.loads(DASHBOARD.read_text())
    seen, ids = set(), [p["id"] for p in d["panels"]]
    assert len(ids) == len(set(ids)) and d["uid"] == "drworker"
    for p in d["panels"]:
        g = p["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert not cells & seen and all(x < 24 for x, _ in cells), p["title"]
        seen |= cells


def case_metrics_exist(case):
    """A worker that has backed up, drilled and judged tells every metric that rules and dashboard use."""
    case.store(database=False, files=True)
    worker = case.worker(DR_HTTP_LISTEN="127.0.0.1:0", DR_SCHEDULES=None)
    where = dr.wait(lambda: listening(worker))
    case.backup("files")
    case.order("test-recovery", "drill", procedure_id="file_system_recovery")
    dr.wait(lambda: case.r.zcard("{dr}:schednext"))
    case.order("retention", "r")
    case.order("health", "h")
    m = scrape(where)
    used = {name for e in expressions() for name in re.findall(r"\b((?:drworker|process)_\w+)", e)}
    assert len(used) > 40
    missing = {n for n in used if n not in m.samples}
    assert not missing, missing
    drill = {"procedure": "file_system_recovery"}
    assert m("drworker_drill_ok", **drill) == 1 and m("drworker_drill_rto_target_seconds", **drill) == 1200
    assert 0 < m("drworker_drill_rto_seconds", **drill) < 600 and 0 <= m("drworker_drill_age_seconds", **drill) < 600
    assert m("drworker_health_status") == 2  # one key slot


dr.run(globals(), at_once=2)
