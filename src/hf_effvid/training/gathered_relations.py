"""Embeddings of all processes in one batch, so that relations between samples do not end where a process's own batch does."""

import torch
from torch import distributed


def gather_embeddings(embeddings):
    """Rows (B, D) of every process in the order of their ranks, (sum of B, D); the same tensor where there is one process.

    The gradient of a row is the sum of what all processes' losses owe to it. Where every process computes the same loss of the gathered
    rows, the mean over processes that data parallel training takes is the gradient which one process with all rows would have.

    Args:
        embeddings: (B, D); B may differ between processes, D may not. Called on all processes alike.
    """
    if num_processes() == 1:
        return embeddings
    return _Gathered.apply(embeddings)


def num_processes():
    """Processes of the run; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(context, embeddings):
        lengths = [torch.zeros((), dtype=torch.int64, device=embeddings.device) for _ in range(num_processes())]
        distributed.all_gather(lengths, torch.tensor(len(embeddings), device=embeddings.device))
        lengths = [int(length) for length in lengths]
        # collectives want one shape: shorter batches are filled up and cut again
        filled = embeddings.new_zeros(max(lengths), *embeddings.shape[1:])
        filled[: len(embeddings)] = embeddings
        pieces = [torch.empty_like(filled) for _ in lengths]
        distributed.all_gather(pieces, filled)
        own = distributed.get_rank()
        context.rows = slice(sum(lengths[:own]), sum(lengths[: own + 1]))
        return torch.cat([piece[:length] for piece, length in zip(pieces, lengths, strict=True)])

    @staticmethod
    def backward(context, gradient):
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total[context.rows]
