"""Pushes a trained model in each of the three ways a user has; started by test_push_to_hub.py with HF_ENDPOINT set."""

import sys

from transformers import Trainer, TrainingArguments

from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor
from hf_effvid.training import ClassificationTask, EffVidTrainer
from tests.training.small_run import RandomClips, arguments, tiny_model


def main(way, folder):
    processor = EffVidVideoProcessor(num_frames=2, size={"shortest_edge": 16}, crop_size=16)
    model = tiny_model()
    common = {"push_to_hub": True, "hub_model_id": f"org/{way}", "hub_strategy": "end", "save_strategy": "no"}
    if way == "model":
        model.push_to_hub("org/model")
        processor.push_to_hub("org/model")
    elif way == "stock_trainer":
        args = TrainingArguments(output_dir=folder, max_steps=1, use_cpu=True, report_to="none", **common)
        trainer = Trainer(model, args=args, train_dataset=RandomClips(), processing_class=processor)
        trainer.train()
        trainer.push_to_hub()
    else:
        args = arguments(folder, max_steps=1, **common)
        trainer = EffVidTrainer(
            ClassificationTask(model), args=args, train_dataset=RandomClips(), processing_class=processor
        )
        trainer.train()
        trainer.push_to_hub()


if __name__ == "__main__":
    main(*sys.argv[1:])
