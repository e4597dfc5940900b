"""What fine-tuning does to a selection that was made for the host as it was."""

from transformers.utils import logging


logger = logging.get_logger(__name__)


def warn_of_stale_selection(model) -> None:
    """Says what has to be made again after training on: a trained selector learned which tokens the old host used, and thresholds of a
    budget per clip are confidences of the old answers. Both still run, and nothing else would say that they are out of date.

    Args:
        model: a classifier that is about to be trained, of any kind.
    """
    config = getattr(model, "config", None)
    outdated = []
    if getattr(config, "selector_trained", False):
        outdated.append("its selector was trained on it as it is now: train it again (`effvid select train`)")
    if getattr(config, "budget_policy", None) is not None:
        outdated.append("its budgets were calibrated on it as it is now: calibrate again (`effvid select calibrate`)")
    if outdated:
        logger.warning(
            f"Fine-tuning changes which tokens {type(model).__name__} uses; {'; '.join(outdated)}. Until then "
            "the checkpoint chooses tokens by what its host used before."
        )
