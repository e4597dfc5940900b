"""Configurations of a model that is edited: all that describe a part of it, and nobody else's."""

import copy


def own_configurations(model, model_type):
    """Gives a model configuration objects of its own, and returns those that describe an architecture inside of it.

    Another model that was made from the same object keeps what it says.

    Args:
        model: a `PreTrainedModel`, edited in place.
        model_type: of the architecture: the model's own, or that of a detector's trunk.

    Returns:
        Different objects: of the model, of its parts, and of the field of a detector that describes its trunk.
    """
    holders = [module for module in model.modules() if hasattr(module, "config")]
    # together, so that what was one object stays one: a trunk's is also a field of its detector's
    for module, config in zip(holders, copy.deepcopy([module.config for module in holders]), strict=True):
        module.config = config
    found = [module.config for module in holders]
    found += [getattr(config, "backbone_config", None) for config in found]
    by_id = {id(config): config for config in found if getattr(config, "model_type", None) == model_type}
    return list(by_id.values())
