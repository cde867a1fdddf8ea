"""The report of a run as Markdown tables: figures, then ratios."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .files import FILE_TITLES, FILE_UNITS, PARQUET, SIZE
from .typed_files import PARQUET_LABEL
from .workloads import ALLOCATED, INDEX_BYTES, MEMORY, RANGE_INDEX_BYTES, REPORTED, TITLES, UNITS


def amount(value: float) -> str:
    """A number with three digits and a magnitude: 12.3 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{_three(value / size)} {letter}"
    return _three(value)


def _three(value: float) -> str:
    if value >= 99.95:
        return f"{value:.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def times(ratio: dict[str, float]) -> str:
    """A ratio with its spread: 3.1× (2.9–3.4)."""
    median, low, high = (_three(ratio[key]) for key in ("median", "low", "high"))
    return f"{median}×" if low == high else f"{median}× ({low}–{high})"


def table(head: list[str], lines: Iterable[list[str]]) -> str:
    """A Markdown table, padded so that it reads in a terminal too; the first column to the left."""
    rows = [head, *lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join("-" * (widths[0] + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *(line(row) for row in rows[1:])])


def figures(report: dict[str, Any]) -> str:
    """Workloads by contenders: rates, and megabytes."""
    names = list(report["labels"])
    lines = []
    for name, workload in report["workloads"].items():
        taken = [workload["contenders"].get(one) for one in names]
        cells = [amount(one["per_second"]) if one else "–" for one in taken]
        lines.append([f"{TITLES[name]} ({UNITS[name]})", *cells])
    entries = report.get("indexes", {}).get("contenders", {})
    for name, kind in ((INDEX_BYTES, "hash"), (RANGE_INDEX_BYTES, "range")) if entries else ():
        cells = [_three(entries[one][kind]) if one in entries else "–" for one in names]
        lines.append([f"{TITLES[name]} ({UNITS[name]})", *cells])
    held = report.get("memory", {}).get("contenders", {})
    for name, field in ((MEMORY, "bytes"), (ALLOCATED, "allocated"), (REPORTED, "reported")) if held else ():
        sizes = [held.get(one, {}).get(field) for one in names]
        lines.append([f"{TITLES[name]} ({UNITS[name]})", *(_three(size / 1e6) if size else "–" for size in sizes)])
    return table(["", *report["labels"].values()], lines)


def ratio_table(report: dict[str, Any], mine: str) -> str:
    """Workloads by peers: how many times better our engine ``mine`` is."""
    labels = report["labels"]
    peers = [name for name in labels if name != mine]
    lines = []
    for name, engines in report["ratios"].items():
        if mine in engines:
            lines.append([TITLES[name], *(times(engines[mine][one]) if one in engines[mine] else "–" for one in peers)])
    return table(["", *(labels[one] for one in peers)], lines)


def _files(found: dict[str, Any], rows: int) -> list[str]:
    """The part of the report on tables in files: figures, and each engine against the others in one table."""
    labels, ratios = found["labels"], found["ratios"]
    system = found["file_system"]
    about = f"Tables in files, on {system} (median of the rounds; open and reopen: a file of {rows:,} rows)"
    if system == "tmpfs":
        about += ". **tmpfs is memory: these figures say nothing of a disk**"
    parts = [about, _file_figures(found)]
    if found["weather"]:
        told = {**labels, "parquet": PARQUET_LABEL}
        sizes = ", ".join(f"{told[name]} {size:,} bytes" for name, size in found["weather"].items())
        parts += [f"{FILE_TITLES[PARQUET]}: {sizes}."]
    pairs = [
        (mine, peer)
        for mine in ("columnar", "row")
        for peer in labels
        if (mine, peer) not in ((mine, mine), ("row", "columnar"))  # the reverse of one that is there
        and any(peer in engines.get(mine, {}) for engines in ratios.values())
    ]
    if pairs:
        head = ["", *(f"{labels[mine]} / {labels[peer]}" for mine, peer in pairs)]
        body = []
        for name, engines in ratios.items():
            shown = (engines.get(mine, {}).get(peer) for mine, peer in pairs)
            body.append([FILE_TITLES[name], *(times(ratio) if ratio else "–" for ratio in shown)])
        parts += ["Tables in files: times better than … (median of the rounds' ratios, smallest–largest)"]
        parts += [table(head, body)]
    return parts


def _file_figures(found: dict[str, Any]) -> str:
    names = list(found["labels"])
    lines = []
    for name, workload in found["workloads"].items():
        taken = [workload["contenders"].get(one) for one in names]
        if workload["unit"] == "ms":
            cells = [_three(1000 / one["per_second"]) if one else "–" for one in taken]
        else:
            cells = [amount(one["per_second"]) if one else "–" for one in taken]
        lines.append([f"{FILE_TITLES[name]} ({workload['unit']})", *cells])
    sizes = found["sizes"]
    if sizes:
        cells = [_three(sizes[one] / 1e6) if one in sizes else "–" for one in names]
        lines.append([f"{FILE_TITLES[SIZE]} ({FILE_UNITS[SIZE]})", *cells])
    return table(["", *found["labels"].values()], lines)


def markdown(report: dict[str, Any]) -> str:
    """The whole report."""
    machine, backend = report["machine"], report["backend"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    about = (
        f"{report['rows']:,} rows, {report['reads']:,} point reads, {report['rounds']} interleaved rounds; "
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']} {machine['architecture']}; "
        f"kernels: {backend['name']} (SIMD {backend['simd']}); {versions}."
    )
    if report["skipped"]:
        about += f"\n\nNot installed: {', '.join(report['skipped'])}."
    parts = [about]
    if report["workloads"] or "memory" in report or "indexes" in report:
        parts += ["Figures (median of the rounds)", figures(report)]
    for mine in ("columnar", "row"):
        if mine in report["labels"] and len(report["labels"]) > 1 and report["ratios"]:
            title = f"{report['labels'][mine]}: times better than … (median of the rounds' ratios, smallest–largest)"
            parts += [title, ratio_table(report, mine)]
    if "files" in report:
        parts += _files(report["files"], report["rows"])
    return "\n\n".join(parts) + "\n"
