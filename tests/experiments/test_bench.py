"""Timings are not asserted; the arithmetic they are divided by is."""

import dataclasses
import importlib.util
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from conftest import TINY
from evor.errors import EvorError
from evor.experiments.bench.imports import FORMATS, time_import
from evor.experiments.bench.limits import bfloat16_units, elementwise_seconds, flops, timed
from evor.experiments.bench.plan import PARTS, bench, measurements
from evor.experiments.bench.profiler import Kernel, busy_seconds, profile
from evor.experiments.bench.timings import READINGS, synthetic, update_flops
from evor.nn.flow import Euler
from evor.nn.nets import Mlp
from evor.runtime.records import replace
from evor.training.config import RunConfig
from evor.training.data import prepare
from evor.training.update import initial_state
from evor.types import Spec


def test_a_networks_products_are_counted_once_per_row():
    mlp = Mlp(3, (8, 5), 2, layer_norm=True, precision="float32", key=jax.random.key(0))
    once = 2 * (3 * 8 + 8 * 5 + 5 * 2)
    assert flops(mlp, jnp.zeros(3)) == once
    assert flops(jax.vmap(mlp), jnp.zeros((7, 3))) == 7 * once


def test_loops_count_as_often_as_they_run():
    weight = jnp.ones((4, 4))
    assert flops(lambda x: Euler()(lambda y, t: y @ weight, x, 10), jnp.ones(4)) == 10 * 2 * 16


def test_an_update_is_three_passes_of_each_network_and_the_targets():
    """BC: forwards and twice that backwards, less the gradient of the first layer's input. EVOR: ten more of the value."""
    spec, batch = Spec(3, 2), 16

    def count(agent):
        config = RunConfig(data="-", agent=agent)
        columns = jax.tree.map(jnp.asarray, prepare(config, synthetic(spec, rows=3000))[0])
        return update_flops(config, columns, state=initial_state(config, spec))

    agent = replace(TINY, hidden=(8, 8), batch_size=batch)
    forward = {"policy": 2 * (6 * 8 + 8 * 8 + 8 * 2), "value": 2 * (7 * 8 + 8 * 8 + 8)}
    first = {"policy": 2 * 6 * 8, "value": 2 * 7 * 8}
    learning = sum(3 * forward[name] - first[name] for name in forward)
    assert count(agent) == batch * (learning + 10 * forward["value"])
    assert count(dataclasses.replace(agent, flow_steps=5)) == batch * (learning + 5 * forward["value"])


def test_timings_hold_what_was_called():
    calls = []
    found = timed(lambda: calls.append(0), repeats=3, seconds=0.0)
    assert (len(calls), found.repeats) == (4, 3)
    assert 0 <= found.low <= found.median <= found.high


@pytest.fixture
def small(monkeypatch):
    """A bench of seconds."""
    from evor.experiments.bench import plan as plan
    from evor.experiments.bench import timings

    monkeypatch.setitem(timings.SIZES, "demo", timings.Size(Spec(2, 2), (16, 16)))
    monkeypatch.setattr(timings, "CANDIDATES", (1, 2))
    monkeypatch.setattr(timings, "BATCHES", (1,))
    monkeypatch.setattr(timings, "parallel_map", lambda function, jobs, *_, **__: [function(*job) for job in jobs])
    monkeypatch.setattr(plan, "NETWORKS", {2: (2, 1)})
    monkeypatch.setattr(plan, "elementwise_seconds", lambda **options: {"gelu_forward": 1e-4})
    monkeypatch.setattr(plan, "time_generation", lambda **options: {})
    imported = {"rows": 1, "seconds": 1.0, "plain_seconds": 1.0, "times": 1.0}
    monkeypatch.setattr(plan, "time_import", lambda **options: imported)
    monkeypatch.setattr(plan, "time_evaluation", lambda **options: {})
    return plan


@pytest.mark.slow
def test_the_bench_leaves_its_numbers_and_goes_on(small, tmp_path, monkeypatch):
    def read():
        return json.loads((tmp_path / "bench.json").read_text())

    options = {"repeats": 1, "seconds": 0.0, "sizes": ("demo",), "presets": ("without-search",)}
    bench(tmp_path, **options, parts=("limits", "decisions"), hours=1e-9)
    assert not (tmp_path / "bench.json").exists()
    bench(tmp_path, **options, parts=("limits", "decisions"))
    before = read()
    assert len(before["decisions"]["demo"]) == 2 * 2 * len(READINGS)  # precisions, numbers of candidates
    assert before["limits"]["demo"]["float32"] > 0
    assert not before["updates"]
    bench(tmp_path, **options, resume=True)
    report = read()
    assert {name: report[name] for name in ("limits", "decisions")} == {n: before[n] for n in ("limits", "decisions")}
    assert set(report["updates"]["demo"]) == {"without-search float32", "without-search bfloat16"}
    assert set(report["networks"]["demo bfloat16"]) == {"2"}

    monkeypatch.setattr(small, "time_update", None)  # nothing is left that would call it
    bench(tmp_path, **options, resume=True)
    assert read() == report
    with pytest.raises(EvorError, match=r"was measured with other repeats; leave out --resume"):
        bench(tmp_path, **options | {"repeats": 2}, resume=True)
    assert read() == report


@pytest.mark.parametrize("wrong", [{"sizes": ("demmo",)}, {"presets": ("defautl",)}, {"parts": ("limmits",)}])
def test_the_bench_names_what_it_does_not_know(wrong, tmp_path):
    with pytest.raises(EvorError, match=r"nothing to measure is called .*did you mean '(demo|default|limits)'"):
        bench(tmp_path, **wrong)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("hours", [-1, 0, math.nan])
def test_hours_are_above_zero(tmp_path, hours):
    with pytest.raises(EvorError, match=rf"hours is {hours}; it must be above 0"):
        bench(tmp_path, hours=hours)


@pytest.mark.slow
def test_what_is_no_product_takes_time():
    parts = elementwise_seconds(3, (8, 8), batch=4, repeats=1, seconds=0.0)
    ways = {f"{name}_{way}" for name in ("gelu", "layer_norm") for way in ("forward", "backward")}
    assert parts.keys() == ways | {"adam", "average"}
    assert all(seconds > 0 for seconds in parts.values())


@pytest.mark.slow
def test_a_profile_without_kernels_is_refused(monkeypatch):
    monkeypatch.setattr("evor.experiments.bench.profiler._kernels", lambda data: [])
    with pytest.raises(EvorError, match="the profiler saw no kernel"):
        profile(lambda: None)


def test_an_accelerator_is_asked_what_a_cpu_is_not(monkeypatch):
    def places():
        return {
            measure.keys for measure in measurements(("paper",), ("without-search", "qc-1"), repeats=3, seconds=1.0)
        }

    ours = places()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    theirs = places()
    precisions = ("bfloat16", "tensorfloat32", "float32")
    assert {("networks", f"paper {p}", n) for p in precisions for n in ("1", "5", "15", "75")} <= theirs
    assert {("unshared", "without-search paper"), ("unshared", "qc-1 paper"), ("limits", "card", "bfloat16")} <= theirs
    assert ("profile", "paper bfloat16", "1") in theirs
    assert {keys[0] for keys in ours} == set(PARTS) - {"profile", "unshared"}
    assert {keys[0] for keys in theirs} == set(PARTS)


def test_busy_is_the_time_in_which_any_kernel_runs():
    kernels = [
        Kernel(name="b", start=2e9, end=4e9),
        Kernel(name="a", start=0.0, end=3e9),
        Kernel(name="c", start=6e9, end=7e9),
        Kernel(name="d", start=6.2e9, end=6.5e9),
    ]
    assert busy_seconds(kernels) == pytest.approx(5.0)


def test_a_profile_names_what_ran():
    call = jax.jit(lambda x: jax.lax.fori_loop(0, 50, lambda _, x: jnp.tanh(x @ x), x))
    jax.block_until_ready(call(jnp.ones((128, 128))))
    found = profile(lambda: call(jnp.ones((128, 128))))
    assert 0 < found["busy"] <= 1
    assert any("tanh" in name for name in found["longest"])
    assert found["kernels"] >= 50


@pytest.mark.parametrize(
    ("flags", "units"),
    [
        ("fpu avx512f avx512_bf16 amx_bf16 amx_tile", "matrix"),
        ("fpu avx512f avx512_bf16", "vector"),
        ("fpu avx2 avx512f amx_bf16x", "none"),
        (None, "unknown"),
    ],
)
def test_bounds_on_matrix_units_apply_only_where_there_are_any(flags, units, tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"model name : a processor\nflags\t\t: {flags}\n\n" * 2)
    assert bfloat16_units(cpuinfo) == units
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(benchmarks)
    spec = importlib.util.spec_from_file_location("benchmarks_bench", benchmarks / "bench.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    slow, other = (str(bench.Bound("speed", 2.94, 3, True, *rest)) for rest in ((units,), ()))
    assert other == "speed: 2.94, at least 3: does not hold"
    if units == "matrix":
        assert slow == other
    else:
        assert slow.startswith(
            "speed: 2.94; at least 3 is asked of processors with bfloat16 matrix units (amx_bf16), and"
        )
        assert "hold" not in slow
    assert ("avx512_bf16" in slow) == (units == "vector")


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_imports_are_timed_on_the_rows_that_were_asked_for(kind):
    measured = time_import(kind, repeats=1, rows=2000)
    assert measured["rows"] == 2000
    assert measured["times"] == measured["seconds"] / measured["plain_seconds"]
