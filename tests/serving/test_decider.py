"""A trained policy behind the server: the same decisions, nothing compiled while it serves, and base policies that fail."""

import io
import threading

import numpy as np
import pytest
from stand_in import lines, service_of, serving

import evor
from evor.errors import EvorError
from evor.policies import decision, load
from evor.runtime.wire import pack, unpack
from evor.search.extraction import BestOf, Prior, SoftmaxOf
from evor.serving import start
from evor.serving.decider import PolicyDecider, flat
from evor.serving.pace import Timing
from evor.serving.service import Session


@pytest.fixture(scope="module")
def policy(tiny_run):
    return load.load(tiny_run, task=1, seed=0)


def test_a_run_is_served_as_it_acts_and_nothing_compiles_meanwhile(policy, tmp_path, monkeypatch, capsys):
    """All of `evor serve`, with a client in another thread."""
    told, observation = {}, np.zeros(policy.spec.observation_dim, np.float32)

    class Watched(start.Server):
        def serve(self, sock, *, ready):
            def talk():
                try:
                    before = decision.decide._cache_size(), decision.read_returns._cache_size()
                    with evor.Client(f"ws://127.0.0.1:{sock.getsockname()[1]}") as client:
                        told["metadata"] = client.metadata
                        told["actions"] = [client.act(observation, seed=5), client.act(observation, num_candidates=1)]
                        told["search"] = client.reply["search"]
                    told["compiled"] = (decision.decide._cache_size(), decision.read_returns._cache_size()) != before
                finally:
                    self.stop()

            def begin():
                ready()
                threading.Thread(target=talk).start()

            super().serve(sock, ready=begin)

    monkeypatch.setattr(start, "Server", Watched)
    options = start.Options(port=0, budget_ms=1e6, max_candidates=2, record=tmp_path / "seen")
    start.serve(policy, SoftmaxOf(), options=options)
    assert told["metadata"]["num_candidates"] == 2
    assert told["metadata"]["horizon"] == 1
    assert told["metadata"]["observation_keys"] == ["observation"]
    assert not told["compiled"]
    expected = policy.decide(observation, 5, extraction=SoftmaxOf(2))
    np.testing.assert_array_equal(told["actions"][0], expected.action)
    one = policy.decide(observation, 1, extraction=SoftmaxOf(1))  # the second decision of the connection
    np.testing.assert_array_equal(told["actions"][1], one.action)
    assert told["search"]["candidates"] == 1
    assert told["search"]["value"] == pytest.approx(float(one.scores[0]), rel=1e-5)
    assert told["search"]["quantiles"] == sorted(told["search"]["quantiles"])
    assert len(list((tmp_path / "seen").glob("*.npz"))) == 1
    said = capsys.readouterr()
    assert "starts here" in said.err
    events = [line.split('"event": "')[1].split('"')[0] for line in said.out.splitlines()]
    assert events[:2] == ["listening", "connected"]
    assert events[-2:] == ["latency", "stopped"] or "stopped" in events


def test_the_base_policy_alone_has_no_value(policy):
    decider = PolicyDecider(policy, Prior())
    assert decider.sizes == (1,)
    reply = unpack(service_of(decider).answer(pack({"observation": np.zeros(policy.spec.observation_dim)}), Session()))
    assert reply["search"] == {"candidates": 1, "value": None, "quantiles": None}


def over(tiny_run, function, **options):
    """A decider over a base policy of one's own."""
    return PolicyDecider(load.load(tiny_run, 1, seed=0, base=function, **options), BestOf(), most=2)


def test_a_base_policy_gets_all_of_an_observation_and_all_of_its_chunk_is_returned(tiny_run):
    seen = []

    def propose(observations, num, seed):
        seen.append((observations, num))
        observations["image"][:] = 0  # its own
        return np.tile(np.linspace(-1, 1, num)[None, :, None, None], (1, 1, 5, 2))

    decider = over(tiny_run, propose)
    assert decider.horizon is None
    assert decider.sizes == (1, 2)
    image = np.ones((4, 4, 3), np.uint8)
    request = {"observation": np.zeros(2), "image": image, "prompt": "pick", "evor/num_candidates": 2}
    reply = unpack(service_of(decider).answer(pack(request), Session()))
    assert reply["actions"].shape == (5, 2)
    assert set(np.unique(reply["actions"])) <= {-1, 1}
    assert reply["search"]["candidates"] == 2
    assert reply["server_timing"]["base_ms"] > 0
    ((observations, num),) = seen
    assert num == 2
    assert observations["prompt"] == ["pick"]
    assert observations["image"].shape == (1, 4, 4, 3)
    assert "evor/num_candidates" not in observations
    assert decider.horizon == 5


def test_a_base_policy_that_fails_is_a_sentence_and_the_server_lives(tiny_run):
    what, release = ["raise"], threading.Event()

    def propose(observations, num, seed):
        if what[0] == "raise":
            return observations["image"]
        if what[0] == "hang":
            release.wait(30)
        if what[0] == "exit":
            raise SystemExit(1)
        return np.full((1, num, 1, 2), np.nan if what[0] == "nan" else 0.5)

    stream = io.StringIO()
    decider = over(tiny_run, propose, base_timeout=0.5)
    timings = [Timing(size, 0.0, 1.0, 1.0) for size in decider.sizes]
    with serving(service_of(decider, timings=timings, stream=stream)) as uri, evor.Client(uri) as client:
        for kind, sentence in (
            ("raise", r"raised KeyError: it lacks 'image' \(test_decider.py:\d+\)"),
            ("hang", "has not answered within 0.5 s"),
            ("nan", "returned nan at"),
            ("exit", r"raised SystemExit: 1 \(test_decider.py:\d+\)"),
        ):
            what[0] = kind
            with pytest.raises(EvorError, match=sentence):
                client.act([0.0, 0.0])
        release.set()
        what[0] = "work"
        assert client.act([0.0, 0.0]).tolist() == [0.5, 0.5]
    assert len(lines(stream, "error")) == 4
    assert len(lines(stream, "connected")) == 1


def test_a_base_policy_that_can_not_be_timed_starts_with_one_candidate(tiny_run, capsys):
    decider = over(tiny_run, lambda observations, num, seed: observations["image"])
    timings, knows_base = start.time_sizes(decider, budget_ms=100.0)
    assert not knows_base
    assert [timing.candidates for timing in timings] == [1, 2]
    said = " ".join(capsys.readouterr().err.split())
    assert "the base policy can't be timed before a robot asks" in said
    assert "The server starts with one candidate." in said
    start.time_sizes(decider, budget_ms=None)
    said = " ".join(capsys.readouterr().err.split())
    assert f"Every decision has {decider.sizes[-1]} candidates; give --budget-ms to bound its time." in said


def test_sizes_of_a_base_policy_beyond_the_budget_are_left_out(tiny_run):
    decider = over(tiny_run, lambda observations, num, seed: np.zeros((1, num, 1, 2)))
    timings, knows_base = start.time_sizes(decider, budget_ms=1e-3)
    assert knows_base
    assert [timing.candidates for timing in timings] == [1]


def test_keys_may_be_named_and_must_make_an_observation(policy):
    def keys(*names):
        return PolicyDecider(policy, Prior(), names=names).keys

    assert policy.spec.observation_dim == 2
    before = policy.observation_keys
    try:
        assert keys() == (("observation", 2),)
        assert keys("observation/state") == (("observation/state", 2),)
        assert keys("x:1", "y:1") == (("x", 1), ("y", 1))
        assert keys("a", "b") == (("a", 1), ("b", 1))  # as many as before: their widths are known
        for names, sentence in (
            (("x:1", "y:2"), "has 1 \\+ 2 numbers, and the policy was trained on 2; correct the widths"),
            (("x:1", "y"), "needs a width with each name or with none"),
            (("x:0", "y:2"), "needs a width with each name"),
            (("x", "y", "z"), "has 3 names without widths, and the data had 2; give each its width"),
            (("x", "x"), "give different names"),
            ((":2",), "give different names"),
        ):
            with pytest.raises(EvorError, match=f"--observation-keys {sentence}" if sentence[0] != "g" else sentence):
                keys(*names)
    finally:
        policy.observation_keys = before


def test_parts_lie_side_by_side_in_the_order_of_the_keys():
    given = {"arm": [1, 2], "gripper": 3.0, "image": 0}
    assert flat(given, (("gripper", 1), ("arm", 2))).tolist() == [3, 1, 2]
    assert flat({"observation": {"arm": [1, 2]}}, (("observation/arm", 2),)).tolist() == [1, 2]


def test_what_can_not_be_served_is_refused_at_the_start(policy, tmp_path):
    def refused(search=None, **options):
        with pytest.raises(EvorError) as told:
            start.serve(
                policy, search, options=start.Options(**({"port": 0} | options)), asks_candidates=search is not None
            )
        return str(told.value)

    (tmp_path / "key").touch(0o600)
    assert "the key file" in refused(key_file=tmp_path / "key")
    assert "lets other machines connect" in refused(host="0.0.0.0")
    assert "--num-candidates is 100, above --max-candidates 64" in refused(BestOf(100))
    assert "budget_ms is 0; it must be above 0" in refused(budget_ms=0)
    assert "max_candidates is 0" in refused(max_candidates=0)


def test_the_limit_holds_for_an_agents_own_search_too():
    limits = start.Options(max_candidates=2)
    assert start._most(evor.SoftmaxOf(8), limits, asked=False) == 2
    with pytest.raises(EvorError, match="--num-candidates is 8, above --max-candidates 2"):
        start._most(evor.SoftmaxOf(8), limits, asked=True)


def test_a_value_alone_can_not_be_served(tiny_run):
    from evor.policies.searched import SearchedPolicy

    policy = load.load(tiny_run, 1, seed=0, base=lambda *_: None)
    assert isinstance(policy, SearchedPolicy)
    policy.base = None
    with pytest.raises(EvorError, match=r"this policy is a value alone.*give the base policy .*--base"):
        PolicyDecider(policy, BestOf())
