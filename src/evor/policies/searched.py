"""A base policy of the user's own, and a trained value that chooses among its proposals."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from evor.agents.registry import AgentConfig
from evor.errors import EvorError
from evor.nn.engine import pinned
from evor.policies.base_policy import OBSERVATION, BasePolicy, by_keys, draw, with_arrays, with_leading_axis
from evor.policies.decision import Decision, Networks, note_work
from evor.policies.inputs import Batch, batch_of
from evor.policies.policy import Policy
from evor.runtime.progress import console
from evor.search.extraction import Extraction, Guided, Prior, keys_of_decision
from evor.types import Spec


class SearchedPolicy(Policy):
    """A `Policy` whose candidates are proposals of a base policy of the user's own. What it scores with was trained.

    It executes `config.chunk_length` actions of a chunk, which are those that it scores; `act` returns whole chunks. An
    observation may be a dict: the base policy gets it as it is, and the value what it was trained on. Rows of a batch share
    one call of the base policy, and its seed comes of all of theirs. A base policy that is not seeded can't be repeated.
    """

    def __init__(
        self, config: AgentConfig, spec: Spec, *, networks: Networks, origin: dict[str, Any], base: BasePolicy | None
    ):
        told = {} if base is None else {"base": base.name, "base_seeded": base.seeded}
        super().__init__(config, spec, networks=networks, origin=origin | told)
        self.observation_keys = self.observation_keys or ((OBSERVATION, spec.observation_dim),)
        self.base = base  # None: only the value can be asked, and `choose`
        self._has_clipped = False

    @pinned
    def act(
        self, observation: Any, seed: int | Int[np.ndarray, " B"] | None = None, *, extraction: Extraction | None = None
    ) -> Float[np.ndarray, "*B horizon A"]:
        """Choose a chunk of actions [horizon, A] for an observation, or [B, horizon, A]; [A] where the horizon is 1.

        Otherwise as `Policy.act`. Actions beyond `action_bounds` are clipped. Raises EvorError where the base policy can't be
        reached, raises, or returns what is no action.
        """
        decided, batch = self._over(observation, seed, extraction=extraction)
        chunk = _taken(decided.candidates, decided.index)
        return batch.result(chunk[:, 0] if chunk.shape[1] == 1 else chunk)

    @pinned
    def decide(
        self, observation: Any, seed: int | Int[np.ndarray, " B"] | None = None, *, extraction: Extraction | None = None
    ) -> Decision:
        """Decide as `act` does, and tell what was decided among: the candidates are the base policy's proposals.

        Action and candidates are those that are executed and scored, [chunk, A] where the agent chunks.
        """
        return self.decide_whole(observation, seed, extraction=extraction)[0]

    @pinned
    def decide_whole(
        self, observation: Any, seed: int | Int[np.ndarray, " B"] | None = None, *, extraction: Extraction | None = None
    ) -> tuple[Decision, Float[np.ndarray, "*B horizon A"]]:
        """Decide as `decide` does, and return with it the whole chunk that was taken."""
        decided, batch = self._over(observation, seed, extraction=extraction)
        candidates = self._executed(decided.candidates)
        executed = decided._replace(action=_taken(candidates, decided.index), candidates=candidates)
        return batch.results(executed), batch.result(_taken(decided.candidates, decided.index))

    @pinned
    def _act_with_keys(
        self,
        rows: np.ndarray,
        keys: Key[Array, " B"],
        *,
        extraction: Extraction | None,
        given: Mapping[str, Any] | None = None,
    ) -> np.ndarray:
        """The actions of all rows that are executed. Rows at the end that repeat the one before them are padding."""
        numbers = np.asarray(jax.random.key_data(keys))
        differ = np.flatnonzero((numbers[1:] != numbers[:-1]).any(axis=1) | (rows[1:] != rows[:-1]).any(axis=1))
        count = int(differ[-1]) + 2 if len(differ) else 1
        batch = batch_of(rows[:count], (), width=self.spec.observation_dim)
        padded = keys[np.minimum(np.arange(len(batch.rows)), count - 1)]
        decided = self._among(given or self._by_keys(rows[:count]), batch, keys=padded, extraction=extraction)
        chosen = _taken(self._executed(decided.candidates), decided.index)
        return np.concatenate([chosen, np.repeat(chosen[-1:], len(rows) - count, axis=0)])

    def _over(self, observation: Any, seed: Any, *, extraction: Any) -> tuple[Decision, Batch]:
        extraction, batch, keys = self._asked(observation, seed, extraction=extraction)
        if isinstance(observation, Mapping):
            given = with_arrays(observation, self.observation_keys)
            given = with_leading_axis(given) if batch.single else given
        else:
            given = self._by_keys(batch.rows[: batch.number])
        return self._among(given, batch, keys=keys, extraction=extraction), batch

    def _among(
        self, given: Mapping[str, Any], batch: Batch, *, keys: Key[Array, " S"], extraction: Extraction | None
    ) -> Decision:
        """Decide among proposals: candidates [B, C, horizon, A], their scores, and the index of the one that is taken."""
        base, search = self.require_base(), self._search(extraction)
        number = search.num_candidates
        proposals = draw(
            base,
            given,
            rows=batch.number,
            num=number,
            seed=_seed_of(keys[: batch.number]),
            chunk_length=self.config.chunk_length,
            width=self.spec.action_dim,
        )
        candidates = self._clipped(proposals)
        index, scores = np.zeros(batch.number, int), None
        if not isinstance(search, Prior) and batch.number:
            note_work(search, self.default_search)
            many = batch._replace(single=False)
            chosen = self._chosen(self._executed(candidates), many, keys=keys, search=search)
            index, scores = chosen.index[: batch.number], chosen.scores[: batch.number]
        return Decision(action=None, index=index, candidates=candidates, scores=scores)

    def require_base(self) -> BasePolicy:
        """The base policy. Raises EvorError where there is none."""
        if self.base is None:
            trained = self.origin.get("base")
            raise EvorError(
                "this policy is a value alone, which proposes no actions; give the base policy that it was trained over "
                f"(--base, base=){f', {trained}' if trained else ''}."
            )
        return self.base

    def _search(self, extraction: Any) -> Extraction:
        search = super()._search(extraction)
        if isinstance(search, Guided):
            raise EvorError(
                "Guided moves actions, and those of a base policy of your own stay as they are; choose SoftmaxOf or BestOf."
            )
        return search

    def _executed(self, chunks: np.ndarray) -> np.ndarray:
        """The part of chunks [B, C, horizon, A] that is executed, as actions of this policy are shaped."""
        part = chunks[:, :, : self.config.chunk_length]
        return part if self.config.chunk_length > 1 else part[:, :, 0]

    def _clipped(self, proposals: np.ndarray) -> np.ndarray:
        clipped = np.clip(proposals, *self.action_bounds.sides)
        if not self._has_clipped and self.action_bounds.outside(proposals):
            self._has_clipped = True
            share = (clipped != proposals).any(axis=-1).mean()
            console.print(
                f"note: {share:.1%} of the actions that {self.require_base().name} just proposed are outside the bounds of the data, "
                f"{self.action_bounds}; they are clipped."
            )
        return clipped

    def _by_keys(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return by_keys(rows, self.observation_keys)


def _taken(candidates: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The candidate [B, ...] of each row that is taken."""
    return candidates[np.arange(len(index)), index]


def _seed_of(keys: Key[Array, " B"]) -> int:
    """A seed for one call of a base policy, of the keys of all of its rows."""
    numbers = jax.random.key_data(jax.vmap(lambda key: keys_of_decision(key).propose)(keys))
    return int(np.random.SeedSequence(np.asarray(numbers).ravel().tolist()).generate_state(1)[0])
