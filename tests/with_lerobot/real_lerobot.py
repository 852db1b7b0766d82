"""Small policies and a recording, written by the real LeRobot, and its own control loop."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lerobot.common.control_utils import predict_action
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig

STATE, PLACE, IMAGE = "observation.state", "observation.environment_state", "observation.images.top"
CPU = torch.device("cpu")
EPISODES, STEPS = 3, 10
TAKEN = 4  # actions of a chunk that LeRobot executes
RESNET = {"pretrained_backbone_weights": None}  # they would be downloaded
ACT = {"chunk_size": 6, "n_action_steps": TAKEN, "dim_model": 16, "n_heads": 2, "dim_feedforward": 16, "latent_dim": 4}
ACT |= {"n_encoder_layers": 1, "n_vae_encoder_layers": 1} | RESNET
DIFFUSION = {"horizon": 8, "n_action_steps": TAKEN, "down_dims": (16, 32), "kernel_size": 3, "num_train_timesteps": 8}
DIFFUSION |= {"diffusion_step_embed_dim": 8, "spatial_softmax_num_keypoints": 4} | RESNET
VQBET = {"action_chunk_size": TAKEN, "n_obs_steps": 2, "gpt_n_layer": 1, "gpt_n_head": 2, "gpt_hidden_dim": 16}
VQBET |= {"gpt_input_dim": 16, "gpt_output_dim": 16, "spatial_softmax_num_keypoints": 4, "crop_shape": None} | RESNET
POLICIES = {
    "act": (ACTConfig, (STATE, PLACE), ACT),
    "act with an image": (ACTConfig, (STATE, IMAGE), ACT),
    "diffusion": (DiffusionConfig, (STATE, PLACE), DIFFUSION),
    "diffusion without a history": (DiffusionConfig, (STATE, PLACE), DIFFUSION | {"n_obs_steps": 1}),
    "diffusion with an image": (DiffusionConfig, (STATE, PLACE, IMAGE), DIFFUSION),
    "vqbet": (VQBeTConfig, (STATE, IMAGE), VQBET),
}


class Loaded(NamedTuple):
    """A policy as LeRobot loads it."""

    policy: Any
    pre: Any
    post: Any


def frames(number: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Observations as robots give them: images are bytes, and their channels come last."""
    random = np.random.default_rng(seed)
    return {
        STATE: random.uniform(-90, 90, (number, 3)).astype(np.float32),
        PLACE: random.normal(size=(number, 2)).astype(np.float32),
        IMAGE: random.integers(0, 256, (number, 48, 64, 3), np.uint8),
    }


def record(folder: Path) -> tuple[LeRobotDataset, dict[str, np.ndarray]]:
    """A dataset that LeRobot wrote into `folder`, and what it was given. Actions are in degrees."""
    numbers = {STATE: 3, PLACE: 2, "action": 2}
    features: dict[str, Any] = {key: {"dtype": "float32", "shape": (n,), "names": None} for key, n in numbers.items()}
    features[IMAGE] = {"dtype": "image", "shape": (48, 64, 3), "names": ["height", "width", "channels"]}
    features["next.success"] = {"dtype": "bool", "shape": (1,), "names": None}
    dataset = LeRobotDataset.create("mine/arm", fps=30, features=features, root=folder, use_videos=False)
    rows = frames(EPISODES * STEPS)
    rows["action"] = np.random.default_rng(1).uniform(-90, 90, (EPISODES * STEPS, 2)).astype(np.float32)
    rows["next.success"] = np.arange(EPISODES * STEPS)[:, None] == STEPS - 1  # the first episode's last row
    for row in range(EPISODES * STEPS):
        dataset.add_frame({key: array[row] for key, array in rows.items()} | {"task": "reach"})
        if row % STEPS == STEPS - 1:
            dataset.save_episode()
    dataset.finalize()
    return dataset, rows


def save(kind: str, folder: Path, stats: dict[str, Any], **changes: Any) -> Path:
    """A policy with random weights, saved with its processors as LeRobot's training saves it."""
    made, keys, given = POLICIES[kind]
    shapes = {
        STATE: (FeatureType.STATE, (3,)),
        PLACE: (FeatureType.ENV, (2,)),
        IMAGE: (FeatureType.VISUAL, (3, 48, 64)),
    }
    config = made(
        input_features={key: PolicyFeature(*shapes[key]) for key in keys},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        device="cpu",
        **given | changes,
    )
    torch.manual_seed(0)
    get_policy_class(config.type)(config).save_pretrained(folder)
    for processor in make_pre_post_processors(config, dataset_stats=stats):
        processor.save_pretrained(folder)
    return folder


def loaded(folder: Path) -> Loaded:
    """A policy and its processors, by LeRobot's own functions."""
    config = PreTrainedConfig.from_pretrained(folder)
    policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    return Loaded(policy, *make_pre_post_processors(config, pretrained_path=str(folder)))


def played(there: Loaded, frame: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """The actions that LeRobot's control loop takes at the begin of an episode, if it saw the same frame all the time."""
    seen = {key: frame[key] for key in there.policy.config.input_features}
    there.policy.reset()
    torch.manual_seed(seed)
    steps = [predict_action(seen, there.policy, CPU, there.pre, there.post, use_amp=False) for _ in range(TAKEN)]
    return torch.cat(steps).numpy()


def predicted(there: Loaded, batch: dict[str, np.ndarray], num: int, seed: int) -> np.ndarray:
    """Chunks of one prediction for every observation `num` times, from what LeRobot's data loader would give."""
    seen = {}
    for key in there.policy.config.input_features:
        array = torch.from_numpy(batch[key]).repeat_interleave(num, dim=0)
        seen[key] = (array.permute(0, 3, 1, 2) / 255).contiguous() if key == IMAGE else array
    seen = {key: value for key, value in there.pre(seen).items() if key in seen}
    if there.policy.config.type == "diffusion":  # its loader gives a history
        seen = {key: torch.stack([value] * there.policy.config.n_obs_steps, dim=1) for key, value in seen.items()}
    there.policy.reset()
    torch.manual_seed(seed)
    chunks = there.post(there.policy.predict_action_chunk(seen))
    return chunks.numpy().reshape(-1, num, *chunks.shape[1:])
