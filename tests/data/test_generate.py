"""Generated files: OGBench's format and behaviour, one file per seed whatever the number of processes."""

import json
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import ogbench
import pytest

from conftest import DATASET, TINY, ended
from evor.cli.main import main
from evor.data.blocks import Blocks
from evor.data.formats.ogbench import find_shards, load_dataset
from evor.data.scripted import generate as generation
from evor.data.scripted.generate import dataset_path, generatable, generate
from evor.data.scripted.manipulation import _is_healthy
from evor.data.scripted.mazes import _cells_at
from evor.data.scripted.pieces import File, Piece, join_pieces
from evor.envs.ogbench import dataset_names
from evor.errors import EvorError, Terminated
from evor.runtime.files import write_npz
from evor.runtime.parallel import Local
from evor.runtime.progress import deferred_interrupts, progress_bar
from evor.training.config import RunConfig
from evor.training.data import open_data
from evor.training.train import train


def arrays(path):
    with np.load(path) as file:
        return dict(file)


@pytest.mark.slow
def test_workers_do_not_change_the_file(tmp_path):
    one = generate("pointmaze-medium-stitch-v0", 600, seed=3, folder=tmp_path / "one")
    two = generate("pointmaze-medium-stitch-v0", 600, seed=3, machines=Local(2), folder=tmp_path / "two")
    for a, b in ((one, two), (one.with_stem(one.stem + "-val"), two.with_stem(two.stem + "-val"))):
        assert a.read_bytes() == b.read_bytes()


def test_an_interrupted_generation_goes_on_and_plays_no_episode_twice(tmp_path, monkeypatch):
    name = "pointmaze-medium-stitch-v0"
    whole = generate(name, 5000, seed=0, folder=tmp_path / "whole")
    play, played = generation.play_one, []

    def until_the_fifteenth(dataset, seed, episode, expert):
        if len(played) == 15:
            raise KeyboardInterrupt
        played.append(episode)
        return play(dataset, seed, episode, expert)

    monkeypatch.setattr(generation, "play_one", until_the_fifteenth)
    with pytest.raises(KeyboardInterrupt):
        generate(name, 5000, seed=0, folder=tmp_path / "half")
    assert not list((tmp_path / "half").glob("*.npz"))
    again = []
    monkeypatch.setattr(generation, "play_one", lambda *job: again.append(job[2]) or play(*job))
    with pytest.raises(TimeoutError):
        generate(name, 5000, seed=0, folder=tmp_path / "half", deadline=0.0)
    assert again == []
    path = generate(name, 5000, seed=0, folder=tmp_path / "half")
    assert again == list(range(15, 27))  # 25 episodes and 2 to validate; fifteen were kept
    for suffix in ("", "-val"):
        one, other = (p.with_stem(p.stem + suffix).read_bytes() for p in (whole, path))
        assert one == other
    assert {file.name for file in path.parent.iterdir()} == {f"{name}.npz", f"{name}-val.npz", f"{name}.json"}


@pytest.fixture
def sharded(monkeypatch):
    """Two shards from 1,000 transitions on, and pieces of two episodes of 200."""
    monkeypatch.setattr(generation, "SHARDED", 1000)
    monkeypatch.setattr(generation, "SHARD", 600)
    monkeypatch.setattr(generation, "PIECE", (400, 400))


STITCH = "pointmaze-medium-stitch-v0"


def test_a_large_dataset_is_a_folder_of_shards_with_the_same_rows(tmp_path, sharded, monkeypatch):
    path = generate(STITCH, 1000, seed=0, folder=tmp_path)
    assert path == tmp_path / STITCH
    assert sorted(file.name for file in path.iterdir()) == [
        f"{STITCH}-000.npz",
        f"{STITCH}-001-val.npz",  # one episode to validate, which is not divided
        f"{STITCH}-001.npz",
        f"{STITCH}.json",
    ]
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads((path / f"{STITCH}.json").read_text())["transitions"] == 1000
    monkeypatch.setattr(generation, "SHARDED", 10_000)
    whole = arrays(generate(STITCH, 1000, seed=0, folder=tmp_path / "whole"))
    shards = [arrays(file) for file in find_shards(STITCH, tmp_path)]
    assert [len(shard["terminals"]) for shard in shards] == [2 * 201, 3 * 201]
    for name, array in whole.items():
        np.testing.assert_array_equal(np.concatenate([shard[name] for shard in shards]), array)
    with pytest.raises(EvorError, match=f"{STITCH} exists already"):
        generate(STITCH, 1000, seed=0, folder=tmp_path)


@pytest.mark.parametrize("moment", ["play_piece", "join_shard"])
def test_interrupted_shards_go_on_and_nothing_is_played_twice(tmp_path, sharded, monkeypatch, moment):
    whole = generate(STITCH, 1000, seed=0, folder=tmp_path / "whole")
    usual, calls, played = getattr(generation, moment), [], []

    def second_time_interrupted(*job):
        calls.append(job)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return usual(*job)

    play = generation.play_one
    monkeypatch.setattr(generation, "play_one", lambda *job: played.append(job[2]) or play(*job))
    with monkeypatch.context() as patch:
        patch.setattr(generation, moment, second_time_interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate(STITCH, 1000, seed=0, folder=tmp_path / "half")
    assert not (tmp_path / "half" / STITCH).exists()
    assert dataset_path(STITCH, tmp_path / "half") is None
    path = generate(STITCH, 1000, seed=0, folder=tmp_path / "half")
    assert sorted(played) == list(range(6))
    for file in whole.glob("*.npz"):
        assert file.read_bytes() == (path / file.name).read_bytes()


@pytest.mark.parametrize(
    ("transitions", "episodes"), [(1000, 1), (1_000_000, 1), (10**7, 10), (10**8, 100), (10**9, 100)]
)
def test_pieces_grow_with_the_dataset(transitions, episodes):
    """A small one loses little by an interruption; a large one has few files. No piece has episodes of two files."""
    plan = generation.Plan(DATASET, 0, transitions // 1000, transitions // 900, 1000, None)
    assert plan.piece_episodes == episodes
    assert plan.num_shards == (transitions // 10**6 if transitions >= 10**7 else 0)
    if transitions <= 10**7:
        files = generation._files(plan, Path("out"), pieces=Path("pieces"))
        found = [episode for file in files for piece in file.pieces for episode in piece.episodes]
        assert found == list(range(plan.num_episodes))
        assert len({piece.path for file in files for piece in file.pieces}) == sum(len(file.pieces) for file in files)


def test_a_file_is_put_together_with_one_array_in_memory(tmp_path):
    """Byte for byte as if all of it were there."""
    pieces = []
    for index in range(4):
        part = {name: np.full((10_000 + index, 3), float(index)) for name in "abcdefgh"}
        pieces.append(Piece(tmp_path / f"{index}.npz", range(index, index + 1)))
        write_npz(pieces[-1].path, part)
    tracemalloc.start()
    join_pieces(File(tmp_path / "joined.npz", tuple(pieces)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    parts = [arrays(piece.path) for piece in pieces]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert peak < 0.5 * sum(array.nbytes for array in whole.values())
    write_npz(tmp_path / "whole.npz", whole)
    assert (tmp_path / "joined.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


@pytest.mark.slow
def test_shards_are_checked_and_trained_on(tmp_path, sharded, capsys):
    folder = generate(STITCH, 1000, seed=0, folder=tmp_path)
    for data in (tmp_path, folder):
        assert main(["data", "check", STITCH, "--data", str(data), "--tasks", "1", "--memory-gb", "1e-4"]) == 0
        assert "transitions 1,000" in " ".join(capsys.readouterr().out.replace("│", "").split())
    config = RunConfig(
        dataset=STITCH, data=str(tmp_path), tasks=(1,), memory_gb=1e-4, updates=3, checkpoint_every=3, agent=TINY
    )
    data = open_data(config)
    assert isinstance(data, Blocks)
    assert data.num_blocks > 1
    assert data.num_rows == 1000
    train(config, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints").exists()


def test_another_seed_takes_nothing_of_an_interrupted_one(tmp_path):
    name, folder = "pointmaze-medium-stitch-v0", tmp_path / "half"
    with pytest.raises(TimeoutError):
        generate(name, 400, seed=0, folder=folder, deadline=0.0)
    (partial,) = folder.glob(".*.partial")
    (partial / "000000.npz").write_bytes(b"what seed 0 left")
    other = generate(name, 400, seed=1, folder=folder)
    assert (arrays(other)["actions"] == arrays(generate(name, 400, seed=1, folder=tmp_path / "whole"))["actions"]).all()


def test_seeds_change_the_file(tmp_path):
    one, two = (generate("pointmaze-medium-stitch-v0", 200, seed=seed, folder=tmp_path / str(seed)) for seed in (0, 1))
    assert (arrays(one)["actions"] != arrays(two)["actions"]).any()


def test_format_is_ogbench_s(data_folder):
    path = data_folder / f"{DATASET}.npz"
    data = arrays(path)
    assert {name: (array.shape, array.dtype.name) for name, array in data.items()} == {
        "observations": ((4004, 2), "float32"),
        "actions": ((4004, 2), "float32"),
        "terminals": ((4004,), "bool"),
        "qpos": ((4004, 2), "float32"),
        "qvel": ((4004, 2), "float32"),
    }
    np.testing.assert_array_equal(np.flatnonzero(data["terminals"]), [1000, 2001, 3002, 4003])
    np.testing.assert_array_equal(data["observations"], data["qpos"])
    loaded = ogbench.load_dataset(str(path))
    assert len(loaded["observations"]) == 4000
    assert len(arrays(data_folder / f"{DATASET}-val.npz")["terminals"]) == 1001


def test_the_walker_is_noisy_and_reaches_goals(data_folder):
    data = arrays(data_folder / f"{DATASET}.npz")
    assert np.abs(data["actions"]).max() <= 1
    assert 0.3 < data["actions"].std() < 0.9
    moved = np.linalg.norm(data["observations"][900] - data["observations"][0])
    assert moved > 0
    visited = {tuple(cell) for cell in np.round(data["observations"] / 4).astype(int)}
    assert len(visited) > 10


@pytest.mark.parametrize(
    ("dataset", "observation_dim", "extra"),
    [("cube-single-play-v0", 28, False), ("scene-play-v0", 40, True), ("puzzle-3x3-play-v0", 55, True)],
)
@pytest.mark.slow
def test_manipulation_data(tmp_path, dataset, observation_dim, extra):
    one = generate(dataset, 1000, seed=0, folder=tmp_path / "one")
    two = generate(dataset, 1000, seed=0, machines=Local(2), folder=tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()
    data = arrays(one)
    assert data["observations"].shape == (1001, observation_dim)
    assert ("button_states" in data) == extra
    episodes = load_dataset(dataset, (1, 2), folder=tmp_path / "one")
    assert episodes.rewards.shape == (2, 1001)
    assert episodes.rewards.max() <= 0
    sparse = load_dataset(dataset, (1, 2), folder=tmp_path / "one", sparse_rewards=True)
    assert set(np.unique(sparse.rewards)) <= {-1, 0}
    np.testing.assert_array_equal(sparse.rewards == 0, episodes.rewards == 0)
    assert (episodes.rewards.min() < -1) == extra  # scene and puzzle count what is left to do


def test_labels_are_ogbench_s_own(data_folder):
    """Compared with `ogbench.make_env_and_datasets`, whose loader drops each trajectory's last row."""
    name = DATASET.replace("-v0", "-singletask-task4-v0")
    path = data_folder / f"{DATASET}.npz"
    _, official, _ = ogbench.make_env_and_datasets(name, dataset_path=str(path))
    ours = load_dataset(DATASET, (4,), folder=data_folder)
    kept = ~ours.ends
    np.testing.assert_array_equal(ours.observations[kept], official["observations"])
    np.testing.assert_array_equal(ours.actions[kept], official["actions"])
    np.testing.assert_array_equal(ours.rewards[0, kept], official["rewards"])
    np.testing.assert_array_equal(ours.masks[0, kept], official["masks"])
    np.testing.assert_array_equal(ours.observations[1:][kept[:-1]], official["next_observations"])


def test_every_generatable_set_is_known():
    assert set(generatable()) <= set(dataset_names())


def test_stitch_goals_lie_four_steps_away():
    corridor = np.ones((3, 9), int)
    corridor[1, 1:8] = 0
    assert _cells_at(corridor, (1, 2), distance=4) == [(1, 6)]


def test_scene_health():
    good = np.zeros((5, 17))
    good[:, 16] = 0.02
    assert _is_healthy(good)
    right, left, drawer = good.copy(), good.copy(), good.copy()
    right[2, 15] = 0.3
    left[2, 15] = -0.35
    drawer[2, 15:17] = (-0.35, 0.07)
    assert not _is_healthy(right)
    assert not _is_healthy(left)
    assert _is_healthy(drawer)


def test_refusals(tmp_path, data_folder):
    with pytest.raises(EvorError, match="did you mean 'cube-single-play-v0'"):
        generate("cube-singel-play-v0", 10, seed=0, folder=tmp_path)
    with pytest.raises(EvorError, match="exists already"):
        generate(DATASET, 10, seed=0, folder=data_folder)
    with pytest.raises(EvorError, match="at least 1"):
        generate(DATASET, 0, seed=0, folder=tmp_path)
    (tmp_path / "taken").touch()
    with pytest.raises(EvorError, match=r"taken is a file; choose a folder"):
        generate(DATASET, 10, seed=0, folder=tmp_path / "taken")


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_interruption_leaves_no_half_file(tmp_path, number):
    out = tmp_path / "data"
    # A shell that starts the tests in the background makes them ignore SIGINT; the child must not inherit that.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from evor.cli.main import main; "
    )
    arguments = ["data", "generate", DATASET, "--workers", "1", "--transitions", "3000000", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-c", code + "sys.exit(main(sys.argv[1:]))", *arguments], stderr=subprocess.DEVNULL
    )
    while not out.exists() and not ended(process):
        pass
    process.send_signal(number)
    assert process.wait() != 0
    assert not list(out.glob("*.npz"))


@pytest.mark.parametrize(
    ("number", "usual", "error"),
    [
        (signal.SIGINT, signal.default_int_handler, KeyboardInterrupt),
        (signal.SIGTERM, signal.SIG_DFL, Terminated),
    ],
)
def test_an_interrupt_that_a_callback_swallows_is_raised_at_the_next_step(monkeypatch, number, usual, error):
    """As in a garbage collector's callback: Python goes on. It would report the exception there, as it does any other one."""

    class Falls:
        def __del__(self):
            signal.raise_signal(number)

    class Breaks:
        def __del__(self):
            raise ValueError

    swallowed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: swallowed.append(told.exc_type))
    before = signal.signal(number, usual)
    try:
        with deferred_interrupts():
            Falls()
            assert swallowed == []
            Breaks()
            assert swallowed == [ValueError]
            with pytest.raises(error), progress_bar("fall", 2) as advance:
                advance(1)
        assert signal.getsignal(number) == usual
        with progress_bar("rise", 2) as advance:
            advance(1)
    finally:
        signal.signal(number, before)


@pytest.fixture
def walker(tmp_path):
    """An ant's walker that knows nothing."""
    generator = np.random.default_rng(0)
    shapes = {"w0": (29, 4), "b0": (4,), "w1": (4, 3), "b1": (3,), "w2": (3, 8), "b2": (8,)}
    np.savez(tmp_path / "walker.npz", **{name: generator.normal(size=shape) for name, shape in shapes.items()})
    return tmp_path / "walker.npz"


def test_an_ant_walks_with_the_expert_it_is_given(walker, tmp_path):
    path = generate("antmaze-large-stitch-v0", 200, seed=0, folder=tmp_path / "ant", expert=walker)
    episodes = load_dataset("antmaze-large-stitch-v0", (1,), folder=tmp_path / "ant")
    assert episodes.observations.shape == (201, 29)
    assert episodes.actions.shape == (201, 8)
    assert json.loads(path.with_suffix(".json").read_text())["seed"] == 0
    # The action of the first row: the walker's, without noise, is within three standard deviations nearly everywhere.
    from evor.data.scripted.mazes import ANT_NOISE, load_expert, walk_ant

    class Maze:
        def get_ob(self, ob_type):
            return episodes.observations[0].astype(float)

    nearest = min(
        np.abs(walk_ant(load_expert(walker), Maze(), np.array([np.cos(a), np.sin(a)])) - episodes.actions[0]).max()
        for a in np.linspace(0, 2 * np.pi, 64)
    )
    assert nearest < 4 * ANT_NOISE


def test_walkers_that_do_not_fit_are_refused(walker, tmp_path):
    with pytest.raises(EvorError, match="needs a locomotion policy"):
        generate("antmaze-large-stitch-v0", 200, seed=0, folder=tmp_path / "ant")
    with pytest.raises(EvorError, match="no use for an expert"):
        generate(DATASET, 200, seed=0, folder=tmp_path / "point", expert=walker)
    arrays = dict(np.load(walker)) | {"w2": np.zeros((3, 7))}
    np.savez(tmp_path / "odd.npz", **arrays)
    with pytest.raises(EvorError, match=r"no locomotion policy for the ant.*w2 \[3, 7\]"):
        generate("antmaze-large-stitch-v0", 200, seed=0, folder=tmp_path / "ant", expert=tmp_path / "odd.npz")
