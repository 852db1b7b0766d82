"""Base policies of the user's own: Python functions, and what is refused of what they return."""

import sys
import threading

import numpy as np
import pytest

import evor
from evor.errors import EvorError
from evor.policies.base_policy import BasePolicy, PythonPolicy, by_keys, draw, open_base, row_of, with_leading_axis
from evor.serving.decider import PolicyDecider

OBSERVATIONS = {"observation": np.arange(6.0).reshape(3, 2)}
SIZES = {"rows": 3, "num": 4, "seed": 0, "chunk_length": 2, "width": 2}


def zeros(observations, num, seed):
    return np.zeros((len(observations["observation"]), num, 5, 2))


def test_a_function_is_opened_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine_33.py").write_text("def propose(observations, num, seed):\n    return [[[[seed, num]] * 3]]\n")
    base = open_base("python:mine_33:propose")
    assert isinstance(base, BasePolicy)
    assert (base.name, base.seeded) == ("python:mine_33:propose", True)
    assert draw(base, {}, rows=1, num=1, seed=9, chunk_length=2, width=2)[0, 0].tolist() == [[9, 1]] * 3
    assert open_base(base) is base
    assert open_base(zeros).name == "python:test_base_policy:zeros"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("python:propose", "base python: is 'propose'; give module:function, such as my_policy:propose"),
        ("python:nowhere_33:propose", "base python: nowhere_33:propose: nowhere_33 can't be imported"),
        ("python:os:nothing", "module os has no function nothing|os has no function nothing"),
        ("pyton:os:nothing", "is of no known kind; did you mean 'python'"),
        ("runs/mine", "is of no known kind; give python:.*lerobot:FOLDER"),
        ("lerobot:", "names no folder"),
        (7, "base is 7; give a function, or a text"),
    ],
)
def test_what_is_no_base_policy_is_told(spec, message):
    with pytest.raises(EvorError, match=message):
        open_base(spec)


def test_an_object_has_what_a_base_policy_needs():
    class Mine:
        def sample(self, observations, num, *, seed):
            return zeros(observations, num, seed)

    with pytest.raises(EvorError, match="base is the class Mine; make an object of it"):
        open_base(Mine)
    mine = Mine()
    with pytest.raises(EvorError, match="whose attribute name is missing; give it name, a text, and seeded"):
        open_base(mine)
    mine.name, mine.seeded = "mine", True
    assert open_base(mine) is mine


def test_a_function_may_write_into_what_it_gets():
    """It scales observations in place, say. The value sees them as they were, and so does the caller."""

    def scaled(observations, num, seed):
        observations["observation"] *= 0
        observations["inner"]["image"] += 1
        return zeros(observations, num, seed)

    image = np.zeros((3, 2), np.uint8)
    image.flags.writeable = False  # as those of a message
    given = {"observation": np.arange(6.0).reshape(3, 2), "inner": {"image": image}, "prompt": ["a", "b", "c"]}
    draw(open_base(scaled), given, **SIZES)
    assert given["observation"].tolist() == OBSERVATIONS["observation"].tolist()
    assert not image.any()


def test_lerobot_is_asked_for_where_it_is_missing(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "lerobot", None)
    (here / "mine").mkdir()
    (here / "mine/config.json").write_text("{}")
    with pytest.raises(EvorError, match=r"lerobot:mine can't be opened .*pip install lerobot"):
        open_base("lerobot:mine")


def test_a_lerobot_folder_that_does_not_exist_is_never_looked_for_on_the_network(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "lerobot", None)
    (here / "empty").mkdir()
    for folder in ("empty", "nowhere/act"):
        with pytest.raises(
            EvorError, match=rf"lerobot:{folder} .*{folder}/config.json does not exist; .*save_pretrained"
        ):
            open_base(f"lerobot:{folder}")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros((3, 4, 1, 2)), r"returned an array \[3, 4, 1, 2\]; \[3, 4, 2 or more, 2\] is needed"),
        (np.zeros((3, 5, 2, 2)), r"returned an array \[3, 5, 2, 2\]; \[3, 4, 2 or more, 2\]"),
        (np.zeros((3, 4, 2, 3)), r"returned an array \[3, 4, 2, 3\]"),
        (np.zeros((3, 4, 2)), r"returned an array \[3, 4, 2\]"),
        ("actions", "returned 'actions'; an array of numbers is needed"),
        ([[1], [1, 2]], "an array of numbers is needed"),
        (np.full((3, 4, 2, 2), np.nan), r"returned nan at \[0, 0, 0, 0\]"),
        (None, "returned None; an array of numbers is needed"),
        (np.zeros((3, 4, 2, 2), complex), "an array of numbers is needed"),
        (np.full((3, 4, 2, 2), "0.5"), "an array of numbers is needed"),
        (np.full((3, 4, 2, 2), 1e300), r"returned inf at \[0, 0, 0, 0\]"),
    ],
)
def test_what_is_no_proposal_is_refused(returned, message):
    with pytest.raises(EvorError, match=message):
        draw(open_base(lambda observations, num, seed: returned), OBSERVATIONS, **SIZES)


def test_a_function_that_raises_is_blamed_by_its_line():
    def broken(observations, num, seed):
        return observations["image"]

    with pytest.raises(
        EvorError, match=r"broken raised KeyError: it lacks 'image' \(test_base_policy.py:\d+\); fix it"
    ):
        draw(open_base(broken), OBSERVATIONS, **SIZES)


def test_a_policy_that_ends_the_process_is_blamed_as_well(tmp_path, monkeypatch):
    def leaving(observations, num, seed):
        sys.exit("bye")

    with pytest.raises(EvorError, match=r"leaving raised SystemExit: bye \(test_base_policy.py:\d+\); fix it"):
        draw(open_base(leaving), OBSERVATIONS, **SIZES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "leaving_33.py").write_text("import sys\nsys.exit('bye')\n")
    with pytest.raises(EvorError, match=r"leaving_33 can't be imported \(bye\); fix it"):
        open_base("python:leaving_33:propose")


def test_a_function_that_hangs_is_left():
    release = threading.Event()
    with pytest.raises(
        EvorError, match=r"has not answered within 0.05 s; fix it, or give it more time \(--base-timeout, base_timeout="
    ):
        PythonPolicy(lambda *_: release.wait(30), timeout=0.05).sample(OBSERVATIONS, 1, seed=0)
    release.set()


def test_policies_without_chunks_need_no_axis_of_steps():
    drawn = draw(open_base(lambda *_: np.zeros((3, 4, 2))), OBSERVATIONS, **SIZES | {"chunk_length": 1})
    assert drawn.shape == (3, 4, 1, 2)


def test_observations_keep_their_keys():
    rows = np.arange(10.0).reshape(2, 5)
    split = by_keys(rows, (("arm", 3), ("gripper", 2)))
    assert {key: array.shape for key, array in split.items()} == {"arm": (2, 3), "gripper": (2, 2)}
    np.testing.assert_array_equal(split["gripper"], rows[:, 3:])
    one = {"state": rows[0], "images": {"top": np.zeros((2, 2, 3), np.uint8)}, "prompt": "pick"}
    batch = with_leading_axis(one)
    assert batch["prompt"] == ["pick"]
    assert batch["images"]["top"].shape == (1, 2, 2, 3)
    back = row_of(batch, 0)
    np.testing.assert_array_equal(back["state"], rows[0])
    assert back["prompt"] == "pick"


def test_lists_of_numbers_reach_it_as_arrays_and_everything_else_as_it_came(tiny_run):
    """`policy.act`, a batch, a controller, and a server, whose clients may send lists: what the value reads are arrays."""
    seen = []

    def still(observations, num, seed):
        seen.append(observations)
        return np.zeros((len(observations["arm"]["grip"]), num, 2))

    policy = evor.load(tiny_run, task=1, seed=0, base=still)
    policy.observation_keys = (("arm/joints", 1), ("arm/grip", 1))
    prior = evor.Prior()
    one = {"arm": {"joints": [0.5], "grip": 0.25}, "prompt": "pick", "tags": [1, 2]}
    policy.act(one, extraction=prior)
    evor.Controller(policy, extraction=prior).act(one)
    PolicyDecider(policy, prior).decide(one, number=1, seed=0)
    for given in seen:
        joints, grip = given["arm"]["joints"], given["arm"]["grip"]
        assert (joints.tolist(), grip.tolist()) == ([[0.5]], [0.25])  # a list has no `tolist`
        assert (given["prompt"], given["tags"]) == (["pick"], [[1, 2]])
    policy.act({"arm": {"joints": [[0.5], [1.5]], "grip": [0.25, 0.75]}, "prompt": ["pick", "place"]}, extraction=prior)
    assert (len(seen), seen[-1]["prompt"]) == (4, ["pick", "place"])
    assert seen[-1]["arm"]["joints"].tolist() == [[0.5], [1.5]]
