"""Success in percent as published (EVOR paper, Tables 1-2): mean and standard deviation over 3 seeds.

Official data (cube-double: 100M transitions), 1M updates, OGBench 1.1.0 (reward and success from the state after the
step). They stand beside our numbers and are never averaged with them.
"""

PUBLISHED_AGENTS = {"qc-1": "QC-1", "qc-5": "QC-5", "evor": "EVOR"}  # ours -> theirs

# Per task 1-5: (mean, std) of QC-1, QC-5, EVOR.
Triple = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
PUBLISHED_TASKS: dict[str, tuple[Triple, ...]] = {
    "antmaze-large-navigate-v0": (
        ((4, 3), (2, 1), (14, 3)),
        ((0, 0), (0, 0), (61, 4)),
        ((53, 19), (27, 12), (33, 5)),
        ((2, 1), (0, 0), (66, 11)),
        ((0, 0), (4, 3), (69, 6)),
    ),
    "antmaze-large-stitch-v0": (
        ((3, 0), (2, 1), (0, 0)),
        ((0, 0), (0, 0), (0, 1)),
        ((4, 1), (12, 14), (67, 5)),
        ((0, 0), (0, 0), (4, 2)),
        ((20, 15), (12, 5), (5, 4)),
    ),
    "cube-double-play-v0": (
        ((90, 5), (73, 5), (95, 2)),
        ((54, 4), (46, 20), (96, 2)),
        ((48, 12), (49, 21), (96, 2)),
        ((22, 5), (30, 5), (36, 8)),
        ((59, 8), (52, 25), (87, 6)),
    ),
    "pointmaze-medium-navigate-v0": (
        ((97, 3), (99, 1), (100, 1)),
        ((89, 7), (100, 1), (99, 2)),
        ((100, 0), (99, 2), (98, 2)),
        ((94, 7), (100, 0), (100, 0)),
        ((100, 0), (100, 0), (100, 0)),
    ),
    "scene-play-v0": (
        ((94, 2), (100, 0), (100, 0)),
        ((87, 2), (99, 1), (98, 1)),
        ((44, 7), (93, 3), (94, 2)),
        ((1, 1), (90, 4), (76, 28)),
        ((0, 0), (41, 14), (60, 17)),
    ),
}


def task(dataset: str, number: int, *, agent: str) -> str | None:
    """`97 ± 3`, or None where the paper has no such cell."""
    if dataset not in PUBLISHED_TASKS or agent not in PUBLISHED_AGENTS:
        return None
    mean, std = PUBLISHED_TASKS[dataset][number - 1][list(PUBLISHED_AGENTS).index(agent)]
    return f"{mean} ± {std}"


# Means over the five tasks with their deviations, of QC-1, QC-5, EVOR. (One is illegible in the copy at hand.)
OVERALL: dict[str, tuple[str, str, str]] = {
    "antmaze-large-navigate-v0": ("", "7 ± 2", "49 ± 4"),
    "antmaze-large-stitch-v0": ("5 ± 3", "4 ± 4", "18 ± 1"),
    "cube-double-play-v0": ("54 ± 6", "50 ± 12", "82 ± 2"),
    "pointmaze-medium-navigate-v0": ("96 ± 0", "99 ± 1", "99 ± 0"),
    "scene-play-v0": ("45 ± 2", "85 ± 4", "86 ± 7"),
}


def overall(dataset: str, agent: str) -> str | None:
    """Table 1's `99 ± 0`, and Table 2's own mean in brackets where it is another."""
    if dataset not in PUBLISHED_TASKS or agent not in PUBLISHED_AGENTS:
        return None
    index = list(PUBLISHED_AGENTS).index(agent)
    told, mean = OVERALL[dataset][index], sum(row[index][0] for row in PUBLISHED_TASKS[dataset]) / 5
    if not told:
        return f"{mean:.0f} (Table 2)"
    return told if abs(float(told.split()[0]) - mean) <= 1 else f"{told} (Table 2: {mean:.0f})"


def conditions(dataset: str) -> str | None:
    """The conditions under which the published numbers of a dataset came about."""
    if dataset not in PUBLISHED_TASKS:
        return None
    size = "100M transitions" if dataset.startswith("cube-double") else "1M transitions"
    return f"official data ({size}), 1M updates, nets 4 x 512, reward and success from the state after the step"
