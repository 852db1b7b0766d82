"""A base policy of LeRobot, in this process: a folder that `save_pretrained` wrote."""

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
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
FOLDER = "give the folder that save_pretrained wrote, such as checkpoints/last/pretrained_model"


class LerobotPolicy:
    """A base policy that LeRobot loads from a folder: its own processors scale observations and actions.

    Observations carry LeRobot's keys, such as `observation.state` [B, D]. Images are [B, H, W, C] or [B, C, H, W], and
    bytes are divided by 255, as LeRobot does. An observation under "observation" is taken for `observation.state`. Each is
    repeated `num` times, so that one call draws all of its proposals. A policy that looks at several past steps sees each
    observation as the first of its episode. Raises EvorError where LeRobot is not installed, or can't load the folder.
    """

    seeded = True  # by torch's generator

    def __init__(self, path: str, *, timeout: float = TIMEOUT):
        if not path:
            raise EvorError("lerobot: names no folder; give lerobot:FOLDER, as save_pretrained wrote it.")
        self.name, self._timeout = f"lerobot:{path}", timeout
        folder = Path(path).expanduser()
        if not (folder / "config.json").is_file():  # LeRobot would look for a model of that name on the network
            raise EvorError(f"{self.name} can't be opened: {folder / 'config.json'} does not exist; {FOLDER}.")
        try:
            torch, configs, factory = map(
                import_module, ("torch", "lerobot.configs.policies", "lerobot.policies.factory")
            )
        except ImportError as error:
            raise EvorError(f"{self.name} can't be opened ({why(error)}). {INSTALL}") from error
        try:
            with redirect_stdout(sys.stderr):  # it prints, and our own output may be JSON
                config = configs.PreTrainedConfig.from_pretrained(str(folder))
                config.pretrained_backbone_weights = None  # would be downloaded, and the folder's replace them
                self._policy = factory.get_policy_class(config.type).from_pretrained(str(folder), config=config)
                self._pre, self._post = factory.make_pre_post_processors(
                    config,
                    pretrained_path=str(folder),
                    preprocessor_overrides={"device_processor": {"device": config.device}},  # of this machine
                )
        except Exception as error:  # whatever LeRobot raises on what is no policy
            raise EvorError(f"{self.name} can't be loaded ({why(error)}); {FOLDER}.") from error
        self._policy.eval()
        self._torch = torch
        self._inputs = tuple(config.input_features)
        self._channels = {key: feature.shape[0] for key, feature in config.image_features.items()}

    def sample(self, observations: Mapping[str, Any], num: int, *, seed: int) -> Float[np.ndarray, "B num horizon A"]:
        """Predict chunks of actions, unscaled by the policy's own processor."""

        def call() -> np.ndarray:
            with blamed(self.name, mend="look at the keys and shapes of the observations"):
                return self._sample(observations, num, seed=seed)

        try:
            return within(self._timeout, call)
        except TimeoutError as error:
            raise EvorError(
                f"{self.name} has not answered within {self._timeout:g} s; give it more time (--base-timeout, base_timeout=)."
            ) from error

    def _sample(self, observations: Mapping[str, Any], num: int, *, seed: int) -> np.ndarray:
        batch = {key: self._repeated(key, _of_key(observations, key), num=num) for key in self._inputs}
        batch |= {"task": [text for text in observations["task"] for _ in range(num)]} if "task" in observations else {}
        self._torch.manual_seed(seed)
        self._policy.reset()
        with self._torch.inference_mode():
            seen = {key: value for key, value in self._pre(batch).items() if key.startswith(("observation.", "task"))}
            actions = self._post(self._chunks(seen))
        return actions.float().cpu().numpy().reshape(-1, num, *actions.shape[1:])

    def _repeated(self, key: str, given: Any, *, num: int) -> Any:
        """The arrays of an input, each `num` times, as LeRobot's policies see them."""
        array = np.asarray(given)
        scaled = array.astype(np.float32)
        if key in self._channels:
            scaled = scaled / 255 if array.dtype == np.uint8 else scaled
            is_last = array.shape[1] != self._channels[key] and array.shape[-1] == self._channels[key]
            scaled = np.moveaxis(scaled, -1, 1) if is_last else scaled
        return self._torch.as_tensor(np.repeat(scaled, num, axis=0))

    def _chunks(self, seen: dict[str, Any]) -> Any:
        """Predict chunks [B, horizon, A]. A policy with queues of observations fills them in `select_action` alone."""
        if not set(getattr(self._policy, "_queues", ())) - {"action"}:
            return self._policy.predict_action_chunk(seen)
        first = self._policy.select_action(seen)
        return self._torch.stack([first, *self._policy._queues["action"]], dim=1)


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
