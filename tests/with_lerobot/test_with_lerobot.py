"""The LeRobot adapter against the real LeRobot, which has an environment of its own: `make test-lerobot`."""

import json

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="LeRobot is not installed here; `make test-lerobot` installs it beside")


from real_lerobot import IMAGE, PLACE, POLICIES, STATE, STEPS, TAKEN, frames, loaded, played, predicted, record, save

import evor
from evor.cli.main import main
from evor.data.formats.npz import read_episodes
from evor.errors import EvorError
from evor.policies.base_policy import open_base

RANDOM = [kind for kind in POLICIES if not kind.startswith("act")]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A dataset of LeRobot: its folder, itself, and the rows that it was given."""
    folder = tmp_path_factory.mktemp("recorded") / "arm"
    return folder, *record(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, recorded):
    """A folder for each policy."""
    there = tmp_path_factory.mktemp("policies")
    return {kind: save(kind, there / kind.replace(" ", "-"), recorded[1].meta.stats) for kind in POLICIES}


@pytest.mark.parametrize("kind", POLICIES)
def test_a_proposal_is_what_lerobot_would_execute(folders, kind):
    base, there, seen = open_base(f"lerobot:{folders[kind]}"), loaded(folders[kind]), frames(3, seed=5)
    for row in range(3):
        proposed = base.sample({key: array[row : row + 1] for key, array in seen.items()}, 1, seed=row)
        expected = played(there, {key: array[row] for key, array in seen.items()}, row)
        np.testing.assert_array_equal(proposed[0, 0, :TAKEN], expected)


@pytest.mark.parametrize("kind", [kind for kind in POLICIES if kind != "vqbet"])  # which has no prediction of a batch
def test_many_proposals_are_one_prediction(folders, kind):
    base, seen = open_base(f"lerobot:{folders[kind]}"), frames(3, seed=6)
    proposed = base.sample(seen, 4, seed=9)
    assert proposed.shape == (3, 4, 6 if kind.startswith("act") else TAKEN, 2)
    np.testing.assert_array_equal(proposed, predicted(loaded(folders[kind]), seen, 4, 9))


@pytest.mark.parametrize("kind", RANDOM)
def test_a_random_policy_spreads_and_equal_seeds_are_equal(folders, kind):
    base, seen = open_base(f"lerobot:{folders[kind]}"), frames(3)
    first, again, other = (base.sample(seen, 4, seed=seed) for seed in (7, 7, 2**32 - 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first.std(axis=1) > 0).any(axis=(1, 2)).all()


@pytest.mark.parametrize("kind", ["act", "act with an image"])
def test_a_deterministic_policy_gives_equal_proposals_and_rows_do_not_depend_on_others(folders, kind):
    base, seen = open_base(f"lerobot:{folders[kind]}"), frames(5)
    proposed = base.sample(seen, 8, seed=0)
    np.testing.assert_array_equal(proposed, np.repeat(proposed[:, :1], 8, axis=1))
    for row in range(5):
        alone = base.sample({key: array[row : row + 1] for key, array in seen.items()}, 8, seed=1)
        np.testing.assert_allclose(alone[0], proposed[row], rtol=1e-4, atol=1e-3)  # degrees


def test_images_may_be_bytes_or_numbers_and_channels_first_or_last(folders):
    base, seen = open_base(f"lerobot:{folders['act with an image']}"), frames(2)
    first = np.moveaxis(seen[IMAGE], -1, 1)
    for image in (first, first.astype(np.float64) / 255, seen[IMAGE].astype(np.float32) / 255):
        np.testing.assert_array_equal(base.sample(seen | {IMAGE: image}, 2, seed=0), base.sample(seen, 2, seed=0))


def test_a_policy_of_another_machine_is_opened_here_without_a_network(folders, recorded, tmp_path, capsys):
    """It was trained on a GPU, and began from weights that would be downloaded. Nothing is printed where JSON goes."""
    kind = "act with an image"
    folder = save(kind, tmp_path / "theirs", recorded[1].meta.stats)
    expected = open_base(f"lerobot:{folders[kind]}").sample(frames(2), 1, seed=0)
    changes = {"device": "cuda", "pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1"}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    steps = (folder / "policy_preprocessor.json").read_text()
    assert '"device": "cpu"' in steps
    (folder / "policy_preprocessor.json").write_text(steps.replace('"device": "cpu"', '"device": "cuda"'))
    capsys.readouterr()
    base = open_base(f"lerobot:{folder}")
    assert capsys.readouterr().out == ""
    np.testing.assert_allclose(base.sample(frames(2), 1, seed=0), expected, rtol=1e-3, atol=1e-2)


def test_what_is_no_policy_is_told(folders, tmp_path):
    def refused(*contents):
        folder = tmp_path / "theirs"
        folder.mkdir(exist_ok=True)
        for name, content in contents:
            (folder / name).write_bytes(content)
        with pytest.raises(EvorError, match=r"give the folder that save_pretrained wrote") as caught:
            open_base(f"lerobot:{folder}")
        return str(caught.value)

    config = (folders["act"] / "config.json").read_bytes()
    weights = (folders["act"] / "model.safetensors").read_bytes()
    assert "config.json does not exist" in refused()
    assert "can't be loaded" in refused(("config.json", b"no JSON"))
    assert "Missing 'type'" in refused(("config.json", b'{"model_type": "bert"}'))
    assert "is not registered" in refused(("config.json", b'{"type": "nothing"}'))
    assert "can't be loaded" in refused(("config.json", config.replace(b"{", b'{"unknown": 1,', 1)))
    assert "model.safetensors" in refused(("config.json", config))
    assert "can't be loaded" in refused(("model.safetensors", weights[:1000]))
    assert "requires migration" in refused(("model.safetensors", weights))  # as policies of before LeRobot 0.4 do


def test_wrong_observations_are_told(folders):
    base = open_base(f"lerobot:{folders['act']}")
    with pytest.raises(EvorError, match=r"needs the key 'observation.environment_state', and the observation has"):
        base.sample({STATE: np.zeros((1, 3))}, 1, seed=0)
    with pytest.raises(EvorError, match=r"raised RuntimeError: .*look at the keys and shapes of the observations"):
        base.sample({STATE: np.zeros((1, 4)), PLACE: np.zeros((1, 2))}, 1, seed=0)


def test_what_lerobot_recorded_is_imported_value_by_value(recorded, tmp_path):
    folder, dataset, rows = recorded
    command = ["data", "import", str(folder), "--success", "column:next.success", "--reward", "steps", "--quiet"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    shard = np.load(tmp_path / "out" / "shard-00000.npz")
    np.testing.assert_array_equal(shard["observations"], np.concatenate([rows[STATE], rows[PLACE]], axis=1))
    np.testing.assert_array_equal(shard["actions"], rows["action"])
    np.testing.assert_array_equal(shard["terminations"], rows["next.success"][:, 0])
    last = np.arange(len(rows["action"])) % STEPS == STEPS - 1
    np.testing.assert_array_equal(shard["truncations"], last & ~shard["terminations"])
    np.testing.assert_array_equal(shard["rewards"], np.where(shard["terminations"], 0, -1))
    np.testing.assert_allclose(shard["action_low"], dataset.meta.stats["action"]["min"])
    content = json.loads((tmp_path / "out" / "import.json").read_text())
    assert content["observations"] == [[STATE, 3], [PLACE, 2]]
    assert content["sources"][0]["kind"] == "LeRobot v3.0"
    assert content["sources"][0]["not_read"] == [IMAGE]
    assert read_episodes(tmp_path / "out" / "shard-00000.npz").episodes.spec.action_dim == 2


@pytest.fixture(scope="module")
def imported(recorded, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "data"
    assert main(["data", "import", str(recorded[0]), "--success", "all", "--reward", "steps", "--out", str(out)]) == 0
    return out


def test_from_a_recording_to_a_search_over_a_policy(imported, folders, tmp_path, capsys):
    base = f"lerobot:{folders['diffusion']}"
    proposals, run = tmp_path / "proposals", tmp_path / "run"
    propose = ["data", "propose", str(imported), "--base", base, "--num", "4", "--chunk-length", "2"]
    assert main([*propose, "--out", str(proposals)]) == 0
    assert "deterministic" not in capsys.readouterr().err
    small = [
        "--agent.hidden",
        "8",
        "8",
        "--agent.batch-size",
        "8",
        "--updates",
        "4",
        "--agent.next-action",
        "best-action",
    ]
    assert main(["train", "--data", str(imported), "--proposals", str(proposals), *small, "--out", str(run)]) == 0
    policy, seen = evor.load(run, base=base), frames(1, seed=3)
    one = {key: array[0] for key, array in seen.items()}
    decision = policy.decide(one, 11, extraction=evor.BestOf(4))
    assert decision.candidates.shape == (4, 2, 2)
    assert (decision.candidates.std(axis=0) > 0).any()
    np.testing.assert_array_equal(decision.action, decision.candidates[decision.index])
    chunk = policy.act(one, 11, extraction=evor.BestOf(4))
    assert chunk.shape == (TAKEN, 2)
    np.testing.assert_array_equal(chunk[:2], decision.action)
    looking = evor.load(run, base=f"lerobot:{folders['diffusion with an image']}")  # which the value does not see
    dark = one | {IMAGE: np.zeros_like(one[IMAGE])}
    assert looking.act(one, 11).shape == (TAKEN, 2)
    assert (looking.act(one, 11) != looking.act(dark, 11)).any()


def test_a_deterministic_policy_is_said_to_leave_nothing_to_search(imported, folders, tmp_path, capsys):
    propose = ["data", "propose", str(imported), "--base", f"lerobot:{folders['act']}", "--num", "4"]
    assert main([*propose, "--out", str(tmp_path / "proposals")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "spread 0 to 0" in said
    assert "is deterministic, and there is nothing to search among" in said
