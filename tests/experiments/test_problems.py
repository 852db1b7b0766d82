"""The known laws themselves: closed forms against enumeration, data against laws, and what the problems are there to show."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from evor.data.formats.npz import load_files
from evor.data.returns import Returns, n_step_sums, reward_to_go
from evor.distributions.exact import Atoms, NegativeExponential, Normal
from evor.errors import EvorError
from evor.experiments.verify.problems import PROBLEMS, corridor, fork, hidden_intent, write
from evor.runtime.files import write_npz

ATOMS = Atoms(np.array([-1.0, 0.5, 2.0]), np.array([0.2, 0.5, 0.3]))


@pytest.mark.parametrize("distribution", [Normal(0.5, 2.0), NegativeExponential(1.5)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
def test_closed_forms_are_the_integrals(distribution, temperature):
    def integrate(f):
        return quad(lambda u: f(distribution.quantile(np.array([u]))[0]), 0, 1, limit=500, epsabs=1e-11)[0]

    assert integrate(lambda z: z) == pytest.approx(distribution.mean, abs=1e-6)
    assert integrate(lambda z: (z - distribution.mean) ** 2) == pytest.approx(distribution.std**2, rel=1e-6)
    if distribution.std / temperature < 3:  # beyond that the integrand lives in a corner of u that quad can't see
        expected = temperature * math.log(integrate(lambda z: np.exp(z / temperature)))
        assert distribution.log_mean_exp(temperature) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("distribution", [Normal(0.5, 2.0), NegativeExponential(1.5)])
def test_quantile_inverts_the_cdf(distribution):
    u = np.linspace(0.01, 0.99, 33)
    np.testing.assert_allclose(distribution.cdf(distribution.quantile(u)), u, atol=1e-12)


def test_atoms():
    assert ATOMS.mean == pytest.approx(0.65)
    assert ATOMS.std == pytest.approx(math.sqrt(0.2 * 1.65**2 + 0.5 * 0.15**2 + 0.3 * 1.35**2))
    np.testing.assert_array_equal(ATOMS.quantile(np.array([0.1, 0.2, 0.21, 0.7, 0.71, 1.0])), [-1, -1, 0.5, 0.5, 2, 2])
    np.testing.assert_allclose(ATOMS.cdf(np.array([-2.0, -1, 0, 2])), [0, 0.2, 0.2, 1])
    np.testing.assert_allclose(ATOMS.cdf_below(np.array([-2.0, -1, 0.5, 3])), [0, 0, 0.2, 1])
    assert ATOMS.log_mean_exp(1.0) == pytest.approx(
        math.log(0.2 * math.exp(-1) + 0.5 * math.exp(0.5) + 0.3 * math.e**2)
    )


# Episodes that are cut follow the corridor's law, and one-step backups of the hidden intent another than its trajectories:
# both are tested below.
@pytest.mark.parametrize(
    ("name", "num_steps"),
    [
        (name, num_steps)
        for name in PROBLEMS
        for num_steps in (1, 50)
        if name != "cut-corridor" and (name, num_steps) != ("hidden-intent", 1)
    ],
)
def test_the_data_follow_the_distribution(name, num_steps, tmp_path):
    """Returns of many episodes, read as a user's data is, against the law: mean, spread and the largest gap of cdfs."""
    path = tmp_path / f"{name}.npz"
    write(name, 20_000, seed=0, path=path)
    problem, episodes = PROBLEMS[name], load_files(path)
    returns = reward_to_go(episodes, problem.discount)[0]
    for probe in problem.probes(num_steps):
        width = 0.05 if name == "slope" else 1e-4  # no row lies exactly at a probe of the continuous state
        near = np.abs(episodes.observations - probe.observation).max(1) < width
        mine = np.sort(returns[near & (np.abs(episodes.actions - probe.action).max(1) < 1e-6)])
        assert len(mine) > 300
        noise = 4 / math.sqrt(len(mine)) + (0.1 if name == "slope" else 1e-6)
        assert abs(mine.mean() - probe.distribution.mean) < noise * max(probe.distribution.std, 1e-3)
        assert abs(mine.std() - probe.distribution.std) < noise * max(probe.distribution.std, 1e-3)
        grid = probe.distribution.mean + probe.distribution.std * np.array([-1.3, -0.7, -0.1, 0.4, 1.1]) + 1e-4
        assert np.abs((mine[:, None] <= grid).mean(0) - probe.distribution.cdf(grid)).max() < noise


def test_corridor_is_geometric():
    (probe,) = corridor().probes(5)
    steps = np.arange(1, 150)
    values = -(1 - 0.9**steps) / (1 - 0.9)
    np.testing.assert_allclose(probe.distribution.cdf(values + 1e-9), 0.9 ** (steps - 1), atol=1e-7)  # P(T >= steps)


def test_a_time_limit_changes_the_data_and_not_the_distribution(tmp_path):
    (whole,), (cut,) = corridor().probes(5), corridor(time_limit=20).probes(5)
    assert np.array_equal(whole.distribution.values, cut.distribution.values)
    assert np.array_equal(whole.distribution.weights, cut.distribution.weights)
    write("cut-corridor", 2000, seed=0, path=tmp_path / "cut.npz")
    episodes = load_files(tmp_path / "cut.npz")
    assert np.diff(np.flatnonzero(episodes.ends), prepend=-1).max() == 20
    cut_share = episodes.bootstrap_only.sum() / episodes.ends.sum()
    assert cut_share == pytest.approx(0.9**20, abs=0.03)


@pytest.mark.parametrize("num_steps", [1, 5, 50])
def test_cut_episodes_back_up_to_the_exact_mean(num_steps, tmp_path):
    """E[sum + discount^n Q] = Q over the rows that teach: a finish on the last row before a cut must not be counted
    where its absence is not."""
    (probe,) = corridor(time_limit=8).probes(num_steps)
    write_npz(tmp_path / "cut.npz", corridor(time_limit=8).draw(np.random.default_rng(0), 50_000))
    episodes = load_files(tmp_path / "cut.npz")
    sums = n_step_sums(episodes, Returns.read(episodes, 0.9), num_steps=num_steps)
    taught = sums.weights[0] > 0
    backups = (sums.rewards[0] + sums.discounts[0] * probe.distribution.mean)[taught]
    assert backups.mean() == pytest.approx(probe.distribution.mean, abs=4 * probe.distribution.std / 50_000**0.5)


def test_fork_sets_the_mean_against_the_upper_tail():
    sure, risky = fork().probes(1)
    assert sure.distribution.mean > risky.distribution.mean
    both = Atoms(np.array([-0.25, 0.5, 2.0]), np.array([0.4, 0.5, 0.1]))
    assert sure.distribution.log_mean_exp(both.std) < risky.distribution.log_mean_exp(both.std)


def test_hidden_intent_has_one_distribution_per_look_ahead():
    early, late = hidden_intent().probes(5)
    np.testing.assert_allclose(early.distribution.values, [-1.9, 1.9])
    one, _ = hidden_intent().probes(1)
    np.testing.assert_allclose(one.distribution.values, [-1.9, -0.1, 0.1, 1.9])
    np.testing.assert_allclose(one.distribution.weights, 0.25)
    np.testing.assert_allclose(late.distribution.values, [-1, 1])


def test_chain_doubles_its_returns_at_each_step():
    first = PROBLEMS["chain-10"].probes(5)[0].distribution
    assert len(first.values) == 1024
    assert first.std == pytest.approx(math.sqrt(sum(0.81**k for k in range(10))))


def test_unknown_problem_is_named(tmp_path):
    with pytest.raises(EvorError, match=r"'coim'.*'coin'"):
        write("coim", 10, seed=0, path=tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


def test_normal_is_scipys():
    assert Normal(1.0, 2.0).cdf(np.array([2.0]))[0] == pytest.approx(norm.cdf(2.0, 1.0, 2.0))


def test_horizons_are_the_longest_episodes():
    horizons = {name: problem.horizon for name, problem in PROBLEMS.items()}
    assert horizons == {
        "coin": 1,
        "gaussian": 1,
        "negative-exponential": 1,
        "chain-2": 2,
        "chain-10": 10,
        "corridor": None,
        "cut-corridor": None,
        "fork": 1,
        "deterministic-tree": 2,
        "slippery-tree": 2,
        "hidden-intent": 2,
        "slope": 2,
    }


def test_the_improved_policy_is_the_best_of_its_draws_at_every_decision():
    """In the tree: left is drawn with probability 0.4. After the first step +1 (left) or 0.6 (right) is best."""
    known = PROBLEMS["deterministic-tree"].improved
    left, right = (probe.distribution for probe in known(4).probes(1)[:2])
    np.testing.assert_allclose(left.values, [0.2 - 0.9, 0.2 + 0.9])
    np.testing.assert_allclose(left.weights, [0.6**4, 1 - 0.6**4])
    np.testing.assert_allclose(right.values, [-0.1 - 0.45, -0.1 + 0.54])
    np.testing.assert_allclose(right.weights, [0.4**4, 1 - 0.4**4])


@pytest.mark.parametrize("name", ["deterministic-tree", "slippery-tree"])
def test_one_draw_is_the_behaviour_and_many_are_the_optimum(name):
    problem = PROBLEMS[name]
    for mine, theirs in zip(problem.improved(1).probes(1), problem.probes(1), strict=True):
        assert mine.distribution.mean == pytest.approx(theirs.distribution.mean)
        np.testing.assert_allclose(mine.distribution.weights, theirs.distribution.weights)
    means = {
        (int(probe.observation.argmax()), float(probe.action[0])): probe.distribution.mean
        for probe in problem.improved(60).probes(1)
    }
    slip = 0.3 if name == "slippery-tree" else 0.0
    for action, reward, likely in ((-0.5, 0.2, 1), (0.5, -0.1, 2)):
        best = {state: max(means[state, side] for side in (-0.5, 0.5)) for state in (1, 2)}
        assert means[0, action] == pytest.approx(reward + 0.9 * ((1 - slip) * best[likely] + slip * best[3 - likely]))


def test_a_process_that_goes_on_has_no_improved_policy_here():
    with pytest.raises(EvorError, match="may go on for ever"):
        corridor().improved(4)
