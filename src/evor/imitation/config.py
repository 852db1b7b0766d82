"""Settings of an imitation, as frozen dataclasses."""

from dataclasses import dataclass, field

from evor.agents.bc import Bc
from evor.agents.sac import Sac
from evor.errors import EvorError, fraction, integer, widths
from evor.imitation.discriminator import Bounded, Everything, RewardKind, Sees
from evor.imitation.resets import Guitar, Method
from evor.nn.learner import Learning


def default_learner() -> Sac:
    """SAC with the settings of the ledge's runs, but for the sizes of its networks."""
    learning = Learning(hidden=(256, 256), batch_size=128, learning_rate=1e-3, final_learning_rate=1e-3)
    return Sac(learning=learning, discount=0.98, target_rate=0.01, first_temperature=0.1)


@dataclass(frozen=True, kw_only=True)
class ImitationConfig:
    """One imitation. Two runs with equal settings, demonstrations and seeds end bit-identical."""

    steps: int = 200_000  # Steps of the environment that the learner learns from.
    seeds: tuple[int, ...] = (0,)  # Which seeds, one after the other.
    # Where the learner's episodes begin.
    method: Method = field(default_factory=Guitar)
    # What the discriminator may see. It must not see what only the expert's body can do.
    discriminator_sees: Sees = field(default_factory=Everything)
    # How the discriminator becomes a reward, and how it learns.
    reward: RewardKind = field(default_factory=Bounded)
    # The learner: an agent that learns from rewards.
    learner: Sac = field(default_factory=default_learner)
    discriminator_hidden: tuple[int, ...] = (64, 64)  # Widths of the hidden layers of the discriminator.
    # Steps of the learner after which an episode that began elsewhere is cut. Left out: at the end of the environment's own clock.
    search_horizon: int | None = None
    copies: int = 1  # Copies of the environment that are stepped together.
    warm_up: int = 1_000  # First steps, whose actions are random and after which updates begin.
    update_every: int = 64  # Steps from one call of updates to the next.
    steps_per_update: int = 2  # Steps for each update of the learner.
    reward_every: int = 5_120  # Steps from one update of the discriminator to the next.
    rollouts: int = 4  # Episodes from the start that the discriminator learns from each time.
    evaluate_every: int = 20_480  # Steps from one evaluation to the next.
    evaluation_episodes: int = 10  # Episodes of an evaluation, without noise and from the start.

    def __post_init__(self):
        integer(1, steps=self.steps, copies=self.copies, update_every=self.update_every)
        integer(1, steps_per_update=self.steps_per_update, reward_every=self.reward_every, rollouts=self.rollouts)
        integer(1, evaluate_every=self.evaluate_every, evaluation_episodes=self.evaluation_episodes)
        integer(0, warm_up=self.warm_up)
        widths(discriminator_hidden=self.discriminator_hidden)
        if isinstance(self.method, Bc) and self.method.chunk_length != 1:
            raise EvorError(
                f"method.chunk_length is {self.method.chunk_length}; an imitation clones single actions: leave it out."
            )
        fraction(discount=self.learner.discount)
        if self.search_horizon is not None:
            integer(1, search_horizon=self.search_horizon)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise EvorError(f"seeds are {list(self.seeds)}; name different whole numbers from 0 on.")
        for small, large in (
            ("copies", "update_every"),
            ("steps_per_update", "update_every"),
            ("update_every", "reward_every"),
            ("reward_every", "evaluate_every"),
        ):
            if getattr(self, large) % getattr(self, small):
                raise EvorError(
                    f"{large} is {getattr(self, large)} and {small} is {getattr(self, small)}; the first must be a multiple of "
                    "the second."
                )
