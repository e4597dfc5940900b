"""`EffVidTrainer`: transformers' Trainer with one variation point, the task.

Overridden, and why:

- `compute_loss`: the task gets the batch as it is and returns a mean over clips (`loss_is_scaled_for_ga = False`,
  otherwise accumulated gradients come out multiplied);
- `training_step`: random draws of the model are a function of (seed, step, process), and the non-finite guard;
- `create_optimizer`, `create_scheduler`: the groups of `optim`, the rates of `schedule`;
- `_get_train_sampler`, `get_eval_dataloader`: the order of `data_order`;
- `evaluation_loop`: gathers one record per clip, whatever its shape, and drops what several processes saw twice;
- `get_batch_samples`, `log`: the share of the time spent waiting for clips, what the task wants to know of a whole step, and its own
  terms;
- `_save`, `_save_checkpoint`, `_load_from_checkpoint`, `_load_best_model`, `train`: the rules of `checkpointing`.
"""

import json
import os
from contextlib import contextmanager, nullcontext

import torch
from torch.utils.data import IterableDataset
from transformers import EarlyStoppingCallback, Trainer
from transformers.trainer_utils import EvalLoopOutput, has_length
from transformers.utils import logging

from ..auto import complete_auto_map
from ..compression.lora import is_lora
from . import checkpointing
from .arguments import EffVidTrainingArguments
from .callbacks import TrainerHooks
from .data_order import EpochIndexedDataset, EpochSampler, IndexKeepingCollator, mix_seed
from .data_wait import WaitClock
from .ema import WeightAverage
from .gathering import gather_records, stack_records
from .modulation_log import ModulationLog
from .nonfinite import NonFiniteGuard, NonFiniteLoss, first_non_finite_gradient, locate_non_finite
from .optim import parameter_groups, parameter_rules, unwrapped_name
from .process_group import leave_process_group_at_exit
from .schedule import make_schedule
from .tasks import Task


logger = logging.get_logger(__name__)


class EffVidTrainer(Trainer):
    """Trains a `Task`.

    Args:
        task: the task; its `model` is what gets saved.
        args: the run.
        sampling_weights: optional weight per training clip (N,), for class-balanced sampling.
        eval_data_collator: collator of evaluations, when it differs from that of training (which mixes clips).
        kwargs: what `transformers.Trainer` takes (`train_dataset`, `eval_dataset`, `data_collator`,
            `processing_class`, `callbacks` ...). Data sets yield dictionaries with `pixel_values` and `labels`.
            `compute_metrics`, when given, gets the list of gathered records and replaces `task.metrics`.

    Raises:
        TypeError: a bare model instead of a task.
        ValueError: a moving average together with sharded weights.
    """

    loss_is_scaled_for_ga = False

    def __init__(self, task, args=None, sampling_weights=None, eval_data_collator=None, **kwargs):
        if not isinstance(task, Task):
            raise TypeError(
                f"EffVidTrainer trains a Task, got {type(task).__name__}; wrap a classifier as ClassificationTask(model)."
            )
        args = args if args is not None else EffVidTrainingArguments(output_dir="effvid_output")
        self.sampling_weights = sampling_weights
        self.sampler = None
        self.micro_step = 0
        self.logged_terms = {}
        self.wait = WaitClock()
        self.guard = NonFiniteGuard(args.non_finite, args.max_skipped_batches)
        # named on the bare task: FSDP renames and flattens what the optimiser sees later
        self.parameter_rules = parameter_rules(task, args.layer_decay, args.lr_factors)
        callbacks = [TrainerHooks(self), *(kwargs.pop("callbacks", None) or [])]
        if args.early_stopping_patience:
            callbacks.append(EarlyStoppingCallback(args.early_stopping_patience))
        for name in ("train_dataset", "eval_dataset"):
            kwargs[name] = _with_index(kwargs.get(name))
        had_use_cache = hasattr(task.config, "use_cache")
        super().__init__(model=task, args=args, callbacks=callbacks, **kwargs)
        leave_process_group_at_exit(self)
        if not had_use_cache and hasattr(task.config, "use_cache"):
            # a key for text generation that Trainer writes into every configuration
            del task.config.use_cache
        self.eval_data_collator = IndexKeepingCollator(eval_data_collator or self.data_collator)
        self.data_collator = IndexKeepingCollator(self.data_collator)
        if args.ema_decay and self._is_sharded:
            raise ValueError(
                f"ema_decay={args.ema_decay} keeps whole copies of the weights and cannot follow FSDP or DeepSpeed "
                "shards; set ema_decay=0."
            )
        if args.log_modulation:
            self.add_callback(ModulationLog(self))
        self.average = WeightAverage(task.model, args.ema_decay) if args.ema_decay else None
        # True once the live weights are what was evaluated: at the end of training
        self.average_is_live = False
        self._state_for_checkpoint = None

    @property
    def task(self):
        """The task without what accelerate wraps around it."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def _is_sharded(self):
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def evaluated_weights(self):
        """Context in which the task has the weights that are evaluated and saved: the moving average when there is one."""
        if self.average is None or self.average_is_live:
            return nullcontext()
        return self.average.applied_to(self.task.model)

    # ---- data and optimiser -----------------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset=None):
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if dataset is None or not has_length(dataset):
            return None
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        self.sampler = EpochSampler(len(dataset), seed, weights=self.sampling_weights)
        return self.sampler

    def get_eval_dataloader(self, eval_dataset=None):
        with self._evaluation_loading():
            dataset = eval_dataset if isinstance(eval_dataset, str) else _with_index(eval_dataset)
            return super().get_eval_dataloader(dataset)

    def get_test_dataloader(self, test_dataset):
        with self._evaluation_loading():
            return super().get_test_dataloader(_with_index(test_dataset))

    @contextmanager
    def _evaluation_loading(self):
        """The collator of evaluations, and every clip: `dataloader_drop_last` is about training steps."""
        training = self.data_collator, self.args.dataloader_drop_last
        self.data_collator, self.args.dataloader_drop_last = self.eval_data_collator, False
        try:
            yield
        finally:
            self.data_collator, self.args.dataloader_drop_last = training

    def create_optimizer(self, model=None):
        model = self.model if model is None else model
        if self.optimizer is not None:
            return self.optimizer
        optimizer_cls, kwargs = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, model)
        standard = isinstance(optimizer_cls, type) and issubclass(optimizer_cls, torch.optim.Optimizer)
        if not standard or {"params", "model", "optimizer_dict"} & set(kwargs):
            if self.args.layer_decay != 1.0 or self.args.lr_batch_size or self.args.lr_factors:
                raise ValueError(
                    f"optim={self.args.optim!r} makes its own parameter groups; set layer_decay=1, lr_batch_size=0 and no lr_factors."
                )
            return super().create_optimizer(model)
        peak = self.args.learning_rate * self.args.learning_rate_scale
        groups = parameter_groups(model.named_parameters(), self.parameter_rules, peak, self.args.weight_decay)
        self.optimizer = optimizer_cls(groups, **kwargs)
        return self.optimizer

    def create_scheduler(self, num_training_steps, optimizer=None):
        if self.args.lr_schedule == "transformers" or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler = make_schedule(optimizer or self.optimizer, self.args, num_training_steps)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    # ---- one step ---------------------------------------------------------------------------------------------------

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(inputs)
        loss = outputs["loss"]
        if model.training:
            if self.guard.policy != "ignore" and self._on_any_process(not bool(torch.isfinite(loss.detach()))):
                raise NonFiniteLoss
            self._collect_terms(outputs)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model, inputs, num_items_in_batch=None):
        # drop path and dropout are functions of (seed, step, process), so that a resumed run draws what it would have
        seed = mix_seed(self.args.seed, self.state.global_step, self.micro_step, self.args.process_index)
        self.micro_step += 1
        torch.manual_seed(seed)
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        except NonFiniteLoss:
            self.guard.failed("loss", self._locate_non_finite(inputs, seed), self.state.global_step)
            return torch.zeros((), device=self.args.device)
        if self.guard.policy == "ignore":
            return loss
        # with fp16 the scaler expects overflows and skips them itself
        if self.accelerator.sync_gradients and self.accelerator.scaler is None and not self._gradients_pass(model):
            return torch.zeros_like(loss)
        self.guard.passed()
        return loss

    def _locate_non_finite(self, inputs, seed):
        if self._is_sharded:
            return "an unnamed block (a sharded forward pass cannot be repeated on one process)"
        inputs = self._prepare_inputs(inputs)
        torch.manual_seed(seed)
        # the task itself carries accelerate's autocast; DDP around it would start a collective
        return locate_non_finite(self.task, inputs, lambda: self.task(inputs))

    def _gradients_pass(self, model):
        bad = first_non_finite_gradient(model)
        if not self._on_any_process(bad is not None):
            return True
        where = f"the gradient of {unwrapped_name(bad)}" if bad else "a gradient on another process"
        self.guard.failed("gradient", where, self.state.global_step)
        # an optimiser leaves parameters without a gradient alone
        for parameter in model.parameters():
            parameter.grad = None
        return False

    def _on_any_process(self, flag):
        if self.accelerator.num_processes == 1:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.args.device)).item())

    def _collect_terms(self, outputs):
        for name, value in outputs.items():
            if name != "loss" and isinstance(value, torch.Tensor) and value.ndim == 0:
                total, count = self.logged_terms.get(name, (0.0, 0))
                self.logged_terms[name] = (total + value.detach().float(), count + 1)

    def get_batch_samples(self, *args, **kwargs):
        with self.wait.waiting():
            batches, num_items = super().get_batch_samples(*args, **kwargs)
        self.task.prepare_step(batches, self._sum_over_processes, self.accelerator.num_processes)
        return batches, num_items

    def _sum_over_processes(self, value):
        if self.accelerator.num_processes == 1:
            return value
        total = torch.tensor(float(value), dtype=torch.float64, device=self.args.device)
        return self.accelerator.reduce(total, reduction="sum").item()

    def log(self, logs, *args, **kwargs):
        if "loss" in logs:
            logs["data_wait"] = self.wait.share()
            for name, (total, count) in self.logged_terms.items():
                logs[name] = float(total) / count
            self.logged_terms = {}
        super().log(logs, *args, **kwargs)

    # ---- evaluation -------------------------------------------------------------------------------------------------

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ):
        model = self._wrap_model(self.model, training=False)
        if len(self.accelerator._models) == 0 and model is self.model:
            # evaluation without training: the model was not prepared yet
            model = (
                self.accelerator.prepare(model)
                if self._is_sharded
                else self.accelerator.prepare_model(model, evaluation_mode=True)
            )
            if self.is_fsdp_enabled:
                self.model = model
            if model is not self.model:
                self.model_wrapped = model
        self.callback_handler.eval_dataloader = dataloader
        with self.evaluated_weights():
            records = self._predict_records(model, dataloader)
        records = gather_records(records, self.accelerator)
        self._report_missing(dataloader, len(records))
        metrics = self.compute_metrics(records) if self.compute_metrics is not None else self.task.metrics(records)
        metrics = {
            f"{metric_key_prefix}_{name.removeprefix(metric_key_prefix + '_')}": v for name, v in metrics.items()
        }
        metrics[f"{metric_key_prefix}_clips"] = len(records)
        return EvalLoopOutput(
            predictions=stack_records(records, "logits"),
            label_ids=stack_records(records, "label"),
            metrics=metrics,
            num_samples=len(records),
        )

    def _predict_records(self, model, dataloader):
        model.eval()
        records = []
        # workers that share a stream number their own items: only map-style indices tell clips apart
        numbered = isinstance(getattr(dataloader, "dataset", None), EpochIndexedDataset)
        for inputs in dataloader:
            inputs = self._prepare_inputs(inputs)
            with torch.no_grad(), self.compute_loss_context_manager():
                outputs = model(inputs)
            batch_records = self.task.records(outputs, inputs)
            if "index" in inputs and numbered:
                for record, index in zip(batch_records, inputs["index"].tolist(), strict=True):
                    record["index"] = index
            records.extend(batch_records)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        return records

    def _report_missing(self, dataloader, num_records):
        dataset = getattr(dataloader, "dataset", None)
        expected = len(dataset) if has_length(dataset) else None
        if expected is not None and num_records != expected:
            logger.warning(f"Evaluated {num_records} of {expected} clips; the others were skipped by the data set.")

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        """Trains, from the start or from a complete checkpoint.

        Args:
            resume_from_checkpoint: a checkpoint folder, or True for the newest complete one in `output_dir`.
            trial: as in `transformers.Trainer`.
            ignore_keys_for_eval: as in `transformers.Trainer`.

        Raises:
            IncompleteCheckpointError: the folder is the leftover of a killed save.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = checkpointing.last_complete_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                raise checkpointing.IncompleteCheckpointError(
                    f"{self.args.output_dir} holds no complete checkpoint to resume from; start without resuming."
                )
        elif resume_from_checkpoint:
            checkpointing.require_complete(resume_from_checkpoint)
        self.average_is_live = False
        resume = str(resume_from_checkpoint) if resume_from_checkpoint else None
        return super().train(resume, trial, ignore_keys_for_eval)

    def _save(self, output_dir=None, state_dict=None):
        """Writes the model alone as a Hub folder: configuration, code, weights, processor, arguments."""
        if not self.args.should_save:
            return
        output_dir = output_dir if output_dir is not None else self.args.output_dir
        os.makedirs(output_dir, exist_ok=True)
        task = self.task
        with self.evaluated_weights():
            state = {unwrapped_name(name): tensor for name, tensor in (state_dict or task.state_dict()).items()}
            lost = [name for name in self.parameter_rules if name not in state]
            if lost:
                raise RuntimeError(
                    f"The gathered weights are incomplete: {len(lost)} of {len(self.parameter_rules)} trained tensors "
                    f"are missing, the first is {lost[0]!r}. Nothing was saved to {output_dir}."
                )
            model, auxiliary = checkpointing.split_state(state, self._restored_names(), is_lora(task.model))
            model_state = {name.removeprefix("model."): t for name, t in state.items() if name.startswith("model.")}
            complete_auto_map(task.config)
            task.model.save_pretrained(output_dir, state_dict=model_state, is_main_process=True)
            if self._state_for_checkpoint is not None:
                self._state_for_checkpoint.update(
                    model={name: tensor.detach().cpu().clone() for name, tensor in model.items()}, auxiliary=auxiliary
                )
        if self.processing_class is not None:
            self.processing_class.save_pretrained(output_dir)
        # readable, and nothing that a stranger would have to unpickle
        with open(os.path.join(output_dir, "training_args.json"), "w", encoding="utf-8") as handle:
            json.dump(self.args.to_dict(), handle, indent=2, default=str)

    def _restored_names(self):
        """Names in the task of what a checkpoint of adapters has to restore: trained parameters and buffers."""
        return {*self.parameter_rules, *(name for name, _ in self.task.named_buffers())}

    def _save_checkpoint(self, model, trial):
        folder = os.path.join(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
        if self.args.should_save:
            checkpointing.prepare_checkpoint_folder(folder)
        self.accelerator.wait_for_everyone()
        # older checkpoints may only go once this one is complete
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        self._state_for_checkpoint = {}
        try:
            super()._save_checkpoint(model, trial)
            saved = self._state_for_checkpoint
        finally:
            self.args.save_total_limit, self._state_for_checkpoint = limit, None
        if self.args.should_save and saved:
            training = None
            if self.average is not None and not self.average_is_live:
                live = self.task.model.state_dict()
                training = {name: live[name] for name in self.average.shadow}
            updates = self.average.num_updates if self.average is not None else 0
            checkpointing.write_task_state(folder, saved["model"], saved["auxiliary"], training, updates)
        # every process writes its random state: the marker counts them too
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpointing.write_marker(folder, self.state.global_step)
            checkpointing.rotate_checkpoints(os.path.dirname(folder), limit, folder, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if self._is_sharded:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved, auxiliary, training, updates = checkpointing.read_task_state(resume_from_checkpoint)
        if self.average is not None:
            self.average.load(saved, updates)
        self._load_state({**saved, **training}, auxiliary, resume_from_checkpoint)

    def _load_best_model(self):
        best = self.state.best_model_checkpoint
        logger.info(
            f"Loading the best model from {best} ({self.args.metric_for_best_model}: {self.state.best_metric})."
        )
        if self._is_sharded:
            super()._load_best_model()
            return
        checkpointing.require_complete(best)
        saved, auxiliary, _, _ = checkpointing.read_task_state(best)
        self._load_state(saved, auxiliary, best)
        self.average_is_live = True

    def _load_state(self, model_tensors, auxiliary_tensors, folder):
        task = self.task
        adapter = is_lora(task.model)
        model, auxiliary = checkpointing.split_state(task.state_dict(), self._restored_names(), adapter)
        checkpointing.load_exactly(task.model, model_tensors, model, folder)
        checkpointing.load_exactly(task, auxiliary_tensors, auxiliary, folder)


def _with_index(dataset):
    """Map-style data sets, alone or by name, wrapped so that epochs and indices travel with the items."""
    if isinstance(dataset, dict):
        return {name: _with_index(inner) for name, inner in dataset.items()}
    if dataset is None or isinstance(dataset, (EpochIndexedDataset, IterableDataset)) or not has_length(dataset):
        return dataset
    return EpochIndexedDataset(dataset)
