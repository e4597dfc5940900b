"""Evaluation records from all processes, without padding and without loss."""

import torch
from accelerate.utils import gather_object


def gather_records(records, accelerator):
    """All processes' records in the order of the data set, each clip once.

    Samplers repeat clips so that every process gets equally many batches; padding tensors of different lengths and
    cutting the surplus off loses targets, so records travel as objects and are told apart by their `index`.

    Args:
        records: this process's list of dictionaries.
        accelerator: the run's accelerator.

    Raises:
        ValueError: several processes, and records without an index.
    """
    if accelerator.num_processes > 1:
        if any("index" not in record for record in records):
            raise ValueError(
                "Evaluation on several processes needs a data set with a length and an `index` in every item, to tell "
                "clips seen twice apart; a stream can only be evaluated on one process."
            )
        records = gather_object(records)
    if not all("index" in record for record in records):
        return records
    unique = {}
    for record in records:
        unique.setdefault(record["index"], record)
    return [unique[index] for index in sorted(unique)]


def stack_records(records, name):
    """One field of all records: a NumPy array when the shapes agree, a list of arrays when they differ, None when absent."""
    values = [record[name] for record in records if name in record]
    if not values:
        return None
    if len({tuple(value.shape) for value in values}) == 1:
        return torch.stack(values).numpy()
    return [value.numpy() for value in values]
