"""Relations over the samples of all processes: values and gradients are those of one process that has them all."""

import pytest
import torch
from torch import distributed

from hf_effvid.compression import rkd_loss
from hf_effvid.training.gathered_relations import gather_embeddings, num_processes


# rows of each process; batches need not be of one length
SPLIT = (3, 2)


def rows():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(sum(SPLIT), 6, generator=generator), torch.randn(sum(SPLIT), 9, generator=generator)


def layer():
    torch.manual_seed(5)
    return torch.nn.Linear(6, 4)


def test_one_process_keeps_its_own():
    embeddings = rows()[0].requires_grad_()
    assert num_processes() == 1
    assert gather_embeddings(embeddings) is embeddings


def train_one_of_two(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(SPLIT))
    try:
        samples, teacher = (values.split(SPLIT)[rank] for values in rows())
        model = torch.nn.parallel.DistributedDataParallel(layer())
        student = gather_embeddings(model(samples))
        loss = rkd_loss(student, gather_embeddings(teacher))
        loss.backward()
        torch.save(
            {"rows": student.detach(), "loss": loss.detach(), "gradient": model.module.weight.grad},
            f"{folder}/{rank}.pt",
        )
    finally:
        distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    torch.multiprocessing.spawn(train_one_of_two, (str(tmp_path),), nprocs=len(SPLIT))
    alone, (samples, teacher) = layer(), rows()
    embeddings = alone(samples)
    expected = rkd_loss(embeddings, teacher)
    expected.backward()
    # what a process sees of its own rows alone is something else
    apart = rkd_loss(embeddings[: SPLIT[0]], teacher[: SPLIT[0]])
    assert abs(apart.item() - expected.item()) > 1e-3
    for rank in range(len(SPLIT)):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["rows"], embeddings.detach())
        torch.testing.assert_close(found["loss"], expected.detach())
        # the mean over processes, as data parallel training takes it
        torch.testing.assert_close(found["gradient"], alone.weight.grad)
