"""A picture of who spoke when: the reference above, ours below, and what is wrong. SVG, by matplotlib.

Speakers that stand for each other have one colour; one of ours that stands for nobody is grey. What is not scored is
shaded, and so are the gaps of the record. A long recording goes over several rows.
"""

import math

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Patch

# Text stays text, and the same scores give the same file.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "roomscribe", "font.family": "sans-serif",
                            "font.size": 9, "text.parse_math": False})

# Okabe and Ito's colours, which also people who see fewer can tell apart; vermilion is for confusion.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#f0e442"]
HATCHES = ["", "//", "..", "xx"]
NOBODY = "#8a8a8a"
ERRORS = {"missed detection": ("missed", "#444444"), "false alarm": ("false alarm", "#999999"),
          "confusion": ("confusion", "#d55e00")}
ROW_S, MOST_ROWS = 60, 12
WIDTH_IN, LANE_IN, AXIS_IN = 11, 0.21, 0.55
STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600]


class Lane:
    """One line of the picture: bars of one colour, or the title of what follows."""

    def __init__(self, label, bars, colour=None, hatch=""):
        self.label, self.bars, self.colour, self.hatch = label, bars, colour, hatch


def draw(path, title, duration_s, lanes, gaps, unscored):
    """`gaps` are (start, end, cause), `unscored` (start, end)."""
    rows = min(MOST_ROWS, max(1, math.ceil(duration_s / ROW_S)))
    span = max(duration_s / rows, 1)
    height = rows * (len(lanes) * LANE_IN + AXIS_IN) + 0.6
    figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
    axes = figure.subplots(rows, squeeze=False)[:, 0]
    for number, ax in enumerate(axes):
        _row(ax, number * span, (number + 1) * span, lanes, gaps, unscored)
    axes[-1].set_xlabel("time (minutes:seconds)")
    shades = [Patch(facecolor="#e8e8e8", label="not scored")] if unscored else []
    shades += [Patch(facecolor="white", edgecolor="#d98080", hatch="///", label="gap in the record")] if gaps else []
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    if shades:
        figure.legend(handles=shades, loc="outside upper right", ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Title": title})


def _row(ax, start, end, lanes, gaps, unscored):
    for at, lane in enumerate(lanes):
        if lane.colour is None:
            ax.axhline(at + 0.5, color="#cccccc", linewidth=0.6)
            continue
        bars = [(b.start, b.end - b.start) for b in lane.bars if b.start < end and b.end > start]
        ax.broken_barh(bars, (at - 0.4, 0.8), facecolor=lane.colour, hatch=lane.hatch, edgecolor="white", linewidth=0.3)
    for begin, stop in unscored:
        ax.axvspan(begin, stop, facecolor="#e8e8e8", zorder=0)
    for begin, stop, cause in gaps:
        ax.axvspan(begin, stop, facecolor="none", edgecolor="#d98080", hatch="/", linewidth=0.5, zorder=3)
        if start <= begin < end:
            ax.text(begin, -0.5, cause.replace("_", " "), fontsize=8, color="#b00000", va="bottom")
    ax.set_xlim(start, end)
    ax.set_ylim(len(lanes) - 0.5, -0.5)
    ax.set_yticks(range(len(lanes)), [lane.label for lane in lanes])
    for text, lane in zip(ax.get_yticklabels(), lanes):
        text.set_fontweight("bold" if lane.colour is None else "normal")
    step = next((s for s in STEPS_S if (end - start) / s <= 15), STEPS_S[-1])
    first = math.ceil(start / step)
    ticks = [step * i for i in range(first, math.floor(end / step) + 1)]
    ax.set_xticks(ticks, [f"{t // 60}:{t % 60:02}" for t in ticks])
    ax.grid(axis="x", color="#dddddd", linewidth=0.5)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)


def lanes(reference, hypothesis, mapping, errors):
    """Reference, ours and errors; without a reference only ours. `mapping`: ours to theirs, as far as there is one."""
    theirs, ours, names = _by_speaker(reference or []), _by_speaker(hypothesis), {}
    every = []
    if reference is not None:
        every.append(Lane("Reference", []))
        for number, (speaker, bars) in enumerate(theirs.items()):
            names[speaker] = COLOURS[number % len(COLOURS)], HATCHES[number // len(COLOURS) % len(HATCHES)]
            every.append(Lane(speaker, bars, *names[speaker]))
    every.append(Lane("Roomscribe", []))
    if not ours:
        every.append(Lane("(no turns)", [], NOBODY))
    # In the order of those they stand for; strangers last.
    rank = {speaker: number for number, speaker in enumerate(theirs)}
    for number, speaker in enumerate(sorted(ours, key=lambda s: rank.get(mapping.get(s), len(rank)))):
        alone = (COLOURS[number % len(COLOURS)], "") if reference is None else (NOBODY, "")
        look = names.get(mapping.get(speaker), alone)
        stands_for = "" if reference is None else f" = {mapping.get(speaker, 'nobody')}"
        every.append(Lane(f"{speaker}{stands_for}", ours[speaker], *look))
    if errors is not None:
        every.append(Lane("Errors", []))
        kinds = _by_speaker(errors)
        every += [Lane(label, kinds.get(kind, []), colour) for kind, (label, colour) in ERRORS.items()]
    return every


def _by_speaker(turns):
    speakers = {}
    for turn in sorted(turns):
        speakers.setdefault(turn.speaker, []).append(turn)
    return speakers


def unscored(stretches, duration_s):
    """What lies between the scored stretches."""
    holes, at = [], 0.0
    for start, end in sorted(stretches):
        if start > at:
            holes.append((at, start))
        at = max(at, end)
    return holes + ([(at, duration_s)] if at < duration_s else [])
