"""A base policy of LeRobot, in this process: a folder that `save_pretrained` wrote."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from evor.errors import EvorError, why
from evor.policies.base_policy import TIMEOUT
from evor.runtime import arguments
from evor.runtime.user_code import blamed, within

INSTALL = "LeRobot is not installed here; it needs Python 3.12: pip install lerobot."


class LerobotPolicy:
    """A base policy that LeRobot loads from a folder: its own processors scale observations and actions.

    Observations carry LeRobot's keys, such as `observation.state` [B, D]; images are [B, C, H, W], as the policy was
    trained on them. An observation under "observation" is taken for `observation.state`. Each is repeated `num` times, so
    that one call draws all of its proposals. Raises EvorError where LeRobot is not installed, or can't load the folder.
    """

    seeded = True  # by torch's generator

    def __init__(self, path: str, *, timeout: float = TIMEOUT):
        if not path:
            raise EvorError("lerobot: names no folder; give lerobot:FOLDER, as save_pretrained wrote it.")
        self.name, self._timeout = f"lerobot:{path}", timeout
        try:
            torch, configs, factory = map(
                import_module, ("torch", "lerobot.configs.policies", "lerobot.policies.factory")
            )
        except ImportError as error:
            raise EvorError(f"{self.name} can't be opened ({why(error)}). {INSTALL}") from error
        folder = str(Path(path).expanduser())
        try:
            config = configs.PreTrainedConfig.from_pretrained(folder)
            self._policy = factory.get_policy_class(config.type).from_pretrained(folder, config=config)
            self._pre, self._post = factory.make_pre_post_processors(config, pretrained_path=folder)
        except Exception as error:  # whatever LeRobot raises on what is no policy
            raise EvorError(
                f"{self.name} can't be loaded ({why(error)}); give the folder that save_pretrained wrote."
            ) from error
        self._policy.eval()
        self._torch = torch
        self._inputs = tuple(config.input_features)
        self._steps = int(getattr(config, "n_obs_steps", 1) or 1)

    def sample(self, observations: Mapping[str, Any], num: int, *, seed: int) -> Float[np.ndarray, "B num horizon A"]:
        """Predict chunks of actions, unscaled by the policy's own processor."""

        def call() -> np.ndarray:
            with blamed(self.name, mend="look at the keys and shapes of the observations"):
                return self._sample(observations, num, seed=seed)

        try:
            return within(self._timeout, call)
        except TimeoutError as error:
            raise EvorError(
                f"{self.name} has not answered within {self._timeout:g} s; give it longer (--base-timeout, base_timeout=)."
            ) from error

    def _sample(self, observations: Mapping[str, Any], num: int, *, seed: int) -> np.ndarray:
        torch = self._torch
        batch = {key: self._repeated(_of_key(observations, key), num) for key in self._inputs}
        batch |= {"task": [text for text in observations["task"] for _ in range(num)]} if "task" in observations else {}
        torch.manual_seed(seed)
        self._policy.reset()
        with torch.inference_mode():
            scaled = {key: value for key, value in self._pre(batch).items() if key in (*self._inputs, *_texts(batch))}
            if self._steps > 1:  # the same observation as its history
                scaled = {key: self._history(value) for key, value in scaled.items()}
            actions = self._post(self._policy.predict_action_chunk(scaled))
        return actions.float().cpu().numpy().reshape(-1, num, *actions.shape[1:])

    def _repeated(self, array: Any, num: int) -> Any:
        return self._torch.as_tensor(np.repeat(np.array(array, np.float32), num, axis=0))

    def _history(self, value: Any) -> Any:
        return value.unsqueeze(1).expand(-1, self._steps, *value.shape[1:]) if hasattr(value, "unsqueeze") else value


def _texts(batch: Mapping[str, Any]) -> list[str]:
    """Keys that the processor makes of prompts."""
    return ["task", "observation.language.tokens", "observation.language.attention_mask"] if "task" in batch else []


def _of_key(observations: Mapping[str, Any], key: str) -> Any:
    """The arrays of an input. Raises EvorError where there are none."""
    if key in observations:
        return observations[key]
    if key == "observation.state" and "observation" in observations:
        return observations["observation"]
    raise EvorError(
        f"the LeRobot policy needs the key {key!r}, and the observation has {arguments.shown(sorted(observations), str)}; "
        "give it all of its inputs."
    )
