"""Configs that an earlier version wrote are read by the names of today, and refused where they name a setting twice."""

import json

import pytest

from evor.errors import EvorError
from evor.report.config import read_config
from evor.training import upgrade
from evor.training.config import RunConfig, from_json, run_differences, to_json


def as_before(config: RunConfig) -> dict:
    """What version 0.1.0 and the first 0.2.0.dev wrote."""
    stored = to_json(config)
    return stored | {"steps": stored.pop("updates"), "seeds": stored.pop("num_seeds")}


def test_a_run_config_is_read_whatever_its_settings_were_called():
    config = RunConfig(data="x", num_seeds=3, updates=7)
    old = as_before(config)
    assert {"steps", "seeds"} <= set(old)
    assert from_json(old, RunConfig) == from_json(to_json(config), RunConfig) == config
    assert upgrade.run(old) == upgrade.run(upgrade.run(old)) == to_json(config)
    assert {"updates", "num_seeds"} <= set(to_json(config))
    assert not {"steps", "seeds"} & set(to_json(config))


def test_old_and_new_configs_are_of_one_run():
    spec, digest = {"observation_dim": 1, "action_dim": 1}, "d"
    old, new = (
        {"config": content, "spec": spec, "data_digest": digest}
        for content in (as_before(RunConfig(data="x", num_seeds=2)), to_json(RunConfig(data="x", num_seeds=2)))
    )
    assert run_differences(old, new) == []
    other = new | {"config": to_json(RunConfig(data="x", num_seeds=3))}
    assert run_differences(old, other) == ["config.num_seeds: 2 -> 3"]


def test_a_setting_under_both_names_is_refused():
    with pytest.raises(EvorError, match="steps"):
        from_json(to_json(RunConfig(data="x")) | {"steps": 4}, RunConfig)


@pytest.mark.parametrize("write", [as_before, to_json])
def test_what_reads_without_jax_sees_the_names_of_today(write, tmp_path):
    stored = json.dumps({"config": write(RunConfig(data="x", num_seeds=2, updates=5))})
    (tmp_path / "config.json").write_text(stored)
    config = read_config(tmp_path)
    assert (config["num_seeds"], config["updates"]) == (2, 5)
    (tmp_path / "config.json").write_text(stored.replace("2", '"2"', 1))
    with pytest.raises(EvorError, match="damaged"):
        read_config(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(EvorError, match="is not a run"):
        read_config(tmp_path)
